"""The human audit: sample, sheet, page, and what two raters agree on."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shutil
import subprocess
from collections import Counter

import audit_captions
import numpy as np
import pytest
import rasterio
from PIL import Image

from mmovseg.errors import UserError
from mmovseg.projects.sartext.captioning.audit.agreement import (
    cohen_kappa,
    compare_raters,
    format_agreement,
    usable_rate,
    wilson_interval,
)
from mmovseg.projects.sartext.captioning.audit.page import page_text
from mmovseg.projects.sartext.captioning.audit.sample import (
    COLUMNS,
    AuditItem,
    RatedItem,
    draw_sample,
    read_sheet,
    sheet_text,
)
from mmovseg.projects.sartext.captioning.schema import CaptionRecord, write_captions


def records():
    cells = [("hrsid", "annotation", 9), ("qxs", "rewriting", 7), ("qxs", "human", 2)]
    return [
        CaptionRecord(
            f"{route}/{n}.png", f"{route}-{n}", source, route, "test", (f"{route} {n}, one", f"{route} {n} two")
        )
        for source, route, count in cells
        for n in range(count)
    ]


def rated(*ratings, codes=(), names=None):
    return [
        RatedItem(AuditItem(n, "a.png", str(n), "s", "human", "test", f"text {n}"), rating, codes, "")
        for n, rating in enumerate(ratings, start=1)
    ]


def test_the_sample_is_even_over_the_cells():
    items = draw_sample(records(), per_cell=4, seed=0)
    assert Counter((one.source, one.route) for one in items) == {
        ("hrsid", "annotation"): 4,
        ("qxs", "rewriting"): 4,
        ("qxs", "human"): 2,
    }
    assert len({one.image_id for one in items}) == 10
    assert [one.item for one in items] == list(range(1, 11))
    assert len({one.route for one in items[:5]}) > 1  # mixed


def test_the_sample_follows_from_seed_and_images_alone():
    first = draw_sample(records(), per_cell=4, seed=0)
    assert draw_sample(records()[::-1], per_cell=4, seed=0) == first
    assert draw_sample(records(), per_cell=4, seed=1) != first
    more = {(one.image_id, one.caption) for one in draw_sample(records(), per_cell=6, seed=0)}
    assert more > {(one.image_id, one.caption) for one in first}


def test_a_sheet_goes_out_and_comes_back(tmp_path):
    items = draw_sample(records(), per_cell=2, seed=0)
    text = sheet_text(items).replace(",,,\n", ",Minor,count location,well\n", 1)
    (tmp_path / "a.csv").write_text(text)
    back = read_sheet(tmp_path / "a.csv")
    assert [one.item for one in back] == items
    assert (back[0].rating, back[0].codes, back[0].comment) == ("minor", ("count", "location"), "well")
    assert back[1].rating is None
    semicolons = "\ufeff" + text.replace(", one", " one").replace('"', "").replace(",", ";")
    (tmp_path / "b.csv").write_text(semicolons)
    assert read_sheet(tmp_path / "b.csv")[0].rating == "minor"


ROW = "1,a.png,a,s,human,test,text,usable,,"


@pytest.mark.parametrize(
    ("lines", "says"),
    [
        (["a,b"], "the column 'item' is missing"),
        (
            [",".join(COLUMNS), ROW.replace("usable", "fine")],
            "line 2: the rating 'fine' is none of usable, minor, wrong",
        ),
        ([",".join(COLUMNS), ROW, ROW], "line 3: item 1 is also in line 2"),
        ([",".join(COLUMNS), ROW.replace("1,", "x,")], "line 2: item is 'x'"),
        ([",".join(COLUMNS), ROW.replace("usable,,", "minor,colour,")], "line 2: the code 'colour' is none of missing"),
        ([",".join(COLUMNS), ROW.replace("usable", "")], "has no rating"),
        ([",".join(COLUMNS)], "has no rating"),
    ],
)
def test_bad_sheets_are_refused(tmp_path, lines, says):
    path = tmp_path / "a.csv"
    path.write_text("\n".join(lines) + "\n")
    with pytest.raises(UserError, match=re.escape(says)) as error:
        read_sheet(path)
    assert str(path) in str(error.value)


def test_sheets_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match="cannot be read"):
        read_sheet(tmp_path / "none.csv")
    (tmp_path / "a.csv").write_bytes(b"item\xff")
    with pytest.raises(UserError, match="is not UTF-8 text: byte 5"):
        read_sheet(tmp_path / "a.csv")


def test_wilson_interval_of_known_cases():
    assert wilson_interval(0, 0) == (0.0, 1.0)
    assert wilson_interval(8, 10) == pytest.approx((0.4902, 0.9433), abs=1e-4)  # Brown, Cai, DasGupta 2001
    low, high = wilson_interval(10, 10)
    assert (round(low, 4), high) == (0.7225, 1.0)
    assert wilson_interval(0, 10) == pytest.approx((0.0, 1 - low))
    assert math.isclose(sum(wilson_interval(200, 400)), 1.0)
    assert wilson_interval(200, 400)[1] - 0.5 == pytest.approx(0.05, abs=0.002)  # 400 captions give five per cent


def test_kappa_of_known_cases():
    first = 20 * ["usable"] + 5 * ["usable"] + 10 * ["minor"] + 15 * ["minor"]
    second = 20 * ["usable"] + 5 * ["minor"] + 10 * ["usable"] + 15 * ["minor"]
    assert cohen_kappa(first, second) == pytest.approx(0.4)
    assert cohen_kappa(first, second, weights="quadratic") == pytest.approx(0.4)  # two ratings: distance says no more
    assert cohen_kappa(first, first) == 1.0
    assert cohen_kappa(["usable"], ["usable"]) is None
    assert cohen_kappa(["usable", "minor"], ["minor", "usable"]) == -1.0
    with pytest.raises(ValueError, match="got 1 and 2"):
        cohen_kappa(["usable"], ["usable", "minor"])


@pytest.mark.slow  # the import takes seconds
def test_weighted_kappa_equals_scikit_learn():
    metrics = pytest.importorskip("sklearn.metrics")
    rng = np.random.default_rng(0)
    names = ["usable", "minor", "wrong"]
    first = rng.integers(0, 3, 200)
    second = np.where(rng.random(200) < 0.6, first, rng.integers(0, 3, 200))
    for weights in ("none", "linear", "quadratic"):
        expected = metrics.cohen_kappa_score(first, second, weights=None if weights == "none" else weights)
        ours = cohen_kappa([names[n] for n in first], [names[n] for n in second], weights=weights)
        assert ours == pytest.approx(expected)


def test_rates_count_minor_errors_as_usable():
    rates = usable_rate(["usable", "minor", "wrong", None, "usable"])
    assert rates["rated"] == 4
    assert (rates["usable"]["share"], rates["without_error"]["share"]) == (0.75, 0.5)
    assert usable_rate([None])["usable"]["share"] is None


def test_two_raters_are_compared():
    report = compare_raters(
        [
            ("ann", rated("usable", "minor", "wrong", None, codes=("count", "count"))),
            ("bob", rated("usable", "wrong", "wrong", "usable")),
        ]
    )
    both = report["agreement"]
    assert (both["items"], both["equal"]) == (3, pytest.approx(2 / 3))
    assert both["table"] == [[1, 0, 0], [0, 0, 1], [0, 0, 1]]
    assert [one["item"] for one in both["disagreements"]] == [2]
    assert report["both"]["usable"]["count"] == 1
    assert report["raters"][0]["codes"]["count"] == 4  # once an item
    text = format_agreement(report)
    assert "3 items rated by both, 66.7 % with the same rating" in text
    assert "ann: 3 of 4 items rated, usable 66.7 %" in text
    alone = compare_raters([("ann", rated("usable"))])
    assert "agreement" not in alone
    assert "without error 100.0 %" in format_agreement(alone)


def test_sheets_of_two_samples_are_refused():
    other = [RatedItem(AuditItem(1, "a.png", "9", "s", "human", "test", "text 1"), "usable", (), "")]
    with pytest.raises(UserError, match="are not of one sample: item 1 differs"):
        compare_raters([("ann", rated("usable")), ("bob", other)])
    with pytest.raises(UserError, match="'ann' has 1 items and 'bob' 2"):
        compare_raters([("ann", rated("usable")), ("bob", rated("usable", "usable"))])
    with pytest.raises(UserError, match="no item is rated in both"):
        compare_raters([("ann", rated("usable", None)), ("bob", rated(None, "usable"))])
    with pytest.raises(UserError, match="got 3 sheets"):
        compare_raters(3 * [("ann", rated("usable"))])


def page_data(text):
    return json.loads(re.search(r'id="data">(.*?)</script>', text, re.DOTALL).group(1))


def test_the_page_holds_everything(tmp_path):
    sar = np.arange(256, dtype=np.uint8).reshape(16, 16)
    Image.fromarray(sar).save(tmp_path / "a.png")
    Image.fromarray(np.zeros((16, 16, 3), dtype=np.uint8)).save(tmp_path / "b.png")
    nasty = 'a "road" </script><script>alert(1)</script>'
    item = AuditItem(1, "a.png", "a", "s", "human", "test", nasty, "b.png")
    text = page_text([item], root=tmp_path)
    (shown,) = page_data(text)["items"]
    assert shown["caption"] == nasty
    assert [name for name, _ in shown["pictures"]] == ["SAR", "optical twin, for orientation"]
    assert all(source.startswith("data:image/png;base64,") for _, source in shown["pictures"])
    assert text.count("</script>") == 2  # that of the data and that of the program
    assert "http" not in text.replace("http-equiv", "")  # nothing is loaded
    assert page_data(page_text([item], root=None))["items"][0]["pictures"] == []
    with pytest.raises(UserError, match=r"c\.png"):
        page_text([AuditItem(1, "c.png", "c", "s", "human", "test", "x")], root=tmp_path)


def test_the_page_shows_optical_images_as_they_are(tmp_path):
    (tmp_path / "test/optical").mkdir(parents=True)
    colours = np.zeros((16, 16, 3), dtype=np.uint8)
    colours[..., 0] = 200
    for name in ("test/optical/a.png", "a.png"):
        Image.fromarray(colours).save(tmp_path / name)

    def shown(image, **options):
        item = AuditItem(1, image, "a", "rsicd", "human", "test", "a road", None)
        ((name, source),) = page_data(page_text([item], root=tmp_path, **options))["items"][0]["pictures"]
        pixels = np.asarray(Image.open(io.BytesIO(base64.b64decode(source.partition(",")[2]))).convert("RGB"))
        return name, tuple(pixels[0, 0])

    assert shown("test/optical/a.png") == ("optical", (200, 0, 0))
    assert shown("a.png", role="optical") == ("optical", (200, 0, 0))
    assert shown("a.png")[0] == "SAR"
    assert shown("test/optical/a.png", role="sar")[0] == "SAR"


def test_a_sar_image_without_data_is_named(tmp_path):
    with rasterio.open(
        tmp_path / "a.tif", "w", driver="GTiff", width=8, height=8, count=1, dtype="float32", nodata=np.nan
    ) as file:
        file.write(np.full((1, 8, 8), np.nan, dtype=np.float32))
    item = AuditItem(1, "a.tif", "a", "s", "human", "test", "x")
    with pytest.raises(UserError, match=r"SAR image '.*a\.tif' has no data"):
        page_text([item], root=tmp_path, sar_unit="db")


BROWSER = """
const disk = {}, elements = {};
const element = () => ({
  value: "", hidden: false, textContent: "", on: {}, setAttribute() {}, append() {},
  addEventListener(kind, act) { this.on[kind] = act; },
  replaceChildren(...made) { this.children = made; },
});
globalThis.document = { getElementById: (name) => (elements[name] ??= element()), createElement: element,
  addEventListener() {} };
globalThis.localStorage = STORAGE;
document.getElementById("data").textContent = DATA;
PROGRAM
function sitting(name, choice) {
  document.getElementById("rater").value = name; elements.begin.on.submit({ preventDefault() {} });
  const before = elements.count.textContent;
  if (choice !== undefined) elements.ratings.children[choice].on.click();
  return [before, elements.count.textContent];
}
console.log(JSON.stringify([elements.count?.textContent ?? "", sitting("ann", 0), sitting("bob"), sitting("ann"),
  Object.keys(disk), sheet()]));
"""
KEEPS = "{ getItem: (key) => disk[key] ?? null, setItem: (key, value) => { disk[key] = value; } }"
REFUSES = '{ getItem() { throw new Error("denied"); }, setItem() { throw new Error("denied"); } }'


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node to run the page")
def test_raters_at_one_browser_do_not_share_answers(tmp_path):
    text = page_text([AuditItem(1, "a.png", "a", "s", "human", "test", "a road")], root=None)
    sample = page_data(text)["sample"]
    program = re.search(r'<script>\s*"use strict";(.*?)</script>', text, re.DOTALL).group(1)

    def run(storage):
        data = json.dumps(json.dumps(page_data(text)))
        path = tmp_path / "page.js"
        parts = {"STORAGE": storage, "DATA": data, "PROGRAM": program}
        path.write_text(re.sub("STORAGE|DATA|PROGRAM", lambda found: parts[found.group()], BROWSER))
        return json.loads(subprocess.run(["node", path], capture_output=True, text=True, check=True).stdout)

    start, ann, bob, again, keys, saved = run(KEEPS)
    assert start == ""  # nothing is shown before there is a name
    assert ann == ["0 of 1 rated", "1 of 1 rated"]
    assert bob[0] == "0 of 1 rated"
    assert again[0] == "1 of 1 rated"
    assert keys == [f"caption-audit-{sample}-ann"]
    assert saved.splitlines()[1].endswith("a road,usable,,")
    assert run(REFUSES)[1] == ["0 of 1 rated", "1 of 1 rated"]


def test_the_command_draws_and_compares(tmp_path, capsys):
    write_captions(tmp_path / "a.jsonl", records())
    sheet, page = tmp_path / "ann.csv", tmp_path / "a.html"
    command = ["sample", "--captions", str(tmp_path / "a.jsonl"), "--per-cell", "3"]
    audit_captions.main([*command, "--sheet", str(sheet), "--page", str(page)])
    assert "8 captions of 3 pairs of source and route" in capsys.readouterr().out
    assert len(page_data(page.read_text())["items"]) == 8
    filled = sheet.read_text().replace(",,,\n", ",usable,,\n")
    sheet.write_text(filled)
    (tmp_path / "bob.csv").write_text(filled.replace(",usable,,\n", ",wrong,hallucinated,\n", 2))
    report = tmp_path / "r.json"
    audit_captions.main(["agreement", "--ratings", str(sheet), str(tmp_path / "bob.csv"), "--report", str(report)])
    out = capsys.readouterr().out
    assert "8 items rated by both, 75.0 % with the same rating" in out
    assert "errors: hallucinated 2" in out
    assert json.loads(report.read_text())["raters"][1]["usable"]["count"] == 6
    for bad, says in ((command, "nothing to write"), ([*command, "--per-cell", "0", "--sheet", "x"], "at least 1")):
        with pytest.raises(SystemExit):
            audit_captions.main(bad)
        assert says in capsys.readouterr().err
