"""Search of image folders by text or by image."""
