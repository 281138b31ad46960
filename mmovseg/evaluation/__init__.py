"""Evaluation: one confusion matrix, every metric from it, written with its definition and provenance."""

from mmovseg.evaluation.sem_seg import OVSegEvaluator

__all__ = ["OVSegEvaluator"]
