"""MiniEarth: a seeded procedural world with optical and SAR views, labels, targets and captions."""
