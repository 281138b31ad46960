#!/usr/bin/env python
"""Write MiniEarth to disk: GeoTIFF pairs with labels, captions, targets and a manifest; or one large scene.

    tools/make_miniearth.py --output datasets/miniearth --contact-sheet
    tools/make_miniearth.py --output output/arid --domain unseen_region --split test --num-scenes 50 --size 128
    tools/make_miniearth.py --output output/scene --scene 5000x5000 --clouds varied --sar-crs EPSG:32633 --sar-gsd 5

The same command gives the same bytes. What is in it: mmovseg/data/miniearth/README.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmovseg.data.miniearth import DOMAINS, MiniEarthReader, load_miniearth
from mmovseg.data.miniearth.dataset import SPLITS
from mmovseg.data.miniearth.export import verify_miniearth_folder, write_miniearth_folder
from mmovseg.data.miniearth.scenes import write_miniearth_scene
from mmovseg.data.sample import RawSample
from mmovseg.data.sar import convert_sar
from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.visualization.draw import color_labels, sar_to_rgb
from mmovseg.visualization.figure import (
    add_legend,
    legend_height_in,
    new_figure,
    place_axes,
    save_figure,
    write,
)

_CELL_IN, _GAP_IN, _SPACE_IN = 1.45, 0.05, 0.22
_SCENES_PER_ROW = 3
_SHEET_ROWS = 6


def argument_parser() -> argparse.ArgumentParser:
    """Return the parser."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--output", required=True, metavar="DIR", help="folder to make; must not exist or be empty")
    parser.add_argument("--split", nargs="+", choices=SPLITS, default=list(SPLITS), help="default: all")
    parser.add_argument("--num-scenes", type=int, metavar="N", help="per split (default: 4000, 500, 500)")
    parser.add_argument("--size", type=int, default=64, metavar="PX", help="pixels per side, 32..1024 (default: 64)")
    parser.add_argument("--domain", default="default", metavar="NAME", help=f"one of: {', '.join(DOMAINS)}")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="which world (default: 0)")
    parser.add_argument("--contact-sheet", action="store_true", help="also draw DIR/contact_sheet.png")
    parser.add_argument(
        "--verify", action="store_true", help="write nothing; compare DIR with the hashes in its manifest"
    )
    scene = parser.add_argument_group("one large scene (optical.tif, sar.tif, label.tif, cloud_mask.tif)")
    scene.add_argument("--scene", type=scene_size, metavar="HxW", help="write one scene of that many pixels")
    scene.add_argument(
        "--clouds", choices=("none", "thin", "thick", "varied"), default="none", help="over the scene (default: none)"
    )
    scene.add_argument("--cloud-cover", type=float, metavar="SHARE", help="0..1 (default: drawn)")
    scene.add_argument("--sar-crs", metavar="CRS", help="of the SAR raster, for example EPSG:32633 (default: one grid)")
    scene.add_argument("--sar-gsd", type=float, metavar="M", help="pixel size of the SAR raster, averaged in power")
    scene.add_argument(
        "--sar-shift",
        type=float,
        nargs=2,
        default=(0.0, 0.0),
        metavar=("EAST", "NORTH"),
        help="metres that the SAR footprint lies off the optical one, so that only a part has both",
    )
    scene.add_argument("--workers", type=int, default=1, metavar="N", help="processes that render (default: 1)")
    return parser


def scene_size(text: str) -> tuple[int, int]:
    """Parse ``20000x20000`` (height x width)."""
    height, cross, width = text.lower().partition("x")
    if not cross or not height.isdecimal() or not width.isdecimal():
        raise argparse.ArgumentTypeError(f"'{text}' is no size such as 5000x5000")
    return int(height), int(width)


def draw_contact_sheet(path: Path, samples: Sequence[RawSample], title: str) -> None:
    """Draw scenes side by side, each as optical | SAR | label, with a legend.

    Args:
        path: PNG file.
        samples: at least one, of MiniEarth.
        title: one line above everything.
    """
    vocabulary = get_vocabulary("miniearth", "clean")
    across = min(_SCENES_PER_ROW, len(samples))
    down = -(-len(samples) // across)
    group = 3 * _CELL_IN + 2 * _GAP_IN
    width = 2 * 0.15 + across * group + (across - 1) * _SPACE_IN
    top, bottom = 0.72, legend_height_in(vocabulary, width)
    height = top + bottom + down * (_CELL_IN + _SPACE_IN / 2)
    figure = new_figure(width, height)
    write(figure, 0.15, height - 0.24, title, size=12, bold=True, align="left")
    for column in range(across):
        left = 0.15 + column * (group + _SPACE_IN)
        for j, name in enumerate(("optical", "SAR", "label")):
            write(figure, left + j * (_CELL_IN + _GAP_IN) + _CELL_IN / 2, height - top + 0.12, name, size=9)
    for index, sample in enumerate(samples):
        left = 0.15 + (index % across) * (group + _SPACE_IN)
        low = height - top - (index // across + 1) * (_CELL_IN + _SPACE_IN / 2) + _SPACE_IN / 2
        views = (sample.optical, sar_view(sample), color_labels(sample.sem_seg, vocabulary.colors))
        for j, image in enumerate(views):
            axes = place_axes(figure, left + j * (_CELL_IN + _GAP_IN), low, _CELL_IN, _CELL_IN)
            axes.imshow(image, interpolation="nearest")
    add_legend(figure, vocabulary)
    save_figure(figure, path)


def sar_view(sample: RawSample) -> Any:
    """Return display colours (H, W, 3) of the SAR raster, whatever its unit."""
    facts = sample.facts["domain"]
    sar = sample.sar
    assert sar is not None
    if facts["value_type"] == "complex":
        sar = sar[..., 0::2] ** 2 + sar[..., 1::2] ** 2
    unit = "linear" if facts["value_type"] == "complex" else facts["value_type"]
    return sar_to_rgb(convert_sar(sar, unit_in=unit, unit_out="db"))


def _write_scene(output: Path, args: argparse.Namespace) -> None:
    manifest = write_miniearth_scene(
        output,
        height=args.scene[0],
        width=args.scene[1],
        domain=args.domain,
        seed=args.seed,
        clouds="clear" if args.clouds == "none" else args.clouds,
        cloud_cover=args.cloud_cover,
        sar_crs=args.sar_crs,
        sar_gsd_m=args.sar_gsd,
        sar_shift_m=tuple(args.sar_shift),
        workers=args.workers,
        show_progress=True,
    )
    for kind, grid in manifest["grids"].items():
        pixel = abs(grid["transform"][0])
        print(f"{kind}: {grid['height']}x{grid['width']} pixels of {pixel:g} m, {grid['crs']}")
    shares = ", ".join(f"{name} {100 * share:.0f}%" for name, share in manifest["class_share"].items())
    print(f"clouds cover {100 * manifest['cloud_cover']:.0f}%; {shares}")
    print(f"wrote {output}")


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command line; `argv` None takes that of the process."""
    args = argument_parser().parse_args(argv)
    output = Path(args.output)
    if args.verify:
        print(f"{verify_miniearth_folder(output)} files in {output} are as the manifest says")
        return
    if args.scene is not None:
        _write_scene(output, args)
        return
    if args.num_scenes is not None and args.num_scenes < 1:
        raise UserError(f"--num-scenes must be at least 1, got {args.num_scenes}")
    options = {"num_scenes": args.num_scenes, "size": args.size, "domain": args.domain, "seed": args.seed}
    manifest = write_miniearth_folder(output, splits=args.split, show_progress=True, **options)
    if args.contact_sheet:
        first = load_miniearth(args.split[0], **options)[: _SCENES_PER_ROW * _SHEET_ROWS]
        title = f"MiniEarth, domain {args.domain}, {args.split[0]}, {args.size} px, seed {args.seed}"
        reader = MiniEarthReader(cache=False)
        draw_contact_sheet(output / "contact_sheet.png", [reader(item) for item in first], title)
    for split, part in manifest["splits"].items():
        shares = ", ".join(f"{name} {100 * share:.0f}%" for name, share in part["class_share"].items())
        print(f"{split}: {part['num_scenes']} scenes, {part['num_targets']} targets; {shares}")
    print(f"wrote {output}")


if __name__ == "__main__":
    main()
