"""Captions from boxes, masks and optical sentences: one record schema, three routes, exporters and checks."""
