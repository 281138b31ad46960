"""The CoCa of stage 2 tested on what it writes, besides retrieval.

tools/train_net.py --config-file projects/SARText/configs/captioning_xs.py
"""

from mmovseg.config import get_config

_base = get_config("projects/SARText/configs/coca_sar_xs.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)
_captions = get_config("projects/SARText/configs/common/data_tasks.py").captions

dataloader.test = dict(retrieval=dataloader.test, captions=_captions["test"])
dataloader.evaluator = dict(retrieval=dataloader.evaluator, captions=_captions["evaluator"])
train.output_dir = "output/sartext/captioning_xs"
