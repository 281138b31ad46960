"""SAR-TEXT: captions for SAR images, image-text models carried over to SAR, and what they are measured by."""
