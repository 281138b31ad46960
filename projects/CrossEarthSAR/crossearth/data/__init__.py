"""Data of CrossEarth-SAR: its benchmarks and data sets, gaps on MiniEarth, and pseudo-labels."""
