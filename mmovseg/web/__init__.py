"""A page to look at: a pair of images, class names, and the map that a model makes of them. Needs the extra `web`."""
