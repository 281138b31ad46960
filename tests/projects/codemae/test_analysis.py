"""The figures of the analysis against slow loops, and the commands from config to picture."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image
from safetensors.torch import load_file

from mmovseg.checkpoint import save_weights
from mmovseg.config import instantiate, load_config
from mmovseg.errors import UserError
from mmovseg.evaluation.spectrum import Moments, effective_rank
from mmovseg.projects.codemae.analysis import pairs, panels, spectrum, ssim
from mmovseg.projects.codemae.analysis.features import choose_pairs
from tests.projects.codemae.tiny_pretrainer import make_pretrainer

CONFIG = str(Path(__file__).with_name("tiny_config.py"))


# ---------------------------------------------------------------- SSIM


def slow_ssim(first, second):
    """Wang et al. (2004), eq. 13, one window, pixel by pixel."""
    x, y = first.flatten().tolist(), second.flatten().tolist()
    n = len(x)
    mx, my = sum(x) / n, sum(y) / n
    vx, vy = sum((a - mx) ** 2 for a in x) / n, sum((b - my) ** 2 for b in y) / n
    cov = sum((a - mx) * (b - my) for a, b in zip(x, y, strict=True)) / n
    c1, c2 = 0.01**2, 0.03**2
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def test_patch_ssim_equals_a_loop_over_patches():
    x, y = torch.rand(12, 18), torch.rand(12, 18)
    found = ssim.patch_ssim(x, y, 6)
    expected = [[slow_ssim(x[i : i + 6, j : j + 6], y[i : i + 6, j : j + 6]) for j in (0, 6, 12)] for i in (0, 6)]
    torch.testing.assert_close(found, torch.tensor(expected))


def test_patch_ssim_equals_that_of_another_library():
    from torchmetrics.functional.image import structural_similarity_index_measure

    x, y = torch.rand(7, 7), torch.rand(7, 7)
    theirs = structural_similarity_index_measure(
        x[None, None], y[None, None], gaussian_kernel=False, kernel_size=7, data_range=1.0, return_full_image=True
    )[1]
    assert float(ssim.patch_ssim(x, y, 7)[0, 0]) == pytest.approx(float(theirs[0, 0, 3, 3]), abs=1e-5)


def test_equal_images_are_alike_and_negatives_are_not():
    x = torch.rand(8, 8)
    assert float(ssim.patch_ssim(x, x, 8)) == pytest.approx(1)
    assert float(ssim.patch_ssim(x, 1 - x, 8)) < -0.7


def test_rank_correlation_shares_ranks_among_ties():
    x, y = torch.tensor([1.0, 2.0, 2.0, 5.0, 9.0]), torch.tensor([3.0, 1.0, 4.0, 4.0, 8.0])
    ranks = np.array([[0, 1.5, 1.5, 3, 4], [1, 0, 2.5, 2.5, 4]])
    assert ssim.rank_correlation(x, y) == pytest.approx(np.corrcoef(ranks)[0, 1])
    assert ssim.rank_correlation(x, x**3) == pytest.approx(1)
    assert ssim.rank_correlation(x, torch.ones(5)) is None


def test_alignment_goes_up_where_alike_places_are_aligned():
    likeness = torch.rand(400)
    optical = torch.nn.functional.normalize(torch.randn(400, 16), dim=1)
    noise = torch.nn.functional.normalize(torch.randn(400, 16), dim=1)
    found = ssim.alignment_by_ssim(
        likeness, likeness[:, None] * optical + (1 - likeness[:, None]) * noise, optical, seed=0
    )
    assert found["rank correlation"] > 0.9 and abs(found["chance"]) < 0.05 < found["cosine"]
    groups = found["groups"]
    assert [group["patches"] for group in groups] == [40] * 10
    assert [group["ssim"] for group in groups] == sorted(group["ssim"] for group in groups)
    assert all(group["quartiles"][0] <= group["quartiles"][1] for group in groups)
    with pytest.raises(UserError, match="9 patches cannot make 10 groups"):
        ssim.alignment_by_ssim(likeness[:9], optical[:9], optical[:9], seed=0)


# ---------------------------------------------------------------- pairs


def slow_structure(sar, optical, k):
    """The definitions, one patch at a time."""
    sar, optical = (torch.nn.functional.normalize(rows.double(), dim=1) for rows in (sar, optical))
    n, own_sensor, shared = len(sar), 0, 0
    for side, (mine, other) in enumerate(((sar, optical), (optical, sar))):
        for i in range(n):
            same = [float(mine[i] @ mine[j]) if j != i else -2.0 for j in range(n)]
            across = [float(mine[i] @ other[j]) if j != i else -2.0 for j in range(n)]
            own_sensor += max(same) > max(across)
            if side == 0:
                nearest = set(np.argsort(same)[::-1][:k].tolist())
                theirs = [float(optical[i] @ optical[j]) if j != i else -2.0 for j in range(n)]
                shared += len(nearest & set(np.argsort(theirs)[::-1][:k].tolist()))
    return {"separation": 100 * own_sensor / (2 * n), "shared neighbours": 100 * shared / (n * k)}


def test_structure_equals_its_definition():
    optical = torch.randn(30, 5)
    sar = optical + 0.8 * torch.randn(30, 5)
    found = pairs.structure(sar, optical, neighbours=4)
    expected = slow_structure(sar, optical, 4)
    assert {key: found[key] for key in expected} == pytest.approx(expected)
    with pytest.raises(UserError, match="5 pairs of patches are too few for 4 neighbours"):
        pairs.structure(sar[:5], optical[:5], neighbours=4)


def test_a_shift_is_parallel_and_apart_and_noise_is_neither():
    optical = torch.nn.functional.normalize(torch.randn(200, 12), dim=1)
    step = torch.zeros(12)
    step[0] = 8.0
    shifted = pairs.structure(optical + step, optical)
    assert shifted["separation"] > 97 and shifted["parallelism"] > 0.6
    mixed = pairs.structure(torch.randn(200, 12), torch.randn(200, 12))
    assert mixed["separation"] == pytest.approx(50, abs=12) and mixed["parallelism"] < 0.25
    assert mixed["shared neighbours"] == pytest.approx(mixed["chance of shared neighbours"], abs=3)
    assert pairs.structure(optical, optical)["shared neighbours"] == 100


def test_main_directions_do_not_depend_on_the_signs_of_the_decomposition(monkeypatch):
    sar, optical = torch.randn(40, 6), torch.randn(40, 6)
    first, second = pairs.in_a_plane(sar, optical, method="pca", seed=0)
    assert first.shape == second.shape == (40, 2)
    together = np.concatenate([first, second])
    assert together.mean(axis=0) == pytest.approx([0, 0], abs=1e-9) and together[:, 0].var() >= together[:, 1].var()
    decompose = torch.linalg.svd
    with monkeypatch.context() as patch:
        patch.setattr(torch.linalg, "svd", lambda *a, **k: [-1 * part for part in decompose(*a, **k)])
        turned = pairs.in_a_plane(sar, optical, method="pca", seed=0)
    assert np.allclose(first, turned[0]) and np.allclose(second, turned[1])


@pytest.mark.parametrize("count", [1, 3])
def test_no_words_of_the_pair_plot_lie_on_others(count, monkeypatch):
    drawn = []
    monkeypatch.setattr(pairs, "save_figure", lambda figure, path: drawn.append(figure))
    sar, optical = torch.randn(20, 6), torch.randn(20, 6)
    places = pairs.in_a_plane(sar, optical, method="pca", seed=0)
    panels = [(f"model {number}", places, pairs.structure(sar, optical)) for number in range(count)]
    title = "Main directions of optical and SAR patches"
    pairs.draw_pairs(panels, "a.png", title=title, note="20 patches of 5 test pairs, partners joined")
    (figure,) = drawn
    boxes = [text.get_window_extent(FigureCanvasAgg(figure).get_renderer()) for text in figure.texts]
    assert len(boxes) == 4 + 3 * count and all(box.x0 >= 0 and box.x1 <= figure.bbox.width for box in boxes)
    assert not [one for i, one in enumerate(boxes) for other in boxes[:i] if one.overlaps(other)]


def test_umap_gets_the_seed_and_its_absence_is_one_sentence(monkeypatch):
    seen = {}

    class Stand:
        def __init__(self, **options):
            seen.update(options)

        def fit_transform(self, rows):
            seen["rows"] = rows.shape
            return rows[:, :2]

    monkeypatch.setitem(sys.modules, "umap", types.SimpleNamespace(UMAP=Stand))
    sar, optical = pairs.in_a_plane(torch.randn(7, 4), torch.randn(7, 4), method="umap", seed=3)
    assert sar.shape == optical.shape == (7, 2)
    assert seen == {"metric": "cosine", "random_state": 3, "n_jobs": 1, "rows": (14, 4)}
    monkeypatch.setitem(sys.modules, "umap", None)
    with pytest.raises(
        UserError, match="umap-learn, which is not installed: pip install umap-learn, or take --method pca"
    ):
        pairs.in_a_plane(torch.randn(7, 4), torch.randn(7, 4), method="umap", seed=3)


@pytest.mark.slow
def test_umap_gives_the_same_places_again():
    pytest.importorskip("umap")
    optical = torch.randn(60, 8)
    first, second = (pairs.in_a_plane(optical + 4, optical, method="umap", seed=1) for _ in range(2))
    assert np.array_equal(first, second) and np.isfinite(first).all()


# ---------------------------------------------------------------- panels


def test_a_region_hides_every_unit_that_it_touches():
    visible = panels.units_of_region((7, 8, 2, 1), (4, 3), 8)  # rows 7 and 8 lie in two units
    assert sorted(set(range(12)) - set(visible.tolist())) == [1, 4]
    with pytest.raises(UserError, match="--region 0 0 33 8 does not lie inside images of 32 x 24 px"):
        panels.units_of_region((0, 0, 33, 8), (4, 3), 8)
    with pytest.raises(UserError, match="touches every unit"):
        panels.units_of_region((0, 0, 32, 24), (4, 3), 8)


def test_the_correlation_sees_masked_units_alone_and_not_their_means():
    truth, mask = torch.rand(2, 8, 12), torch.tensor([[True, False, False], [False, False, True]])
    levels = torch.rand(2, 2, 3).repeat_interleave(4, 1).repeat_interleave(4, 2)
    assert panels.masked_correlation(truth + levels, truth, mask, 4) == pytest.approx(1)
    assert panels.masked_correlation(levels, truth, mask, 4) is None  # nothing but means
    elsewhere = truth.clone()
    elsewhere[:, :4, 4:] = 9.0  # visible units
    assert panels.masked_correlation(elsewhere, truth, mask, 4) == pytest.approx(1)
    assert panels.masked_correlation(-truth, truth, mask, 4) == pytest.approx(-1)


# ---------------------------------------------------------------- what they share


def test_pairs_are_of_the_test_part_and_follow_the_seed():
    config = load_config(CONFIG)
    names = [
        [item["image_id"] for item in choose_pairs(config, loader=None, images=4, seed=seed)] for seed in (0, 0, 1)
    ]
    assert names[0] == names[1] != names[2] and names[0] == sorted(names[0])
    everything = choose_pairs(config, loader="sar", images=99, seed=0)
    assert [item["image_id"] for item in everything] == [f"{number:02d}" for number in range(3, 12)]
    with pytest.raises(UserError, match="test loader 'optical' gives no pairs: 'made/"):
        choose_pairs(config, loader="optical", images=1, seed=0)
    with pytest.raises(UserError, match="no test loader 'radar'; it has: optical, sar"):
        choose_pairs(config, loader="radar", images=1, seed=0)


# ---------------------------------------------------------------- commands


@pytest.fixture
def weights(tmp_path):
    """A whole pretrainer, one without the objectives of pairs, and an encoder alone."""
    whole = make_pretrainer()
    with torch.no_grad():
        for parameter in whole.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)))
    save_weights(whole, tmp_path / "whole.safetensors")
    save_weights(make_pretrainer(plain=True), tmp_path / "plain.safetensors")
    save_weights(whole.encoder, tmp_path / "encoder.safetensors")
    return tmp_path


def call(command, folder, *arguments, output="a.png"):
    command.main(["--config-file", CONFIG, *map(str, arguments), "--device", "cpu", "--output", str(folder / output)])
    with Image.open(folder / output) as picture:
        assert min(picture.size) > 300
    return json.loads((folder / output).with_suffix(".json").read_text())


@pytest.mark.parametrize(
    ("command", "options"), [(spectrum, []), (ssim, []), (pairs, ["--method", "pca", "--patches", "60"])]
)
def test_commands_compare_checkpoints_and_repeat_to_the_bit(command, options, weights, capsys):
    files = [f"{name}={weights / name}.safetensors" for name in ("whole", "plain", "encoder")]
    arguments = ["--checkpoint", *files, "random", "--images", "6", *options]
    first = call(command, weights, *arguments)
    again = call(command, weights, *arguments, output="b.png")
    assert (weights / "a.png").read_bytes() == (weights / "b.png").read_bytes()
    assert first == again
    whole, plain, encoder, built = first["models"]
    assert [entry["label"] for entry in first["models"]] == ["whole", "plain", "encoder", "as built"]
    assert len(first["pairs"]) == 6 and first["command"] == command.__name__.rsplit(".", 1)[1]
    ignored = ("label", "checkpoint", "checkpoint_sha256")
    figures = [{key: value for key, value in entry.items() if key not in ignored} for entry in first["models"]]
    assert figures[0] == figures[2] != figures[1]  # the encoder is the same, wherever it lies
    assert built["checkpoint"] is None and len(whole["checkpoint_sha256"]) == 64
    assert "wrote " in capsys.readouterr().out


def test_the_spectrum_is_that_of_the_evaluation(weights):
    found = call(spectrum, weights, "--checkpoint", weights / "whole.safetensors", "--images", "99")
    model = make_pretrainer().eval()
    model.load_state_dict(load_file(weights / "whole.safetensors"))
    items = choose_pairs(load_config(CONFIG), loader="sar", images=99, seed=0)
    with torch.no_grad():
        rows = torch.cat([answer["teacher"]["tokens"].flatten(1).T for answer in model(items)])
    (entry,) = found["models"]
    assert entry["optical"]["effective rank"] == pytest.approx(effective_rank(Moments.of(rows)), rel=1e-4)
    assert entry["sar"]["singular values"][0] == 1 and len(entry["sar"]["singular values"]) == 32


@pytest.mark.parametrize("target", ["pixel", "hog"])
def test_panels_show_both_ways_whatever_the_target(target, tmp_path):
    save_weights(make_pretrainer(cross={"target": target}), tmp_path / "w.safetensors")
    arguments = ["--checkpoint", tmp_path / "w.safetensors", "--images", "2", f"model.cross.target={target}"]
    found = call(panels, tmp_path, *arguments)
    assert call(panels, tmp_path, *arguments, output="b.png") == found
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    for image in found["images"]:
        assert image["masked share"] == 0.75
        values = [image[kind][sensor] for kind in ("own", "cross") for sensor in ("optical", "sar")]
        assert all(value is None or -1 <= value <= 1 for value in values)
    region = call(panels, tmp_path, *arguments, "--region", "8", "8", "9", "8", output="c.png")
    assert [image["masked share"] for image in region["images"]] == [2 / 16] * 2


def test_a_plain_autoencoder_has_panels_without_the_other_sensor(tmp_path):
    save_weights(make_pretrainer(plain=True), tmp_path / "w.safetensors")
    found = call(panels, tmp_path, "--checkpoint", tmp_path / "w.safetensors", "--images", "1", "model.plain=true")
    assert set(found["images"][0]) == {"image_id", "masked share", "own"}


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        (spectrum, ["--checkpoint", "no.safetensors"], "checkpoint 'no.safetensors' does not exist"),
        (spectrum, ["--checkpoint", "random", "--images", "0"], "--images must be at least 1, got 0"),
        (ssim, ["--checkpoint", "random", "--output", "x.pdf"], "--output 'x.pdf' must end in .png"),
        (ssim, ["--checkpoint", "random", "--level", "p4"], "the model has no level 'p4'; it has: last, tokens"),
        (pairs, ["--checkpoint", "random", "--patches", "-1"], "--patches must be at least 1, got -1"),
        (
            pairs,
            ["--checkpoint", "random", "random", "random", "--config-file", CONFIG, CONFIG],
            "2 configs for 3 check",
        ),
        (panels, ["--checkpoint", "random", "--region", "0", "0", "64", "1"], "--region 0 0 64 1 does not lie inside"),
    ],
)
def test_bad_input_is_one_sentence(command, arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command.main(["--config-file", CONFIG, "--device", "cpu", *arguments])
    assert caught.value.code == 2
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error")]
    assert sentence in line
    assert not list(tmp_path.rglob("*.png"))


def test_the_tiny_config_is_built_as_written():
    assert instantiate(load_config(CONFIG).model).cross is not None
