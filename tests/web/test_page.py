"""The page without a browser: which answer follows from its fields, and that it needs nothing from elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from mmovseg.data.vocabulary import get_vocabulary
from mmovseg.errors import UserError
from mmovseg.web.uploads import UploadLimits
from mmovseg.web.views import Share

gr = pytest.importorskip("gradio", reason="the page needs gradio, which is not installed")
page_module = pytest.importorskip("mmovseg.web.page")

SAMPLE_FIELDS = [page_module.SAMPLE, 2, 55]
NO_UPLOAD = [None, None, "", "", "", "", False]


class FakeMaker:
    """Answers at once, and remembers what it was asked."""

    def __init__(self, error: Exception | None = None):
        vocabulary = get_vocabulary("miniearth", "clean")
        self.predictor = SimpleNamespace(vocabulary=vocabulary)
        self.gallery = SimpleNamespace(titles=["Scene 1: water", "Scene 2: road"])
        self.limits = UploadLimits(max_bytes=5_000_000, max_pixels=250_000)
        self.error = error
        self.asked = []

    def map_sample(self, *question):
        return self._answer("sample", question)

    def map_upload(self, *question):
        return self._answer("upload", question)

    def _answer(self, kind, question):
        self.asked.append((kind, *question))
        if self.error is not None:
            raise self.error
        image = np.zeros((4, 4, 3), np.uint8)
        vocabulary = self.predictor.vocabulary.subset([5, 6])
        return SimpleNamespace(
            optical=image, sar=None, overlay=image + 1, prediction=image + 2, vocabulary=vocabulary,
            shares=[Share(3), Share(1)], facts="one map", map_path=Path("map.tif"),
        )  # fmt: skip


def test_a_scene_is_asked_for():
    maker = FakeMaker()
    status, optical, sar, over, plain, legend, download = page_module.answer_question(
        maker, *SAMPLE_FIELDS, *NO_UPLOAD, "water, road", "sar"
    )
    assert maker.asked == [("sample", 2, 55.0, "water, road", "sar")]
    assert "One map" in status and optical.max() == 0 and sar is None and (over.max(), plain.max()) == (1, 2)
    assert "75.0 %" in legend and download["value"] == "map.tif" and download["interactive"] is True


def test_an_upload_is_asked_for():
    maker = FakeMaker()
    fields = ["a.tif", None, "linear", "4, 3 2", "0 0.3", "", True]
    page_module.answer_question(maker, page_module.UPLOAD, 0, 0, *fields, "water, road", "both")
    ((kind, pair, names, modality),) = maker.asked
    assert (kind, names, modality) == ("upload", "water, road", "both")
    assert (pair.optical, pair.sar, pair.sar_unit, pair.override_contract) == ("a.tif", None, "linear", True)
    assert (pair.optical_bands, pair.optical_range, pair.sar_bands) == ((4, 3, 2), (0.0, 0.3), None)


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        (["a.tif", None, "", "red", "", "", False], "the optical bands must be numbers, got 'red'"),
        (["a.tif", None, "", "", "1", "", False], "the optical range must be two numbers, black and white, got '1'"),
        (["a.tif", None, "", "", "", "1.5", False], "the SAR bands must be numbers, got '1.5'"),
    ],
)
def test_fields_that_are_no_numbers_are_refused(fields, sentence):
    with pytest.raises(UserError, match=re.escape(sentence)):
        page_module.read_upload(fields)


def test_a_mistake_of_the_user_is_a_sentence_and_nothing_is_left_to_mistake_for_an_answer():
    maker = FakeMaker(UserError("the SAR file 'a<b>.tif' is too large"))
    status, *views, legend, download = page_module.answer_question(maker, *SAMPLE_FIELDS, *NO_UPLOAD, "water", "both")
    assert "role='alert'" in status and "The SAR file &#x27;a&lt;b&gt;.tif&#x27; is too large" in status
    assert views == [None] * 4 and legend == "" and download["interactive"] is False


def test_whatever_else_fails_is_logged_and_never_shown(caplog):
    maker = FakeMaker(RuntimeError("secret /path"))
    shown = page_module.answer_question(maker, *SAMPLE_FIELDS, *NO_UPLOAD, "water", "both")
    assert "Something went wrong on the server" in shown[0] and "secret" not in str(shown)
    assert "secret /path" in caplog.text


@pytest.fixture(scope="module")
def page():
    return page_module.build_page(FakeMaker())


def test_the_page_says_what_the_small_model_knows(page):
    text = json.dumps(page.get_config_file())
    assert "trained on MiniEarth, a made-up world, and knows nothing else" in text
    assert "5 MB and 0.25 million pixels" in text and "bareland, rangeland" in text
    other = json.dumps(page_module.build_page(FakeMaker(), model_name="my.py, my.safetensors").get_config_file())
    assert "made-up world" not in other and "Model: my.py, my.safetensors" in other


def test_nothing_on_the_page_is_elsewhere(page):
    from fastapi import FastAPI

    page_module.mount_page(FastAPI(), page, max_bytes=1000)
    assert page.analytics_enabled is False and page.max_file_size == 1000 and page.run_history is False
    assert re.findall(r"https?://|@import", page_module.CSS) == []
    shown = json.dumps([component["props"] for component in page.get_config_file()["components"]])
    assert re.findall(r"https?://[^\"]*", shown) == []
    assert page.theme._stylesheets == [] and "@import" not in page.theme_css
    assert re.findall(r"url\((?![\"']?data:)[^)]*", page.theme_css) == []


def test_one_question_at_a_time_reaches_the_model(page):
    asking = [function for function in page.fns.values() if function.concurrency_id == "model"]
    assert len(asking) >= 2 and {function.concurrency_limit for function in asking} == {1}
    assert {function.api_visibility for function in page.fns.values()} == {"private"}
    assert page._queue.max_size == 20


def test_an_address_in_place_of_a_file_is_not_fetched(page):
    field = page_module.local_file(label="x")
    with pytest.raises(gr.Error, match="files are uploaded, not fetched"):
        asyncio.run(field.async_move_resource_to_block_cache("http://192.0.2.1/a.tif"))
    guarded = [block for block in page.blocks.values() if isinstance(block, gr.File)]
    assert len(guarded) == 2
    for block in guarded:
        with pytest.raises(gr.Error):
            asyncio.run(block.async_move_resource_to_block_cache("https://192.0.2.1/a.tif"))
