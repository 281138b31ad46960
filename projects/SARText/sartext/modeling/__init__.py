"""Image-text models and what is built on them."""
