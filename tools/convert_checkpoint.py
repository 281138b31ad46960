"""Convert a checkpoint of MM-OVSeg, CoDe-MAE, iTPN, DINO, DINOv3, CLIP, GSNet or CAT-Seg to our safetensors, or back.

convert_checkpoint.py model.pth mmovseg.safetensors --source mmovseg_vitb16
convert_checkpoint.py RSIB.pth rsib.safetensors --source dino
convert_checkpoint.py checkpoint-800.pth codemae.safetensors --source codemae
convert_checkpoint.py model.safetensors dinov3_sat.safetensors --source dinov3_hf \
    --architecture vit_large_patch16_dinov3_qkvb.sat493m
convert_checkpoint.py mmovseg.safetensors model.pth --source mmovseg_vitb16 --reverse
"""

from __future__ import annotations

import argparse
import sys

from mmovseg.checkpoint.convert import ConversionError, convert_checkpoint
from mmovseg.checkpoint.tables import SOURCES
from mmovseg.errors import exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Convert a foreign checkpoint to our safetensors, or back.")
    parser.add_argument("input", help=".pth, .pt or .safetensors")
    parser.add_argument("output", help=".safetensors; with --reverse also .pth or .pt")
    parser.add_argument("--source", required=True, choices=list(SOURCES), help="whose checkpoint it is")
    parser.add_argument("--reverse", action="store_true", help="from our names to the official ones")
    parser.add_argument(
        "--modality",
        choices=["optical", "sar"],
        default="optical",
        help="which images a DINO or DINOv3 encoder was trained on; goes into the input contract (default: optical)",
    )
    parser.add_argument(
        "--architecture",
        metavar="NAME",
        help="which of the source's models it is; needed only for those that their training alone tells apart",
    )
    parser.add_argument(
        "--outside",
        action="append",
        default=[],
        metavar="PATTERN",
        help="glob pattern of tensors of other parts, which are left out, for example 'projector.*'; repeatable",
    )
    args = parser.parse_args(argv)
    try:
        report = convert_checkpoint(
            args.input,
            args.output,
            source=args.source,
            reverse=args.reverse,
            modality=args.modality,
            architecture=args.architecture,
            outside=args.outside,
        )
    except ConversionError as error:
        for fault in error.faults:  # the message names the first few of each kind
            print(fault, file=sys.stderr)
        raise
    print(report)


if __name__ == "__main__":
    main()
