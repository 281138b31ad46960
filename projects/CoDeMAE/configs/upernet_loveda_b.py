"""LoveDA as in the paper (Table V): trained on train and val, maps of the test part written for the benchmark's server.

The maps lie in ``<output_dir>/maps/loveda_test``. To measure here, train on one part and test on the other:

    dataloader.train.dataset.split=train dataloader.test.dataset.split=val dataloader.evaluator.dataset_name=loveda_val
"""

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.build import build_test_loader, build_train_loader
from mmovseg.data.io import FileReader
from mmovseg.data.mapper import OpticalSARMapper
from mmovseg.data.transforms import FixedSizePad, OpticalJitter, RandomFlip
from mmovseg.data.transforms.segmentation import BalancedCrop, UniformScale
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.data.loveda import load_loveda
from mmovseg.projects.codemae.evaluation.written_maps import WrittenMapsEvaluator

_base = get_config("projects/CoDeMAE/configs/common/upernet.py")
model, train, optimizer, lr_multiplier = (_base[key] for key in ("model", "train", "optimizer", "lr_multiplier"))

_contract = L(ModalityContract)(
    sensor="LoveDA, aerial and satellite RGB",
    bands=("red", "green", "blue"),
    unit="uint8",
    mean=(73.10, 79.13, 75.95),
    std=(39.29, 35.37, 34.07),
)
model.vocabulary.dataset = "loveda"
model.optical_norm = L(PixelNorm)(mean=_contract.mean, std=_contract.std)
model.input_contract = L(InputContract)(optical=_contract, sar=None, gsd_m=(0.3, 0.3), train_size=512)
model.window, model.window_stride = 512, 256

_train = L(build_train_loader)(
    dataset=L(load_loveda)(split="trainval"),
    mapper=L(OpticalSARMapper)(
        is_train=True,
        vocabulary=model.vocabulary,
        reader=L(FileReader)(),
        geometry=[
            L(UniformScale)(low=0.5, high=2.0, base_px=512),  # an image of 1024 px becomes one of 256 to 1024
            L(BalancedCrop)(size=512, max_share=0.75),
            L(FixedSizePad)(size=512),
            L(RandomFlip)(),
        ],
        optical_photometric=L(OpticalJitter)(brightness=32.0, contrast=0.5, saturation=0.5, hue_deg=36.0),
        modality="optical",
    ),
    batch_size=16,  # over all processes: 8 with 2 each
    num_workers=4,
)
_test = L(build_test_loader)(
    dataset=L(load_loveda)(split="test"),
    mapper=L(OpticalSARMapper)(is_train=False, vocabulary=model.vocabulary, reader=L(FileReader)(), modality="optical"),
    batch_size=1,
)
_evaluator = L(WrittenMapsEvaluator)(dataset_name="loveda_test", vocabulary=model.vocabulary, modality="optical")
dataloader = dict(train=_train, test=_test, evaluator=_evaluator)

train.checkpoint.period = 2000
train.output_dir = "output/codemae/upernet_loveda_b"  # 10,000 it * 16 im/it / 4,191 im = 38 epochs
