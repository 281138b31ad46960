"""From captions of optical images to captions that their SAR twins can have."""
