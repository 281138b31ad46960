"""Evaluation of downstream tasks."""
