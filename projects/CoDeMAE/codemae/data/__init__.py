"""Data of CoDe-MAE: pairs and unpaired images for pretraining, and the sets of its downstream tasks."""
