"""What README.md and MODEL_ZOO.md say is what the code, the results and the weights say.

`python -m tests.test_docs` rewrites the generated blocks, between `<!-- name -->` and `<!-- /name -->`.
"""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmovseg.config import get_config, instantiate, load_config
from mmovseg.data.vocabulary import vocabulary_from_file
from mmovseg.doctor import FOUNDATION_WEIGHTS
from mmovseg.engine.benchmark.brief import to_brief_markdown
from mmovseg.engine.benchmark.report import to_markdown as benchmark_markdown
from mmovseg.engine.benchmark.results import Results
from mmovseg.engine.cost_table import cost_markdown, read_cost_table
from mmovseg.engine.folds import read_counts, read_fold_table
from mmovseg.engine.folds import to_markdown as folds_markdown
from mmovseg.engine.robustness import read_sweep
from mmovseg.engine.robustness_report import to_markdown as sweep_markdown
from mmovseg.engine.tables import read_rows, read_table, table_rows, to_markdown
from mmovseg.engine.zoo import STEPS, contract_markdown, zoo_markdown, zoo_records
from mmovseg.testing.fakes import write_raster

ROOT = Path(__file__).resolve().parents[1]
PAGES = (
    "README.md",
    "MODEL_ZOO.md",
    "projects/CMU/README.md",
    "projects/CoDeMAE/README.md",
    "projects/CrossEarthSAR/README.md",
    "projects/SARText/README.md",
)
TOPICS = ("model", "own_data", "floods", "robustness", "scenes", "speed")
LINKED = (*PAGES, *(f"docs/{topic}.md" for topic in TOPICS), "datasets/README.md")
BLOCK = r"<!-- {name} -->\n(.*?)<!-- /{end} -->"


def page(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def generated_blocks() -> dict[tuple[str, str, str], str]:
    """(page, opening name, closing name) -> Markdown that has to stand between the two marks."""
    table = read_table(ROOT / "configs/tables/miniearth.json")
    sweep = read_sweep(ROOT / "configs/tables/robustness_miniearth.json")
    sweep_text = sweep_markdown(sweep, read_rows(ROOT / "results/robustness_miniearth.csv"))
    floods = read_fold_table(ROOT / "configs/tables/ombria.json")
    flood_counts = read_counts(ROOT / "results/ombria.csv")
    contract = instantiate(get_config("common/models/mmovseg_xs.py").input_contract).to_dict()
    cost = read_cost_table(ROOT / "configs/tables/table_a2.json")
    benchmark = Results(ROOT / "results/benchmark.json")
    measured = {"cmu_encoders": "cmu_encoders", "table_a3": "miniearth"}  # table -> its rows; all others share theirs
    cmu = {
        ("projects/CMU/README.md", f"table:{name}", "table"): to_markdown(
            read_table(ROOT / f"configs/tables/{name}.json"),
            table_rows(ROOT / f"results/{measured.get(name, 'ablation_miniearth')}.csv"),
        )
        for name in ("cmu_encoders", "table4", "table3", "table_a5", "table_a3")
    }
    tables = ROOT / "projects/CoDeMAE/configs/tables"
    # table -> its rows; the ablations share theirs
    codemae_rows = {"chips_real": "codemae_chips", "detection_miniearth": "codemae_detection"}
    codemae = {
        ("projects/CoDeMAE/README.md", f"table:{name}", "table"): to_markdown(
            read_table(tables / f"{name}.json"), table_rows(ROOT / f"results/{codemae_rows.get(name, 'codemae')}.csv")
        )
        for name in (
            *("iia_data", "iib_sharing", "iic_objectives", "iid_targets", "iie_contrast"),
            *("chips_real", "detection_miniearth"),
        )
    }
    tables = ROOT / "projects/CrossEarthSAR/configs/tables"
    gaps = {
        ("projects/CrossEarthSAR/README.md", f"table:{name}", "table"): to_markdown(
            read_table(tables / f"{name}.json"), table_rows(ROOT / "results/crossearth_gaps.csv")
        )
        for name in ("gaps_main", "gaps_heads", "gaps_experts", "gaps_topk")
    }
    tables = ROOT / "projects/SARText/configs/tables"
    sartext = {
        ("projects/SARText/README.md", f"table:{name}", "table"): to_markdown(
            read_table(tables / f"{name}.json"), table_rows(ROOT / f"results/sartext_{name}.csv")
        )
        for name in ("transfer", "captioning", "vqa", "mmovseg")
    }
    return {
        **cmu,
        **codemae,
        **gaps,
        **sartext,
        ("README.md", "table:ombria", "table"): folds_markdown(floods, flood_counts, brief=True),
        ("projects/CMU/README.md", "table:table_a2", "table"): cost_markdown(
            cost, read_rows(ROOT / "results/cost.csv")
        ),
        ("README.md", "table:miniearth", "table"): to_markdown(table, read_rows(ROOT / "results/miniearth.csv")),
        ("docs/robustness.md", "table:robustness-whole", "table"): sweep_text,
        ("docs/floods.md", "table:ombria-whole", "table"): folds_markdown(floods, flood_counts),
        ("docs/speed.md", "table:benchmark", "table"): benchmark_markdown(benchmark),
        ("README.md", "table:benchmark-brief", "table"): to_brief_markdown(benchmark),
        ("MODEL_ZOO.md", "zoo", "zoo"): zoo_markdown(zoo_records()),
        ("MODEL_ZOO.md", "contract", "contract"): contract_markdown({"input_contract": json.dumps(contract)}),
    }


def block_pattern(name: str, end: str) -> re.Pattern[str]:
    return re.compile(BLOCK.format(name=re.escape(name), end=re.escape(end)), re.DOTALL)


def fill_generated_blocks() -> None:
    """Write every generated block into its page."""
    for (file, name, end), text in generated_blocks().items():
        new = f"<!-- {name} -->\n{text}\n<!-- /{end} -->"
        filled, count = block_pattern(name, end).subn(lambda _, new=new: new, page(file))
        assert count == 1, f"{file} has {count} blocks '{name}'"
        (ROOT / file).write_text(filled, encoding="utf-8")


def code_blocks(text: str, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def test_generated_blocks_say_what_the_files_say():
    for (file, name, end), text in generated_blocks().items():
        found = [block.strip() for block in block_pattern(name, end).findall(page(file))]
        assert found == [text.strip()], f"block '{name}' of {file} is out of date; run: python -m tests.test_docs"


def test_shipped_weights_carry_the_documented_contract():
    contract = instantiate(get_config("common/models/mmovseg_xs.py").input_contract).to_dict()
    for record in zoo_records():
        assert json.loads(record["input_contract"]) == json.loads(json.dumps(contract)), record["name"]


def test_the_first_screen_holds_what_it_is_the_picture_and_the_two_commands():
    text = page("README.md")
    first = text.split("\n## ")[0].splitlines()
    assert len(first) <= 40 and len(text.splitlines()) <= 250
    assert any(re.match(r"!\[.{40,}\]\(docs/panel\.png\)", line) for line in first)
    assert code_blocks("\n".join(first), "bash") == ["make demo\nmake test\n"]


@pytest.mark.parametrize("name", ["panel", "scene", "robustness", "classes", "attention"])
def test_the_picture_is_one(name):
    picture = ROOT / "docs" / f"{name}.png"
    with Image.open(picture) as image:
        assert image.format == "PNG" and min(image.size) >= 300


@pytest.mark.parametrize("file", LINKED)
def test_links_lead_somewhere(file):
    targets = re.findall(r"\]\((?!https?://)([^)]+)\)", page(file))
    broken = []
    for target in targets:
        path, _, anchor = target.partition("#")
        there = (ROOT / file).parent / path if path else ROOT / file
        if not there.exists():
            broken.append(target)
        elif anchor:
            headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), re.MULTILINE)
            if anchor not in [re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings]:
                broken.append(target)
    assert broken == []


@pytest.mark.parametrize("file", PAGES)
def test_reported_figures_are_marked_and_measured_ones_too(file):
    assert "*measured here*" in page(file).lower() and "*reported in" in page(file).lower()


def test_parameter_counts_are_those_that_the_slow_test_finds():
    from tests.modeling.test_large import COUNTS

    for name, (every, trainable) in COUNTS.items():
        assert f"{every / 1e6:.1f}M" in page("docs/model.md"), name
        assert f"{trainable / 1e6:.1f}M" in page("docs/model.md"), name


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_the_zoo_lists_the_steps_that_make_it(step):
    commands = code_blocks(page("MODEL_ZOO.md"), "bash")[1].replace("\\\n", " ")
    trained = re.search(rf"train_net\.py --config-file configs/{re.escape(step.config)} train\.seed=0\n(.+)", commands)
    assert trained is not None
    part = f"--part {step.part} " if step.part else ""
    output = get_config(step.config).train.output_dir
    expected = f'--checkpoint {output}/model_final.safetensors {part}--half --output "$W/{step.name}.safetensors"'
    assert expected in re.sub(" +", " ", trained[1])


@pytest.mark.parametrize("weights", FOUNDATION_WEIGHTS, ids=lambda weights: weights.name)
def test_the_zoo_lists_the_foundation_weights_that_the_doctor_looks_for(weights):
    rows = [line for line in page("MODEL_ZOO.md").splitlines() if f"`{weights.name.split()[0]}`" in line]
    assert len(rows) == 1 and rows[0].startswith(f"| {weights.used_by} |")
    assert all(f"`{word}`" in rows[0] for word in (*weights.name.split(), weights.repository, weights.files[0]))


@pytest.fixture
def own_data(tmp_path, monkeypatch):
    """Files as the page on own data wants them, and its config beside them."""
    (vocabulary,) = code_blocks(page("docs/own_data.md"), "json")
    for split in ("train", "test"):
        rows = ["file_name,sar_file_name,sem_seg_file_name"]
        for stem in ("a", "b"):
            folder = tmp_path / "data" / "mine" / split
            write_raster(folder / "optical" / f"{stem}.png", np.full((40, 48, 3), 90, np.uint8))
            write_raster(folder / "sar" / f"{stem}.tif", np.full((40, 48, 2), -12.5, np.float32))
            write_raster(folder / "label" / f"{stem}.png", np.repeat(np.arange(40, dtype=np.uint8)[:, None] % 3, 48, 1))
            rows.append(f"{split}/optical/{stem}.png,{split}/sar/{stem}.tif,{split}/label/{stem}.png")
        (tmp_path / "data" / "mine" / f"{split}.csv").write_text("\n".join(rows) + "\n")
    (tmp_path / "data" / "mine" / "classes.json").write_text(vocabulary)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize("source", ["folder", "csv"])
def test_the_config_for_own_data_loads_and_reads_it(own_data, source):
    folders, table = code_blocks(page("docs/own_data.md"), "python")
    (own_data / "my_config.py").write_text(folders + (table if source == "csv" else ""))
    config = load_config(own_data / "my_config.py")
    assert config.dataloader.train.dataset._target_.__name__ == f"load_pair_{source}"
    config.dataloader.train.batch_size, config.dataloader.train.num_workers = 2, 0
    batch = next(iter(instantiate(config.dataloader.train)))
    assert batch[0]["vocabulary"].names == ["forest", "city"]
    assert batch[0]["image"].shape == (3, 384, 384) and batch[0]["sar"].shape == (2, 384, 384)
    assert float(batch[0]["sar"].mean()) == pytest.approx(-12.5) and "cloud_alpha" not in batch[0]
    assert batch[0]["sem_seg"].unique().tolist() == [0, 1, 255]
    (item,), _ = list(instantiate(config.dataloader.test))
    assert item["vocabulary"].names == vocabulary_from_file("data/mine/classes.json").names
    assert item["sem_seg"].shape == (40, 48) and item["sem_seg"].unique().tolist() == [0, 1, 2]
    evaluator = instantiate(config.dataloader.evaluator)
    assert evaluator.dataset_name == "mine_test" and evaluator.vocabulary.unseen_ids == [2]


if __name__ == "__main__":
    fill_generated_blocks()
