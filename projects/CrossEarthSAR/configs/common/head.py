"""Heads by their names in Detectron2's registry: `mask2former` (published sizes), `mask2former_xs`, `linear`."""

# Strides 4, 8, 16 and 32 from four maps of stride 16; 20.56 M parameters over ViT-L.
mask2former = dict(name="Mask2FormerHead")

# For 64x64 pixels and patches of 4: strides 2, 4, 8 and 16. With strides 1 to 8 a step costs four times as much. Seven
# classes: with 20 queries instead of 10 the head is 5 mIoU behind after the few hundred steps that it has here.
mask2former_xs = dict(
    name="Mask2FormerHead",
    scales=(2, 1, 0.5, 0.25),
    dim=64,
    num_queries=10,
    pixel_layers=1,
    decoder_layers=3,
    num_heads=4,
    pixel_ffn_dim=128,
    decoder_ffn_dim=128,
    num_points=512,
)

linear = dict(name="LinearHead")  # the last map alone; in_features=[...] reads several
