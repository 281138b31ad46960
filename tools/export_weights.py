"""Write one part of a checkpoint as its own file, for example the SAR encoder of an alignment run.

export_weights.py --checkpoint output/sar/model_final.safetensors --part student.model --output sar.safetensors
"""

from __future__ import annotations

import argparse

from mmovseg.checkpoint.export import export_part
from mmovseg.errors import exit_on_user_error


@exit_on_user_error
def main(argv: list[str] | None = None) -> None:
    """Run the command."""
    parser = argparse.ArgumentParser(description="Write one part of a checkpoint as its own file.")
    parser.add_argument("--checkpoint", required=True, help="checkpoint with the whole model")
    parser.add_argument(
        "--part", default="", help="module name, for example student.model (alignment) or clip.model; default: all"
    )
    parser.add_argument("--output", required=True, help=".safetensors file to write")
    parser.add_argument("--half", action="store_true", help="store in float16")
    args = parser.parse_args(argv)
    count = export_part(args.checkpoint, args.output, part=args.part, half=args.half)
    print(f"wrote {count} tensors of '{args.part or 'all'}' to {args.output}")


if __name__ == "__main__":
    main()
