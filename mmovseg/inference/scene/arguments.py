"""The command line of scene inference as values: rasters, options, or a list of scenes.

Nothing here imports torch, so that help and mistakes come at once.
"""

from __future__ import annotations

import argparse
import math
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from mmovseg.data.sample import MODALITIES
from mmovseg.data.sar import SAR_UNITS
from mmovseg.data.vocabulary import Vocabulary, vocabulary_from_file, vocabulary_from_names
from mmovseg.errors import OneLineParser, UserError
from mmovseg.inference.scene.options import CLOUD_POLICIES, GDAL_NAME, MAP_SUFFIXES, PRECISIONS, SceneOptions
from mmovseg.inference.scene.tiling import ANCHORS

if TYPE_CHECKING:
    from mmovseg.inference.scene.many import SceneJob
    from mmovseg.inference.scene.rasters import SceneInputs

DEFAULT_CONFIG = "miniearth/mmovseg_xs.py"
DEFAULT_WEIGHTS = "shipped://mmovseg_xs"
RESAMPLINGS = ("nearest", "bilinear", "average")
POLYGON_SUFFIXES = (".gpkg", ".geojson")
LONGEST_NAME = 200
LARGEST_TEXT_BYTES = 10_000_000

_DESCRIPTION = """
Name what you look for; get a map of a whole scene. The optical and the SAR raster may differ in grid, coordinates,
resolution and size, and may be larger than memory. The map has the grid of the optical raster (of the SAR raster when
there is no optical one).
"""
_EXAMPLES = """
examples:
  two rasters:      %(prog)s --optical a.tif --sar b.tif --prompts "water, road, building" --output map.tif
  Sentinel-2:       %(prog)s --optical s2.tif --optical-bands 4 3 2 --optical-range 0 3000 ...
  what it will do:  %(prog)s ... --dry-run
  many scenes:      %(prog)s --list pairs.csv --output-dir maps --prompts "water, road"
  two processes:    torchrun --nproc-per-node 2 -m mmovseg.cli predict ...

A command that was stopped goes on where it was when it is given again. Exit status: 0 done, 1 a scene of a list failed,
2 something to mend (one line says what), 130 stopped by Ctrl-C.
"""


def argument_parser(prog: str | None = None) -> OneLineParser:
    """Return the parser of `mmovseg predict`."""
    parser = OneLineParser(
        prog=prog,
        description=_DESCRIPTION,
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    _add_scene(parser.add_argument_group("what to map"))
    _add_reading(parser.add_argument_group("how the rasters are read"))
    _add_written(parser.add_argument_group("what else is written"))
    _add_model(parser.add_argument_group("model"))
    _add_run(parser.add_argument_group("how it runs"))
    return parser


def _add_scene(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--optical", metavar="FILE", help="optical raster")
    group.add_argument("--sar", metavar="FILE", help="SAR raster")
    group.add_argument("--cloud-mask", metavar="FILE", help="raster that is not 0 where the optical one shows cloud")
    group.add_argument(
        "--prompts",
        required=True,
        metavar="NAMES",
        help='classes: "water, road", @FILE with a name a line, or a vocabulary in a .json file',
    )
    group.add_argument("--output", metavar="FILE", help="the map, a GeoTIFF (.tif)")
    group.add_argument(
        "--list", metavar="SOURCE", help="many scenes: a folder with optical/ and sar/, a CSV, or STAC items"
    )
    group.add_argument("--output-dir", metavar="DIR", help="folder of the maps of --list")
    group.add_argument("--optical-asset", metavar="KEY", help="asset of STAC items that is the optical raster")
    group.add_argument("--sar-asset", metavar="KEY", help="asset of STAC items that is the SAR raster")


def _add_reading(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--optical-bands", type=_integer(1), nargs="+", metavar="N", help="1-based red, green and blue band"
    )
    group.add_argument(
        "--optical-range",
        type=_number(),
        nargs=2,
        metavar=("LOW", "HIGH"),
        help="values of black and white (default: 0 255 for 8 bit, 0 3000 for wider integers; floats need it)",
    )
    group.add_argument("--optical-nodata", type=_number(finite=False), metavar="V", help="value that means no data")
    group.add_argument(
        "--sar-bands", type=_integer(1), nargs="+", metavar="N", help="1-based bands in the order of the model"
    )
    group.add_argument("--sar-unit", choices=SAR_UNITS, help="of the file (default: what it says, else the model's)")
    group.add_argument("--sar-nodata", type=_number(finite=False), metavar="V", help="value that means no data")
    group.add_argument("--optical-resampling", choices=RESAMPLINGS, help="default: bilinear, average when shrinking")
    group.add_argument("--sar-resampling", choices=RESAMPLINGS, help="default: average of power when shrinking")
    group.add_argument("--modality", choices=MODALITIES, default="both", help="look at one of two given rasters only")
    group.add_argument(
        "--clouds",
        choices=CLOUD_POLICIES,
        default="keep",
        help="pixels that --cloud-mask marks: shown to the model, or withheld so that only SAR speaks (default: keep)",
    )
    group.add_argument(
        "--override-contract",
        action="store_true",
        help="go on with rasters that are not what the model was trained on; the map is tagged so",
    )


def _add_written(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--confidence", action="store_true", help="probability of the winner: OUTPUT.confidence.tif")
    group.add_argument("--probabilities", action="store_true", help="of every class: OUTPUT.probabilities.tif")
    group.add_argument(
        "--quality",
        action=argparse.BooleanOptionalAction,
        help="which sensors saw a pixel: OUTPUT.quality.tif (default: with --cloud-mask)",
    )
    group.add_argument("--polygons", metavar="FILE", help="the map as polygons, .gpkg or .geojson")
    group.add_argument("--picture", metavar="FILE", help="rasters and map at a glance, a .png")
    group.add_argument(
        "--min-area", type=_number(0), default=0.0, metavar="M2", help="leave out smaller polygons, square metres"
    )
    group.add_argument(
        "--simplify", type=_number(0), default=0.0, metavar="M", help="smooth outlines by up to so many metres"
    )


def _add_model(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--config-file",
        default=DEFAULT_CONFIG,
        metavar="F",
        help="default: %(default)s, a demonstration that knows the made-up world MiniEarth and not the real one",
    )
    group.add_argument("--weights", metavar="F", help="checkpoint (default: the one that the config names)")
    group.add_argument("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    group.add_argument("--precision", choices=PRECISIONS, default="auto", help="default: %(default)s")
    group.add_argument("--threads", type=_integer(1), metavar="N", help="CPU threads of each process")


def _add_run(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--gsd", type=_number(0, above=True), metavar="M", help="metres per pixel that the model sees")
    group.add_argument("--tile", type=_integer(8), metavar="PX", help="side of a window, in pixels that the model sees")
    group.add_argument(
        "--overlap", type=_number(), default=0.125, metavar="SHARE", help="of windows, 0..0.5 (default: %(default)s)"
    )
    group.add_argument(
        "--margin", type=_integer(0), default=0, metavar="PX", help="rim of a window that does not count (default: 0)"
    )
    group.add_argument("--batch", type=_integer(1), metavar="N", help="windows that the model sees at a time")
    group.add_argument(
        "--anchor", choices=ANCHORS, default="map", help="where windows start: fixed on the map, or the scene's corner"
    )
    group.add_argument("--overwrite", action="store_true", help="replace an output that exists")
    group.add_argument("--restart", action="store_true", help="throw away the parts of a stopped run")
    group.add_argument("--dry-run", action="store_true", help="print the plan and stop")
    group.add_argument("--quiet", action="store_true", help="print nothing but mistakes")


def scene_inputs(args: argparse.Namespace) -> SceneInputs:
    """Return what the command line says about the rasters; with ``--list``, what holds for every scene.

    Raises:
        UserError: a raster is a pipe, a folder or a device, or an option contradicts another.
    """
    _check_reading(args)
    from mmovseg.inference.scene.rasters import SceneInputs

    return SceneInputs(
        optical=args.optical,
        sar=args.sar,
        cloud_mask=args.cloud_mask,
        optical_bands=_tuple(args.optical_bands),
        optical_range=_tuple(args.optical_range),
        optical_nodata=args.optical_nodata,
        sar_bands=_tuple(args.sar_bands),
        sar_unit=args.sar_unit,
        sar_nodata=args.sar_nodata,
        optical_resampling=args.optical_resampling,
        sar_resampling=args.sar_resampling,
    )


def scene_options(args: argparse.Namespace) -> SceneOptions:
    """Return how the command line wants it done.

    Raises:
        UserError: an option is out of its range or contradicts another.
    """
    if args.polygons is not None and args.list is not None:
        raise UserError("--polygons names one file, so it cannot be used with --list")
    if args.picture is not None and args.list is not None:
        raise UserError("--picture names one file, so it cannot be used with --list")
    return SceneOptions(
        tile=args.tile,
        overlap=args.overlap,
        margin=args.margin,
        batch=args.batch,
        gsd=args.gsd,
        anchor=args.anchor,
        confidence=args.confidence,
        probabilities=args.probabilities,
        quality=bool(args.cloud_mask) if args.quality is None else args.quality,
        polygons=args.polygons,
        min_area_m2=args.min_area,
        simplify_m=args.simplify,
        picture=args.picture,
        clouds=args.clouds,
        modality=args.modality,
        precision=args.precision,
        override_contract=args.override_contract,
        overwrite=args.overwrite,
        restart=args.restart,
        dry_run=args.dry_run,
        show_progress=not args.quiet,
    )


def scene_jobs(args: argparse.Namespace, defaults: SceneInputs) -> list[SceneJob]:
    """Return the scenes that ``--list`` names.

    Raises:
        UserError: the list is unusable.
    """
    require_file(args.list, "--list", folders=True)
    from mmovseg.inference.scene.lists import read_jobs

    assets = {"optical_asset": args.optical_asset, "sar_asset": args.sar_asset}
    chosen = {name: key for name, key in assets.items() if key is not None}
    return read_jobs(args.list, output_dir=args.output_dir, defaults=defaults, **chosen)


def read_prompts(text: str) -> list[str] | Vocabulary:
    """Return what `Predictor.ask_for` takes: names, or the vocabulary of a file.

    Args:
        text: ``"water, road"``, ``@FILE`` (a name a line, or comma-separated; ``#`` starts a comment), or a ``.json``
            file as in `vocabulary_from_file`.

    Raises:
        UserError: a file is missing or no text, or there are no names, an empty, a doubled or an overlong one.
    """
    if text.endswith(".json"):
        require_file(text, "--prompts")
        vocabulary = vocabulary_from_file(text)
        _check_names(vocabulary.names, text)
        return vocabulary
    if text.startswith("@"):
        names, source = _names_of_file(text[1:]), text[1:]
    else:
        names, source = [name.strip() for name in text.split(",")] if text.strip() else [], "--prompts"
    _check_names(names, source)
    vocabulary_from_names(names, source=source)  # finds empty and doubled names before a model is loaded
    return names


def _names_of_file(path: str) -> list[str]:
    require_file(path, "--prompts")
    try:
        if Path(path).stat().st_size > LARGEST_TEXT_BYTES:
            raise UserError(f"--prompts: '{path}' is no list of names: it has more than {LARGEST_TEXT_BYTES:,} bytes")
        lines = Path(path).read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise UserError(f"--prompts: '{path}' cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"--prompts: '{path}' is no text in UTF-8") from error
    kept = [line.split("#")[0].strip().rstrip(",") for line in lines]
    return [name.strip() for line in kept if line for name in line.split(",")]


def _check_names(names: list[str], source: str) -> None:
    for name in names:
        if len(name) > LONGEST_NAME:
            raise UserError(
                f"'{source}' holds a class name of {len(name)} characters ('{name[:30]}...'); "
                f"at most {LONGEST_NAME} can be asked for"
            )
        if not name.isprintable():
            raise UserError(f"'{source}' holds a class name with a character that cannot be printed: {name!r}")


def require_file(path: str, option: str, *, folders: bool = False) -> None:
    """Refuse what would block or is no file; names that only GDAL understands pass.

    Raises:
        UserError: nothing is there, or a folder, pipe, socket or device.
    """
    if not path:
        raise UserError(f"{option}: there is no file name")
    if GDAL_NAME.match(path):
        return
    shown = path if len(path) <= 300 else f"{path[:300]}..."
    try:
        mode = Path(path).stat().st_mode
    except FileNotFoundError as error:
        raise UserError(f"{option}: '{shown}' does not exist") from error
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{option}: '{shown}' cannot be reached ({reason})") from error
    if stat.S_ISDIR(mode):
        if not folders:
            raise UserError(f"{option}: '{path}' is a folder, not a file")
    elif not stat.S_ISREG(mode):
        raise UserError(f"{option}: '{path}' is a pipe or a device, not a file")


def check_arguments(args: argparse.Namespace) -> None:
    """Check what needs no raster and no model: which options go together, and what kind of file each names.

    Raises:
        UserError: one sentence on the first thing to mend.
    """
    rasters = {"--optical": args.optical, "--sar": args.sar, "--cloud-mask": args.cloud_mask}
    if args.list is not None:
        given = [option for option, path in (rasters | {"--output": args.output}).items() if path is not None]
        if given:
            raise UserError(f"--list names the rasters and their maps itself, so {given[0]} must be left out")
        if not args.output_dir:
            raise UserError("--list needs --output-dir, the folder of the maps")
        _check_output_folder(Path(args.output_dir), "--output-dir")
    else:
        _check_single(args, rasters)
    if args.polygons is not None:
        _check_output(args.polygons, "--polygons", POLYGON_SUFFIXES, rasters | {"--output": args.output})
    if args.picture is not None:
        _check_output(args.picture, "--picture", (".png",), rasters)
    if not args.config_file.endswith((".py", ".yaml")) or Path(args.config_file).exists():
        require_file(args.config_file, "--config-file")
    if args.weights is not None and not args.weights.startswith("shipped://"):
        require_file(args.weights, "--weights")


def _check_single(args: argparse.Namespace, rasters: dict[str, str | None]) -> None:
    used = {"both": (args.optical, args.sar), "optical": (args.optical,), "sar": (args.sar,)}[args.modality]
    if all(path is None for path in used):
        wanted = {"both": "--optical, --sar or both", "optical": "--optical", "sar": "--sar"}[args.modality]
        raise UserError(f"there is no raster to map for modality '{args.modality}': give {wanted}")
    for option in ("output_dir", "optical_asset", "sar_asset"):
        if getattr(args, option) is not None:
            raise UserError(f"--{option.replace('_', '-')} goes with --list only")
    if args.cloud_mask is not None and args.optical is None:
        raise UserError("--cloud-mask says where the optical raster shows cloud, so it needs --optical")
    if args.output is None:
        raise UserError("there is no --output, the map to write")
    for option, path in rasters.items():
        if path is not None:
            require_file(path, option)
    _check_output(args.output, "--output", MAP_SUFFIXES, rasters)


def _check_output(path: str, option: str, suffixes: tuple[str, ...], others: dict[str, str | None]) -> None:
    if not path.lower().endswith(suffixes):
        raise UserError(f"{option} '{path}' must end in {' or '.join(suffixes)}")
    try:
        file = Path(path).resolve()
        if file.is_dir():
            raise UserError(f"{option} '{path}' is a folder")
        if file.exists() and not file.is_file():
            raise UserError(f"{option} '{path}' is a pipe or a device, not a file")
        for other, name in others.items():
            if name is not None and Path(name).resolve() == file:
                raise UserError(f"{option} '{path}' is the file of {other} and would be overwritten")
        _check_output_folder(file.parent, option)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{option} '{path[:300]}' cannot be written ({reason})") from error


def _check_output_folder(folder: Path, option: str) -> None:
    above = next((path for path in (folder, *folder.parents) if path.exists()), None)
    if above is not None and not above.is_dir():
        raise UserError(f"{option}: '{folder}' cannot be a folder, since '{above}' is a file")


def _check_reading(args: argparse.Namespace) -> None:
    if args.optical_bands is not None and len(set(args.optical_bands)) != len(args.optical_bands):
        raise UserError(f"--optical-bands {_spell(args.optical_bands)} names a band twice")
    if args.optical_range is not None and args.optical_range[0] >= args.optical_range[1]:
        low, high = args.optical_range
        raise UserError(f"--optical-range {low:g} {high:g}: the first value must be the lower one")
    for option in ("optical", "sar"):
        path, extras = getattr(args, option), ("bands", "range", "nodata", "unit", "resampling")
        named = [f"--{option}-{word}" for word in extras if getattr(args, f"{option}_{word}", None) is not None]
        if path is None and args.list is None and named:
            raise UserError(f"{named[0]} says how --{option} is read, but there is no --{option}")


def _integer(least: int) -> Callable[[str], int]:
    def convert(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a whole number") from None
        if not least <= value < 2**31:
            raise argparse.ArgumentTypeError(
                f"{text} must be at least {least}" if value < least else f"{text} is too large"
            )
        return value

    return convert


def _number(least: float | None = None, *, above: bool = False, finite: bool = True) -> Callable[[str], float]:
    def convert(text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            raise argparse.ArgumentTypeError(f"'{text}' is not a number") from None
        if finite and not math.isfinite(value):
            raise argparse.ArgumentTypeError(f"{text} is not a finite number")
        if least is not None and (value < least or (above and value == least)):
            raise argparse.ArgumentTypeError(f"{text} must be {'above' if above else 'at least'} {least:g}")
        return value

    return convert


def _tuple(values: list | None) -> tuple | None:
    return None if values is None else tuple(values)


def _spell(values: list[int]) -> str:
    return " ".join(str(value) for value in values)
