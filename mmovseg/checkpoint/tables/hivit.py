"""The tensors of a HiViT encoder with iTPN's pyramid: the rows that the tables of CoDe-MAE and of iTPN share.

Rows are ``(official name, our name) -> shape``. Ours is the `HiViT` of `mmovseg.projects.codemae`.
Source: the state dicts of iTPN (github.com/sunsmarterjie/iTPN) and of CoDe-MAE, which has iTPN's names.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from mmovseg.checkpoint.rules import Shape, expand

Rows = dict[tuple[str, str], Shape]


@dataclass(frozen=True)
class HiViTDims:
    """Sizes of an encoder.

    stem: width of the first stage; the second is twice, the third (`dim`) four times as wide. depths: blocks of the
    three stages. ratios: of the hidden width of their MLPs. patch: pixels that a sub-token spans (a unit has 4 x 4).
    units: positions. pyramid: channels of the pyramid.
    """

    stem: int = 128
    depths: tuple[int, int, int] = (3, 3, 24)
    ratios: tuple[int, int, int] = (3, 3, 4)
    patch: int = 4
    units: int = 196
    in_chans: int = 3
    pyramid: int = 256

    @property
    def dim(self) -> int:
        """Width of the last stage."""
        return 4 * self.stem


HIVIT_B = HiViTDims()


def with_prefix(rows: Mapping[str, Shape], *, theirs: str, ours: str) -> Rows:
    """Rows that both sides name alike, behind a prefix each."""
    return {(theirs + name, ours + name): shape for name, shape in rows.items()}


def mlp_rows(width: int, ratio: int) -> dict[str, Shape]:
    """A block without attention."""
    return {
        "norm2.weight": (width,),
        "norm2.bias": (width,),
        "mlp.fc1.weight": (ratio * width, width),
        "mlp.fc1.bias": (ratio * width,),
        "mlp.fc2.weight": (width, ratio * width),
        "mlp.fc2.bias": (width,),
    }


def transformer_rows(width: int, depth: int, ratio: int = 4) -> dict[str, Shape]:
    """Numbered blocks with attention."""
    block: dict[str, Shape] = {
        "norm1.weight": (width,),
        "norm1.bias": (width,),
        "attn.qkv.weight": (3 * width, width),
        "attn.qkv.bias": (3 * width,),
        "attn.proj.weight": (width, width),
        "attn.proj.bias": (width,),
        **mlp_rows(width, ratio),
    }
    return expand(depth, {f"{{n}}.{name}": shape for name, shape in block.items()})


def embedding_rows(dims: HiViTDims) -> dict[str, Shape]:
    """A patch embedding."""
    return {
        "proj.weight": (dims.stem, dims.in_chans, dims.patch, dims.patch),
        "proj.bias": (dims.stem,),
        "norm.weight": (dims.stem,),
        "norm.bias": (dims.stem,),
    }


def encoder_rows(dims: HiViTDims, *, embeddings: Mapping[str, str], ours: str = "") -> Rows:
    """An encoder with its pyramid.

    Args:
        dims: sizes.
        embeddings: our sensor -> official name of its patch embedding.
        ours: prefix of our names.
    """
    rows: Rows = {("absolute_pos_embed", f"{ours}positions"): (1, dims.units, dims.dim)}
    for sensor, official in embeddings.items():
        rows |= with_prefix(embedding_rows(dims), theirs=f"{official}.", ours=f"{ours}embed.{sensor}.")
    rows |= _stage_rows(dims, ours)
    return rows | _pyramid_rows(dims, ours)


def _stage_rows(dims: HiViTDims, ours: str) -> Rows:
    """The stages; a merge that halves the grid of sub-tokens has a number among the blocks."""
    rows: dict[str, Shape] = {}
    first, second, third = dims.depths
    for n in range(first):
        rows |= {f"{n}.{name}": shape for name, shape in mlp_rows(dims.stem, dims.ratios[0]).items()}
    rows |= _merge_rows(first, dims.stem)
    for n in range(first + 1, first + 1 + second):
        rows |= {f"{n}.{name}": shape for name, shape in mlp_rows(2 * dims.stem, dims.ratios[1]).items()}
    rows |= _merge_rows(first + 1 + second, 2 * dims.stem)
    start = first + second + 2
    for name, shape in transformer_rows(dims.dim, third, dims.ratios[2]).items():
        number, rest = name.split(".", 1)
        rows[f"{start + int(number)}.{rest}"] = shape
    return with_prefix(rows, theirs="blocks.", ours=f"{ours}blocks.")


def _merge_rows(number: int, width: int) -> dict[str, Shape]:
    return {
        f"{number}.norm.weight": (4 * width,),
        f"{number}.norm.bias": (4 * width,),
        f"{number}.reduction.weight": (2 * width, 4 * width),
    }


def _pyramid_rows(dims: HiViTDims, ours: str) -> Rows:
    wide, channels = dims.dim, dims.pyramid
    rows: Rows = {
        ("align_dim_16tofpn.weight", "lateral16.weight"): (channels, wide),
        ("align_dim_16tofpn.bias", "lateral16.bias"): (channels,),
        ("align_dim_16to8.weight", "lateral8.weight"): (channels, 2 * dims.stem),
        ("align_dim_8to4.weight", "lateral4.weight"): (channels, dims.stem),
    }
    for official, own, width in (("split_16to8.", "split16.", wide), ("split_8to4.", "split8.", channels)):
        split: dict[str, Shape] = {
            "norm.weight": (width,),
            "norm.bias": (width,),
            "reduction.weight": (4 * channels, width),
        }
        rows |= with_prefix(split, theirs=official, ours=own)
    for official, own in (
        ("block_16to8.0.", "join8.0."),
        ("block_8to4.0.", "join4.0."),
        ("fpn_modules.0.", "out16."),
        ("fpn_modules.1.", "out8."),
        ("fpn_modules.2.", "out4."),
    ):
        rows |= with_prefix(mlp_rows(channels, 4), theirs=official, ours=own)
    return {(official, f"{ours}pyramid.{own}"): shape for (official, own), shape in rows.items()}
