"""Pictures of CrossEarth-SAR, one command each: expert activation, loss curves, predictions."""
