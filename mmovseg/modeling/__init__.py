"""Encoders, fusion, heads, losses and meta-architectures."""
