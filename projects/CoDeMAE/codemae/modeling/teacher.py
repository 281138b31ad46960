"""The frozen optical model that pretraining distils from."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.modeling.meta_arch.batching import batch_view

_SET_HERE = ("taps", "freeze")


class FrozenTeacher:
    """A frozen timm encoder with the normalisation of its own training, read after its last block and final norm.

    It is no `nn.Module`: its weights belong to another model, and a checkpoint of the pretraining neither holds nor
    needs them. It is built when it is first asked, so evaluating or analysing a pretrained encoder takes no file of a
    teacher, and a resumed training reads it again from where it came.

    Args:
        encoder: arguments of `TimmEncoder`, such as ``name`` and ``weights``; `taps` and `freeze` are set here.
        width: channels of its tokens.
        mean, std, clip: of its input, on the scale of `image` (0..255), see `PixelNorm`.

    Raises:
        UserError: `encoder` lacks the name or holds an argument that `TimmEncoder` does not take.
    """

    def __init__(
        self,
        *,
        encoder: Mapping[str, Any],
        width: int,
        mean: Sequence[float],
        std: Sequence[float],
        clip: Sequence[float] | None = None,
    ) -> None:
        known = set(inspect.signature(TimmEncoder).parameters) - set(_SET_HERE)
        odd = sorted(set(encoder) - known)
        if odd or "name" not in encoder:
            wrong = f"holds '{odd[0]}'" if odd else "lacks 'name'"
            raise UserError(f"the teacher's encoder {wrong}; it takes: {', '.join(sorted(known))}")
        self.arguments = dict(encoder)
        self.width = width
        self.norm = PixelNorm(mean=mean, std=std, clip=clip)
        self._encoder: TimmEncoder | None = None

    def encoder(self, device: torch.device) -> TimmEncoder:
        """Return the encoder on this device; the first call builds it.

        Raises:
            UserError: its weights cannot be had, or it has another width.
        """
        if self._encoder is None:
            with torch.random.fork_rng(devices=[]):  # building it must not move the numbers that draw the masks
                # A teacher without weights (in tests) is the same in every process. `torch.manual_seed` would seed the
                # devices too, which nothing here puts back.
                torch.default_generator.manual_seed(0)
                self._encoder = TimmEncoder(**self.arguments, taps=(self._depth(),), freeze=True)
            found = self._encoder.model.embed_dim
            if found != self.width:
                raise UserError(
                    f"the teacher '{self.arguments['name']}' has tokens of {found} channels, but its width is given as "
                    f"{self.width}"
                )
        self.norm.to(device)
        return self._encoder.to(device)

    def _depth(self) -> int:
        """Find the number of the last block: from the arguments, or of the architecture without any weights."""
        depth = self.arguments.get("model_args", {}).get("depth")
        if depth is not None:
            return int(depth)
        with torch.device("meta"):
            plain = {key: value for key, value in self.arguments.items() if key != "weights"}
            return len(TimmEncoder(**plain, taps=(1,)).model.blocks)

    @torch.no_grad()
    def tokens(self, inputs: Sequence[ModelInput], *, unit_size: int, grid: tuple[int, int]) -> Tensor:
        """Encode the whole optical images.

        Args:
            inputs: with `image`, and `valid` where pixels lack data; these become the mean, as everywhere.
            unit_size: side of the student's units in pixels; a multiple of the teacher's patch. Where it is more than
                one patch, the patches of a unit are averaged.
            grid: (h, w) in units.

        Returns:
            (B, h*w, width) on the device of the normalisation.

        Raises:
            UserError: the teacher's patches do not fit into units.
        """
        encoder = self.encoder(self.norm.device)
        if unit_size % encoder.patch_size:
            raise UserError(
                f"the teacher '{self.arguments['name']}' has patches of {encoder.patch_size} px, which do not fill the "
                f"encoder's units of {unit_size} px"
            )
        view = batch_view(inputs, "image", "valid", self.norm, unit_size)
        assert view is not None
        (maps,) = encoder(view.x).values()
        if maps.shape[-2:] != grid:
            maps = torch.nn.functional.avg_pool2d(maps, unit_size // encoder.patch_size)
        return maps.flatten(2).transpose(1, 2)

    def to(self, device: torch.device) -> FrozenTeacher:
        """Move to a device."""
        self.norm.to(device)
        return self
