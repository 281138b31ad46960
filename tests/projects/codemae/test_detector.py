"""Detectron2's R-CNN over the encoder: losses and gradients, images of any size, sensors, and what is refused."""

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage

from mmovseg.config import instantiate, load_config
from mmovseg.engine.optim import build_optimizer
from mmovseg.engine.run import forget_foundation_weights
from mmovseg.errors import UserError
from mmovseg.projects.codemae.modeling.detector import Detector

XS = "projects/CoDeMAE/configs/faster_rcnn_miniearth_xs_scratch.py"


def xs_node(**changes):
    node = load_config(XS).model
    for key, value in changes.items():
        node[key] = value
    return node


@pytest.fixture(scope="module")
def detector() -> Detector:
    torch.manual_seed(0)
    return instantiate(xs_node())


def item(rows=64, columns=64, boxes=((4, 4, 14, 12), (30, 40, 34, 44)), classes=(0, 2), **more):
    found = Instances((rows, columns))
    found.gt_boxes = Boxes(torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))
    found.gt_classes = torch.tensor(classes, dtype=torch.int64)
    sar = torch.randn(2, rows, columns, generator=torch.Generator().manual_seed(rows)) * 5 - 12
    return {"sar": sar, "height": rows, "width": columns, "file_name": "a.tif", "instances": found, **more}


def losses_of(model, items):
    model.train()
    with EventStorage():
        return model(items)


def test_training_gives_four_losses_and_a_gradient_to_everything_of_the_sensor(detector):
    losses = losses_of(detector, [item(), item(72, 48)])
    assert set(losses) == {"loss_cls", "loss_box_reg", "loss_rpn_cls", "loss_rpn_loc"}
    sum(losses.values()).backward()
    for name, parameter in detector.named_parameters():
        if name.startswith("backbone.embed.optical"):
            assert not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and bool(parameter.grad.isfinite().all()), name
    detector.zero_grad(set_to_none=True)


def test_images_without_objects_train_too(detector):
    losses = losses_of(detector, [item(boxes=(), classes=()), item(boxes=(), classes=())])
    sum(losses.values()).backward()
    assert losses["loss_box_reg"].item() == losses["loss_rpn_loc"].item() == 0
    assert all(p.grad is not None for p in detector.parameters() if p.requires_grad)
    detector.zero_grad(set_to_none=True)


@pytest.mark.parametrize(("height", "width"), [(64, 64), (50, 71), (8, 8)])
def test_detections_lie_in_the_original_image(detector, height, width):
    detector.eval()
    with torch.no_grad():
        (answer,) = detector([item(height, width, height=2 * height, width=3 * width)])
    found = answer["instances"]
    assert found.image_size == (2 * height, 3 * width) and len(found) > 0
    boxes = found.pred_boxes.tensor
    assert float(boxes.min()) >= 0 and float(boxes[:, 2].max()) <= 3 * width and float(boxes[:, 3].max()) <= 2 * height


def test_objects_do_not_depend_on_the_other_images_of_a_batch(detector):
    detector.eval()
    items = [item(), item(96, 128), item(64, 60), item()]
    with torch.no_grad():
        together, alone = detector(items), [detector([one])[0] for one in items]
    for one, other in zip(together, alone, strict=True):
        found, expected = one["instances"], other["instances"]
        torch.testing.assert_close(found.pred_boxes.tensor, expected.pred_boxes.tensor, atol=1e-3, rtol=0)
        torch.testing.assert_close(found.scores, expected.scores, atol=1e-5, rtol=0)


def test_padding_and_pixels_without_data_are_the_mean(detector):
    given = item(8, 10)
    given["sar"][:, 0, 0] = float("nan")
    images = detector.preprocess_image([given, item(16, 8)])
    assert images.tensor.shape == (2, 2, 16, 16) and images.image_sizes == [(8, 10), (16, 8)]
    assert bool((images.tensor[0, :, 8:] == 0).all() and (images.tensor[0, :, :, 10:] == 0).all())
    assert bool((images.tensor[0, :, 0, 0] == 0).all())
    expected = (given["sar"][:, 5, 5].clamp(-35, 10) - torch.tensor([-12.2, -18.2])) / 5.3
    torch.testing.assert_close(images.tensor[0, :, 5, 5], expected)


def test_one_option_changes_the_sensor():
    model = instantiate(xs_node(sensor="optical"))
    assert model.input_contract["sar"] is None and model.input_contract["optical"]["unit"] == "uint8"
    frozen = {name for name, parameter in model.named_parameters() if not parameter.requires_grad}
    assert frozen and all(name.startswith("backbone.embed.sar.") for name in frozen)
    given = item()
    given["image"] = torch.randint(0, 256, (3, 64, 64), dtype=torch.uint8)
    del given["sar"]
    assert set(losses_of(model, [given]))


def test_what_does_not_fit_is_refused(detector):
    with pytest.raises(
        UserError, match="'a.tif' has an object of class 3, but the model knows 3: aircraft, ship, vehicle"
    ):
        losses_of(detector, [item(classes=(0, 3))])
    bare = {key: value for key, value in item().items() if key != "instances"}
    with pytest.raises(UserError, match="'a.tif' has no objects to train on"):
        losses_of(detector, [bare])
    with pytest.raises(UserError, match="the detector reads 'sar', which 'a.tif' does not have; model.sensor"):
        losses_of(detector, [{**{k: v for k, v in item().items() if k != "sar"}}])
    with pytest.raises(UserError, match="model.categories has 2 names, but model.roi_heads.num_classes is 3"):
        instantiate(xs_node(categories=["ship", "plane"]))
    node = xs_node()
    node.sensor = "radar"
    node.backbone.sensor = "sar"
    with pytest.raises(
        UserError, match="model.sensor is 'radar' but must be one of those in model.norms: optical, sar"
    ):
        instantiate(node)


def test_a_checkpoint_takes_the_place_of_files_but_not_of_the_factors_of_boxes():
    node = load_config("projects/CoDeMAE/configs/faster_rcnn_miniearth_xs.py").model
    assert node.backbone.weights.endswith(".safetensors")
    forget_foundation_weights(node)
    assert node.backbone.weights is None
    assert list(node.roi_heads.box_predictor.box2box_transform.weights) == [10.0, 10.0, 5.0, 5.0]


def test_layers_of_the_encoder_learn_the_slower_the_earlier(detector):
    optimizer = build_optimizer(
        detector, base_lr=1.0, weight_decay=0.05, decay_vectors=False, layer_decay=0.5, layer_module="backbone"
    )
    rate = {id(p): (g["lr"], g["weight_decay"]) for g in optimizer.param_groups for p in g["params"]}
    named = dict(detector.named_parameters())
    layers = detector.backbone.num_layers
    assert rate[id(named["backbone.embed.sar.proj.weight"])] == (0.5**layers, 0.05)
    assert rate[id(named["backbone.blocks.0.mlp.fc1.weight"])] == (0.5 ** (layers - 1), 0.05)
    assert rate[id(named["backbone.pyramid.lateral16.weight"])] == (1.0, 0.05)
    assert rate[id(named["roi_heads.box_head.fc1.bias"])] == (1.0, 0.0)


@pytest.mark.parametrize(
    ("name", "sensor", "classes", "images", "steps"),
    [
        ("faster_rcnn_dior_b", "optical", 20, 11_725, [8, 11]),
        ("faster_rcnn_sardet100k_b", "sar", 6, 94_493, [27, 33]),
    ],
)
def test_the_large_configs_build_the_recipe(name, sensor, classes, images, steps):
    config = load_config(f"projects/CoDeMAE/configs/{name}.py")
    config.model.backbone.weights = None
    with torch.device("meta"):
        encoder = instantiate(config.model.backbone)
    shapes = encoder.output_shape()
    assert {name: shape.stride for name, shape in shapes.items()} == {f"p{s}": s for s in (4, 8, 16, 32, 64)}
    assert {shape.channels for shape in shapes.values()} == {256} and encoder.sensors == (sensor,)
    assert len(config.model.categories) == config.model.roi_heads.num_classes == classes
    predictor = instantiate(config.model.roi_heads.box_predictor)
    assert (predictor.box_reg_loss_type, predictor.loss_weight) == ("giou", {"loss_box_reg": 10.0})
    schedule = instantiate(config.lr_multiplier)
    assert [step * 16 / images for step in schedule.milestones] == pytest.approx(steps, rel=1e-3)
    assert schedule(0) == pytest.approx(1e-3) and schedule(1.0) == pytest.approx(0.01)
