"""The configs of the large models read captions and questions from files."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmovseg.config import apply_overrides, instantiate, load_config

CONFIGS = Path(__file__).parents[3] / "projects" / "SARText" / "configs"


def test_the_large_configs_read_questions_and_captions_from_files(tmp_path: Path) -> None:
    for name in ("a", "b"):
        Image.fromarray(np.full((20, 30), 80, dtype=np.uint8)).save(tmp_path / f"{name}.png")
    questions = tmp_path / "vqa.csv"
    questions.write_text("image,question,answer\na.png,Is it?,yes\nb.png,How many?,two\n", encoding="utf-8")
    config = load_config(CONFIGS / "vqa_classifier_l14.py")
    apply_overrides(
        config,
        [
            f"dataloader.{part}.dataset.{key}"
            for part in ("train", "test")
            for key in (f"path={questions}", f"root={tmp_path}")
        ]
        + [f"model.answers.dataset.{key}" for key in (f"path={questions}", f"root={tmp_path}")]
        + ["dataloader.test.num_workers=0"],
    )
    assert instantiate(config.model.answers) == ["2", "yes"]
    (batch,) = instantiate(config.dataloader.test)
    assert [item["answer"] for item in batch] == ["yes", "two"] and batch[0]["sar"].shape == (1, 20, 30)
    captions = tmp_path / "test.jsonl"
    record = {"image": "a.png", "image_id": "a", "source": "x", "route": "human", "split": "test"}
    captions.write_text(json.dumps({**record, "captions": ["one ship"]}) + "\n", encoding="utf-8")
    config = load_config(CONFIGS / "captioning_l14.py")
    dataset = "dataloader.test.captions.dataset"
    apply_overrides(
        config, [f"{dataset}.path=[{captions}]", f"{dataset}.root={tmp_path}", "dataloader.test.captions.num_workers=0"]
    )
    (batch,) = instantiate(config.dataloader.test.captions)
    assert batch[0]["task"] == "caption" and batch[0]["captions"] == ["one ship"]


@pytest.mark.parametrize("name", ["clip_optical", "clip_sar", "coca_optical", "coca_sar"])
def test_the_command_of_a_large_training_spreads_its_batch_over_eight_gpus(name: str) -> None:
    file = CONFIGS / f"{name}_l14.py"
    said = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    assert f"tools/train_net.py --config-file projects/SARText/configs/{file.name} --num-gpus 8\n" in said
    assert load_config(file).dataloader.train.batch_size % 8 == 0
