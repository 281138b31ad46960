"""Change between two dates, each seen by its own sensor: building damage in the manner of DamageFormer.

Source: Chen et al., "Dual-Tasks Siamese Transformer Framework for Building Damage Assessment", IGARSS 2022; head,
losses and inference as the CoDe-MAE release uses them for BRIGHT. The head sees both dates side by side and not their
difference: features of two sensors have no common scale to subtract.

Shapes: N pairs, C channels, K classes; h, w is the grid of the finest level.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any, cast, get_args

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import IGNORE_LABEL, Modality, ModelInput, Prediction
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.layers.conv import resize
from mmovseg.layers.norm import PixelNorm, SourceNorm
from mmovseg.modeling.losses import lovasz_softmax, pixel_cross_entropy
from mmovseg.modeling.meta_arch.batching import RASTER_KEYS, answer_alike, batch_labels, batch_view
from mmovseg.modeling.meta_arch.closed_set import ClosedSetModel, build_part, on_padded
from mmovseg.projects.codemae.modeling.encoder import MaskedEncoder, Sensor
from mmovseg.projects.codemae.modeling.upernet import NormKind, by_stride, classifier, make_norm

LOSS_WEIGHTS = {"building": 1.0, "damage": 2.0, "lovasz_damage": 1.0, "lovasz_building": 0.5}
"""CE of the buildings, CE of the damage, and Lovász-softmax of both, as the release weighs them."""

_GATE = 20.0  # logits that a class loses where there is no building: e**-20 of its odds are left
_KEYS: dict[Sensor, tuple[str, str]] = {"optical": ("image", "valid"), "sar": ("sar", "sar_valid")}


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with norm beside a plain 1x1 convolution.

    Args:
        in_channels, out_channels: of the map before and after.
        norm: see `make_norm`.
    """

    def __init__(self, in_channels: int, out_channels: int, norm: NormKind) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, padding=1, bias=False)
        self.norm1 = make_norm(norm, out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.norm2 = make_norm(norm, out_channels)
        self.shortcut = nn.Conv2d(in_channels, out_channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """(N, in_channels, h, w) -> (N, out_channels, h, w), non-negative."""
        y = F.relu(self.norm1(self.conv1(x)), inplace=True)
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class ChangeHead(nn.Module):
    """Every date by itself, then both together.

        B = R1(levels before),  A = R2(levels after),  buildings = W1(B),  change = W2(R3([B; A]))

    with all levels of a date brought to the finest grid and set side by side, R residual blocks, W 1x1 convolutions.

    Args:
        shapes: of the encoder's levels.
        num_classes: K.
        channels: of the residual blocks.
        norm: see `make_norm`.
        localise: whether there is a W1, which tells buildings by the earlier date.
    """

    def __init__(
        self,
        shapes: Mapping[str, ShapeSpec],
        *,
        num_classes: int,
        channels: int = 256,
        norm: NormKind = "group",
        localise: bool = True,
    ) -> None:
        super().__init__()
        self.levels = by_stride(shapes)
        width = sum(shape.channels for shape in shapes.values())
        self.before, self.after = ResidualBlock(width, channels, norm), ResidualBlock(width, channels, norm)
        self.both = ResidualBlock(2 * channels, channels, norm)
        self.building = classifier(channels, 2) if localise else None
        self.change = classifier(channels, num_classes)

    def forward(self, before: Mapping[str, Tensor], after: Mapping[str, Tensor]) -> Tensor:
        """Score change and, behind it in channels, buildings.

        Args:
            before, after: level -> (N, C, h / r, w / r).

        Returns:
            (N, K + 2, h, w) logits; (N, K, h, w) without localisation.
        """
        one, other = self.before(self._joined(before)), self.after(self._joined(after))
        change = self.change(self.both(torch.cat([one, other], dim=1)))
        return change if self.building is None else torch.cat([change, self.building(one)], dim=1)

    def _joined(self, features: Mapping[str, Tensor]) -> Tensor:
        finest = features[self.levels[0]]
        size = (finest.shape[2], finest.shape[3])
        return torch.cat([resize(features[name], size) for name in self.levels], dim=1)


class ChangeDetector(ClosedSetModel):
    """Two dates through one encoder in one pass, each by its sensor's embedding, and a `ChangeHead`.

    Two dates of one sensor come stacked in channels, the earlier first. Class 0 is what did not change or is no
    building; with localisation a building is every label above 0. Both dates are needed: an input that lacks one is
    refused, since nothing can be said about change then.

    Args:
        encoder: gives the levels.
        vocabulary: the classes, all of them trained (`closed_vocabulary`).
        before, after: sensor of each date.
        before_norm, after_norm: constants of each date, possibly by source (for example by disaster).
        head: arguments of `ChangeHead` beyond shapes and classes.
        loss_weights: those that differ from `LOSS_WEIGHTS`; 0 leaves a loss out. Without localisation the losses of
            buildings do not exist.
        gate: at test, let class 0 win wherever the building scores say that there is none: the class is the product of
            both decisions, as in the release. Without localisation there is nothing to gate with.
        window, window_stride, windows_at_once, input_contract: see `ClosedSetModel`.

    Raises:
        UserError: unknown sensor, argument of the head or loss, or fewer than two classes.
    """

    encoder: MaskedEncoder

    def __init__(
        self,
        *,
        encoder: MaskedEncoder,
        vocabulary: Vocabulary,
        before_norm: PixelNorm | SourceNorm,
        after_norm: PixelNorm | SourceNorm,
        before: Sensor = "optical",
        after: Sensor = "sar",
        head: Mapping[str, Any] | None = None,
        loss_weights: Mapping[str, float] | None = None,
        gate: bool = True,
        window: int | None = None,
        window_stride: int | None = None,
        windows_at_once: int = 4,
        input_contract: InputContract | None = None,
    ) -> None:
        _check(before, after, vocabulary, loss_weights or {})
        super().__init__(
            encoder,
            vocabulary=vocabulary,
            window=window,
            window_stride=window_stride,
            windows_at_once=windows_at_once,
            input_contract=input_contract,
        )
        encoder.read_only({before, after})
        self.before, self.after = before, after
        self.before_norm, self.after_norm = before_norm, after_norm
        self.modality: Modality = cast(Modality, before if before == after else "both")
        self.head: ChangeHead = build_part(ChangeHead, head or {}, encoder.output_shape(), num_classes=len(vocabulary))
        self.loss_weights = {**LOSS_WEIGHTS, **{str(name): float(w) for name, w in (loss_weights or {}).items()}}
        self.gate = gate

    @property
    def device(self) -> torch.device:
        """Where inputs go."""
        return self.before_norm.device

    def forward(self, batched_inputs: Sequence[ModelInput]) -> dict[str, Tensor] | list[Prediction]:
        """Train or predict.

        Args:
            batched_inputs: see `mmovseg.data.sample.ModelInput`; any batch size, sizes may differ.

        Returns:
            Training: ``loss_damage``, ``loss_lovasz_damage`` and, with localisation, ``loss_building``,
            ``loss_lovasz_building``, all weighted. Otherwise one dict an image: ``sem_seg`` (K, height, width) logits
            in the order of the classes asked for and, with localisation, ``building`` (height, width) bool.

        Raises:
            UserError: an input lacks a date or has another number of channels, or see `ClosedSetModel`.
        """
        if not self.training:
            predict = partial(self._predict, asked=self._asked(batched_inputs))
            return answer_alike(batched_inputs, predict, keys=RASTER_KEYS[self.modality], multiple=self.multiple)
        views = self._views(batched_inputs)
        self._check_training(batched_inputs)
        target = on_padded(batch_labels(batched_inputs, self.device), views[0])
        return self._losses(self._score(views), target)

    def _predict(self, inputs: Sequence[ModelInput], *, asked: list[int]) -> list[Prediction]:
        return [self._prediction(scores, asked) for scores in self._score_each(self._views(inputs), inputs)]

    def _losses(self, scores: Tensor, target: Tensor) -> dict[str, Tensor]:
        classes = len(self.vocabulary)
        tasks = {"damage": (scores[:, :classes], target)}
        if self.head.building is not None:
            building = torch.where(target == IGNORE_LABEL, target, (target > 0).long())
            tasks["building"] = (scores[:, classes:], building)
        losses = {}
        for task, (logits, truth) in tasks.items():
            for name, loss in ((task, pixel_cross_entropy), (f"lovasz_{task}", lovasz_softmax)):
                if self.loss_weights[name] > 0:
                    losses[f"loss_{name}"] = self.loss_weights[name] * loss(logits, truth)
        return losses

    def _prediction(self, scores: Tensor, asked: Sequence[int]) -> Prediction:
        classes = len(self.vocabulary)
        change = scores[:classes]
        if self.head.building is None:
            return {"sem_seg": change[list(asked)]}
        building = scores[classes:].argmax(dim=0) == 1
        if self.gate:
            lowered = torch.minimum(change[1:], change[:1]) - _GATE
            change = torch.cat([change[:1], torch.where(building, change[1:], lowered)])
        return {"sem_seg": change[list(asked)], "building": building}

    def _views(self, inputs: Sequence[ModelInput]) -> list[Tensor]:
        """Return the normalised, padded images of both dates, (N, C, H, W) each."""
        views = []
        for number, (sensor, norm) in enumerate(((self.before, self.before_norm), (self.after, self.after_norm))):
            key, valid_key = _KEYS[sensor]
            channels = self.encoder.embed[sensor].in_chans
            bands = range(number * channels, (number + 1) * channels) if self.before == self.after else None
            view = batch_view(inputs, key, valid_key, norm, self.multiple, bands=bands)
            if view is None:
                date, source = ("earlier", "later")[number], inputs[0].get("file_name", "?")
                raise UserError(f"the {date} date of '{source}' is missing: change needs '{key}' ({sensor})")
            views.append(view.x)
        if views[0].shape[-2:] != views[1].shape[-2:]:
            raise UserError(f"the two dates of '{inputs[0].get('file_name', '?')}' differ in size")
        return views

    def _score(self, images: Sequence[Tensor]) -> Tensor:
        before, after = images
        if self.before == self.after:
            maps = self.encoder(torch.cat([before, after]), sensor=self.before)
        else:
            maps = self.encoder({self.before: before, self.after: after})
        halves = {name: level.chunk(2) for name, level in maps.items()}
        return self.head(
            {name: pair[0] for name, pair in halves.items()}, {name: pair[1] for name, pair in halves.items()}
        )


def _check(before: str, after: str, vocabulary: Vocabulary, loss_weights: Mapping[str, float]) -> None:
    for name, sensor in (("before", before), ("after", after)):
        if sensor not in get_args(Sensor):
            raise UserError(f"'{name}' of the change model is '{sensor}' but must be one of optical, sar")
    if len(vocabulary) < 2:
        raise UserError(f"change needs at least two classes, vocabulary '{vocabulary.name}' has {len(vocabulary)}")
    unknown = [name for name in loss_weights if name not in LOSS_WEIGHTS]
    if unknown:
        raise UserError(f"loss_weights names '{unknown[0]}'; there are: {', '.join(LOSS_WEIGHTS)}")
