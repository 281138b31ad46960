"""CoDe-MAE: one encoder for optical and SAR, pretrained by reconstruction, distillation and contrast."""
