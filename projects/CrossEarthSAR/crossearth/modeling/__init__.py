"""Backbones, adapters and heads of CrossEarth-SAR."""
