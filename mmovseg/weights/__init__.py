"""Weights that ship with the package: the XS models for MiniEarth. MODEL_ZOO.md says how each was made."""

from __future__ import annotations

from pathlib import Path

from mmovseg.errors import UserError

FOLDER = Path(__file__).parent
SCHEME = "shipped://"


def list_shipped() -> list[str]:
    """Return the names of the shipped weights."""
    return sorted(path.stem for path in FOLDER.glob("*.safetensors"))


def resolve(path: str | Path) -> Path:
    """Return the file that `path` means; ``shipped://<name>`` is a file of this package.

    Raises:
        UserError: no weights of that name ship with the package; the message lists what does.
    """
    text = str(path)
    if not text.startswith(SCHEME):
        return Path(path)
    name = text.removeprefix(SCHEME)
    if name not in list_shipped():
        raise UserError(f"no weights '{name}' ship with mmovseg; there are: {', '.join(list_shipped()) or 'none'}")
    return FOLDER / f"{name}.safetensors"
