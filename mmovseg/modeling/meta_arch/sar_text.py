"""A CLIP that learned SAR from captions, beside MM-OVSeg's own: what it says of the places of a SAR raster."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from mmovseg.data.sample import ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.clip import OpenCLIPEncoder
from mmovseg.modeling.fusion.dual_encoder import SARText
from mmovseg.modeling.meta_arch.batching import View, batch_view


class SARTextEncoder(nn.Module):
    """Dense SAR features in the text space of a CLIP of SAR, and the class names in that space.

    Both towers are of this CLIP: they were trained together, and MM-OVSeg's own text tower belongs to another space.
    What it costs: one forward pass of the image tower over the SAR raster, without a graph while it is frozen, and the
    class names once, which are kept as long as the weights stay.

    Args:
        clip: the CLIP of SAR. It is meant to be frozen (``finetune="none"``); other modes train it with the rest.
        norm: of its input, in the unit of the raster, after `bands` were picked.
        bands: channels of the SAR raster that it reads, from 0, in order and possibly repeated: (0, 0, 0) is the first
            band as grey. None = all.
        grid_stride: pixels of network input one of its patches stands for; the raster is resized so that its patches
            form that grid. None, the default, is its own patch size: it then sees things as large as in its training.

    Raises:
        UserError: a stride that is not positive.
    """

    def __init__(
        self,
        *,
        clip: OpenCLIPEncoder,
        norm: PixelNorm | SourceNorm,
        bands: Sequence[int] | None = None,
        grid_stride: int | None = None,
    ) -> None:
        super().__init__()
        if grid_stride is not None and grid_stride <= 0:
            raise UserError(f"sar_text: grid_stride must be a positive number of pixels, got {grid_stride}")
        self.clip, self.norm = clip, norm
        self.bands = tuple(int(band) for band in bands) if bands is not None else None
        self.grid_stride = grid_stride or clip.patch_size

    def view(self, inputs: Sequence[ModelInput], *, multiple: int) -> View | None:
        """Batch the SAR raster as this CLIP reads it, blank for inputs without one; None when all are.

        Args:
            inputs: of one batch.
            multiple: see `batch_view`.

        Raises:
            UserError: see there.
        """
        return batch_view(inputs, "sar", "sar_valid", self.norm, multiple, bands=self.bands, blank_where_absent=True)

    def forward(self, view: View, vocabulary: Vocabulary, grid: tuple[int, int]) -> SARText:
        """Encode places and names.

        Args:
            view: of `view`.
            vocabulary: K class names.
            grid: size in pixels (H, W) of the network's input.

        Returns:
            The map (N, D', H / s, W / s), rounded to whole patches, s the `grid_stride`, and (K, D') names.
        """
        patch = self.clip.patch_size
        size = tuple(max(1, round(side / self.grid_stride)) * patch for side in grid)
        with torch.set_grad_enabled(torch.is_grad_enabled() and self.clip.finetune != "none"):
            dense = self.clip.encode_image(resize(view.x, (size[0], size[1])))["dense"]
            return SARText(dense, self.clip.encode_vocabulary(vocabulary), view.seen)
