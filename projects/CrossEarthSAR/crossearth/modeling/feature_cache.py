"""What a frozen encoder said of an image, kept in memory: downstream training then runs the head alone."""

from __future__ import annotations

import hashlib
import logging
from collections import defaultdict
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.precision import autocast_dtype

logger = logging.getLogger(__name__)

MOST_VERSIONS = 16
"""Versions of one image that are kept; flips and turns by 90 degrees make 8."""


class FeatureCache:
    """Feature maps by the content of the raster, so that they can never be those of another crop.

    An image that keeps coming in new versions (random crops, jitter) is refused: nothing would ever be found again.
    Each process keeps its own; nothing of it is in checkpoints.

    Args:
        capacity_mb: memory that the maps may take, in 2**20 bytes; what comes after it is full is computed every time.

    Raises:
        UserError: the capacity is not positive.
    """

    def __init__(self, capacity_mb: int) -> None:
        if capacity_mb < 1:
            raise UserError(f"feature_cache_mb is {capacity_mb} but must be at least 1, or null for no cache")
        self.capacity_mb = capacity_mb
        self.clear()

    def clear(self) -> None:
        """Forget everything, for example because the encoder has got other weights."""
        self._maps: dict[bytes, dict[str, Tensor]] = {}
        self._versions: defaultdict[str, set[bytes]] = defaultdict(set)
        self._bytes = 0
        self._full = False

    def __len__(self) -> int:
        return len(self._maps)

    def get(
        self,
        inputs: Sequence[ModelInput],
        size: tuple[int, int],
        device: torch.device,
        compute: Callable[[list[int]], dict[str, Tensor]],
    ) -> dict[str, Tensor]:
        """Return the maps of a batch, computing those that are not known yet.

        Args:
            inputs: with `sar`; everything else that the encoder's answer depends on is in `sar_valid`, `source`,
                `size` and the precision of autocast.
            size: (H, W) that the batch is padded to.
            device: where the maps are to be.
            compute: positions in the batch -> maps (n, C, h, w) of these images, by name.

        Returns:
            Maps (N, C, h, w) by name, without a graph.

        Raises:
            UserError: an image came in more than `MOST_VERSIONS` versions.
        """
        precision = autocast_dtype(device)
        keys = [_key(item, size, precision) for item in inputs]
        missing = [number for number, key in enumerate(keys) if key not in self._maps]
        fresh: dict[int, dict[str, Tensor]] = {}
        if missing:
            maps = compute(missing)
            for row, number in enumerate(missing):
                fresh[number] = {name: level[row].detach() for name, level in maps.items()}
                self._keep(keys[number], inputs[number], fresh[number])
        found = [fresh[number] if number in fresh else self._maps[key] for number, key in enumerate(keys)]
        return {name: torch.stack([maps[name].to(device) for maps in found]) for name in found[0]}

    def _keep(self, key: bytes, item: ModelInput, maps: dict[str, Tensor]) -> None:
        name = str(item.get("image_id", item.get("file_name", "?")))
        versions = self._versions[name]
        versions.add(key)
        if len(versions) > MOST_VERSIONS:
            raise UserError(
                f"image '{name}' came in more than {MOST_VERSIONS} versions, so cached features are never found again: "
                "leave random crops and jitter out of dataloader.train.mapper, or set model.feature_cache_mb=null"
            )
        size = sum(level.numel() * level.element_size() for level in maps.values())
        if self._bytes + size > self.capacity_mb * 2**20:
            if not self._full:
                logger.warning("feature cache is full (%d MB, %d images)", self.capacity_mb, len(self._maps))
            self._full = True
        elif key not in self._maps:
            self._maps[key] = {name: level.to("cpu", copy=True) for name, level in maps.items()}
            self._bytes += size


def _key(item: ModelInput, size: tuple[int, int], precision: torch.dtype | None) -> bytes:
    """Digest of all that the features depend on, beside the encoder and the normalisation."""
    digest = hashlib.blake2b(digest_size=16)
    sar = item["sar"].detach().cpu().contiguous()
    source = item.get("sar_source", item.get("source"))
    digest.update(repr((tuple(sar.shape), str(sar.dtype), source, tuple(size), precision)).encode())
    digest.update(sar.view(torch.uint8).numpy().tobytes())
    valid = item.get("sar_valid")
    if valid is not None:
        digest.update(valid.cpu().contiguous().numpy().tobytes())
    return digest.digest()
