"""A label map over its image, drawn by detectron2's `Visualizer`."""

from __future__ import annotations

import numpy as np
from detectron2.data.catalog import Metadata
from detectron2.utils.visualizer import Visualizer

from mmovseg.data.vocabulary import Vocabulary

_COMFORTABLE_PX = 720


def draw_segmentation(
    image: np.ndarray,
    labels: np.ndarray,
    vocabulary: Vocabulary,
    *,
    opacity: float = 0.5,
    smallest_share: float = 0.002,
) -> np.ndarray:
    """Draw class areas with outlines and names.

    Args:
        image: (H, W, 3) uint8.
        labels: (H, W), positions in `vocabulary`; 255 stays bare.
        vocabulary: names and colours.
        opacity: 0 shows the image with outlines only, 1 hides it.
        smallest_share: areas below this share of the image get no name, since the names would cover everything.

    Returns:
        (H', W', 3) uint8; small images are enlarged so that the names stay readable.
    """
    if not 0 <= opacity <= 1:
        raise ValueError(f"opacity must lie in 0..1, got {opacity}")
    scale = max(1, round(_COMFORTABLE_PX / max(image.shape[:2])))
    # Enlarged here by whole pixels: the Visualizer would smooth both the image and the borders of the classes.
    image, labels = (array.repeat(scale, axis=0).repeat(scale, axis=1) for array in (image, labels))
    metadata = Metadata(
        name="prompts", stuff_classes=vocabulary.names, stuff_colors=[list(color) for color in vocabulary.colors]
    )
    drawn = Visualizer(image, metadata).draw_sem_seg(
        labels, area_threshold=round(smallest_share * labels.size), alpha=opacity
    )
    return np.asarray(drawn.get_image())
