"""Evaluation of segmentation and of encoders; every figure is written with its definition and provenance."""

from mmovseg.evaluation.encoder import EncoderEvaluator, probe_pairs
from mmovseg.evaluation.sem_seg import OVSegEvaluator

__all__ = ["EncoderEvaluator", "OVSegEvaluator", "probe_pairs"]
