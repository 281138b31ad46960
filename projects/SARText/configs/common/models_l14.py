"""ViT-L/14 models of open_clip: `clip` from OpenAI's weights, `coca` from LAION-2B's, for either modality.

SAR is given to them as CLIP's own images: 8-bit amplitude as three equal channels, with CLIP's mean and deviation. For
amplitude of other ranges: model.norm of `PercentileNorm`; for dB: grey_norm with clip=(-25, 0).
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.norms import CLIP_MEAN, CLIP_STD, grey_norm

_optical = L(ModalityContract)(
    sensor="any optical", bands=("red", "green", "blue"), unit="uint8", mean=CLIP_MEAN, std=CLIP_STD
)
_sar = L(ModalityContract)(
    sensor="any SAR, uncalibrated",
    bands=("amplitude", "amplitude", "amplitude"),
    unit="amplitude8",
    mean=CLIP_MEAN,
    std=CLIP_STD,
    clip=(0.0, 255.0),
)


def _model(kind, modality):
    reads_sar = modality == "sar"
    return L(ImageTextModel)(
        kind=kind,
        norm=L(grey_norm)(clip=(0.0, 255.0)),
        name="ViT-L-14-quickgelu" if kind == "clip" else "coca_ViT-L-14",
        weights="openai" if kind == "clip" else "laion2b_s13b_b90k",
        modality=modality,
        bands=(0, 0, 0) if reads_sar else None,
        contrastive_weight=1.0,
        caption_weight=1.0,
        input_contract=L(InputContract)(
            optical=None if reads_sar else _optical, sar=_sar if reads_sar else None, train_size=224
        ),
    )


clip_optical, clip_sar = _model("clip", "optical"), _model("clip", "sar")
coca_optical, coca_sar = _model("coca", "optical"), _model("coca", "sar")
