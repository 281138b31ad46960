"""The aligner of two encoders: its losses, their options, what it leaves out, and several processes."""

from __future__ import annotations

import socket

import pytest
import torch
from detectron2.utils.events import EventStorage
from torch.nn.functional import normalize

from mmovseg.config import get_config, instantiate
from mmovseg.errors import UserError
from mmovseg.layers.queue import FeatureQueue
from mmovseg.modeling.losses import OTHER_BATCH, info_nce
from tests.modeling.aligner_worker import losses_and_gradients, make_aligner, paired_inputs, work
from tests.modeling.conftest import make_inputs


def build_aligner():
    config = get_config("miniearth/sar_xs.py").model
    config.teacher.weights = config.student.weights = None
    torch.manual_seed(0)
    return instantiate(config)


def aligned_inputs():
    inputs = make_inputs(2)
    for item in inputs:
        item["image_clear"] = item["image"]
    return inputs


def test_aligner_moves_the_student_only_and_logs_its_accuracy():
    model = build_aligner().train()
    teacher = {name: p.detach().clone() for name, p in model.teacher.named_parameters()}
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=1e-3)
    losses = []
    with EventStorage(0) as storage:
        for _ in range(8):
            torch.manual_seed(1)
            loss = model(aligned_inputs())["loss_infonce"]
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert 0.0 <= storage.latest()["align_accuracy"][0] <= 1.0
    assert losses[-1] < losses[0]
    assert all(torch.equal(p, teacher[name]) for name, p in model.teacher.named_parameters())


def test_aligner_limits_the_similarity_matrix():
    model = build_aligner().train()
    with EventStorage(0):
        assert model(aligned_inputs())["loss_infonce"].item() > 0
        model.patches_per_step = 1  # a single candidate is always the right one
        assert model(aligned_inputs())["loss_infonce"].item() == pytest.approx(0.0, abs=1e-6)


def test_aligner_weighs_its_losses_and_knows_no_others():
    config = get_config("miniearth/sar_xs.py").model
    config.teacher.weights = config.student.weights = None
    config.loss_weights = {"l1": 2.0, "mse": 1.0}
    torch.manual_seed(0)
    model = instantiate(config).train()
    with EventStorage(0):
        torch.manual_seed(1)
        once = model(aligned_inputs())
        model.loss_weights["l1"] = 4.0
        torch.manual_seed(1)
        twice = model(aligned_inputs())
    assert set(once) == {"loss_l1", "loss_mse"}
    assert twice["loss_l1"].item() == pytest.approx(2 * once["loss_l1"].item(), rel=1e-5)
    assert twice["loss_mse"].item() == pytest.approx(once["loss_mse"].item(), rel=1e-5)
    config.loss_weights = {"cosine": 1.0}
    with pytest.raises(UserError, match="no loss 'cosine'; it has: infonce, l1, mse"):
        instantiate(config)


def test_aligner_names_the_missing_view():
    with pytest.raises(UserError, match="key 'image_clear'"):
        build_aligner().train()(make_inputs(1))
    with pytest.raises(UserError, match="key 'sar'"):
        build_aligner().eval()(make_inputs(1, modality="optical"))


def _step(inputs=None, **options):
    return losses_and_gradients(make_aligner(**options).train(), inputs or paired_inputs())


OPTIONS = {
    "patches": {},
    "symmetric": {"symmetric": True},
    "other images": {"negatives": "other_images"},
    "both kinds, all losses": {
        "tokens": ("patch", "global"),
        "loss_weights": {"infonce": 1.0, "l1": 0.5, "mse": 2.0},
        "learn_temperature": True,
    },
    "queue": {"queue_size": 40},
}


@pytest.mark.slow
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_two_processes_give_the_losses_and_gradients_of_one_with_the_whole_batch(tmp_path, options):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    torch.multiprocessing.spawn(work, (port, str(tmp_path), options), nprocs=2)
    model = make_aligner(**options).train()
    for step in range(2):
        model.zero_grad()
        losses, gradients = losses_and_gradients(model, paired_inputs())
        theirs = [torch.load(tmp_path / f"{rank}-{step}.pth", weights_only=True) for rank in range(2)]
        for name, loss in losses.items():  # the trainer logs the mean over processes
            torch.testing.assert_close((theirs[0][0][name] + theirs[1][0][name]) / 2, loss)
        assert set(gradients) == {name.removeprefix("module.") for name in theirs[0][1]} and len(gradients) > 20
        for name, gradient in gradients.items():
            for rank in range(2):
                torch.testing.assert_close(theirs[rank][1][name], gradient, atol=1e-6, rtol=1e-4)
    assert gradients["student.model.patch_embed.proj.weight"].abs().max() > 1e-4


@pytest.mark.parametrize("grouped", [False, True])
def test_info_nce_with_a_queue_and_groups_equals_a_slow_loop(grouped):
    torch.manual_seed(0)
    queries, keys = torch.randn(6, 5), torch.randn(9, 5)
    positives = torch.tensor([2, 0, 1, 5, 4, 3])
    query_groups, key_groups = torch.tensor([0, 0, 0, 1, 1, 2]), torch.tensor([0, 0, 0, 2, 1, 1, -1, -1, -1])
    assert int(key_groups[-1]) == OTHER_BATCH
    groups = {"query_groups": query_groups, "key_groups": key_groups} if grouped else {}
    loss, accuracy = info_nce(queries, keys, positives, temperature=0.2, **groups)
    total, hits = 0.0, 0
    for i in range(6):
        allowed = [
            j for j in range(9) if j == positives[i] or not grouped or int(query_groups[i]) != int(key_groups[j])
        ]
        scores = {j: torch.cosine_similarity(queries[i], keys[j], dim=0).item() / 0.2 for j in allowed}
        own = scores[int(positives[i])]
        total -= own - torch.logsumexp(torch.tensor(list(scores.values())), dim=0).item()
        hits += own == max(scores.values())
    assert loss.item() == pytest.approx(total / 6, rel=1e-5)
    assert accuracy.item() == pytest.approx(hits / 6)


def test_identical_pairs_give_log_n_and_chance_and_no_queries_give_zero():
    same = torch.ones(8, 4)
    loss, accuracy = info_nce(same, same)
    assert loss.item() == pytest.approx(2.0794415, rel=1e-6) and accuracy.item() == pytest.approx(1 / 8)
    queries = torch.zeros(0, 4, requires_grad=True)
    loss, accuracy = info_nce(queries, torch.randn(3, 4), torch.zeros(0, dtype=torch.int64))
    loss.backward()
    assert loss.item() == 0.0 and accuracy.isnan() and queries.grad is not None
    with pytest.raises(ValueError, match="do not fit"):
        info_nce(torch.randn(2, 3), torch.randn(2, 4))
    with pytest.raises(ValueError, match="come together"):
        info_nce(same, same, query_groups=torch.zeros(8, dtype=torch.int64))


def test_row_chunks_change_memory_and_nothing_else():
    torch.manual_seed(0)
    queries, keys = torch.randn(64, 8, requires_grad=True), torch.randn(64, 8)

    def run(chunk):
        kept = []
        with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x.numel()) or x, lambda x: x):
            loss, accuracy = info_nce(queries, keys, row_chunk=chunk)
        (gradient,) = torch.autograd.grad(loss, queries)
        return loss, accuracy, gradient, max(kept)

    whole, parts = run(None), run(10)
    for one, other in zip(whole[:3], parts[:3], strict=True):
        torch.testing.assert_close(one, other)
    assert whole[3] == 64 * 64 and parts[3] == 64 * 8  # no score matrix is kept for the backward pass


def test_batch_of_one_is_valid_for_patches_and_refused_where_it_has_no_negatives():
    one = paired_inputs(1)
    losses, gradients = _step(one)
    assert losses["loss_infonce"] > 0 and gradients
    for options in ({"tokens": ("global",)}, {"negatives": "other_images"}):
        with pytest.raises(UserError, match="a batch of one image has no negatives"):
            _step(one, **options)
    assert _step(one, tokens=("global",), loss_weights={"mse": 1.0})[0]["loss_mse_global"] > 0
    assert _step(one, tokens=("global",), queue_size=4)[0]["loss_infonce_global"] == 0  # nothing in the queue yet


def test_identical_pairs_in_a_batch_give_log_of_their_number():
    pair = paired_inputs(1)[0]
    losses, gradients = _step([pair] * 3, tokens=("global",))
    assert losses["loss_infonce_global"].item() == pytest.approx(1.0986123, rel=1e-5)
    assert all(torch.isfinite(gradient).all() for gradient in gradients.values())


def test_patches_without_data_take_no_part():
    inputs = paired_inputs(2, holes=False)
    whole = _step(inputs)[0]["loss_infonce"]
    inputs[1]["sar_valid"][:8] = False
    holed = _step(inputs)[0]["loss_infonce"]
    other = [dict(item) for item in inputs]
    other[1]["image_clear"] = inputs[1]["image_clear"].clone()
    other[1]["valid"] = torch.ones(16, 16, dtype=torch.bool)
    other[1]["valid"][:8] = False  # the other view's mask means the same patches
    other[1]["sar_valid"] = torch.ones(16, 16, dtype=torch.bool)
    assert holed < whole  # 24 candidates and not 32
    answers = make_aligner().eval()(inputs)
    assert answers[1]["patch_valid"].tolist() == [[False] * 4] * 2 + [[True] * 4] * 2
    assert make_aligner().eval()(other)[1]["patch_valid"].equal(answers[1]["patch_valid"])
    assert make_aligner(min_valid=0.5).eval()(_half_patches(inputs))[0]["patch_valid"].sum() == 16
    assert make_aligner(min_valid=0.6).eval()(_half_patches(inputs))[0]["patch_valid"].sum() == 12


def _half_patches(inputs):
    first = dict(inputs[0], sar_valid=torch.ones(16, 16, dtype=torch.bool))
    first["sar_valid"][:2] = False
    return [first]


def test_nothing_valid_gives_a_loss_of_zero_and_finite_gradients():
    inputs = paired_inputs(2)
    for item in inputs:
        item["sar_valid"] = torch.zeros(16, 16, dtype=torch.bool)
    losses, gradients = _step(inputs, tokens=("patch", "global"), symmetric=True)
    assert [loss.item() for loss in losses.values()] == [0.0, 0.0]
    assert all(not gradient.any() for gradient in gradients.values())


def test_other_images_as_negatives_leave_out_the_own_image():
    losses = {kind: _step(negatives=kind)[0]["loss_infonce"].item() for kind in ("all", "other_images")}
    assert losses["other_images"] < losses["all"]
    inputs = paired_inputs(holes=False)
    with torch.no_grad():
        answers = make_aligner().eval()(inputs)
    expected = []
    for level in ("block1", "block2"):
        rows = [answer["student"][level].flatten(1).T for answer in answers]
        columns = [answer["teacher"][level].flatten(1).T for answer in answers]
        for i, patches in enumerate(rows):
            for k, patch in enumerate(patches):
                others = [columns[j] for j in range(4) if j != i]
                scores = normalize(torch.cat([columns[i][k : k + 1], *others]), dim=1) @ normalize(patch, dim=0) / 0.07
                expected.append(-(scores[0] - scores.logsumexp(0)).item())
    loss = _step(inputs, negatives="other_images")[0]["loss_infonce"]
    assert loss.item() == pytest.approx(sum(expected) / len(expected), rel=1e-4)


def test_queue_adds_the_teacher_of_past_batches_as_negatives_and_is_part_of_the_state():
    model = make_aligner(queue_size=40).train()
    first, _ = losses_and_gradients(model, paired_inputs(2, holes=False))
    assert model.queues["patch"].keys(0).shape == (32, 16)
    second, _ = losses_and_gradients(model, paired_inputs(2, holes=False))
    assert second["loss_infonce"] > first["loss_infonce"]  # the same patches stand among the negatives again
    assert "queues.patch.entries" in model.state_dict()
    with pytest.raises(UserError, match="gather=True"):
        make_aligner(queue_size=4, gather=False)


def test_queue_forgets_the_oldest():
    queue = FeatureQueue(3, levels=1, width=1)
    for value in (1.0, 2.0):
        queue.push(torch.tensor([[[value]]]))
    assert queue.keys(0).flatten().tolist() == [1.0, 2.0]
    queue.push(torch.tensor([[[3.0], [4.0]]]))
    assert sorted(queue.keys(0).flatten().tolist()) == [2.0, 3.0, 4.0]
    queue.push(torch.arange(10.0).view(1, 10, 1))
    assert sorted(queue.keys(0).flatten().tolist()) == [7.0, 8.0, 9.0]


def test_learned_temperature_gets_a_gradient_and_keeps_its_floor():
    model = make_aligner(learn_temperature=True, temperature=0.2).train()
    losses, gradients = losses_and_gradients(model, paired_inputs())
    assert losses["loss_infonce"].item() == pytest.approx(_step(temperature=0.2)[0]["loss_infonce"].item(), rel=1e-5)
    assert gradients["log_temperature"].abs() > 0
    with torch.no_grad():
        model.log_temperature.fill_(-20.0)
    model.zero_grad()
    losses, gradients = losses_and_gradients(model, paired_inputs())
    assert losses["loss_infonce"].item() == pytest.approx(_step(temperature=0.01)[0]["loss_infonce"].item(), rel=1e-5)
    assert gradients["log_temperature"].abs() > 0  # the way back
    with pytest.raises(UserError, match="learn_temperature needs the loss 'infonce'"):
        make_aligner(learn_temperature=True, loss_weights={"mse": 1.0})


def test_blocks_behind_the_deepest_level_do_not_train():
    model = make_aligner(levels=(1,)).train()
    trainable = {name for name, parameter in model.named_parameters() if parameter.requires_grad}
    _, gradients = losses_and_gradients(model, paired_inputs())
    assert trainable == set(gradients) and not any(name.startswith("student.model.blocks.1.") for name in trainable)


def test_stored_features_replace_the_teacher():
    inputs = paired_inputs(2)
    answers = make_aligner().eval()(inputs)
    stored = [dict(item) for item in inputs]
    for item, answer in zip(stored, answers, strict=True):
        item["teacher_features"] = {**answer["teacher"], "global": answer["teacher_global"]}
        del item["image_clear"]
    without = make_aligner()
    without.teacher = without.teacher_norm = None
    losses, gradients = losses_and_gradients(without.train(), stored)
    expected, expected_gradients = _step(inputs)
    torch.testing.assert_close(losses, expected)
    torch.testing.assert_close(gradients, expected_gradients)
    stored[1]["valid"] = torch.zeros(16, 16, dtype=torch.bool)  # of the raster that is not there
    with EventStorage(0):
        only_first = without(stored)["loss_infonce"].item()
        assert only_first == pytest.approx(without(stored[:1])["loss_infonce"].item(), rel=1e-5)
    stored[1]["teacher_features"]["block2"] = torch.zeros(16, 2, 2)
    with pytest.raises(
        UserError, match=r"'pair1' have the shape \(16, 2, 2\) for 'block2', the student has \(16, 4, 4\)"
    ):
        losses_and_gradients(without, stored)
    del stored[1]["teacher_features"]["block2"]
    with pytest.raises(UserError, match="have nothing for 'block2'"):
        losses_and_gradients(without, stored)
    with pytest.raises(UserError, match="'teacher_features' in every input"):
        losses_and_gradients(without, inputs)


def test_global_embedding_is_the_mean_of_valid_patches_or_the_class_token():
    inputs = paired_inputs(2)
    model = make_aligner().eval()
    answer = model(inputs)[1]
    expected = answer["student"]["block2"][:, answer["patch_valid"]].mean(dim=1)
    torch.testing.assert_close(answer["student_global"]["block2"], expected)
    model.global_pool = "class_token"
    tokens = model.student.encode(torch.stack([model.student_norm(x["sar"], x["sar_valid"]) for x in inputs]))[1]
    torch.testing.assert_close(model(inputs)[1]["student_global"]["block2"], tokens["block2"][1])


def test_features_of_an_image_do_not_depend_on_the_others_of_its_batch():
    inputs = paired_inputs(4)
    for key in ("image_clear", "sar", "sar_valid"):
        inputs[1][key] = inputs[1][key].repeat(*[1] * (inputs[1][key].ndim - 2), 2, 2)
    del inputs[2]["image_clear"]
    model = make_aligner().eval()
    together, alone = model(inputs), [model([item])[0] for item in inputs]
    for one, other in zip(together, alone, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)
    assert together[1]["patch_valid"].shape == (8, 8) and "teacher" not in together[2]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"tokens": ("pixel",)}, "tokens must be some of patch, global"),
        ({"negatives": "none"}, "negatives must be one of all, other_images, got 'none'"),
        ({"temperature": 0.0}, "must be positive, got 0"),
        ({"levels": (3,)}, "level 'block3' is no tap"),
    ],
)
def test_wrong_options_are_named(options, words):
    with pytest.raises(UserError, match=words):
        make_aligner(**options)
