"""Figures of the analysis against slow loops, and the commands from config to picture."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from mmovseg.checkpoint import save_weights
from mmovseg.errors import UserError
from mmovseg.projects.crossearth.analysis import activation, curves, panels
from mmovseg.visualization.figure import save_figure
from tests.projects.crossearth.tiny_config import NAMES, TinyMapper, TinySegmentor, tiny_dataset

CONFIG = str(Path(__file__).with_name("tiny_config.py"))


# ---------------------------------------------------------------- activation


def test_choices_are_those_of_every_token():
    model = TinySegmentor().eval()
    items = [TinyMapper()(item) for item in tiny_dataset("near", 5)]
    found = activation.count_choices(model, items)
    expected = np.zeros((2, 3), dtype=np.int64)
    with torch.no_grad():
        for item in items:
            model([item])
            for layer, statistics in enumerate(model.encoder.expert_statistics().values()):
                for expert in statistics.index.flatten().tolist():
                    expected[layer, expert] += 1
    assert np.array_equal(found, expected) and found.sum() == 5 * 2 * 17  # 16 patches and the class token
    assert not any(layer._forward_hooks for layer in activation.expert_layers(model).values())


def test_windows_of_an_image_count_one_by_one():
    class Twice(torch.nn.Module):
        def __init__(self, inner):
            super().__init__()
            self.inner = inner

        def forward(self, inputs):
            return self.inner(inputs) and self.inner(inputs)

    model, items = TinySegmentor().eval(), [TinyMapper()(item) for item in tiny_dataset("far", 2)]
    once = activation.count_choices(model, items)
    assert np.array_equal(activation.count_choices(Twice(model), items), 2 * once)


def test_figures_of_layers_equal_their_definitions():
    counts = {"a": np.array([[8, 0], [1, 1]]), "b": np.array([[2, 2], [0, 4]]), "c": np.array([[1, 3], [3, 1]])}
    found = activation.layer_figures(counts)
    assert found["shares"]["b"] == [[50, 50], [0, 100]]
    assert found["largest"] == [100, 100]
    shares = {name: [[100 * v / sum(row) for v in row] for row in rows.tolist()] for name, rows in counts.items()}
    for layer in range(2):
        mean = [sum(shares[name][layer][e] for name in shares) / 3 for e in range(2)]
        moved = [sum(max(0.0, shares[name][layer][e] - mean[e]) for e in range(2)) for name in shares]
        assert found["difference"][layer] == pytest.approx(sum(moved) / 3)
        assert found["largest over all domains together"][layer] == pytest.approx(max(mean))
    assert activation.layer_figures({"a": counts["a"]})["difference"] == [0, 0]


@pytest.mark.parametrize(
    ("domains", "layers", "experts"), [(1, 2, 3), (9, 4, 6), pytest.param(5, 24, 6, marks=pytest.mark.slow)]
)
def test_nothing_of_the_dots_lies_outside_or_on_words(domains, layers, experts, tmp_path, monkeypatch):
    drawn = []
    monkeypatch.setattr(
        activation, "save_figure", lambda figure, path: (drawn.append(figure), save_figure(figure, path))
    )
    rng = np.random.default_rng(0)
    counts = {f"unseen_region_{n}": rng.integers(0, 50, (layers, experts)) for n in range(domains)}
    figures = activation.layer_figures(counts)
    activation.draw_activation(figures, tmp_path / "a.png", title="Experts by layer and domain", note="a note")
    (figure,) = drawn
    assert len(figure.axes) == domains
    renderer = FigureCanvasAgg(figure).get_renderer()
    whole = figure.bbox
    boxes = [axes.get_tightbbox(renderer) for axes in figure.axes]
    boxes += [text.get_window_extent(renderer) for text in figure.texts]
    for number, box in enumerate(boxes):
        assert whole.x0 <= box.x0 and box.x1 <= whole.x1 and whole.y0 <= box.y0 and box.y1 <= whole.y1
        assert not any(box.overlaps(other) for other in boxes[number + 1 :])
    for axes in figure.axes:  # no dot leaves its cell
        window = axes.get_window_extent(renderer)
        widest = max(axes.collections[0].get_sizes()) ** 0.5 / 72 * figure.dpi
        assert widest <= min(window.width / layers, window.height / experts)


# ---------------------------------------------------------------- curves


def write_run(folder, values, *, every=10, metric="total_loss"):
    folder.mkdir(parents=True)
    lines = [json.dumps({"iteration": every * n, metric: v, "loss_x": v / 2}) for n, v in enumerate(values)]
    (folder / "metrics.json").write_text("\n".join(lines) + "\n")
    return folder


def test_the_running_mean_equals_a_loop():
    values = torch.rand(2, 13).numpy()
    found = curves.smooth(values, 5)
    for row, i in np.ndindex(2, 13):
        part = values[row, max(0, i - 2) : i + 3]
        assert found[row, i] == pytest.approx(sum(part.tolist()) / len(part))
    assert np.allclose(curves.smooth(values, 1), values)


def test_a_line_says_where_it_starts_ends_and_overtakes():
    line = {"x": np.arange(0, 100, 10), "values": np.array([[9.0, 8, 7, 6, 5, 4, 3, 2, 1, 0]] * 2)}
    found = curves.line_figures(line, line["values"].mean(axis=0), goal=4.5)
    assert (found["seeds"], found["start"], found["end"]) == (2, 9, 0)
    assert found["reaches the first line's end at"] == 50
    back = curves.line_figures(line, np.array([1, 1, 9, 1, 1, 1, 1, 1, 1, 5.0]), goal=4.5)
    assert back["reaches the first line's end at"] is None
    assert "reaches the first line's end at" not in curves.line_figures(line, line["values"][0], goal=None)


def test_seeds_meet_at_common_iterations():
    line = curves.merge_seeds([{0: 1.0, 10: 2.0, 20: 3.0}, {10: 4.0, 20: 5.0, 30: 6.0}], source="'a'")
    assert line["x"].tolist() == [10, 20] and line["values"].tolist() == [[2, 3], [4, 5]]
    with pytest.raises(UserError, match="'a' recorded no iteration in common"):
        curves.merge_seeds([{0: 1.0}, {10: 4.0}], source="'a'")


def test_curves_are_drawn_with_their_figures_and_repeat(tmp_path, capsys):
    falling = np.linspace(5, 1, 20)
    runs = [
        f"far:dense={write_run(tmp_path / 'd0', falling)}",
        f"far:MoE={write_run(tmp_path / 'm0', falling / 2)}",
        f"far:MoE={write_run(tmp_path / 'm1', falling / 2 + 0.1)}",
        f"near:dense={write_run(tmp_path / 'd1', falling + 1)}",
    ]
    for name in ("a.png", "b.png"):
        curves.main(["--run", *runs, "--smooth", "3", "--output", str(tmp_path / name)])
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    content = json.loads((tmp_path / "a.json").read_text())
    assert content["command"] == "curves" and list(content["panels"]) == ["far", "near"]
    found = content["panels"]["far"]["MoE"]
    assert found["seeds"] == 2 and found["start"] == pytest.approx(falling[:2].mean() / 2 + 0.05)
    assert found["reaches the first line's end at"] == 140
    assert "far: dense: from 4.89 to 1.11" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("run", "extra", "sentence"),
    [
        ("dense", [], "--run 'dense' must be LABEL=FOLDER or PANEL:LABEL=FOLDER"),
        (":dense=x", [], "--run ':dense=x' must be"),
        ("dense=nowhere", [], "metrics 'nowhere/metrics.json' cannot be read"),
        ("dense={run}", ["--metric", "loss_y"], "have no 'loss_y'; losses there: loss_x, total_loss"),
        ("dense={run}", ["--smooth", "0"], "--smooth must be at least 1, got 0"),
        ("dense={run}", ["--output", "x.svg"], "--output 'x.svg' must end in .png"),
    ],
)
def test_runs_that_are_none_are_one_sentence(run, extra, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    given = run.format(run=write_run(tmp_path / "run", [1.0, 2.0]))
    with pytest.raises(SystemExit):
        curves.main(["--run", given, *extra])
    assert sentence in capsys.readouterr().err and not list(tmp_path.rglob("*.png"))


# ---------------------------------------------------------------- panels and commands


def test_sar_of_8_bits_is_shown_by_the_limits_of_decibel():
    grey = torch.tensor([[0.0, 45.0, 255.0]])[None]
    shown = panels.show_sar(grey, "amplitude8")
    decibel = [20 * np.log10(v / 255) + 5 for v in (45.0, 255.0)]
    expected = [0, round(255 * (decibel[0] + 25) / 25), 255]
    assert shown[0, :, 0].tolist() == expected and (shown == shown[..., :1]).all()
    assert np.array_equal(panels.show_sar(grey.repeat(3, 1, 1), "amplitude8"), shown)
    color = torch.tensor([[[10.0]], [[20.0]], [[30.0]]])
    assert panels.show_sar(color, "amplitude8")[0, 0].tolist() == [10, 20, 30]


@pytest.fixture
def weights(tmp_path):
    for name in ("one", "two"):
        save_weights(TinySegmentor(), tmp_path / f"{name}.safetensors")
    return tmp_path


def call(command, folder, *arguments, output="a.png"):
    command.main(["--config-file", CONFIG, *map(str, arguments), "--device", "cpu", "--output", str(folder / output)])
    with Image.open(folder / output) as picture:
        assert min(picture.size) > 300
    return json.loads((folder / output).with_suffix(".json").read_text())


def test_activation_is_drawn_for_every_domain_and_repeats_to_the_bit(weights, capsys):
    arguments = ["--checkpoint", weights / "one.safetensors", "--images", 4]
    first = call(activation, weights, *arguments)
    assert first == call(activation, weights, *arguments, output="b.png")
    assert (weights / "a.png").read_bytes() == (weights / "b.png").read_bytes()
    assert list(first["counts"]) == ["near", "far"] and np.sum(first["counts"]["far"]) == 4 * 2 * 17
    assert len(first["difference"]) == 2 and first["model"]["label"] == "one"
    assert "largest expert by layer: " in capsys.readouterr().out
    only = call(activation, weights, *arguments, "--loaders", "far")
    assert list(only["shares"]) == ["far"] and only["shares"]["far"] == first["shares"]["far"]


def test_panels_show_every_model_on_every_domain(weights):
    given = [f"{name}={weights / name}.safetensors" for name in ("one", "two")]
    found = call(panels, weights, "--checkpoint", *given, "--images", 2)
    assert [image["domain"] for image in found["images"]] == ["near", "near", "far", "far"]
    assert [model["label"] for model in found["models"]] == ["one", "two"]
    model = TinySegmentor().eval()
    from safetensors.torch import load_file

    model.load_state_dict(load_file(weights / "two.safetensors"))
    entry = found["images"][2]
    item = TinyMapper()({"image_id": entry["image_id"], "file_name": "", "domain": "far"})
    with torch.no_grad():
        right = (model([item])[0]["sem_seg"].argmax(dim=0) == item["sem_seg"])[1:]  # the first line is not labelled
    assert entry["right"]["two"] == pytest.approx(100 * float(right.float().mean()))
    assert NAMES.split(", ")[0] == "land"


@pytest.mark.parametrize(
    ("command", "arguments", "sentence"),
    [
        (
            activation,
            ["--checkpoint", "random", "model.num_experts=null"],
            "without a mixture of experts has no expert",
        ),
        (activation, ["--checkpoint", "random", "--loaders", "moon"], "no test loader 'moon'; it has: near, far"),
        (activation, ["--checkpoint", "no.safetensors"], "checkpoint 'no.safetensors' does not exist"),
        (panels, ["--checkpoint", "random", "random"], "two models are called 'as built'"),
        (panels, ["--checkpoint", "random", "--images", "0"], "--images must be at least 1, got 0"),
    ],
)
def test_bad_input_is_one_sentence(command, arguments, sentence, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SystemExit) as caught:
        command.main(["--config-file", CONFIG, "--device", "cpu", *arguments])
    assert caught.value.code == 2 and sentence in capsys.readouterr().err
    assert not list(tmp_path.rglob("*.png"))
