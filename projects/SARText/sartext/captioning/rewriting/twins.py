"""The file that belongs to an image: its SAR twin or its label map, found in another folder by the name."""

from __future__ import annotations

from pathlib import Path

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.schema import CaptionRecord


class TwinFolder:
    """Rasters of a folder by the file stem of an image; the folder is listed once.

    Args:
        folder: with ``{split}`` where each split has its own.
        option: of the command line, for messages.
    """

    def __init__(self, folder: str | Path, option: str) -> None:
        self._folder, self._option = str(folder), option
        self._files: dict[str, dict[str, Path]] = {}
        self._taken: dict[Path, str] = {}

    def find(self, record: CaptionRecord, what: str) -> Path:
        """Return the file of a record.

        Args:
            record: its image and split say which.
            what: is looked for, for messages.

        Raises:
            UserError: the folder is missing, holds no raster or two of one stem; it has none for this image, or it is
                that of another image already.
        """
        folder = self._folder.replace("{split}", record.split)
        if folder not in self._files:
            from mmovseg.data.prepare.sources import index_by_stem  # its package imports torch: seconds

            self._files[folder] = index_by_stem(folder)
        found = self._files[folder].get(Path(record.image).stem)
        if found is None:
            raise UserError(f"'{folder}' has no {what} of '{record.image}'")
        other = self._taken.setdefault(found, record.image)
        if other != record.image:
            raise UserError(
                f"'{other}' and '{record.image}' would both get '{found}': name the folder of each split, with "
                f"{{split}} in {self._option}"
            )
        return found
