"""Losses of CrossEarth-SAR."""
