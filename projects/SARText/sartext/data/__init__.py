"""Data sets of images with captions or questions."""
