"""From a question asked on the page to everything that the page shows: no Gradio here."""

from __future__ import annotations

import re
import shutil
import tempfile
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import rasterio

from mmovseg.checkpoint.contract import contract_from_dict
from mmovseg.data.sample import Modality
from mmovseg.data.sar import SarUnit
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.errors import UserError
from mmovseg.inference.area import class_areas
from mmovseg.inference.grid import Grid
from mmovseg.inference.predictor import Predictor
from mmovseg.inference.scene.options import SceneOptions
from mmovseg.inference.scene.rasters import SceneInputs, ScenePair
from mmovseg.inference.scene.run import check_prompts, predict_scene
from mmovseg.visualization.draw import optical_to_rgb, sar_to_rgb
from mmovseg.web.samples import Gallery, Sample
from mmovseg.web.uploads import ROLE_NAMES, Role, UploadLimits, shorten, take_upload
from mmovseg.web.views import Share, enlarge, prediction_views, shrink_labels, view_shape

MAP_NAME = "map.tif"
MAX_CLASSES = 40
MAX_TEXT = 2000
_KEPT_MAPS = 20  # whoever serves them has taken a copy by then


@dataclass(frozen=True)
class UploadedPair:
    """Two files as they arrived, and what the user says of them; None = not given, or as the model wants it.

    optical, sar: paths. sar_unit: of the SAR values. optical_bands, sar_bands: 1-based. optical_range: values that
    become black and white. override_contract: go on where values do not look like what the model was trained on.
    """

    optical: str | None = None
    sar: str | None = None
    sar_unit: SarUnit | None = None
    optical_bands: tuple[int, ...] | None = None
    optical_range: tuple[float, float] | None = None
    sar_bands: tuple[int, ...] | None = None
    override_contract: bool = False


@dataclass(frozen=True)
class Answer:
    """What the page shows.

    optical, sar, overlay, prediction: (H, W, 3) uint8, `optical` and `sar` None where there is none. vocabulary,
    shares: of the legend. facts: one line about the map. map_path: the GeoTIFF to download.
    """

    optical: np.ndarray | None
    sar: np.ndarray | None
    overlay: np.ndarray
    prediction: np.ndarray
    vocabulary: Vocabulary
    shares: list[Share]
    facts: str
    map_path: Path


class MapMaker:
    """Answers questions with one model, one at a time.

    Args:
        predictor: the model.
        folder: gets the maps to download, each in a folder of its own; emptied by whoever made it.
        limits: of uploads.
        gallery: scenes to choose from; None makes the default one.
    """

    def __init__(
        self, predictor: Predictor, *, folder: Path, limits: UploadLimits | None = None, gallery: Gallery | None = None
    ) -> None:
        self.predictor = predictor
        self.folder = folder
        self.limits = limits if limits is not None else UploadLimits()
        self.gallery = gallery if gallery is not None else Gallery()
        self._lock = threading.Lock()
        self._maps: deque[Path] = deque()

    def ask_for(self, names: str) -> Vocabulary:
        """Return the classes that somebody typed.

        Raises:
            UserError: fewer than two, an empty or doubled one, or too many.
        """
        if len(names) > MAX_TEXT:
            raise UserError(f"the class names have {len(names)} letters; this page takes {MAX_TEXT}")
        lines = re.sub(r",?\s*\n\s*,?", ",", names.strip())  # a line end parts names as a comma does
        words = [" ".join(word.split()) for word in lines.split(",")]
        while words and not words[-1]:
            words.pop()
        if len(words) > MAX_CLASSES:
            raise UserError(f"there are {len(words)} class names; this page takes {MAX_CLASSES}")
        try:
            return check_prompts(self.predictor, words)
        except UserError as error:
            raise UserError(str(error).replace("vocabulary '--prompts'", "the list of classes")) from error

    def map_sample(self, index: int, cover_percent: float, names: str, modality: Modality) -> Answer:
        """Map a MiniEarth scene under a cloud.

        Args:
            index: of the gallery's scene. cover_percent: 0..100.
            names: class names, separated by commas.
            modality: ``optical`` or ``sar`` withholds the other image from the model; both are shown.

        Raises:
            UserError: the question cannot be answered; the sentence says why.
        """
        vocabulary = self.ask_for(names)
        sample = self.gallery.sample(index, cover_percent)
        path = self._new_folder() / MAP_NAME
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="sample-") as private:
            inputs = write_sample(sample, Path(private), sar_unit=self.predictor.sar_unit)
            # a cloud over everything is what this page shows, not a raster that does not fit
            seconds = self._predict(inputs, vocabulary, path, modality, override_contract=True)
        with rasterio.open(path) as source:
            labels = source.read(1)
        shares = _shares(labels, sample.grid, vocabulary)
        shares = [
            replace(share, truth=sample.truth(name)) for share, name in zip(shares, vocabulary.names, strict=True)
        ]
        sar_view = sar_to_rgb(sample.sar, unit=self.predictor.sar_unit)
        base = sar_view if modality == "sar" else sample.optical
        facts = f"{sample.title}; clouds hide {100 * sample.cover:.0f} % of the optical image; "
        facts += _spell_facts(sample.grid, _SEEN_BY[modality], seconds)
        over, plain = prediction_views(base, labels, vocabulary)
        optical, sar, over, plain = (enlarge(view) for view in (sample.optical, sar_view, over, plain))
        return Answer(optical, sar, over, plain, vocabulary, shares, facts, path)

    def map_upload(self, pair: UploadedPair, names: str, modality: Modality) -> Answer:
        """Map what somebody uploaded, on the grid of the optical raster, or of SAR where there is no other.

        Raises:
            UserError: a file is refused, or the question cannot be answered; the sentence says why.
        """
        vocabulary = self.ask_for(names)
        folder = self._new_folder()
        with tempfile.TemporaryDirectory(dir=self.folder, prefix="upload-") as private:
            inputs = self._take(pair, Path(private), modality)
            try:
                seconds = self._predict(
                    inputs, vocabulary, folder / MAP_NAME, modality, override_contract=pair.override_contract
                )
                answer = self._show_upload(inputs, vocabulary, modality, folder / MAP_NAME, seconds)
                return replace(answer, facts=_spell_for_page(answer.facts, pair, Path(private)))
            except UserError as error:
                raise UserError(_spell_for_page(str(error), pair, Path(private))) from error

    def _predict(
        self, inputs: SceneInputs, vocabulary: Vocabulary, path: Path, modality: Modality, *, override_contract: bool
    ) -> float:
        """Map a scene, one at a time, window by window as the model was trained; return the seconds."""
        options = SceneOptions(
            modality=modality, override_contract=override_contract, overwrite=True, show_progress=False
        )
        with self._lock:
            start = time.perf_counter()
            predict_scene(self.predictor, inputs, vocabulary, path, options=options)
            return time.perf_counter() - start

    def _take(self, pair: UploadedPair, private: Path, modality: Modality) -> SceneInputs:
        given: dict[Role, str | None] = {"optical": pair.optical, "sar": pair.sar}
        if not any(given.values()):
            raise UserError("there is no raster yet; upload an optical one, a SAR one, or both")
        wanted = [role for role in given if modality in ("both", role)]
        if not any(given[role] for role in wanted):
            raise UserError(f"the model shall see {ROLE_NAMES[wanted[0]]} only, but no such raster is uploaded")
        taken = {
            role: str(take_upload(path, role=role, folder=private, limits=self.limits))
            for role, path in given.items()
            if path
        }
        return SceneInputs(
            optical=taken.get("optical"),
            sar=taken.get("sar"),
            sar_unit=pair.sar_unit,
            optical_bands=pair.optical_bands,
            optical_range=pair.optical_range,
            sar_bands=pair.sar_bands,
        )

    def _show_upload(
        self, inputs: SceneInputs, vocabulary: Vocabulary, modality: Modality, path: Path, seconds: float
    ) -> Answer:
        contract = getattr(self.predictor.model, "input_contract", None)
        contract = contract_from_dict(contract) if contract else None
        with ScenePair(inputs, contract=contract, modality="both", override_contract=True) as pair:
            grid = pair.grid
            shape = view_shape(grid.height, grid.width)
            seen = pair.read(0, 0, grid.height, grid.width, out_shape=shape)
            notes = pair.warnings
        with rasterio.open(path) as source:
            labels = source.read(1)
        optical = None if seen.optical is None else optical_to_rgb(seen.optical, seen.optical_valid)
        sar = None if seen.sar is None else sar_to_rgb(seen.sar, seen.sar_valid, unit=self.predictor.sar_unit)
        base = sar if optical is None or (modality == "sar" and sar is not None) else optical
        assert base is not None
        over, plain = prediction_views(base, shrink_labels(labels), vocabulary)
        roles = [role for role, view in (("optical", optical), ("sar", sar)) if view is not None]
        seen_by = modality if modality != "both" and modality in roles else "both" if len(roles) == 2 else roles[0]
        facts = f"Your raster; {_spell_facts(grid, _SEEN_BY[seen_by], seconds)}"
        facts += "".join(f" Note: {sentence}." for sentence in notes)
        return Answer(
            optical=None if optical is None else enlarge(optical),
            sar=None if sar is None else enlarge(sar),
            overlay=enlarge(over),
            prediction=enlarge(plain),
            vocabulary=vocabulary,
            shares=_shares(labels, grid, vocabulary),
            facts=facts,
            map_path=path,
        )

    def _new_folder(self) -> Path:
        """Return a folder for one map, and remove those of maps that were handed out long ago."""
        folder = Path(tempfile.mkdtemp(dir=self.folder, prefix="map-"))
        self._maps.append(folder)
        while len(self._maps) > _KEPT_MAPS:
            shutil.rmtree(self._maps.popleft(), ignore_errors=True)
        return folder


def write_sample(sample: Sample, folder: Path, *, sar_unit: SarUnit) -> SceneInputs:
    """Write the rasters of a scene of the gallery as GeoTIFFs on its grid."""
    grid = sample.grid
    paths = {name: str(folder / f"{name}.tif") for name in ("optical", "sar")}
    for name, pixels in (("optical", sample.optical), ("sar", sample.sar)):
        profile = {"driver": "GTiff", "height": grid.height, "width": grid.width, "count": pixels.shape[2]}
        profile |= {"dtype": pixels.dtype, "crs": grid.crs, "transform": grid.transform}
        with rasterio.open(paths[name], "w", **profile) as target:
            target.write(np.ascontiguousarray(pixels.transpose(2, 0, 1)))
    return SceneInputs(optical=paths["optical"], sar=paths["sar"], sar_unit=sar_unit)


_SEEN_BY: dict[str, str] = {
    "both": "the model saw both images",
    "optical": "the model saw the optical image only",
    "sar": "the model saw the SAR image only",
}


def _shares(labels: np.ndarray, grid: Grid, vocabulary: Vocabulary) -> list[Share]:
    """Count pixels of each class; hectares are None where the grid does not say how large a pixel is."""
    counts = np.bincount(labels.ravel(), minlength=len(vocabulary))[: len(vocabulary)]
    try:
        areas = class_areas(labels, crs=grid.crs, transform=grid.transform)
    except UserError:  # no coordinate system, or one without areas: the map is shown all the same
        return [Share(int(count)) for count in counts]
    return [Share(int(count), areas.get(value, 0.0)) for value, count in enumerate(counts)]


def _spell_facts(grid: Grid, seen_by: str, seconds: float) -> str:
    place = f"{grid.crs.to_string()}" if grid.crs else "no coordinate system"
    return f"{grid.width} x {grid.height} pixels, {place}; {seen_by}; {seconds:.1f} s."


_FIELDS = {
    "--sar-unit": "SAR unit",
    "--sar-bands": "SAR bands",
    "--optical-bands": "optical bands",
    "--optical-range": "optical range",
    "optical_range=": "optical range ",
    "bands=": "optical bands ",
    "--override-contract": "'Map it all the same'",
}


def _spell_for_page(sentence: str, pair: UploadedPair, private: Path) -> str:
    """Say in words of the page what a sentence says in words of the command line, and name files as the user does."""
    names = (("optical", pair.optical), ("sar", pair.sar))
    for role, given in names:
        shown = shorten(Path(given).name) if given else role
        sentence = sentence.replace(str(private / f"{role}.tif"), shown)
    for option, field in _FIELDS.items():
        sentence = sentence.replace(option, field)
    return sentence.replace(f"{private}/", "")
