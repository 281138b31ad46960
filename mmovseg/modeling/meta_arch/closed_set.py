"""What dense models with a class list of their own share: which classes are asked for, whole images or windows."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from detectron2.modeling import Backbone
from torch import Tensor, nn

from mmovseg.checkpoint.contract import InputContract
from mmovseg.data.sample import IGNORE_LABEL, ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.scene.tiling import make_axis
from mmovseg.layers.conv import pad_to_multiple, resize
from mmovseg.modeling.meta_arch.batching import shared_vocabulary


class ClosedSetModel(nn.Module):
    """Base of models that score a fixed list of classes for every pixel.

    A subclass computes `_score`. Training needs labels of exactly the model's classes. At test any of them may be asked
    for, in any order, by name or synonym; a class that it does not have is refused.

    Args:
        encoder: inputs are padded to multiples of its `size_divisibility`.
        vocabulary: the classes, all of them trained.
        window: side of the square windows that images are cut into at test, pixels; None = whole images. Scores of
            overlapping windows are averaged, as in training's frameworks ("slide").
        window_stride: pixels from one window to the next, at least half of `window`; None = half.
        windows_at_once: windows that are scored together.
        input_contract: what the rasters must be like; stored in checkpoints.

    Raises:
        UserError: windows with gaps between them.
    """

    def __init__(
        self,
        encoder: Backbone,
        *,
        vocabulary: Vocabulary,
        window: int | None,
        window_stride: int | None,
        windows_at_once: int,
        input_contract: InputContract | None,
    ) -> None:
        super().__init__()
        self.encoder, self.vocabulary = encoder, vocabulary
        self.multiple = max(1, encoder.size_divisibility)  # detectron2 says 0 for any size
        self.window, self.windows_at_once = window, windows_at_once
        self.window_stride = window_stride if window_stride is not None else window // 2 if window else None
        if window is not None:
            window_starts(window + 1, window, self.window_stride or 0)  # refuses what leaves gaps
        self.input_contract = input_contract.to_dict() if input_contract is not None else None

    @abstractmethod
    def _score(self, images: Sequence[Tensor]) -> Tensor:
        """Score padded views of the same places: (n, C_i, H, W) each -> (n, S, h, w) logits on any grid."""

    def _score_at_size(self, images: Sequence[Tensor]) -> Tensor:
        """Score views of any size: (n, C_i, H, W) each -> (n, S, H, W) float32 logits."""
        height, width = images[0].shape[-2:]
        padded = [pad_to_multiple(image, self.multiple) for image in images]
        scores = resize(self._score(padded).float(), (padded[0].shape[2], padded[0].shape[3]))
        return scores[..., :height, :width]

    def _score_each(self, views: Sequence[Tensor], inputs: Sequence[ModelInput]) -> Iterator[Tensor]:
        """Yield (S, height, width) logits of every input at the size of its original raster."""
        whole = self._score_at_size(views) if self.window is None else None
        for number, item in enumerate(inputs):
            height, width = _size(item)
            if whole is not None:
                scores = whole[number, :, :height, :width]
            else:
                scores = self._score_windows([view[number, :, :height, :width] for view in views])
            yield resize(scores[None], (item.get("height", height), item.get("width", width)))[0]

    def _score_windows(self, images: Sequence[Tensor]) -> Tensor:
        """Average the scores of overlapping windows: (C_i, H, W) each -> (S, H, W)."""
        assert self.window is not None and self.window_stride is not None
        height, width = images[0].shape[-2:]
        side_y, side_x = min(self.window, height), min(self.window, width)
        places = [
            (slice(top, top + side_y), slice(left, left + side_x))
            for top in window_starts(height, self.window, self.window_stride)
            for left in window_starts(width, self.window, self.window_stride)
        ]
        total: Tensor | None = None
        count = images[0].new_zeros(height, width)
        for first in range(0, len(places), self.windows_at_once):
            chosen = places[first : first + self.windows_at_once]
            scores = self._score_at_size(
                [torch.stack([image[:, rows, columns] for rows, columns in chosen]) for image in images]
            )
            if total is None:
                total = scores.new_zeros(scores.shape[1], height, width)
            for (rows, columns), part in zip(chosen, scores, strict=True):
                total[:, rows, columns] += part
                count[rows, columns] += 1
        assert total is not None
        return total / count

    def _check_training(self, inputs: Sequence[ModelInput]) -> None:
        """Raise `UserError` unless labels number exactly the model's classes."""
        names = shared_vocabulary(inputs).names
        if names != self.vocabulary.names:
            raise UserError(
                f"the model has the classes {', '.join(self.vocabulary.names)}, but the labels of training are of "
                f"{', '.join(names)}; a head of its own needs `closed_vocabulary`, which trains on all classes"
            )

    def _asked(self, inputs: Sequence[ModelInput]) -> list[int]:
        """Return the model's class of every one asked for; all of them when the inputs name none."""
        if not any("vocabulary" in item for item in inputs):
            return list(range(len(self.vocabulary)))
        found = []
        for name in shared_vocabulary(inputs).names:
            index = self.vocabulary.find(name)
            if index is None:
                raise UserError(
                    f"the model has no class '{name}'; it was trained on: {', '.join(self.vocabulary.names)}"
                )
            found.append(index)
        return found


def window_starts(size: int, window: int, stride: int) -> tuple[int, ...]:
    """Return where windows start along a side: every `stride` pixels, the last one moved inward to end with the side.

    Raises:
        UserError: a stride that is not between half a window and a whole one.
    """
    if not window / 2 <= stride <= window:
        raise UserError(f"window_stride is {stride} but must lie between half of the window of {window} and {window}")
    return make_axis(size, tile=window, overlap=window - stride, margin=0).starts


def build_part(kind: type[nn.Module], arguments: Mapping[str, Any], *positional: Any, **own: Any) -> Any:
    """Build a head from the arguments of a config and those that the model knows.

    Raises:
        UserError: the head has no such argument.
    """
    try:
        return kind(*positional, **{str(key): value for key, value in arguments.items()}, **own)
    except TypeError as error:
        if "unexpected keyword" not in str(error):
            raise
        raise UserError(f"{kind.__name__} {str(error).split('__init__() ')[-1]}") from error


def on_padded(target: Tensor, image: Tensor) -> Tensor:
    """Extend labels (N, h, w) by 255 to the size of the padded image: logits cover the same ground then."""
    bottom, right = image.shape[2] - target.shape[1], image.shape[3] - target.shape[2]
    return nn.functional.pad(target, (0, right, 0, bottom), value=IGNORE_LABEL)


def _size(item: ModelInput) -> tuple[int, int]:
    height, width = (item["image"] if "image" in item else item["sar"]).shape[-2:]
    return height, width
