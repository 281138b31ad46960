"""Faster R-CNN on the encoder's own pyramid, without a neck: Detectron2's parts with the settings of the release.

`model` is for HiViT-B with levels at strides 4 to 64. A leaf sets `sensor`, `norms`, `categories`, the number of
classes, and `backbone.weights`.
"""

from detectron2.layers import ShapeSpec
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.modeling.box_regression import Box2BoxTransform
from detectron2.modeling.matcher import Matcher
from detectron2.modeling.poolers import ROIPooler
from detectron2.modeling.proposal_generator import RPN, StandardRPNHead
from detectron2.modeling.roi_heads import FastRCNNConvFCHead, FastRCNNOutputLayers, StandardROIHeads

from mmovseg.config import LazyCall as L
from mmovseg.config import get_config
from mmovseg.projects.codemae.modeling.detector import Detector

_levels = ["p4", "p8", "p16", "p32", "p64"]
_channels = 256

backbone = get_config("projects/CoDeMAE/configs/common/encoders.py").hivit_b
backbone.sensor = "${..sensor}"
backbone.out_features = _levels
backbone.coarse_pool = "average"
backbone.drop_path = 0.15
backbone.norm_eps = 1e-5  # as the release's detection ran, although it was pretrained with 1e-6
backbone.checkpointing = True

proposal_generator = L(RPN)(
    in_features=_levels,
    head=L(StandardRPNHead)(in_channels=_channels, num_anchors=3),
    anchor_generator=L(DefaultAnchorGenerator)(
        sizes=[[32], [64], [128], [256], [512]],  # eight times the stride
        aspect_ratios=[0.5, 1.0, 2.0],
        strides=[4, 8, 16, 32, 64],
        offset=0.0,
    ),
    anchor_matcher=L(Matcher)(thresholds=[0.3, 0.7], labels=[0, -1, 1], allow_low_quality_matches=True),
    box2box_transform=L(Box2BoxTransform)(weights=[1.0, 1.0, 1.0, 1.0]),
    batch_size_per_image=256,
    positive_fraction=0.5,
    pre_nms_topk=(2000, 1000),  # of every level: training, test
    post_nms_topk=(1000, 1000),
    nms_thresh=0.7,
)

roi_heads = L(StandardROIHeads)(
    num_classes=80,
    batch_size_per_image=512,
    positive_fraction=0.25,
    proposal_matcher=L(Matcher)(thresholds=[0.5], labels=[0, 1], allow_low_quality_matches=False),
    box_in_features=_levels[:4],
    box_pooler=L(ROIPooler)(
        output_size=7, scales=[1 / 4, 1 / 8, 1 / 16, 1 / 32], sampling_ratio=0, pooler_type="ROIAlignV2"
    ),
    box_head=L(FastRCNNConvFCHead)(
        input_shape=L(ShapeSpec)(channels=_channels, height=7, width=7),
        conv_dims=[256, 256, 256, 256],
        fc_dims=[1024],
        # statistics over all processes, as the release's; this one of Detectron2's two also runs on a CPU
        conv_norm="naiveSyncBN",
    ),
    box_predictor=L(FastRCNNOutputLayers)(
        input_shape=L(ShapeSpec)(channels=1024),
        box2box_transform=L(Box2BoxTransform)(weights=[10.0, 10.0, 5.0, 5.0]),
        num_classes="${..num_classes}",
        test_score_thresh=0.05,
        test_nms_thresh=0.5,
        test_topk_per_image=100,
        # The release: GIoU with the weight 10. The table of the paper prints L1: "smooth_l1" with the weight 1 here.
        box_reg_loss_type="giou",
        loss_weight=dict(loss_box_reg=10.0),
    ),
)

model = L(Detector)(
    backbone=backbone,
    proposal_generator=proposal_generator,
    roi_heads=roi_heads,
    norms=dict(),
    sensor="optical",
    categories=[],
    size_multiple=32,
)
