"""What tests share: made-up data, small models, assert helpers."""
