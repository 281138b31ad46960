"""SARDet-100K: Faster R-CNN on HiViT-B with the recipe of the release.

    datasets/prepare_sardet100k.py makes the data. Some of its boxes reach over the edge of images that were cut; they
    are cut too, also for the evaluation.

The release chooses its checkpoint on the test split; here the last one counts (`train.select_best` can do otherwise).
"""

from detectron2.data.transforms import AugmentationList, RandomApply, RandomCrop

from mmovseg.checkpoint.contract import InputContract, ModalityContract
from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.data.datasets.coco_boxes import load_box_set
from mmovseg.data.transforms import RandomFlip, ResizeShortestEdge
from mmovseg.layers.norm import PixelNorm

_base = get_config("projects/CoDeMAE/configs/faster_rcnn_dior_b.py")
model, dataloader, train, optimizer, lr_multiplier = (
    _base[key] for key in ("model", "dataloader", "train", "optimizer", "lr_multiplier")
)

_contract = L(ModalityContract)(
    sensor="SARDet-100K",
    bands=("amplitude", "amplitude", "amplitude"),
    unit="amplitude8",
    mean=(35.83, 35.83, 35.83),
    std=(51.4447, 51.4447, 51.4447),
)
model.sensor = "sar"
model.norms = dict(sar=L(PixelNorm)(mean=_contract.mean, std=_contract.std))
model.input_contract = L(InputContract)(optical=None, sar=_contract, train_size=800)
model.backbone.in_chans = dict(sar=3)
model.categories = ["ship", "aircraft", "car", "tank", "bridge", "harbor"]
model.roi_heads.num_classes = 6

for _loader, _split in ((dataloader.train, "train"), (dataloader.test, "test")):
    _loader.dataset = L(load_box_set)(
        name="sardet100k", split=_split, categories="${model.categories}", keep_empty=_split == "test"
    )
    _loader.mapper.reader.update(sar_unit_in="amplitude8", sar_unit="amplitude8", sar_channels=3)
dataloader.evaluator.dataset_name = "sardet100k_test"

# As DETR: in half of the draws a crop of 384 to 600 px first, at another scale.
dataloader.train.mapper.geometry = [
    L(RandomFlip)(),
    L(RandomApply)(
        tfm_or_aug=L(AugmentationList)(
            augs=[
                L(ResizeShortestEdge)(short_edge_px=[400, 500, 600]),
                L(RandomCrop)(crop_type="absolute_range", crop_size=[384, 600]),
            ]
        ),
        prob=0.5,
    ),
    L(ResizeShortestEdge)(short_edge_px=list(range(480, 801, 32)), max_size_px=1333),
]
dataloader.test.mapper.geometry = [L(ResizeShortestEdge)(short_edge_px=800, max_size_px=1333)]

_epoch = 5905  # 94,493 images / 16; the release does not say how many processes of 2 images it had
train.max_iter = 36 * _epoch
lr_multiplier.milestones = [27 * _epoch, 33 * _epoch]
lr_multiplier.warmup_iters = 1500
train.amp.enabled = True
train.amp.dtype = "bfloat16"  # the release: float16, which needs a GPU
train.checkpoint.period = _epoch
train.output_dir = "output/codemae/faster_rcnn_sardet100k_b"
