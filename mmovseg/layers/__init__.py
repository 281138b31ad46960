"""Small building blocks, one idea a file."""
