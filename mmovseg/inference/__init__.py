"""A trained model applied to images."""
