"""Bad options, prompts, models, outputs and lists, with rasters that are good."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from mmovseg.testing.malformed import OUTPUT, SAR, BadCase, Maker, read, rewrite, write

_LONG_NAME = "a" * 300
_SAR_ONLY = {"--optical": None}
_OPTICAL_ONLY = {"--sar": None}


def _file(name: str, content: bytes | str) -> Maker:
    data = content.encode() if isinstance(content, str) else content
    return lambda folder: _put(folder / name, data)


def _put(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)


def _pipe(name: str) -> Maker:
    return lambda folder: os.mkfifo(folder / name)


def _folder(name: str) -> Maker:
    return lambda folder: (folder / name).mkdir()


def _link(name: str, target: str) -> Maker:
    return lambda folder: (folder / name).symlink_to(folder / target)


# --- options


_OPTIONS: list[tuple[str, tuple[str, ...], str]] = [
    ("--tile", ("0",), "--tile"),
    ("--tile", ("-1",), "--tile"),
    ("--tile", ("3",), "--tile"),
    ("--tile", ("64.5",), "--tile"),
    ("--tile", ("many",), "--tile"),
    ("--tile", ("99999999999999999999",), "--tile"),
    ("--tile", (), "--tile"),
    ("--overlap", ("1.5",), "--overlap"),
    ("--overlap", ("1",), "--overlap"),
    ("--overlap", ("-0.1",), "--overlap"),
    ("--overlap", ("nan",), "--overlap"),
    ("--overlap", ("half",), "--overlap"),
    ("--margin", ("-1",), "--margin"),
    ("--margin", ("1.5",), "--margin"),
    ("--margin", ("40",), "margin"),
    ("--batch", ("0",), "--batch"),
    ("--batch", ("-4",), "--batch"),
    ("--batch", ("1e3",), "--batch"),
    ("--gsd", ("0",), "--gsd"),
    ("--gsd", ("-2.5",), "--gsd"),
    ("--gsd", ("nan",), "--gsd"),
    ("--gsd", ("inf",), "--gsd"),
    ("--gsd", ("1e9",), "gsd"),
    ("--gsd", ("1e-9",), "gsd"),
    ("--anchor", ("sea",), "--anchor"),
    ("--threads", ("-1",), "--threads"),
    ("--threads", ("0",), "--threads"),
    ("--threads", ("two",), "--threads"),
    ("--device", ("tpu",), "tpu"),
    ("--device", ("cuda:99",), "cuda:99"),
    ("--device", ("cpu:x",), "cpu:x"),
    ("--device", ("",), "--device"),
    ("--precision", ("float8",), "--precision"),
    ("--precision", ("",), "--precision"),
    ("--modality", ("lidar",), "--modality"),
    ("--clouds", ("remove",), "--clouds"),
    ("--min-area", ("100",), "--polygons"),
    ("--simplify", ("5",), "--polygons"),
    ("--optical-bands", ("0", "1", "2"), "--optical-bands"),
    ("--optical-bands", ("-1", "2", "3"), "--optical-bands"),
    ("--optical-bands", ("1", "2", "99"), "99"),
    ("--optical-bands", ("1", "2"), "optical"),
    ("--optical-bands", ("1", "1", "2"), "--optical-bands"),
    ("--optical-bands", ("red", "green", "blue"), "--optical-bands"),
    ("--optical-bands", (), "--optical-bands"),
    ("--optical-range", ("255", "0"), "--optical-range"),
    ("--optical-range", ("7", "7"), "--optical-range"),
    ("--optical-range", ("nan", "255"), "--optical-range"),
    ("--optical-range", ("0", "inf"), "--optical-range"),
    ("--optical-range", ("0",), "--optical-range"),
    ("--optical-range", ("1e9", "2e9"), "optical.tif"),
    ("--optical-nodata", ("none",), "--optical-nodata"),
    ("--optical-resampling", ("magic",), "--optical-resampling"),
    ("--sar-bands", ("0", "1"), "--sar-bands"),
    ("--sar-bands", ("-1",), "--sar-bands"),
    ("--sar-bands", ("1", "99"), "99"),
    ("--sar-bands", ("VV", "VH"), "--sar-bands"),
    ("--sar-unit", ("decibel",), "--sar-unit"),
    ("--sar-unit", ("linear",), "sar.tif"),
    ("--sar-unit", ("amplitude8",), "sar.tif"),
    ("--sar-nodata", ("",), "--sar-nodata"),
    ("--output-dir", ("{folder}",), "--output-dir"),
    ("--sar-asset", ("vv",), "--sar-asset"),
    ("--frobnicate", ("1",), "--frobnicate"),
    ("--opt", ("x.tif",), "--opt"),
]

_COMBINED: list[tuple[str, str, Mapping[str, Sequence[str] | None]]] = [
    ("no raster at all", "--optical", {"--optical": None, "--sar": None}),
    ("SAR asked for and not given", "--sar", {"--sar": None, "--modality": ("sar",)}),
    ("optical asked for and not given", "--optical", {"--optical": None, "--modality": ("optical",)}),
    ("a cloud mask without an optical raster", "--cloud-mask", {**_SAR_ONLY, "--cloud-mask": ("{folder}/clouds.tif",)}),
    ("bands of a raster that is not given", "--sar-bands", {**_OPTICAL_ONLY, "--sar-bands": ("1", "2")}),
    ("a range of a raster that is not given", "--optical-range", {**_SAR_ONLY, "--optical-range": ("0", "1")}),
    (
        "the rasters swapped",
        "sar.tif",
        {"--optical": ("{folder}/sar.tif",), "--sar": ("{folder}/optical.tif",)},
    ),
    ("the optical raster as SAR", "optical.tif", {"--sar": ("{folder}/optical.tif",)}),
    ("a tile no larger than twice the margin", "margin", {"--tile": ("64",), "--margin": ("32",)}),
    ("min-area negative", "--min-area", {"--polygons": ("{folder}/a.gpkg",), "--min-area": ("-1",)}),
    ("min-area infinite", "--min-area", {"--polygons": ("{folder}/a.gpkg",), "--min-area": ("inf",)}),
    ("simplify NaN", "--simplify", {"--polygons": ("{folder}/a.gpkg",), "--simplify": ("nan",)}),
    ("simplify negative", "--simplify", {"--polygons": ("{folder}/a.gpkg",), "--simplify": ("-2",)}),
    ("no output", "--output", {"--output": None}),
    ("no prompts", "--prompts", {"--prompts": None}),
    ("an empty path", "--optical", {"--optical": ("",)}),
    ("a path with a line end", "\\n", {"--optical": ("{folder}/two\nlines.tif",)}),
    ("a path that is no UTF-8", "\\udcff", {"--sar": (os.fsdecode(b"{folder}/\xff\xfe.tif"),)}),
    ("a path with a NUL", "\\x00", {"--sar": ("{folder}/a\0b.tif",)}),
    ("a path of 5000 characters", "--sar", {"--sar": ("{folder}/" + "d/" * 2500 + "a.tif",)}),
    ("an unknown GDAL path", "/vsinothing/", {"--sar": ("/vsinothing/a.tif",)}),
    ("a file inside a missing archive", "gone.zip", {"--sar": ("/vsizip/{folder}/gone.zip/a.tif",)}),
    ("a GDAL subdataset of nothing", "NETCDF", {"--sar": ('NETCDF:"{folder}/gone.nc":vv',)}),
]


# --- prompts


_PROMPTS: list[tuple[str, str, str, Maker | None]] = [
    ("empty", "", "--prompts", None),
    ("blank", "   ", "--prompts", None),
    ("a comma", ",", "--prompts", None),
    ("an empty name", "water,,road", "position 2", None),
    ("a single name, which would win everywhere", "water", "water", None),
    ("a trailing comma", "water, road,", "position 3", None),
    ("a doubled name", "water, road, water", "water", None),
    ("a name doubled but for case", "water, Water", "water", None),
    ("a name of 300 characters", f"water, {_LONG_NAME}", "300", None),
    ("a control character", "water, ro\x07ad", "x07", None),
    ("a line end", "water, ro\nad", "\\n", None),
    ("a missing list", "@{folder}/gone.txt", "gone.txt", None),
    ("no name of a list", "@", "--prompts", None),
    ("an empty list", "@{folder}/names.txt", "names.txt", _file("names.txt", "")),
    ("a list of comments", "@{folder}/names.txt", "names.txt", _file("names.txt", "# nothing\n\n")),
    ("a list with a doubled name", "@{folder}/names.txt", "road", _file("names.txt", "road\nwater\nroad\n")),
    ("a list of 300 characters", "@{folder}/names.txt", "names.txt", _file("names.txt", _LONG_NAME)),
    ("a list that is no text", "@{folder}/names.txt", "names.txt", _file("names.txt", b"\xff\xfe\x00\x01water")),
    ("a list that is a folder", "@{folder}/names.txt", "names.txt", _folder("names.txt")),
    ("a list that is a pipe", "@{folder}/names.txt", "names.txt", _pipe("names.txt")),
    ("a list that is a raster", "@{folder}/sar.tif", "sar.tif", None),
    ("a missing vocabulary", "{folder}/gone.json", "gone.json", None),
    ("a vocabulary that is a pipe", "{folder}/v.json", "v.json", _pipe("v.json")),
    ("a vocabulary of half JSON", "{folder}/v.json", "v.json", _file("v.json", '{"classes": [')),
    ("a vocabulary of another shape", "{folder}/v.json", "v.json", _file("v.json", '["water"]')),
    ("a vocabulary without classes", "{folder}/v.json", "v.json", _file("v.json", '{"classes": []}')),
    ("a vocabulary without names", "{folder}/v.json", "v.json", _file("v.json", '{"classes": [{"id": 1}]}')),
    (
        "a vocabulary with a bad colour",
        "{folder}/v.json",
        "color",
        _file("v.json", '{"classes": [{"name": "water", "color": "blue"}]}'),
    ),
    ("a bottomless vocabulary", "{folder}/v.json", "v.json", _file("v.json", "[" * 100_000)),
]


# --- models


def _weights(keep: float) -> Maker:
    """Write a part of the shipped weights as `w.safetensors`."""

    def make(folder: Path) -> None:
        from mmovseg.weights import FOLDER

        content = (FOLDER / "mmovseg_xs.safetensors").read_bytes()
        _put(folder / "w.safetensors", content[: int(len(content) * keep)])

    return make


def _foreign_weights(folder: Path) -> None:
    from safetensors.numpy import save_file

    save_file({"layer.weight": np.zeros((4, 4), np.float32)}, folder / "w.safetensors")


def _pickled_weights(folder: Path) -> None:
    import torch

    torch.save({"model": torch.nn.Linear(1, 1)}, folder / "w.pth")


_HUGE_HEADER = struct.pack("<Q", 2**60) + b"{}"
_MODELS: list[tuple[str, str, Mapping[str, Sequence[str]], Maker | None]] = [
    ("weights missing", "gone.safetensors", {"--weights": ("{folder}/gone.safetensors",)}, None),
    ("weights empty", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _file("w.safetensors", b"")),
    ("weights text", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _file("w.safetensors", "no weights")),
    ("weights cut", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _weights(0.5)),
    ("weights cut in the header", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _weights(0.001)),
    ("weights huge", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _file("w.safetensors", _HUGE_HEADER)),
    ("weights foreign", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _foreign_weights),
    ("weights of another model", "clip_xs", {"--weights": ("shipped://clip_xs",)}, None),
    ("weights pickled", "w.pth", {"--weights": ("{folder}/w.pth",)}, _pickled_weights),
    ("weights a folder", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _folder("w.safetensors")),
    ("weights a pipe", "w.safetensors", {"--weights": ("{folder}/w.safetensors",)}, _pipe("w.safetensors")),
    ("weights a raster", SAR, {"--weights": ("{folder}/sar.tif",)}, None),
    ("weights not shipped", "no_such", {"--weights": ("shipped://no_such",)}, None),
    ("config missing", "gone.py", {"--config-file": ("{folder}/gone.py",)}, None),
    ("config misspelt", "mmovseg_sx.py", {"--config-file": ("miniearth/mmovseg_sx.py",)}, None),
    ("config without a model", "train.py", {"--config-file": ("common/train.py",)}, None),
    ("config without weights", "vitb16", {"--config-file": ("mmovseg/mmovseg_vitb16.py",)}, None),
    ("config no Python", "c.py", {"--config-file": ("{folder}/c.py",)}, _file("c.py", "model = (\n")),
    ("config that raises", "c.py", {"--config-file": ("{folder}/c.py",)}, _file("c.py", "1 / 0\n")),
    ("config no YAML", "c.yaml", {"--config-file": ("{folder}/c.yaml",)}, _file("c.yaml", "a: [1, 2\nb: }")),
    ("config a list", "c.yaml", {"--config-file": ("{folder}/c.yaml",)}, _file("c.yaml", "- 1\n- 2\n")),
    ("config a folder", "c.py", {"--config-file": ("{folder}/c.py",)}, _folder("c.py")),
    ("config a pipe", "c.py", {"--config-file": ("{folder}/c.py",)}, _pipe("c.py")),
    ("config a raster", SAR, {"--config-file": ("{folder}/sar.tif",)}, None),
]


# --- outputs


def _existing_map(folder: Path) -> None:
    write(folder / OUTPUT, np.zeros((4, 4, 1), np.uint8))


def _parts_of_another_run(folder: Path) -> None:
    _put(folder / f"{OUTPUT}.parts" / "plan.json", b'{"format": 1, "tile": 8}')
    _put(folder / f"{OUTPUT}.parts" / "lock", b"")


_OUTPUTS: list[tuple[str, str, Mapping[str, Sequence[str]], Maker | None]] = [
    ("another ending", "map.png", {"--output": ("{folder}/map.png",)}, None),
    ("no ending", "--output", {"--output": ("{folder}/map",)}, None),
    ("empty", "--output", {"--output": ("",)}, None),
    ("a folder", "out.tif", {"--output": ("{folder}/out.tif",)}, _folder("out.tif")),
    ("a pipe", "out.tif", {"--output": ("{folder}/out.tif",)}, _pipe("out.tif")),
    ("below a file", "sar.tif", {"--output": ("{folder}/sar.tif/map.tif",)}, None),
    ("far below a file", "sar.tif", {"--output": ("{folder}/sar.tif/a/b/map.tif",)}, None),
    ("below /proc", "/proc", {"--output": ("/proc/1/map.tif",)}, None),
    ("in a new folder of /proc", "/proc", {"--output": ("/proc/no_such/map.tif",)}, None),
    ("below /dev/null", "/dev/null", {"--output": ("/dev/null/map.tif",)}, None),
    ("a name too long", "--output", {"--output": ("{folder}/" + "m" * 300 + ".tif",)}, None),
    ("a NUL in the name", "--output", {"--output": ("{folder}/m\0.tif",)}, None),
    ("the optical raster", "--optical", {"--output": ("{folder}/optical.tif",)}, None),
    ("the SAR raster", "--sar", {"--output": ("{folder}/sar.tif",), "--overwrite": ()}, None),
    ("the SAR raster by another way", "--sar", {"--output": ("{folder}/../{name}/sar.tif",), "--overwrite": ()}, None),
    ("a link to the SAR raster", "--sar", {"--output": ("{folder}/l.tif",), "--overwrite": ()}, _link("l.tif", SAR)),
    (
        "the cloud mask",
        "--cloud-mask",
        {"--output": ("{folder}/clouds.tif",), "--cloud-mask": ("{folder}/clouds.tif",), "--overwrite": ()},
        None,
    ),
    ("there already", "map.tif", {}, _existing_map),
    ("there already, and no raster", "map.tif", {}, _file(OUTPUT, "dear diary")),
    ("parts that are a file", "map.tif.parts", {}, _file(f"{OUTPUT}.parts", "in the way")),
    ("parts of another run", "map.tif.parts", {}, _parts_of_another_run),
    ("polygons with another ending", "a.shp", {"--polygons": ("{folder}/a.shp",)}, None),
    ("polygons as the map", "a.tif", {"--polygons": ("{folder}/a.tif",)}, None),
    ("polygons that are a folder", "a.gpkg", {"--polygons": ("{folder}/a.gpkg",)}, _folder("a.gpkg")),
    ("polygons below a file", "sar.tif", {"--polygons": ("{folder}/sar.tif/a.gpkg",)}, None),
    ("polygons there already", "a.gpkg", {"--polygons": ("{folder}/a.gpkg",)}, _file("a.gpkg", "precious")),
    ("a picture with another ending", "a.webp", {"--picture": ("{folder}/a.webp",)}, None),
    ("a picture that is a folder", "a.png", {"--picture": ("{folder}/a.png",)}, _folder("a.png")),
    ("a picture below a file", "sar.tif", {"--picture": ("{folder}/sar.tif/a.png",)}, None),
    ("confidence there already", "confidence", {"--confidence": ()}, _file("map.confidence.tif", "precious")),
]


# --- lists of scenes


_ONE_SCENE = "optical,sar\noptical.tif,sar.tif\n"
_ITEM: dict[str, object] = {
    "type": "Feature",
    "stac_version": "1.0.0",
    "id": "a",
    "geometry": None,
    "properties": {},
    "links": [],
}


def _csv(text: str | bytes) -> Maker:
    return _file("list.csv", text)


def _json(content: object) -> Maker:
    return _file("list.json", json.dumps(content))


def _folder_pair(*names: str) -> Maker:
    def make(folder: Path) -> None:
        for name in names:
            _put(folder / "pairs" / name, (folder / SAR).read_bytes())

    return make


def _two_stems(folder: Path) -> None:
    values = read(folder / SAR)
    for name in ("optical/a.tif", "sar/b.tif"):
        (folder / "pairs" / name).parent.mkdir(parents=True)
        rewrite(folder / "pairs" / name, values)


_CSV, _JSON, _PAIRS = ("{folder}/list.csv",), ("{folder}/list.json",), ("{folder}/pairs",)
_LISTS: list[tuple[str, str, Sequence[str], Maker | None]] = [
    ("missing", "gone.csv", ("{folder}/gone.csv",), None),
    ("of an unknown kind", "list.xyz", ("{folder}/list.xyz",), _file("list.xyz", "?")),
    ("a pipe", "list.csv", _CSV, _pipe("list.csv")),
    ("an empty CSV", "list.csv", _CSV, _csv("")),
    ("a CSV with a header only", "list.csv", _CSV, _csv("optical,sar\n")),
    ("a CSV without the columns", "list.csv", _CSV, _csv("a,b\n1,2\n")),
    ("a CSV with an unknown column", "list.csv", _CSV, _csv("optical,sar,colour\noptical.tif,sar.tif,red\n")),
    ("a CSV with a row too long", "list.csv", _CSV, _csv("optical,sar\noptical.tif,sar.tif,x,y\n")),
    ("a CSV with an empty row", "list.csv", _CSV, _csv("optical,sar\n,\n")),
    ("a CSV that is no text", "list.csv", _CSV, _csv(b"\xff\xfe\x00optical")),
    ("a CSV with a NUL", "list.csv", _CSV, _csv(b"optical,sar\nopt\x00ical.tif,sar.tif\n")),
    ("a CSV with an unknown unit", "list.csv", _CSV, _csv("optical,sar,sar_unit\noptical.tif,sar.tif,decibel\n")),
    (
        "a CSV that names a map twice",
        "list.csv",
        _CSV,
        _csv("optical,sar,output\n" + "optical.tif,sar.tif,m.tif\n" * 2),
    ),
    ("half JSON", "list.json", _JSON, _file("list.json", '{"type": "FeatureCollection", "features": [')),
    ("bottomless JSON", "list.json", _JSON, _file("list.json", "[" * 100_000)),
    ("a JSON number", "list.json", _JSON, _json(7)),
    ("a JSON list of numbers", "list.json", _JSON, _json([1, 2])),
    ("a collection without items", "list.json", _JSON, _json({"type": "FeatureCollection", "features": []})),
    ("an item without assets", "list.json", _JSON, _json(_ITEM)),
    ("an item with foreign assets", "list.json", _JSON, _json({**_ITEM, "assets": {"thumbnail": {"href": "a.png"}}})),
    ("an item whose asset has no address", "list.json", _JSON, _json({**_ITEM, "assets": {"optical": {}, "sar": {}}})),
    ("an empty folder", "pairs", _PAIRS, _folder("pairs")),
    ("a folder of other folders", "pairs", _PAIRS, _folder_pair("s1/a.tif", "s2/a.tif")),
    ("a folder with unequal names", "pairs", _PAIRS, _two_stems),
    ("a folder without rasters", "pairs", _PAIRS, _folder_pair("optical/a.doc", "sar/a.doc")),
]


def _list_options(source: Sequence[str], **changes: Sequence[str] | None) -> dict[str, Sequence[str] | None]:
    """Return the options that take the place of single rasters; `changes` are named without the dashes."""
    options: dict[str, Sequence[str] | None] = {"--optical": None, "--sar": None, "--output": None, "--list": source}
    options["--output-dir"] = ("{folder}/maps",)
    return options | {f"--{name.replace('_', '-')}": values for name, values in changes.items()}


_LIST_OPTIONS: list[tuple[str, str, Mapping[str, Sequence[str] | None]]] = [
    ("beside --optical", "--optical", _list_options(_CSV, optical=("{folder}/optical.tif",))),
    ("beside --output", "--output", _list_options(_CSV, output=("{folder}/map.tif",))),
    ("without a folder for the maps", "--output-dir", _list_options(_CSV, output_dir=None)),
    ("maps below a file", SAR, _list_options(_CSV, output_dir=("{folder}/sar.tif/maps",))),
    ("with polygons", "--polygons", _list_options(_CSV, polygons=("{folder}/a.gpkg",))),
]


def option_cases() -> list[BadCase]:
    """Return the cases whose rasters are good."""
    cases = []
    for option, values, word in _OPTIONS:
        spelled = " ".join(values) or "without a value"
        cases.append(BadCase(f"option {option} {spelled}", word, options={option: values}))
    cases += [BadCase(f"options: {name}", word, options=options) for name, word, options in _COMBINED]
    cases += [BadCase(f"prompts: {name}", word, make, {"--prompts": (text,)}) for name, text, word, make in _PROMPTS]
    cases += [BadCase(f"model: {name}", word, make, options) for name, word, options, make in _MODELS]
    cases += [BadCase(f"output: {name}", word, make, options) for name, word, options, make in _OUTPUTS]
    cases += [BadCase(f"list: {name}", word, make, _list_options(source)) for name, word, source, make in _LISTS]
    cases += [BadCase(f"list: {name}", word, _csv(_ONE_SCENE), options) for name, word, options in _LIST_OPTIONS]
    return cases + [BadCase("a word too many", "surplus", extra=("surplus",))]
