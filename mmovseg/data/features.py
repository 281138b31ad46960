"""Features of a frozen teacher on disk: what they were made from, how they are read, and a mapper that adds them.

A frozen encoder says the same of the same pixels, so where training shows an image in a limited number of ways
(`OpticalSARMapper(views=K)`), the encoder needs to run once an image and view. `mmovseg.engine.features` writes a
folder of plain NumPy files (no pickles) that this module reads::

    index.json         what the features were made from, and the names of the images; there only when all is written
    block4.npy         (images * views, C, h, w) float16 or float32, one file a level; row = image * views + view
    block4_global.npy  (images * views, C), class tokens, if the teacher has one
    valid.npy          (images * views, bytes) uint8, one bit a pixel of the view: whether it is data
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from detectron2.data.transforms import Augmentation

from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.sample import ModelInput
from mmovseg.errors import UserError

INDEX_FILE = "index.json"
UNFINISHED_FILE = "unfinished.json"
FORMAT_VERSION = 1
VALID = "valid"

_PATHS = ("file_name", "before_file_name")
_FACTS = ("height", "width", "window", "world", "source")
# Options of readers that decide nothing about the optical raster.
_NOT_OPTICAL = ("sar_", "amplitude8_top_db", "label_map", "cache")


def image_name(dataset_dict: Mapping[str, Any]) -> str:
    """Return what an image is called in a feature store: its id."""
    return str(dataset_dict.get("image_id", dataset_dict.get("file_name", "")))


def image_facts(dataset_dict: Mapping[str, Any]) -> list[Any]:
    """Return what tells two optical images of one name apart without reading them: a digest, and bytes on disk.

    The digest is of size, window, generating facts and the name of the file, but not of its folder, since data sets
    move. Bytes are None when there is no such file, so that pairs train from features and SAR alone.
    """
    facts = {key: dataset_dict[key] for key in _FACTS if key in dataset_dict}
    facts |= {key: Path(dataset_dict[key]).name for key in _PATHS if key in dataset_dict}
    digest = hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()[:16]
    path = Path(str(dataset_dict.get("file_name", "")))
    try:
        return [digest, path.stat().st_size]
    except OSError:
        return [digest, None]


def describe_view(mapper: OpticalSARMapper, view_key: str) -> dict[str, Any]:
    """Return, json-able, every option of a mapper that decides the pixels of a view of an image.

    Args:
        mapper: with `views`.
        view_key: key of the model input that the teacher reads, ``image_clear`` or ``image``.

    Raises:
        UserError: the view depends on the draw, so that its features cannot be kept.
    """
    if mapper.views is None:
        raise UserError(
            "features can be kept only of a mapper that limits the views of an image: set its 'views', for example "
            "views=1 without geometry, or views=8"
        )
    if view_key == "image" and mapper.clouds is not None:
        raise UserError(
            "the teacher reads 'image', whose clouds are drawn anew each time, so its features cannot be kept; set the "
            "mapper's clouds to null, or the teacher_view to image_clear"
        )
    return {
        "seed": mapper.seed,
        "geometry": [_describe(augmentation) for augmentation in mapper.geometry],
        "canvas_px": mapper.canvas_px,
        "optical_photometric": _describe(mapper.optical_photometric),
        "reader": _describe(mapper.reader),
    }


def _describe(value: Any) -> Any:
    """Return an object as its class and options, json-able."""
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic):
        return _describe(value.tolist())
    if isinstance(value, Mapping):
        return {str(key): _describe(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_describe(item) for item in value]
    if isinstance(value, type) or not hasattr(value, "__dict__") or hasattr(value, "__qualname__"):
        return getattr(value, "__qualname__", type(value).__qualname__)
    # A reader may keep what it has read in private attributes. An augmentation has nothing but its options, and the
    # names of its arguments, which detectron2 notes down on the first call.
    left_out = ("input_args",) if isinstance(value, Augmentation) else ("_", *_NOT_OPTICAL)
    options = {key: _describe(item) for key, item in sorted(vars(value).items()) if not key.startswith(left_out)}
    return {"class": type(value).__qualname__, **options}


def first_difference(stored: Any, given: Any, where: str = "") -> str | None:
    """Return "where is A, not B" for the first place where two json-able values differ, None if they are equal."""
    if isinstance(stored, dict) and isinstance(given, dict):
        for key in sorted({*stored, *given}):
            found = first_difference(stored.get(key), given.get(key), f"{where}.{key}" if where else str(key))
            if found:
                return found
        return None
    if isinstance(stored, list) and isinstance(given, list) and len(stored) == len(given):
        for number, pair in enumerate(zip(stored, given, strict=True)):
            found = first_difference(*pair, f"{where}[{number}]")
            if found:
                return found
        return None
    if isinstance(stored, list) and isinstance(given, list):
        return f"{where} has {len(stored)} entries, not {len(given)}"
    return None if stored == given else f"{where} is {_shorten(stored)}, not {_shorten(given)}"


def _shorten(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 100 else f"{text[:97]}..."


class FeatureStore:
    """Read a folder of finished features.

    Args:
        folder: see the module.

    Raises:
        UserError: missing, unfinished, of another format, or files that do not fit the index.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        self.index = _read_index(self.folder)
        self.views: int = self.index["views"]
        self.teacher_sha256: str = self.index["teacher"]["sha256"]
        self.levels: dict[str, list[int]] = self.index["levels"]
        self.globals: dict[str, list[int]] = self.index["globals"]
        self._rows = {name: number for number, name in enumerate(self.index["images"])}
        self._arrays: dict[str, np.ndarray] = {}
        for name in row_shapes(self.index):
            self._array(name)

    def __len__(self) -> int:
        """Return the number of images."""
        return len(self._rows)

    def __getstate__(self) -> dict[str, Any]:
        # A memory map would be pickled as all of its content.
        return {**self.__dict__, "_arrays": {}}

    def read(self, dataset_dict: Mapping[str, Any], view: int) -> tuple[dict[str, Any], torch.Tensor]:
        """Return the features of one view of an image.

        Args:
            dataset_dict: names the image.
            view: which, from 0.

        Returns:
            A map (C, h, w) a level, and ``global`` with one (C,) a level if the teacher has class tokens; and the mask
            (H, W) bool of the view's pixels.

        Raises:
            UserError: no such image or view, or it is another image of the same name.
        """
        name = image_name(dataset_dict)
        if name not in self._rows:
            raise UserError(f"features '{self.folder}' lack the image '{name}' (they hold {len(self)} images)")
        if not 0 <= view < self.views:
            raise UserError(f"features '{self.folder}' hold {self.views} views of an image, not view {view}")
        row = self._rows[name]
        self._check_image(name, self.index["facts"][row], image_facts(dataset_dict))
        row = row * self.views + view
        features: dict[str, Any] = {level: self._tensor(level, row) for level in self.levels}
        if self.globals:
            features["global"] = {level: self._tensor(f"{level}_global", row) for level in self.globals}
        height, width = self.index["image_size"]
        bits = np.unpackbits(self._array(VALID)[row], count=height * width)
        return features, torch.from_numpy(bits.astype(bool).reshape(height, width))

    def _check_image(self, name: str, stored: list[Any], given: list[Any]) -> None:
        digest, size = stored
        if digest != given[0]:
            raise UserError(
                f"features '{self.folder}' are of another image named '{name}': its size, window, file name or world "
                "is not the same"
            )
        if None not in (size, given[1]) and size != given[1]:
            raise UserError(
                f"the optical raster of '{name}' has {given[1]} bytes, but had {size} when its features were made in "
                f"'{self.folder}'"
            )

    def _tensor(self, name: str, row: int) -> torch.Tensor:
        return torch.from_numpy(np.array(self._array(name)[row]))

    def _array(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            path = self.folder / f"{name}.npy"
            try:
                array = np.load(path, mmap_mode="r", allow_pickle=False)
            except (OSError, ValueError) as error:
                raise UserError(f"feature file '{path}' is missing, cut off or no NumPy file") from error
            shape, dtype = row_shapes(self.index)[name]
            wanted = (len(self) * self.views, *shape)
            if array.shape != wanted or array.dtype != dtype:
                raise UserError(
                    f"feature file '{path}' holds {array.dtype} {array.shape}, but its index says {dtype} {wanted}"
                )
            self._arrays[name] = array
        return self._arrays[name]


def row_shapes(index: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], np.dtype]]:
    """Return for every file of a store, by stem, the shape and type of one row."""
    dtype = np.dtype(index["dtype"])
    height, width = index["image_size"]
    shapes = {level: (tuple(shape), dtype) for level, shape in index["levels"].items()}
    shapes |= {f"{level}_global": (tuple(shape), dtype) for level, shape in index["globals"].items()}
    return {**shapes, VALID: ((-(-height * width // 8),), np.dtype(np.uint8))}


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX_FILE
    if not path.is_file() and (folder / UNFINISHED_FILE).is_file():
        raise UserError(f"features '{folder}' are unfinished: run the command that began them again, it goes on")
    if not path.is_file():
        raise UserError(f"'{folder}' holds no features: there is no '{INDEX_FILE}' (tools/precompute_features.py)")
    index = read_json(path)
    if index.get("format") != FORMAT_VERSION:
        raise UserError(f"features '{folder}' are of format {index.get('format')}, this version reads {FORMAT_VERSION}")
    return index


def read_json(path: Path) -> dict[str, Any]:
    """Read one of a store's JSON files. Raises `UserError` when it is none."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UserError(f"file '{path}' cannot be read as JSON") from error
    if not isinstance(content, dict):
        raise UserError(f"file '{path}' holds no JSON object")
    return cast(dict[str, Any], content)


class FeatureMapper:
    """Add `teacher_features` from disk to what a mapper yields, and leave out what only the teacher would look at.

    Also added are `teacher_sha256` and, where no optical raster is read, its mask `valid`, so that the same patches
    count as with the teacher running.

    Args:
        mapper: for training, with `views`. Its data set, seed, geometry, optical jitter and reader must be those that
            the features were made with; it may show fewer views than there are. Clouds, SAR options and modality are
            free.
        features: folder of a finished store.
        skip_optical: with modality ``both``, do not read the optical rasters; they may then be missing. False if the
            student reads optical images too.

    Raises:
        UserError: the store is unusable, or was made with something else.
    """

    def __init__(self, mapper: OpticalSARMapper, *, features: str | Path, skip_optical: bool = True) -> None:
        self.store = FeatureStore(features)
        index = self.store.index
        found = first_difference(index["mapper"], describe_view(mapper, index["teacher"]["view"]))
        if found:
            raise UserError(f"features '{features}' were made with another mapper: {found}")
        assert mapper.views is not None
        if mapper.views > self.store.views:
            raise UserError(
                f"features '{features}' hold {self.store.views} views of an image, but the mapper has views "
                f"{mapper.views}"
            )
        self.mapper = copy.copy(mapper)
        self.mapper.with_clear = False
        if skip_optical and mapper.modality == "both":
            self.mapper.modality = "sar"
        # What tools ask a mapper for.
        self.is_train, self.vocabulary, self.asked, self.reader = (
            mapper.is_train,
            mapper.vocabulary,
            mapper.asked,
            mapper.reader,
        )

    def __call__(self, dataset_dict: dict[str, Any]) -> ModelInput:
        """Map one sample. Raises `UserError` as the mapper and `FeatureStore.read` do."""
        item = self.mapper(dataset_dict)
        features, valid = self.store.read(dataset_dict, item["view"])
        item["teacher_features"] = features
        item["teacher_sha256"] = self.store.teacher_sha256
        if "valid" not in item and self.mapper.canvas_px is None:
            item["valid"] = valid
        return item
