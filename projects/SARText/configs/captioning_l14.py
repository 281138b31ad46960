"""The CoCa ViT-L/14 of stage 2 tested on what it writes, besides retrieval.

    tools/train_net.py --config-file projects/SARText/configs/captioning_l14.py --num-gpus 8 --eval-only \
        train.init_checkpoint=output/sartext/coca_sar_l14/model_final.safetensors
"""

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.build import build_test_loader
from mmovseg.projects.sartext.data.tasks import AskingMapper
from mmovseg.projects.sartext.evaluation.captioning import CaptioningEvaluator, most_frequent_caption

_base = get_config("projects/SARText/configs/coca_sar_l14.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

_retrieval = dataloader.test
dataloader.test = dict(
    retrieval=_retrieval,
    captions=L(build_test_loader)(
        dataset=_retrieval.dataset,
        mapper=L(AskingMapper)(mapper=_retrieval.mapper, task="caption"),
        batch_size=32,
        num_workers=4,
    ),
)
dataloader.evaluator = dict(
    retrieval=dataloader.evaluator,
    captions=L(CaptioningEvaluator)(
        dataset_name=dataloader.evaluator.dataset_name,
        baseline=L(most_frequent_caption)(dataset=dataloader.train.dataset),
        modality="sar",
    ),
)
train.output_dir = "output/sartext/captioning_l14"
