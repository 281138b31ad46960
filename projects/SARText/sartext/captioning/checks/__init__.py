"""Automatic checks of caption files: what is wrong, how often, and a file without it."""
