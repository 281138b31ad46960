"""The two trainable parts of Mask2Former, from `transformers`: pixel decoder and transformer decoder.

In a module of its own, since importing `transformers` takes seconds.

Shapes: N images, C channels of the backbone, Q queries, K classes; h, w is the grid of the finest map.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from transformers import Mask2FormerConfig
from transformers.models.mask2former.modeling_mask2former import (
    Mask2FormerPixelDecoder,
    Mask2FormerPreTrainedModel,
    Mask2FormerTransformerModule,
)

STRIDES = (4, 8, 16, 32)  # that the parts think in; only the ratios matter


class MaskDecoder(Mask2FormerPreTrainedModel):
    """Masks and classes from a pyramid of four maps.

    Subclassed from the library's base for its initial weights. What that base offers beside them is not used here.

    Args:
        channels: C of the four maps, fine to coarse.
        num_classes: K.
        dim: channels of everything inside.
        num_queries: Q.
        pixel_layers: of deformable attention over the three coarser maps.
        decoder_layers: of masked attention.
        num_heads: of all attention.
        pixel_ffn_dim, decoder_ffn_dim: hidden units of the layers' MLPs.
        dropout: share; of the decoder's layers too, as the library has it.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        num_classes: int,
        dim: int,
        num_queries: int,
        pixel_layers: int,
        decoder_layers: int,
        num_heads: int,
        pixel_ffn_dim: int,
        decoder_ffn_dim: int,
        dropout: float,
    ) -> None:
        super().__init__(
            Mask2FormerConfig(
                num_labels=num_classes,
                feature_size=dim,
                mask_feature_size=dim,
                hidden_dim=dim,
                num_queries=num_queries,
                encoder_layers=pixel_layers,
                decoder_layers=decoder_layers + 1,  # the library counts the prediction of the bare queries
                num_attention_heads=num_heads,
                encoder_feedforward_dim=pixel_ffn_dim,
                dim_feedforward=decoder_ffn_dim,
                dropout=dropout,
                feature_strides=STRIDES,
                common_stride=STRIDES[0],
            )
        )
        self.pixel_decoder = Mask2FormerPixelDecoder(self.config, feature_channels=list(channels))
        self.transformer_module = Mask2FormerTransformerModule(in_features=dim, config=self.config)
        self.class_predictor = nn.Linear(dim, num_classes + 1)
        # The library's rule for every module. Its own way there, `post_init`, passes over modules without weights of
        # their own in classes from outside the library, and with them over most of the rule.
        self.apply(self._init_weights)

    def forward(self, maps: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
        """Predict after the bare queries and after every layer of the decoder.

        Args:
            maps: (N, C, H_i, W_i), fine to coarse, each about half as large as the one before.

        Returns:
            Class logits (N, Q, K + 1), the last column "no object", and mask logits (N, Q, h, w), from the first to the
            last prediction.
        """
        with torch.autocast(maps[0].device.type, enabled=False):  # sampling positions want full precision
            pixels = self.pixel_decoder([level.float() for level in maps])
        decoded = self.transformer_module(pixels.multi_scale_features, pixels.mask_features)
        classes = [self.class_predictor(queries.transpose(0, 1)) for queries in decoded.intermediate_hidden_states]
        return list(zip(classes, decoded.masks_queries_logits, strict=True))
