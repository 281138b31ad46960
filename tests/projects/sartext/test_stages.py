"""The stages of the transfer on MiniEarth: which scenes, which captions, which task, and that their budgets agree."""

from pathlib import Path

import pytest
import torch

from mmovseg.config import apply_overrides, instantiate, load_config
from mmovseg.data.miniearth import MiniEarthReader
from mmovseg.data.sample import RawSample
from mmovseg.engine.tables import read_table
from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.sartext.data.stages import STAGES, WORDINGS, ChosenWording, load_stage, wording_of
from mmovseg.projects.sartext.data.tasks import AskingMapper

CONFIGS = Path(__file__).parents[3] / "projects/SARText/configs"
TABLES = {"transfer": 720, "captioning": 600}


def places(dicts):
    return {(item["world"]["row"], item["world"]["col"]) for item in dicts}


def test_no_scene_is_in_two_stages_and_the_optical_and_sar_stages_see_one_kind_of_ground():
    train = {stage: load_stage(stage) for stage in STAGES}
    assert {stage: len(dicts) for stage, dicts in train.items()} == {"natural": 2000, "optical": 2000, "sar": 1000}
    assert not places(train["optical"]) & places(train["sar"])
    regions = {stage: dicts[0]["world"]["domain"]["region"] for stage, dicts in train.items()}
    platforms = {stage: dicts[0]["world"]["domain"]["platform"] for stage, dicts in train.items()}
    assert regions == {"natural": "temperate", "optical": "tropical", "sar": "tropical"}
    assert platforms == {"natural": "spaceborne", "optical": "airborne", "sar": "airborne"}
    test = load_stage("sar", split="test", num_scenes=7)
    assert len(test) == 7 and not places(test) & places(train["sar"])
    with pytest.raises(UserError, match="no stage 'radar'; its stages are: natural, optical, sar"):
        load_stage("radar")


def test_wordings_of_a_scene():
    raw = MiniEarthReader()(load_stage("sar", split="val", num_scenes=1)[0])
    known = {
        "a photo of rangeland, city and road, with two vehicles": "count",
        "a remote sensing picture of rangeland with city and road": "list",
        "land cover: rangeland 61 percent, city 39 percent": "percent",
        "a little road, mostly city": "amount",
        "mostly rangeland, much city": "amount",
    }
    assert {text: wording_of(text) for text in known} == known
    assert {wording_of(text) for text in raw.captions} >= {"list", "percent", "amount"}
    kept = ChosenWording(reader=lambda item: raw, wordings=["percent"])({}).captions
    assert len(kept) == 1 and kept[0].startswith("land cover: ")


def test_a_scene_without_the_wording_keeps_its_first_caption():
    def read(item):
        return RawSample(captions=["a photo of water", "only water"])

    assert ChosenWording(reader=read, wordings=["percent", "count"])({}).captions == ["a photo of water"]
    assert ChosenWording(reader=read, wordings=WORDINGS)({}).captions == ["a photo of water", "only water"]
    for wrong, fault in ((["colour"], "wording of captions is 'colour'"), ([], "wording of captions is none")):
        with pytest.raises(UserError, match=fault):
            ChosenWording(reader=read, wordings=wrong)


def test_a_loader_says_what_it_asks_for():
    assert AskingMapper(mapper=lambda item: {"file_name": item["file_name"]}, task="caption")({"file_name": "a"}) == {
        "file_name": "a",
        "task": "caption",
    }
    with pytest.raises(UserError, match="the task of a loader is 'count'"):
        AskingMapper(mapper=dict, task="count")


@pytest.mark.parametrize(("name", "steps"), TABLES.items())
def test_all_rows_of_a_table_have_the_same_number_of_steps(name, steps):
    table = read_table(CONFIGS / f"tables/{name}.json")
    budget = {}
    for entry in (*table["parts"], *table["runs"]):
        config = load_config(entry["config"])
        apply_overrides(config, entry.get("overrides", []))
        own = int(config.train.max_iter) if entry.get("train", True) else 0
        budget[entry["name"]] = own + sum(budget[part] for part in entry.get("uses", {}).values())
        assert f"steps of {config.dataloader.train.batch_size} pairs" in table["title"]
    kind = table["runs"][0]["name"].split("_")[0]
    assert {budget[f"{kind}_{run}"] for run in ("sar_only", "direct", "optical_only", "progressive")} == {steps}
    assert budget[f"{kind}_zero_shot"] == steps // 2
    assert budget[f"{kind}_progressive_more"] == steps + steps // 4


@pytest.mark.parametrize("kind", ["clip", "coca"])
def test_the_model_of_a_stage_takes_the_weights_of_the_one_before_and_reads_its_images(kind):
    states = {}
    for stage in STAGES:
        config = load_config(str(CONFIGS / f"{kind}_{stage}_xs.py"))
        apply_overrides(config, ["model.weights=null", "dataloader.train.dataset.num_scenes=2"])
        config.dataloader.train.batch_size = 2
        model = instantiate(config.model)
        states[stage] = {key: tensor.shape for key, tensor in model.state_dict().items()}
        items = next(iter(instantiate(config.dataloader.train)))
        losses = model(items)
        assert all(bool(torch.isfinite(loss)) for loss in losses.values())
        assert ("sar" in items[0]) == (stage == "sar") == ("image" not in items[0])
        if stage == "sar":  # the band as grey: on the scale of the optical images
            assert model.pixels(items).abs().mean() < 3
            contract = model.input_contract["sar"]
            said = PixelNorm(mean=contract["mean"], std=contract["std"], clip=contract["clip"])
            torch.testing.assert_close(said(torch.zeros(3, 1, 1)), model.norm(torch.zeros(3, 1, 1)), atol=0.01, rtol=0)
    assert states["natural"] == states["optical"] == states["sar"]
