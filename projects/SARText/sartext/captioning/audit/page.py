"""The page on which captions are judged: one HTML file with everything in it, to be opened from disk."""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from PIL import Image

from mmovseg.data.io import read_optical
from mmovseg.data.sar import SarUnit, db_to_amplitude8
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.audit.sample import COLUMNS, ERROR_CODES, RATINGS, AuditItem
from mmovseg.projects.sartext.captioning.rewriting.pair_gate import read_sar_db
from mmovseg.projects.sartext.captioning.schema import ImageRole

_TEMPLATE = Path(__file__).with_name("page.html")
_LONGEST_PX = 512


def page_text(
    items: Sequence[AuditItem],
    *,
    root: str | Path | None,
    sar_unit: SarUnit = "amplitude8",
    role: ImageRole | None = None,
) -> str:
    """Return the page with all its images.

    Args:
        items: the sample.
        root: where the image paths start; None shows captions without images.
        sar_unit: of the SAR files.
        role: what the images of the records are; None = optical where a folder of the path is called so, as in prepared
            sets, else SAR.

    Raises:
        UserError: an image is missing or damaged, or a SAR image has no data; the sentence names it.
    """
    shown = []
    for one in items:
        content: dict[str, Any] = {name: getattr(one, name, "") for name in COLUMNS}
        content["pictures"] = [] if root is None else _pictures(one, Path(root), sar_unit, role)
        shown.append(content)
    sample = hashlib.blake2b(json.dumps([one["image_id"] + one["caption"] for one in shown]).encode(), digest_size=6)
    data = {
        "sample": sample.hexdigest(),
        "ratings": list(RATINGS),
        "codes": ERROR_CODES,
        "columns": list(COLUMNS),
        "items": shown,
    }
    # "</script>" in a caption would end the data early
    text = json.dumps(data, ensure_ascii=False).replace("</", "<\\/")
    return _TEMPLATE.read_text(encoding="utf-8").replace("__DATA__", text)


def _pictures(item: AuditItem, root: Path, sar_unit: SarUnit, role: ImageRole | None) -> list[tuple[str, str]]:
    if (role or _role_of(item)) == "optical":
        return [("optical", _optical_uri(root / item.image))]
    pictures = [("SAR", _data_uri(_stretch(root / item.image, sar_unit)))]
    if item.optical_image is not None:
        pictures.append(("optical twin, for orientation", _optical_uri(root / item.optical_image)))
    return pictures


def _role_of(item: AuditItem) -> ImageRole:
    return "optical" if "optical" in PurePosixPath(item.image).parent.parts else "sar"


def _optical_uri(path: Path) -> str:
    pixels, _ = read_optical(path)
    return _data_uri(np.clip(pixels, 0, 255).astype(np.uint8))


def _stretch(path: Path, sar_unit: SarUnit) -> np.ndarray:
    """Return a SAR image as grey values: amplitude, its darkest and brightest hundredth cut off."""
    sar_db = read_sar_db(path, sar_unit=sar_unit)
    valid = np.isfinite(sar_db)
    if not valid.any():
        raise UserError(f"SAR image '{path}' has no data")
    amplitude = db_to_amplitude8(np.where(valid, sar_db, sar_db[valid].min())).astype(np.float64)
    low, high = np.percentile(amplitude[valid], (1, 99))
    grey = np.clip((amplitude - low) / max(float(high - low), 1e-6), 0, 1)
    return (grey * 255).astype(np.uint8)


def _data_uri(pixels: np.ndarray) -> str:
    image = Image.fromarray(pixels)
    image.thumbnail((_LONGEST_PX, _LONGEST_PX))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii")
