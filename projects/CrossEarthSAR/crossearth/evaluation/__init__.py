"""Evaluation of CrossEarth-SAR: segmentation, and how its experts share the tokens."""
