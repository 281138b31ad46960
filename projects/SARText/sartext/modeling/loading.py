"""A trained image-text model from its config and weights, for tools that ask it."""

from __future__ import annotations

from mmovseg.config import load_config
from mmovseg.engine.run import build_model, prepare
from mmovseg.errors import UserError
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel


def load_image_text_model(config_file: str, weights: str | None, device: str) -> ImageTextModel:
    """Build the model of a config, with its weights, to answer.

    Args:
        config_file: as ``tools/train_net.py`` takes it.
        weights: checkpoint; None = what the config names.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        UserError: config, weights or device are not usable, or the model is no image-text model.
    """
    config = load_config(config_file)
    config.train.device = device
    model = build_model(prepare(config, config_file), checkpoint=weights or config.train.init_checkpoint).eval()
    if not isinstance(model, ImageTextModel):
        raise UserError(f"'{config_file}' builds a {type(model).__name__}; this tool needs an ImageTextModel")
    return model
