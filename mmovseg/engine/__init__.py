"""Training and evaluation: one loop for every project."""
