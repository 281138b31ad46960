"""Encoders, decoders and the models around them."""
