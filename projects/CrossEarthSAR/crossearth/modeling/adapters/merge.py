"""Fold the LoRA updates of a trained model into its weights: a checkpoint for the config without an adapter.

python -m mmovseg.projects.crossearth.modeling.adapters.merge --config-file F --checkpoint W --output merged.safetensors
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from mmovseg.checkpoint.load import file_sha256, read_metadata
from mmovseg.checkpoint.save import save_weights
from mmovseg.config import apply_overrides, load_config
from mmovseg.engine.run import build_model, prepare
from mmovseg.errors import UserError, exit_on_user_error
from mmovseg.modeling.backbone import TimmEncoder
from mmovseg.projects.crossearth.modeling.adapters.lora import LoRAAdapter, merge_lora


@exit_on_user_error
def main(argv: Sequence[str] | None = None) -> None:
    """Run the command.

    Raises:
        UserError: config and checkpoint do not fit, or the model has no LoRA.
    """
    parser = argparse.ArgumentParser(description="Fold the LoRA updates of a trained model into its weights.")
    parser.add_argument("--config-file", required=True, metavar="F", help="config of the training")
    parser.add_argument("--checkpoint", required=True, metavar="W", help="weights of the whole model")
    parser.add_argument("--output", required=True, metavar="O", help=".safetensors file to write")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="changes to the config")
    args = parser.parse_intermixed_args(argv)
    config = apply_overrides(load_config(args.config_file), args.overrides)
    config.train.device = "cpu"
    model = build_model(prepare(config, args.config_file), checkpoint=args.checkpoint)
    adapted = [
        module
        for module in model.modules()
        if isinstance(module, TimmEncoder) and isinstance(getattr(module, "adapter", None), LoRAAdapter)
    ]
    if not adapted:
        raise UserError(f"config '{args.config_file}' builds a {type(model).__name__} without LoRA: nothing to fold")
    for encoder in adapted:
        merge_lora(encoder)
    facts = {**read_metadata(args.checkpoint), "merged": "lora", "source_sha256": file_sha256(args.checkpoint)}
    save_weights(model, args.output, metadata=facts)
    print(f"folded LoRA into {len(adapted)} encoder(s): {args.output}")


if __name__ == "__main__":
    main()
