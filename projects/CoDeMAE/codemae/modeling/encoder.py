"""What every encoder of this project can do: two sensors, masking by units, any image size, feature maps.

Shapes: N rows (images of all sensors, one sensor below the other), L units of an image, V visible ones, k sub-tokens of
a unit, C channels of a level, D channels of the last block.
"""

from __future__ import annotations

import logging
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from detectron2.layers import ShapeSpec
from detectron2.modeling import Backbone
from timm.models import adapt_input_conv
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmovseg.checkpoint.load import LoadReport, load_weights, read_state
from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.blocks import UnitEmbedding, fold_units, resize_positions

logger = logging.getLogger(__name__)

Sensor = Literal["optical", "sar"]
CoarsePool = Literal["average", "max"]

TOKENS = "tokens"
_POOLED = 2  # levels that pooling adds below the coarsest
# Parts of the first layer; blocks follow, and everything else belongs to the last one.
_FIRST_LAYER = ("embed", "positions", "cls_token", "norm_pre")


@dataclass
class VisibleFeatures:
    """Features of the visible units, in the order in which they were asked for.

    levels: coarse to fine, named by stride (``p16``, ``p8``, ``p4``): (N, V, 1 | 4 | 16, C), sub-tokens row-major.
        Empty without a pyramid, or if not asked for.
    tokens: (N, V, D), output of the encoder.
    middle: (N, V, D), output of the block that was asked for, or None.
    """

    levels: dict[str, Tensor]
    tokens: Tensor
    middle: Tensor | None


class MaskedEncoder(Backbone):
    """Base of encoders over mask units.

    A subclass fills `embed` (sensor -> `UnitEmbedding`), `positions` (1, L, D) and `blocks`, says `main_blocks` and
    `level_dims`, computes `_run`, and calls `_finish` at the end of its constructor.

    Attributes:
        dim: D.
        unit_size: side of a unit in pixels.
        level_dims: name of a level, coarse to fine -> (sub-tokens of a unit, channels).
        main_blocks: indices in `blocks` of those that see all units, which `middle_block` can name.
        sensor: whose embedding `forward` uses by default; None = it has to be told.
        out_features: names of the maps of `forward`.
        grid: (h, w) units of the image size that the positions were made for.
    """

    embed: nn.ModuleDict
    positions: nn.Parameter
    blocks: nn.ModuleList
    dim: int
    unit_size: int
    grid: tuple[int, int]
    level_dims: dict[str, tuple[int, int]]
    main_blocks: range
    sensor: Sensor | None
    out_features: tuple[str, ...]
    coarse_pool: CoarsePool
    checkpointing: bool
    freeze: bool

    def _finish(
        self,
        *,
        sensor: Sensor | None,
        out_features: Sequence[str] | None,
        coarse_pool: CoarsePool,
        checkpointing: bool,
        weights: str | None,
        freeze: bool,
    ) -> None:
        """Check and keep the settings that all encoders share, load weights, freeze.

        Raises:
            UserError: a sensor without embedding, an unknown output or pooling, or unusable weights.
        """
        if sensor is not None:
            self._check_sensor(sensor)
        self.sensor = sensor if sensor is not None else (self.sensors[0] if len(self.sensors) == 1 else None)
        known = list(self._strides())
        self.out_features = tuple(out_features) if out_features else tuple(reversed(self.level_dims)) or (TOKENS,)
        unknown = [name for name in self.out_features if name not in known]
        if unknown:
            raise UserError(f"encoder has no output '{unknown[0]}' in out_features; it has: {', '.join(known)}")
        if coarse_pool not in ("average", "max"):
            raise UserError(f"coarse_pool of the encoder is '{coarse_pool}' but must be average or max")
        self.coarse_pool, self.checkpointing, self.freeze = coarse_pool, checkpointing, freeze
        if weights is not None:
            load_encoder(self, weights)
        if freeze:
            self.requires_grad_(False)
            self.eval()

    @property
    def sensors(self) -> tuple[Sensor, ...]:
        """Sensors that have a patch embedding."""
        return tuple(self.embed)

    def read_only(self, sensors: Collection[Sensor]) -> None:
        """Freeze the embeddings of all sensors but these: processes that train together would wait for their gradients.

        Raises:
            UserError: one of them has no embedding.
        """
        missing = [name for name in sensors if name not in self.sensors]
        if missing:
            raise UserError(
                f"the model reads {missing[0]}, but its encoder has embeddings of: {', '.join(self.sensors)}"
            )
        for name, embedding in self.embed.items():
            embedding.requires_grad_(embedding.proj.weight.requires_grad and name in sensors)

    @property
    def num_layers(self) -> int:
        """Number of the last layer of `parameter_layers`."""
        return len(self.blocks)

    @property
    def size_divisibility(self) -> int:
        return self.unit_size

    def parameter_layers(self) -> dict[str, int]:
        """Return the layer of every parameter, for a learning rate that decays towards the input.

        0 = embeddings and positions, i + 1 = block i (merges count), `num_layers` = pyramid and final norm.
        """
        layers = {}
        for name, _ in self.named_parameters():
            top, _, rest = name.partition(".")
            inner = int(rest.split(".")[0]) + 1 if top == "blocks" else self.num_layers
            layers[name] = 0 if top in _FIRST_LAYER else inner
        return layers

    def output_shape(self) -> dict[str, ShapeSpec]:
        strides = self._strides()
        coarsest = next(iter(self.level_dims.values()), (1, self.dim))[1]
        channels = {name: dim for name, (_, dim) in self.level_dims.items()} | {TOKENS: self.dim}
        return {
            name: ShapeSpec(channels=channels.get(name, coarsest), stride=strides[name]) for name in self.out_features
        }

    def train(self, mode: bool = True) -> MaskedEncoder:
        """Set the mode; a frozen encoder stays in eval mode, since drop path would change its features."""
        return super().train(mode and not self.freeze)

    def forward(self, x: Tensor | Mapping[Sensor, Tensor], sensor: Sensor | None = None) -> dict[str, Tensor]:
        """Encode whole images.

        Args:
            x: (N, in_chans, H, W) normalised; H and W multiples of `unit_size`, any such size. Or such images by
                sensor, which go through one pass; their rows lie one sensor below the other in the mapping's order.
            sensor: whose embedding to use; None = the encoder's own default. Not for images by sensor.

        Returns:
            The maps of `out_features`, (N, C, H/stride, W/stride); sizes of pooled ones are rounded up.

        Raises:
            UserError: see `encode`, or it is open which sensor is meant.
        """
        sensor = sensor or self.sensor
        if sensor is None and not isinstance(x, Mapping):
            raise UserError(f"encoder has several sensors ({', '.join(self.sensors)}): say which one the images are of")
        images = x if isinstance(x, Mapping) else {sensor: x}
        features = self.encode(images, with_levels=any(name != TOKENS for name in self.out_features))
        grid = self._grid_of(images)
        maps = {name: fold_units(level, grid) for name, level in features.levels.items() if name in self.out_features}
        if TOKENS in self.out_features:
            maps[TOKENS] = fold_units(features.tokens.unsqueeze(2), grid)
        pooled = [name for name in self._pooled() if name in self.out_features]
        if pooled:
            coarse = fold_units(next(iter(features.levels.values())), grid)
            for name in self._pooled():
                coarse = maps[name] = self._pool(coarse)
        return {name: maps[name] for name in self.out_features}

    def encode(
        self,
        images: Mapping[Sensor, Tensor],
        *,
        keep: Tensor | None = None,
        middle_block: int | None = None,
        with_levels: bool = True,
    ) -> VisibleFeatures:
        """Encode the visible units of images of one or more sensors.

        Every sensor goes through its own embedding, all rows together through one pass of the shared blocks. Masked
        units are dropped before the embedding, so no feature knows of them.

        Args:
            images: (n, in_chans, H, W) normalised, of one size; their rows lie one sensor below the other in the
                mapping's order, N in all.
            keep: (N, V) int64 indices of visible units, row-major in the grid; None = all.
            middle_block: index in `blocks` whose output to return too; one of `main_blocks`.
            with_levels: compute the levels.

        Raises:
            UserError: a sensor without embedding, or images of other channels, or of different or indivisible sizes.
            ValueError: `keep` has another number of rows, or `middle_block` is none of `main_blocks`.
        """
        grid = self._grid_of(images)
        count = sum(len(image) for image in images.values())
        if keep is not None and len(keep) != count:
            raise ValueError(f"keep has {len(keep)} rows for {count} images")
        if middle_block is not None and middle_block not in self.main_blocks:
            first, last = self.main_blocks[0], self.main_blocks[-1]
            raise ValueError(f"middle_block is {middle_block} but must lie in {first} .. {last}")
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freeze):
            parts, start = [], 0
            for sensor, image in images.items():
                self._check_channels(sensor, image)
                rows = None if keep is None else keep[start : start + len(image)]
                parts.append(self.embed[sensor](image, rows))
                start += len(image)
            units = torch.cat(parts) if len(parts) > 1 else parts[0]
            positions = resize_positions(self.positions, self.grid, grid)
            return self._run(units, positions if keep is None else positions[0][keep], middle_block, with_levels)

    @abstractmethod
    def _run(self, units: Tensor, positions: Tensor, middle_block: int | None, with_levels: bool) -> VisibleFeatures:
        """Encode embedded units.

        Args:
            units: (N, V, k, C) as the embeddings give them.
            positions: (1 or N, V, D).
            middle_block: see `encode`.
            with_levels: see `encode`.
        """

    def _run_block(self, index: int, x: Tensor) -> Tensor:
        block = self.blocks[index]
        if self.checkpointing and self.training and torch.is_grad_enabled():
            return checkpoint(block, x, use_reentrant=False)
        return block(x)

    def _check_sensor(self, sensor: str) -> None:
        if sensor not in self.embed:
            raise UserError(f"encoder has no patch embedding of '{sensor}'; it has: {', '.join(self.sensors)}")

    def _check_channels(self, sensor: Sensor, image: Tensor) -> None:
        embedding = self.embed[sensor]
        assert isinstance(embedding, UnitEmbedding)
        if image.shape[1] != embedding.in_chans:
            raise UserError(
                f"encoder reads {embedding.in_chans} channels of {sensor}, but the images have {image.shape[1]}; "
                "in_chans of the encoder, the constants of the normalisation and the data must agree"
            )

    def _grid_of(self, images: Mapping[Sensor, Tensor]) -> tuple[int, int]:
        for sensor in images:
            self._check_sensor(sensor)
        sizes = {tuple(image.shape[2:]) for image in images.values()}
        if len(sizes) != 1:
            raise UserError(f"images of one batch must have one size, got {sorted(sizes)}")
        height, width = next(iter(sizes))
        if height % self.unit_size or width % self.unit_size:
            raise UserError(
                f"image of {height} x {width} px does not divide into units of {self.unit_size} px; pad it first"
            )
        return height // self.unit_size, width // self.unit_size

    def _pooled(self) -> list[str]:
        """Names of the levels below the coarsest."""
        return [f"p{self.unit_size * 2 ** (step + 1)}" for step in range(_POOLED)] if self.level_dims else []

    def _strides(self) -> dict[str, int]:
        named = [*reversed(self.level_dims), *self._pooled()]
        return {name: int(name.removeprefix("p")) for name in named} | {TOKENS: self.unit_size}

    def _pool(self, x: Tensor) -> Tensor:
        """Halve a map; the last row or column of an odd side is pooled by itself."""
        if self.coarse_pool == "max":
            return F.max_pool2d(x, 2, ceil_mode=True)
        return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)


def load_encoder(encoder: MaskedEncoder, path: str) -> LoadReport:
    """Load an encoder's own file, or the encoder out of a whole pretraining checkpoint.

    The file may hold a pyramid or embeddings that the encoder lacks. It may lack the pyramid, which then starts fresh,
    and the embedding of one sensor, which then starts as a copy of the other's, with RGB filters folded or repeated to
    its channels by timm's rule (the release starts both from one ImageNet embedding).

    Raises:
        UserError: the file does not fit, see `mmovseg.checkpoint.load_weights`, or it holds an encoder for each
            sensor.
    """
    optional = [f"embed.{sensor}" for sensor in encoder.sensors] if len(encoder.sensors) > 1 else []
    try:
        report = load_weights(
            encoder,
            path,
            part="encoder",
            allow_missing=[f"{name}.*" for name in (*optional, "pyramid")],
            allow_unexpected=["embed.*", "pyramid.*"],
        )
    except UserError:
        apart = [sensor for sensor in get_args(Sensor) if _holds(path, f"encoder.{sensor}.positions")]
        if not apart:
            raise
        raise UserError(
            f"checkpoint '{path}' holds an encoder for each sensor; take one of them out first: "
            f"tools/export_weights.py --part encoder.{encoder.sensor or apart[0]}"
        ) from None
    absent = []
    for group in (*optional, "pyramid"):
        missing = [name for name in report.missing if name.startswith(group + ".")]
        if missing and any(name.startswith(group + ".") for name in report.used):
            raise UserError(f"checkpoint '{path}' holds only a part of '{group}': it lacks {missing[0]}")
        absent += [group] if missing else []
    if "pyramid" in absent:
        logger.warning("checkpoint '%s' has no pyramid: it starts fresh", path)
    sources = [name for name in optional if name not in absent]
    for name in (name for name in optional if name in absent):
        if not sources:
            raise UserError(f"checkpoint '{path}' has no patch embedding of: {', '.join(encoder.sensors)}")
        source, target = encoder.get_submodule(sources[0]), encoder.get_submodule(name)
        _copy_embedding(source, target, f"checkpoint '{path}' has no {name}")
        logger.info("checkpoint '%s' has no %s: it starts as a copy of %s", path, name, sources[0])
    return report


def _holds(path: str, name: str) -> bool:
    try:
        return name in read_state(path)[0]
    except UserError:  # what is wrong with the file itself has been said
        return False


def _copy_embedding(source: nn.Module, target: nn.Module, problem: str) -> None:
    assert isinstance(source, UnitEmbedding) and isinstance(target, UnitEmbedding)
    state = source.state_dict()
    if target.in_chans != source.in_chans:
        if source.in_chans != 3:
            raise UserError(f"{problem}, and filters of {source.in_chans} channels cannot stand for {target.in_chans}")
        state["proj.weight"] = adapt_input_conv(target.in_chans, state["proj.weight"])
    target.load_state_dict(state)
