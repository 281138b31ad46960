"""What `make demo` does: train three small models on MiniEarth under clouds, evaluate them, draw what they see.

The fused model and the two single-modality baselines start from the same shipped parts and get the same budget.
Everything lies in one output folder: one run for each model, `summary.json`, `panel.png` and `heatmaps.png`.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmovseg.config import instantiate, load_config
from mmovseg.data.sample import MODALITIES, Modality, ModelInput
from mmovseg.data.vocabulary import Vocabulary
from mmovseg.engine.attention import explain_scenes
from mmovseg.engine.cli import train_main
from mmovseg.engine.scenes import LOOK_THROUGH, choose_scenes
from mmovseg.evaluation.metrics import HEADLINE
from mmovseg.evaluation.report import format_percent, result_name, text_table, write_text
from mmovseg.evaluation.sem_seg import result_path
from mmovseg.inference.predictor import Predictor
from mmovseg.visualization.heatmaps import draw_heatmaps
from mmovseg.visualization.panels import PanelRow, draw_panels

TYPICAL_MINUTES = 7
NAMES: dict[Modality, str] = {"both": "fused", "optical": "optical", "sar": "sar"}
_TITLES = {"both": "optical + SAR, fused", "optical": "optical only", "sar": "SAR only"}
_PANEL_ROWS, _HEATMAP_SCENES = 4, 2


@dataclass(frozen=True)
class DemoSettings:
    """How the demo is run.

    output: folder for everything. max_iter: steps of each training, None = as configured.
    num_scenes: test scenes, None = as configured. seed: of training.
    config_pattern: config file for each modality.
    """

    output: Path
    max_iter: int | None = None
    num_scenes: int | None = None
    seed: int = 0
    config_pattern: str = "miniearth/demo_{modality}.py"

    def config_file(self, modality: Modality) -> str:
        return self.config_pattern.format(modality=modality)

    def run_dir(self, modality: Modality) -> Path:
        return self.output / NAMES[modality]


def run_demo(settings: DemoSettings) -> dict[str, Any]:
    """Run all steps and return what `summary.json` says.

    Raises:
        UserError: a config or the shipped weights are missing.
    """
    start = time.perf_counter()
    for stale in ("summary.json", "panel.png", "heatmaps.png"):  # so that a stopped run does not show old results
        (settings.output / stale).unlink(missing_ok=True)
    _say(_introduction(settings))
    checkpoints: dict[Modality, str] = {}
    for step, modality in enumerate(MODALITIES, start=1):
        _say(f"step {step} of 5: train '{_TITLES[modality]}' on seen classes ({_elapsed(start)})")
        checkpoints[modality] = _train(settings, modality)
    _say(f"step 4 of 5: evaluate on test scenes under varied clouds, seen and unseen classes ({_elapsed(start)})")
    reports = {NAMES[shown]: _evaluate(settings, shown, shown, checkpoints[shown]) for shown in MODALITIES}
    reports["fused_without_sar"] = _evaluate(settings, "both", "optical", checkpoints["both"])
    reports["fused_without_optical"] = _evaluate(settings, "both", "sar", checkpoints["both"])
    _say(f"step 5 of 5: pictures ({_elapsed(start)})")
    draw_pictures(settings, checkpoints)
    summary = summarize(reports, time.perf_counter() - start)
    write_text(settings.output / "summary.json", json.dumps(summary, indent=1, allow_nan=False) + "\n")
    images = summary["provenance"]["images"]
    _say(f"MiniEarth test, {images} scenes under varied clouds, in percent\n\n{table(summary)}")
    files = "\n".join(f"  {settings.output / name}" for name in ("panel.png", "heatmaps.png", "summary.json"))
    _say(f"finished in {summary['seconds'] / 60:.1f} minutes; look at\n{files}")
    return summary


def summarize(reports: dict[str, dict[str, Any]], seconds: float) -> dict[str, Any]:
    """Return the demo's summary from the reports of its evaluations.

    Args:
        reports: `fused`, `optical`, `sar`, `fused_without_sar`, `fused_without_optical`, as in `result.json`.
        seconds: wall time of the whole demo.
    """
    fused = reports["fused"]
    return {
        **{name: {key: report[key] for key in HEADLINE} for name, report in reports.items()},
        "permuted": fused["permuted"],
        "constant": fused["constant_baseline"],
        "by_cloud_cover": {name: report["by_cloud_cover"] for name, report in reports.items()},
        "per_class": {
            name: {row["name"]: row["IoU"] for row in report["per_class"]} for name, report in reports.items()
        },
        "definition": fused["definition"],
        "provenance": fused["provenance"],
        "checkpoints": {name: report["provenance"].get("checkpoint_sha256") for name, report in reports.items()},
        "seconds": round(seconds, 1),
    }


def table(summary: dict[str, Any]) -> str:
    """Return the comparison as text."""
    constant = {key: (summary["constant"].get(key) or {}).get("value") for key in HEADLINE}
    rows = [
        ("fused: optical + SAR", summary["fused"]),
        ("optical only (own training)", summary["optical"]),
        ("SAR only (own training)", summary["sar"]),
        ("fused, SAR withheld", summary["fused_without_sar"]),
        ("fused, optical withheld", summary["fused_without_optical"]),
        ("control: fused, class names permuted", summary["permuted"]),
        ("control: best constant map", constant),
    ]
    lines = [[title, *(format_percent(metrics.get(key)) for key in HEADLINE)] for title, metrics in rows]
    return text_table(lines, ["", *HEADLINE], text_columns=1)


def draw_pictures(settings: DemoSettings, checkpoints: dict[Modality, str]) -> None:
    """Draw `panel.png` and `heatmaps.png` for a few test scenes, chosen by what they show and never by the result."""
    predictors = {modality: Predictor(settings.config_file(modality), checkpoints[modality]) for modality in MODALITIES}
    vocabulary, items = scenes_to_draw(settings)
    answers = {modality: [_labels(predictor, item) for item in items] for modality, predictor in predictors.items()}
    titles = {"both": "fused", "optical": "optical only", "sar": "SAR only"}
    rows = [
        PanelRow(
            optical=item["image"].permute(1, 2, 0).numpy(),
            sar_db=item["sar"].permute(1, 2, 0).numpy(),
            cloud_alpha=item["cloud_alpha"].numpy(),
            truth=item["sem_seg"].numpy(),
            predictions={titles[modality]: answers[modality][i] for modality in MODALITIES},
        )
        for i, item in enumerate(items)
    ]
    draw_panels(rows, settings.output / "panel.png", vocabulary=vocabulary, title="MiniEarth test scenes under clouds")
    model: Any = predictors["both"].model
    chosen = items[:_HEATMAP_SCENES]
    scenes = explain_scenes(model, chosen, vocabulary=vocabulary)
    draw_heatmaps(
        scenes, settings.output / "heatmaps.png", vocabulary=vocabulary, title="Where each stage of the fusion looks"
    )


def scenes_to_draw(settings: DemoSettings) -> tuple[Vocabulary, list[ModelInput]]:
    """Return the label space and test scenes to draw, with their clouds; see `choose_scenes`."""
    config = load_config(settings.config_file("both"))
    dataset = instantiate(config.dataloader.test.dataset)[: settings.num_scenes or LOOK_THROUGH]
    mapper = instantiate(config.dataloader.test.mapper)
    items = [mapper(dict(scene)) for scene in dataset]
    return mapper.vocabulary, [items[i] for i in choose_scenes(items, mapper.vocabulary, _PANEL_ROWS)]


def _introduction(settings: DemoSettings) -> str:
    minutes = "a moment" if settings.max_iter is not None else f"about {TYPICAL_MINUTES} minutes on two CPU cores"
    return (
        "A small model learns to map a made-up world, MiniEarth, through clouds. It never sees a label of road or\n"
        "water and is asked for them by name at test time. Three trainings (fused, optical only, SAR only), then\n"
        f"evaluation and pictures: {minutes}. Everything goes to {settings.output}"
    )


def _train(settings: DemoSettings, modality: Modality) -> str:
    overrides = ["train.eval_period=-1", "train.tensorboard=false", f"train.seed={settings.seed}"]
    overrides.append(f"train.output_dir={settings.run_dir(modality)}")
    if settings.max_iter is not None:
        overrides.append(f"train.max_iter={settings.max_iter}")
    return str(train_main(["--config-file", settings.config_file(modality), *overrides])["checkpoint"])


def _evaluate(settings: DemoSettings, trained: Modality, shown: Modality, checkpoint: str) -> dict[str, Any]:
    overrides = [f"train.init_checkpoint={checkpoint}", f"train.output_dir={settings.run_dir(trained)}"]
    if settings.num_scenes is not None:
        overrides.append(f"dataloader.test.dataset.num_scenes={settings.num_scenes}")
    train_main(["--config-file", settings.config_file(trained), "--eval-only", "--modality", shown, *overrides])
    config = load_config(settings.config_file(trained)).dataloader.evaluator
    vocabulary = instantiate(config.vocabulary)
    file = result_path(settings.run_dir(trained), config.dataset_name, shown, result_name(vocabulary))
    report: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    return report


def _labels(predictor: Predictor, item: ModelInput) -> Any:
    with torch.no_grad():
        return predictor.model([item])[0]["sem_seg"].argmax(dim=0).cpu().numpy()


def _elapsed(start: float) -> str:
    return f"{(time.perf_counter() - start) / 60:.1f} min so far"


def _say(text: str) -> None:
    print(f"\n=== {text}\n", flush=True)
