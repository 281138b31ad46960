"""Change in a real scene, SAR before and optical after: every other strip of ``shuguang`` trains, the rest tests.

    tools/train_net.py --config-file projects/CoDeMAE/configs/change_hetero_xs.py

`datasets/hetero_cd/shuguang` holds t1_sar.png, t2_opt.png and change_gt.png. `change_yellow_river_xs.py` is another
such pair, `change_yellow_b_xs.py` and `change_yellow_c_xs.py` are SAR twice. Four strips of a hundred rows or so are
little to learn from and to test on: a try-out, no benchmark.
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.io import FileReader
from mmovseg.data.transforms import RandomCrop, RandomFlip, RandomRotate90, SarJitter
from mmovseg.data.vocabulary import closed_vocabulary
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.codemae.data.change import ChangeReader, EachDate, load_hetero_cd

_base = get_config("projects/CoDeMAE/configs/damage_miniearth_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

# One band of 8-bit amplitude, calibrated by nobody, as dB twice: the encoder has learnt dB of two polarisations.
_reader = L(ChangeReader)(
    reader=L(FileReader)(
        sar_bands=[1],
        sar_unit_in="amplitude8",
        sar_unit="db",
        sar_polarisations_in=["VV"],
        sar_polarisations=["VV", "VV"],
    )
)
_vocabulary = L(closed_vocabulary)(dataset="change")
model.vocabulary = _vocabulary
model.before, model.after = "sar", "optical"
model.before_norm = L(PixelNorm)(mean=[-3.9, -3.9], std=[4.8, 4.8], clip=[-20.0, 5.0])
model.after_norm = L(PixelNorm)(mean=[78.6, 89.3, 84.8], std=[30.3, 27.0, 22.8])
model.head = dict(channels=32, norm="group", localise=False)  # the earlier date alone does not show what will change
model.window, model.window_stride = 64, 32
model.windows_at_once = 16
model.input_contract = None

for _loader, _part in ((dataloader.train, "train"), (dataloader.test, "test")):
    _loader.dataset = L(load_hetero_cd)(scene="shuguang", part=_part, axis="rows", strips=6)
    _loader.mapper.reader = _reader
    _loader.mapper.vocabulary = _vocabulary
# Nothing here has height, so turned views are views as well.
dataloader.train.mapper.geometry = [L(RandomCrop)(size=64), L(RandomFlip)(vertical=True), L(RandomRotate90)()]
dataloader.train.mapper.sar_photometric = L(EachDate)(jitter=L(SarJitter)(), dates=1)
dataloader.test.batch_size = 1
dataloader.evaluator.vocabulary = _vocabulary
dataloader.evaluator.dataset_name = "shuguang_test"
dataloader.evaluator.update(before="sar", after="optical", sar_limits_db=[-20.0, 5.0])

train.output_dir = "output/codemae/change_shuguang_xs"
