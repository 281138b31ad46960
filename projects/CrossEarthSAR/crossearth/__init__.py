"""CrossEarth-SAR: sparse mixtures of experts for SAR, guided by physical descriptors, and their benchmarks."""
