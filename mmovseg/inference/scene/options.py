"""What a user can choose about the map of a scene."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from mmovseg.data.sample import MODALITIES, Modality
from mmovseg.errors import UserError
from mmovseg.inference.scene.tiling import ANCHORS, Anchor

CloudPolicy = Literal["keep", "withhold"]
CLOUD_POLICIES: tuple[CloudPolicy, ...] = get_args(CloudPolicy)
Precision = Literal["auto", "float32", "bfloat16", "float16"]
MAP_SUFFIXES = (".tif", ".tiff")
PRECISIONS: tuple[Precision, ...] = get_args(Precision)
GDAL_NAME = re.compile(r"/vsi|\w{2,}:", re.ASCII)
"""What GDAL reads by itself: virtual paths, addresses (``https://``), and parts of files (``NETCDF:"a.nc":vv``)."""


@dataclass(frozen=True)
class SceneOptions:
    """Choices about one map.

    tile: side of a window as the model sees it, pixels; None = the size it was trained with, or `plan.DEFAULT_TILE`.
    overlap: of two neighbours, share of the tile, 0..0.5. On three MiniEarth scenes of 640 px under clouds the shipped
        model scored 63.5 mIoU without overlap, 65.4 with 1/8, 65.2 with 1/4, 65.6 with 1/2 (tools/predict_scene.py's
        windows, tile 64): an eighth gives nearly all and costs a third more windows.
    margin: network pixels at an inner edge of a window that are not used. 0: a transformer sees its whole window from
        every place, so its answers get no worse towards the edge in a way that a margin would mend. A convolutional
        model whose view is no wider than the margin gives the same map however it is cut.
    batch: windows predicted together; None = about `plan.BATCH_PIXELS`.
    gsd: metres per pixel that the model is to see; None = the nearest that its input contract names.
    anchor: of the lattice of windows, see `mmovseg.inference.scene.tiling.lattice_phase`.
    confidence, probabilities, quality: further rasters to write. A cloud mask asks for quality too.
    polygons: path of a .gpkg or .geojson, or None. min_area_m2: smaller polygons are left out. simplify_m: tolerance.
    picture: path of a .png that shows rasters and map at a glance, or None.
    clouds: what the model is shown under a cloud mask: ``keep`` the clouded pixels, which it was trained to read, or
        ``withhold`` them, so that SAR alone decides there.
    precision: of the forward pass; ``auto`` = float32.
    override_contract: go on where values do not look like what the model was trained on; the map is tagged.
    overwrite: replace a map that is there. restart: throw away what an interrupted run has left.
    dry_run: only say what would be done.
    """

    tile: int | None = None
    overlap: float = 0.125
    margin: int = 0
    batch: int | None = None
    gsd: float | None = None
    anchor: Anchor = "map"
    confidence: bool = False
    probabilities: bool = False
    quality: bool = False
    polygons: str | None = None
    min_area_m2: float = 0.0
    simplify_m: float = 0.0
    picture: str | None = None
    clouds: CloudPolicy = "keep"
    modality: Modality = "both"
    precision: Precision = "auto"
    override_contract: bool = False
    overwrite: bool = False
    restart: bool = False
    dry_run: bool = False
    show_progress: bool = True

    def __post_init__(self) -> None:
        for name, least in (("tile", 8), ("batch", 1), ("margin", 0)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise UserError(f"--{name} is {value}, it must be at least {least}")
        if not 0 <= self.overlap <= 0.5:
            raise UserError(f"--overlap is {self.overlap:g}, it must lie in 0..0.5 (a share of the tile)")
        if self.gsd is not None and not (math.isfinite(self.gsd) and self.gsd > 0):
            raise UserError(f"--gsd is {self.gsd:g}, it must be a positive number of metres per pixel")
        for name, number in (("min-area", self.min_area_m2), ("simplify", self.simplify_m)):
            if not (math.isfinite(number) and number >= 0):
                raise UserError(f"--{name} is {number:g}, it must be a number from 0 up")
            if number and not self.polygons:
                raise UserError(f"--{name} is for polygons; name their file with --polygons")
        choices: tuple[tuple[str, tuple[str, ...]], ...] = (
            ("clouds", CLOUD_POLICIES),
            ("precision", PRECISIONS),
            ("anchor", ANCHORS),
            ("modality", MODALITIES),
        )
        for name, known in choices:
            if getattr(self, name) not in known:
                raise UserError(f"--{name} is '{getattr(self, name)}', it must be one of {', '.join(known)}")
