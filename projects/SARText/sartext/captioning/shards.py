"""Caption records with their images in tar archives, in the layout that webdataset and open_clip's training read.

A sample is ``<key>.png`` (or jpg, webp), ``<key>.txt`` with one caption and ``<key>.json`` with the whole record, so
that nothing is lost on the way. The same records and images give the same bytes.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from PIL import Image, UnidentifiedImageError
from tqdm import tqdm

from mmovseg.data.io import read_optical, read_sar
from mmovseg.data.miniearth.export import check_free
from mmovseg.data.sar import SarUnit, check_sar_units
from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, ImageRole, parse_record
from mmovseg.visualization.draw import CO_POL_LIMITS_DB, optical_to_rgb, sar_to_rgb

_READABLE = {".jpg": "jpg", ".jpeg": "jpg", ".png": "png", ".webp": "webp"}
_EIGHT_BIT = ("1", "L", "LA", "P", "RGB", "RGBA")


@dataclass(frozen=True)
class ImageRendering:
    """How images become 8-bit ones. Those that are 8-bit JPEG, PNG or WebP already are copied as they are.

    Attributes:
        role: what the images of the records are.
        sar_unit: of the SAR files.
        limits_db: backscatter drawn black and white; the same for all images, so that a grey value keeps its meaning.
    """

    role: ImageRole = "sar"
    sar_unit: SarUnit = "amplitude8"
    limits_db: tuple[float, float] = CO_POL_LIMITS_DB

    def __post_init__(self) -> None:
        check_sar_units(self.sar_unit)
        if not self.limits_db[0] < self.limits_db[1]:
            raise UserError(f"the limits in dB must rise, got {self.limits_db[0]} and {self.limits_db[1]}")

    def __call__(self, path: Path) -> tuple[str, bytes]:
        """Return suffix and content of the image that goes into the archive.

        Raises:
            UserError: the image is missing or damaged.
        """
        if not path.is_file():
            raise UserError(f"image '{path}' does not exist")
        suffix = _READABLE.get(path.suffix.lower())
        if suffix is not None and _is_eight_bit(path):
            return suffix, path.read_bytes()
        if self.role == "optical":
            shown = optical_to_rgb(*read_optical(path))
        else:
            sar, valid = read_sar(path)
            limits = None if self.sar_unit == "amplitude8" else self.limits_db
            shown = sar_to_rgb(sar[..., :1], valid, unit=self.sar_unit, limits_db=limits)
        buffer = io.BytesIO()
        Image.fromarray(shown).save(buffer, "PNG")
        return "png", buffer.getvalue()


def _is_eight_bit(path: Path) -> bool:
    try:
        with Image.open(path) as image:
            image.load()
            return image.mode in _EIGHT_BIT
    except UnidentifiedImageError as error:
        raise UserError(f"image '{path}' is no image that can be read") from error
    except (OSError, SyntaxError, ValueError) as error:
        raise UserError(f"image '{path}' is damaged or cut off: its pixels cannot be read") from error


def export_webdataset(
    output: str | Path,
    records: Sequence[CaptionRecord],
    *,
    root: str | Path,
    shard_size: int = 1000,
    per_caption: bool = False,
    rendering: ImageRendering | None = None,
    show_progress: bool = False,
) -> list[str]:
    """Write ``000000.tar``, ``000001.tar``, ... into a folder that appears when it is complete.

    Args:
        output: folder to make; must not exist or be empty.
        records: at least one.
        root: what the image paths start from.
        shard_size: samples an archive.
        per_caption: one sample a caption instead of one an image. open_clip trains on one text a sample; the other
            captions of an image are then in its ``json`` only.
        rendering: how images become 8-bit ones; None = 8-bit SAR amplitude.
        show_progress: draw a progress bar on stderr.

    Returns:
        Names of the archives.

    Raises:
        UserError: there is no record, an image is missing or damaged, or the folder cannot be written.
    """
    output, render = Path(output), rendering or ImageRendering()
    if not records or shard_size < 1:
        what = "there is no caption record" if not records else f"shard_size must be at least 1, got {shard_size}"
        raise UserError(f"cannot write archives to '{output}': {what}")
    check_free(output)
    samples = [(r, n) for r in records for n in range(len(r.captions) if per_caption else 1)]
    partial = output.parent / f".{output.name}.partial-{os.getpid()}"
    names: list[str] = []
    shown: tuple[str, tuple[str, bytes]] = ("", ("", b""))
    try:
        partial.mkdir(parents=True)
        with tqdm(total=len(samples), unit="sample", disable=not show_progress) as bar:
            for first in range(0, len(samples), shard_size):
                names.append(f"{first // shard_size:06d}.tar")
                with tarfile.open(partial / names[-1], "w", format=tarfile.USTAR_FORMAT) as archive:
                    for number, (record, caption) in enumerate(samples[first : first + shard_size], start=first):
                        if record.image != shown[0]:
                            shown = (record.image, render(Path(root) / record.image))
                        _add_sample(archive, f"{number:08d}", record, caption, shown[1])
                        bar.update()
        os.replace(partial, output)
    except OSError as error:
        raise UserError(f"archives cannot be written to '{output}': {error.strerror or error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return names


def _add_sample(
    archive: tarfile.TarFile, key: str, record: CaptionRecord, caption: int, image: tuple[str, bytes]
) -> None:
    suffix, pixels = image
    facts = json.dumps(record.to_dict(), ensure_ascii=False).encode("utf-8")
    for name, content in ((suffix, pixels), ("txt", record.captions[caption].encode("utf-8")), ("json", facts)):
        member = tarfile.TarInfo(f"{key}.{name}")  # time, owner and group stay 0: the bytes follow from the content
        member.size = len(content)
        member.mode = 0o644
        archive.addfile(member, io.BytesIO(content))


def import_webdataset(folder: str | Path) -> list[CaptionRecord]:
    """Read the records of a folder that `export_webdataset` wrote, each once.

    Raises:
        UserError: there is no archive, one is damaged, or a sample has no record.
    """
    paths = sorted(Path(folder).glob("*.tar"))
    if not paths:
        raise UserError(f"folder '{folder}' has no archive (*.tar)")
    records: dict[str, CaptionRecord] = {}
    for path in paths:
        try:
            with tarfile.open(path, "r:") as archive:
                for member in archive:
                    if member.name.endswith(".json"):
                        file = archive.extractfile(member)
                        record = parse_record(json.loads(file.read() if file else b""))
                        records.setdefault(record.image, record)
        except UserError as error:
            raise UserError(f"archive '{path}': {error}") from error
        except (OSError, tarfile.TarError, ValueError) as error:
            raise UserError(f"archive '{path}' is damaged or holds no caption records: {error}") from error
    if not records:
        raise UserError(f"folder '{folder}' has archives without caption records")
    return list(records.values())
