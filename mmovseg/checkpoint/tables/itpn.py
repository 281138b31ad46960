"""iTPN's ImageNet weights trained on pixels: the start of CoDe-MAE's encoder.

Ours is the `HiViT` of `mmovseg.projects.codemae` with an embedding for optical and one for SAR, which both begin as the
embedding of the file, as the release does. The decoder and the mask token are left out. On the way back both embeddings
have to be equal still, so an encoder that was trained here has none.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmovseg.checkpoint.rules import KeyTable, Rule, copy, double
from mmovseg.checkpoint.tables.contracts import dino_contract
from mmovseg.checkpoint.tables.hivit import HIVIT_B, HiViTDims, embedding_rows, encoder_rows

NAMINGS = ("", "module.")
SENSORS = ("optical", "sar")


@dataclass(frozen=True)
class ItpnDims:
    """Sizes of an encoder, and the name of its size. `image_size`: side of the training images, pixels."""

    name: str = "itpn_base_fpn256"
    encoder: HiViTDims = HIVIT_B
    image_size: int = 224


ITPN_B = ItpnDims()


def itpn_rules(dims: ItpnDims, *, theirs: str = "") -> list[Rule]:
    """Rules of one encoder."""
    rules = [
        double(f"{theirs}patch_embed.{name}", [f"embed.{sensor}.{name}" for sensor in SENSORS], shape)
        for name, shape in embedding_rows(dims.encoder).items()
    ]
    rows = encoder_rows(dims.encoder, embeddings={})
    return rules + [copy(theirs + official, ours, shape) for (official, ours), shape in rows.items()]


def itpn_table(dims: ItpnDims, *, naming: str = "") -> KeyTable:
    """One size under one naming."""
    return KeyTable(
        source="itpn",
        architecture=dims.name,
        rules=tuple(itpn_rules(dims, theirs=naming)),
        naming=naming,
        outside=(f"{naming}mask*", f"{naming}decoder*"),
        entries=("model", "state_dict"),
        contract=dino_contract(dims.image_size),
        use="HiViT(weights=<path>), for example model.encoder.weights=<path> in projects/CoDeMAE/configs/codemae_b.py",
    )


def itpn_tables() -> tuple[KeyTable, ...]:
    """The base size under every naming."""
    return tuple(itpn_table(ITPN_B, naming=naming) for naming in NAMINGS)
