"""Search of a folder: indexes that grow, exact ranking, results, and what cannot be read."""

import csv
import json
import os
from pathlib import Path

import numpy as np
import pytest
import search_images
import torch
from PIL import Image
from torch import nn

from mmovseg.errors import UserError
from mmovseg.layers.norm import PixelNorm
from mmovseg.projects.sartext.modeling.image_text import ImageTextModel
from mmovseg.projects.sartext.modeling.norms import PercentileNorm, grey_norm
from mmovseg.projects.sartext.search import embedding as embedding_module
from mmovseg.projects.sartext.search.embedding import index_facts, model_sha256, update_index
from mmovseg.projects.sartext.search.files import ImageFile, choose_images, list_images
from mmovseg.projects.sartext.search.index import IndexFacts, SearchIndex, read_index, write_index
from mmovseg.projects.sartext.search.queries import Match, Query, embed_queries, find_matches, read_texts, write_results
from mmovseg.projects.sartext.search.ranking import block_rows, choose_engine, rank_exact, rank_faiss
from mmovseg.projects.sartext.search.reading import ImageReading, reading_for
from mmovseg.projects.sartext.search.sheet import draw_sheet, drawn_part
from mmovseg.testing.fakes import write_raster
from tests.projects.sartext.image_text_worker import CLIP, inputs

COLORS = {"red": (200, 0, 0), "green": (0, 200, 0), "blue": (0, 0, 200), "grey": (90, 100, 95)}
READING = ImageReading("optical")


class ColorModel(nn.Module):
    """The direction of the mean colour is the embedding, of an image and of the name of a colour."""

    def __init__(self, factor=1.0):
        super().__init__()
        self.embed_dim = 3
        self.encoded = 0
        self.weight = nn.Parameter(torch.tensor([factor]))

    def image_parts(self):
        return {}  # its weight says all; `encoded` is a note

    def encode_images(self, items):
        self.encoded += len(items)
        for item in items:
            if item["width"] == 13:
                raise UserError(f"sample '{item['file_name']}' is 13 pixels wide, which this model fears")
        rows = torch.stack([item["image"].float().mean(dim=(1, 2)) for item in items])
        return nn.functional.normalize(rows, dim=1) * self.weight / self.weight

    def encode_texts(self, texts):
        rows = torch.tensor([COLORS[text] for text in texts], dtype=torch.float32).reshape(len(texts), 3)
        return nn.functional.normalize(rows, dim=1)


def paint(path, color, width=8):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (width, 8), COLORS[color]).save(path)


@pytest.fixture
def folder(tmp_path):
    for name, color in (("a.png", "red"), ("b/c.png", "green"), ("b/d.tif", "blue"), (".hidden/x.png", "red")):
        paint(tmp_path / "images" / name, color)
    (tmp_path / "images/notes.txt").write_text("no image")
    return tmp_path / "images"


def update(folder, model=None, path=None, files=None, **options):
    said = []
    index, report = update_index(
        path or folder.parent / "index.safetensors",
        folder,
        files or list_images(folder),
        model or ColorModel(),
        READING,
        show_progress=False,
        tell=said.append,
        **options,
    )
    return index, report, said


def test_only_new_and_changed_images_are_embedded(folder):
    model = ColorModel()
    index, report, _ = update(folder, model, batch_size=2)
    assert [file.path for file in index.files] == ["a.png", "b/c.png", "b/d.tif"] and report.embedded == 3
    assert report.seconds > 0  # told with and without a progress bar
    np.testing.assert_allclose(index.embeddings, np.eye(3), atol=1e-6)
    paint(folder / "aa.png", "grey")
    paint(folder / "b/c.png", "blue", width=9)
    (folder / "a.png").unlink()
    index, report, _ = update(folder, model)
    assert (report.embedded, report.kept, report.gone, model.encoded) == (2, 1, ["a.png"], 5)
    assert [file.path for file in index.files] == ["a.png", "aa.png", "b/c.png", "b/d.tif"]  # kept: perhaps unmounted
    np.testing.assert_allclose(index.embeddings[2], [0, 0, 1], atol=1e-6)
    same = read_index(folder.parent / "index.safetensors")
    assert same.files == index.files and np.array_equal(same.embeddings, index.embeddings)
    index, report, _ = update(folder, model, prune=True)
    assert len(index) == 3 and model.encoded == 5
    assert len(read_index(folder.parent / "index.safetensors")) == 3


def test_images_that_cannot_be_read_are_told_listed_and_tried_again(folder):
    update(folder)
    (folder / "b/c.png").write_bytes(b"no picture")
    (folder / "cut.png").write_bytes((folder / "a.png").read_bytes()[:40])
    paint(folder / "odd.png", "red", width=13)
    paint(folder / "z.png", "red")
    index, report, said = update(folder)
    assert set(report.skipped) == {"b/c.png", "cut.png", "odd.png"} and len(said) == 3
    assert all("\n" not in text for text in said) and "is 13 pixels wide" in report.skipped["odd.png"]
    assert str(folder / "cut.png") in report.skipped["cut.png"]
    # what has become unreadable is not found by what it was; the good image of the refused batch is there
    assert [file.path for file in index.files] == ["a.png", "b/d.tif", "z.png"]
    assert len(read_index(folder.parent / "index.safetensors")) == 3
    paint(folder / "cut.png", "green")
    index, report, _ = update(folder)
    assert "cut.png" in [file.path for file in index.files] and set(report.skipped) == {"b/c.png", "odd.png"}


def test_a_name_that_is_not_utf8_is_skipped_and_told(folder, tmp_path, capsys):
    odd = os.fsdecode(b"caf\xe9.png")
    paint(folder / odd, "red")
    _, report, said = update(folder)
    assert report.embedded == 3 and set(report.skipped) == {odd}
    why = "cannot be opened, as its name is not UTF-8; rename it"
    assert said == [f"skipped: optical raster '{folder}/caf\\udce9.png' {why}"]
    renamed = folder.rename(tmp_path / os.fsdecode(b"bild\xe9r"))
    inside = tmp_path / os.fsdecode(b"\xe9")
    update(renamed, path=inside / "index.safetensors")  # no image of it can be read
    assert len(read_index(inside / "index.safetensors")) == 0
    files = write_results(
        inside, [Query(image=odd)], [[Match(1, 0.5, odd)]], facts={"engine": "exact"}, skipped=report.skipped
    )
    found, lines = (file.read_bytes().decode("utf-8") for file in files)
    assert list(json.loads(found)["skipped"]) == ["caf\\udce9.png"]
    assert json.loads(found)["queries"][0]["matches"][0]["image"] == "caf\\udce9.png"
    assert "caf\\udce9.png,1,0.500000,caf\\udce9.png" in lines
    draw_sheet(inside / "sheet.png", [Query(image=odd)], [[Match(1, 0.5, odd)]], folder=renamed, show=READING.show)
    with pytest.raises(SystemExit):
        search_images.main(["--folder", str(renamed), "--text", odd])
    assert "error: --text 'caf\\udce9.png' is not UTF-8" in capsys.readouterr().err


def test_what_lies_outside_a_pattern_is_not_gone(folder):
    update(folder)
    there = list_images(folder)
    chosen = choose_images(there, "b/*")
    (folder / "b/d.tif").unlink()
    index, report, _ = update(folder, files=chosen[:1], there=list_images(folder), prune=True)
    assert report.gone == ["b/d.tif"] and [file.path for file in index.files] == ["a.png", "b/c.png"]


def test_links_in_a_circle_end_and_links_to_nothing_are_passed_over(folder, tmp_path):
    plain = list_images(folder)
    for name, target in (("Loop", "."), ("b/up", ".."), ("A", "b"), ("self.png", "self.png"), ("gone.png", "none")):
        (folder / name).symlink_to(target)
    (folder / "also.png").symlink_to("a.png")
    paint(tmp_path / "away/e.png", "red")
    (folder / "away").symlink_to(tmp_path / "away")
    (tmp_path / "away/back").symlink_to(folder)
    found = list_images(folder)
    assert [image.path for image in found] == ["a.png", "also.png", "away/e.png", "b/c.png", "b/d.tif"]
    assert set(plain) < set(found)  # a folder keeps its own name, whatever its links are called


def test_what_a_search_wrote_is_left_out(folder):
    for name in ("out/sheet.png", "sheet.png"):
        paint(folder / name, "grey")
    found = list_images(folder, leave_out=(folder / "b/../out", folder / "sheet.png", folder / "none", folder))
    assert [image.path for image in found] == ["a.png", "b/c.png", "b/d.tif"]
    assert len(list_images(folder)) == 5


def test_what_a_stopped_run_did_is_kept(folder, monkeypatch):
    class Stopping(ColorModel):
        def encode_images(self, items):
            if self.encoded >= 2:
                raise KeyboardInterrupt
            return super().encode_images(items)

    with pytest.raises(KeyboardInterrupt):
        update(folder, Stopping(), batch_size=2)
    model = ColorModel()
    _, report, _ = update(folder, model)
    assert (report.kept, report.embedded, model.encoded) == (2, 1, 1)
    # written in pieces, the index is the same
    monkeypatch.setattr(embedding_module, "_SAVE_EVERY", 1)
    whole = read_index(folder.parent / "index.safetensors")
    (folder.parent / "index.safetensors").unlink()
    assert np.array_equal(update(folder)[0].embeddings, whole.embeddings)


def test_an_index_of_another_model_or_reading_is_refused(folder):
    update(folder)
    path = folder.parent / "index.safetensors"
    before = path.read_bytes()
    with pytest.raises(UserError, match="was made by another model .* remove it or name another with --index"):
        update(folder, ColorModel(2.0))
    with pytest.raises(UserError, match='images read as {"bands": .*"sar_unit"'):
        facts = index_facts(ColorModel(), ImageReading("optical", bands=(3, 2, 1)), folder)
        write_index(path, SearchIndex(facts, np.zeros((0, 3), np.float32), []))
        update(folder)
    path.write_bytes(before)
    assert model_sha256(ColorModel()) == model_sha256(ColorModel()) != model_sha256(ColorModel(2.0))
    path.write_bytes(before[:-5])
    with pytest.raises(UserError, match="index '.*' is damaged"):
        update(folder)
    path.write_text("text")
    with pytest.raises(UserError, match="is damaged or no index"):
        read_index(path)
    with pytest.raises(UserError, match="does not exist"):
        read_index(path.with_name("none"))


def test_an_index_of_another_folder_is_refused(folder, tmp_path, monkeypatch):
    update(folder)
    other = tmp_path / "others"
    paint(other / "b/d.tif", "red")  # the same name, size and time as the blue one of the first folder
    shown = (folder / "b/d.tif").stat()
    os.utime(other / "b/d.tif", ns=(shown.st_atime_ns, shown.st_mtime_ns))
    assert set(list_images(other)) < set(list_images(folder))
    with pytest.raises(UserError, match=f"is of the folder '{folder}', not of '{other}'; remove it or name another"):
        update(other)
    (tmp_path / "link").symlink_to(folder)
    monkeypatch.chdir(folder)
    for name in (tmp_path / "link", "."):  # the same folder by another name
        assert update(Path(name), path=tmp_path / "index.safetensors")[1].kept == 3
    assert search_images.output_folder(None, ".") == search_images.DEFAULT_OUTPUT / "images"
    assert search_images.output_folder(None, str(other)) == search_images.DEFAULT_OUTPUT / "others"
    assert str(search_images.output_folder("there", str(other))) == "there"


def test_what_the_weights_do_not_say_of_a_model_makes_another_index():
    def model(vision=None, norm=None, architecture=None, **options):
        changed = {**CLIP, "vision_cfg": {**CLIP["vision_cfg"], **(vision or {})}, **(architecture or {})}
        torch.manual_seed(0)
        norm = norm or grey_norm(clip=(-25.0, 5.0))
        return ImageTextModel(kind="clip", architecture=changed, norm=norm, **{"bands": (0, 0, 0), **options})

    models = {
        "plain": model(),
        "mean": model(norm=PixelNorm(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 1.0))),
        "std": model(norm=PixelNorm(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0))),
        "clip": model(norm=PixelNorm(mean=(1.0, 2.0, 3.0), std=(1.0, 1.0, 2.0), clip=(0.0, 9.0))),
        "percentiles": model(norm=PercentileNorm(percentiles=(2.0, 98.0))),
        "other percentiles": model(norm=PercentileNorm(percentiles=(1.0, 98.0))),
        "bands": model(bands=(0, 1, 0)),
        "modality": model(modality="optical"),
        "image size": model(vision={"image_size": 32, "patch_size": 16}),
        "heads": model(vision={"head_width": 8}),
        "activation": model(architecture={"quick_gelu": True}),
    }
    assert torch.equal(models["plain"].model.visual.proj, models["activation"].model.visual.proj)
    hashes = {name: model_sha256(found) for name, found in models.items()}
    assert len(set(hashes.values())) == len(models)
    # what does not reach an image does not count, nor does what was done with the model
    assert model_sha256(model(beams=2)) == hashes["plain"]
    models["plain"].eval().encode_images(inputs())
    assert model_sha256(models["plain"].train()) == hashes["plain"]


def test_a_folder_without_images_is_refused(folder, tmp_path):
    assert [image.path for image in list_images(folder, pattern="b/*")] == ["b/c.png", "b/d.tif"]
    with pytest.raises(UserError, match="none of the 3 rasters of the folder matches '[*].jp2'"):
        choose_images(list_images(folder), "*.jp2")
    with pytest.raises(UserError, match="has no raster"):
        list_images(folder, leave_out=[folder / "a.png", folder / "b"])
    with pytest.raises(UserError, match="does not exist"):
        list_images(tmp_path / "none")


def slow_ranking(rows, queries, top):
    found = []
    for query in queries:
        scores = [float(np.dot(row.astype(np.float64), query.astype(np.float64))) for row in rows]
        found.append(sorted(range(len(rows)), key=lambda number: (-scores[number], number))[:top])
    return found


@pytest.mark.parametrize("block", [1, 7, 64, 1000])
def test_the_exact_ranking_equals_a_slow_loop(block):
    rng = np.random.default_rng(0)
    rows = rng.integers(-2, 3, (200, 6)).astype(np.float32)  # whole numbers: many equal scores, and no rounding
    queries = rng.integers(-2, 3, (5, 6)).astype(np.float32)
    blocks = [rows[start : start + block] for start in range(0, len(rows), block)]
    scores, numbers = rank_exact(blocks, queries, 11)
    assert numbers.tolist() == slow_ranking(rows, queries, 11)
    assert np.array_equal(scores, np.take_along_axis(queries @ rows.T, numbers, axis=1))
    assert rank_exact(blocks, queries, 500)[1].shape == (5, 200)


def test_memory_is_bounded_by_the_number_of_scores():
    assert block_rows(1) == 65536 and block_rows(1000) == 4194 and block_rows(10**9) == 1


def test_faiss_is_taken_above_a_million_where_it_is(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert choose_engine("auto", 10**9) == choose_engine("exact", 5) == "exact"
    with pytest.raises(UserError, match="FAISS is not installed: pip install faiss-cpu"):
        choose_engine("faiss", 5)
    with pytest.raises(UserError, match="engine is 'fast', expected one of auto, exact, faiss"):
        choose_engine("fast", 5)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    assert choose_engine("auto", 10**6) == "exact" and choose_engine("auto", 10**6 + 1) == "faiss"


def test_faiss_finds_what_the_exact_ranking_finds():
    pytest.importorskip("faiss")
    rng = np.random.default_rng(0)
    rows = rng.normal(size=(4000, 16)).astype(np.float32)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    queries = rows[:50] + 0.01
    exact, near = (rank([rows[:1500], rows[1500:]], queries, 10)[1] for rank in (rank_exact, rank_faiss))
    assert (exact[:, 0] == near[:, 0]).all()
    assert np.mean([len(set(a) & set(b)) / 10 for a, b in zip(exact, near, strict=True)]) > 0.9


def test_answers_leave_out_the_query_and_what_is_not_there(folder):
    model = ColorModel()
    paint(folder / "e.png", "red", width=9)
    index, _, _ = update(folder, model)
    queries = [Query(text="green"), Query(image=str(folder / "a.png"))]
    rows = embed_queries(queries, model, READING)
    first, second = find_matches(index, queries, rows, folder=folder, top=2, captions={"e.png": ("a red one",)})
    assert [match.path for match in first] == ["b/c.png", "a.png"] and first[0].rank == 1
    assert [match.path for match in second][0] == "e.png" and second[0].captions == ("a red one",)
    assert abs(second[0].score - 1.0) < 1e-6
    (only,) = find_matches(index.part({"b/d.tif"}), queries[:1], rows[:1], folder=folder, top=9)
    assert [match.path for match in only] == ["b/d.tif"]
    with pytest.raises(UserError, match="nothing to look for"):
        embed_queries([], model, READING)
    with pytest.raises(UserError, match="must be at least 1, got 0"):
        find_matches(index, queries, rows, folder=folder, top=0)
    with pytest.raises(UserError, match="holds no image"):
        find_matches(index.part(set()), queries, rows, folder=folder)


def test_texts_of_a_file(tmp_path):
    (tmp_path / "t.txt").write_text("a river\n\n ships \n")
    assert read_texts(tmp_path / "t.txt") == ["a river", "ships"]
    (tmp_path / "t.txt").write_text("\n")
    with pytest.raises(UserError, match="holds no text to look for"):
        read_texts(tmp_path / "t.txt")
    (tmp_path / "t.txt").write_bytes(b"ok\n\xff\n")
    with pytest.raises(UserError, match="line 2 is not UTF-8"):
        read_texts(tmp_path / "t.txt")


def test_sar_files_are_brought_to_the_unit_of_the_model(tmp_path):
    contract = {"sar": {"bands": ("VV", "VH"), "unit": "db"}}
    reading = reading_for(contract, "sar")
    assert (reading.channels, reading.sar_unit) == (2, "db")
    amplitude = write_raster(tmp_path / "a.png", np.full((4, 5), 255, np.uint8))
    item = reading.read(str(amplitude))
    assert item["sar"].shape == (2, 4, 5) and "image" not in item
    assert torch.allclose(item["sar"], torch.full((2, 4, 5), 5.0))  # the digital number 255 is 5 dB
    db = np.full((4, 5, 2), -10.0, np.float32)
    db[0, 0] = np.nan
    item = reading.read(str(write_raster(tmp_path / "b.tif", db)))
    assert not item["sar_valid"][0, 0] and item["sar_valid"].sum() == 19
    power = write_raster(tmp_path / "c.tif", np.full((4, 5), 3.5, np.float32))
    with pytest.raises(UserError, match="the unit of '.*c.tif' is unclear"):
        reading.read(str(power))
    assert reading_for(contract, "sar", sar_unit_in="linear").read(str(power))["sar"].mean() > 5
    three = write_raster(tmp_path / "d.tif", np.arange(60, dtype=np.uint8).reshape(4, 5, 3))
    with pytest.raises(UserError, match="has 3 bands, the model reads 2; choose with --bands"):
        reading.read(str(three))
    assert reading_for(contract, "sar", bands=(1, 3)).read(str(three))["sar"].shape[0] == 2
    assert reading_for(contract, "sar", picked=(0, 0, 0)).read(str(three))["sar"].shape[0] == 3
    with pytest.raises(UserError, match="holds no data"):
        reading.read(str(write_raster(tmp_path / "e.tif", np.full((4, 5), np.nan, np.float32))))
    assert reading.show(str(amplitude)).shape == (4, 5, 3)


@pytest.fixture
def world(tmp_path):
    """Sixteen optical images of MiniEarth, one damaged, and captions of two."""
    from mmovseg.data.miniearth.export import write_miniearth_folder

    write_miniearth_folder(tmp_path / "w", splits=("val",), num_scenes=16, size=64)
    folder = tmp_path / "w/val/optical"
    names = sorted(path.name for path in folder.iterdir())
    (folder / "broken.tif").write_bytes(b"broken")
    lines = [
        {
            "image": name,
            "image_id": name,
            "source": "w",
            "route": "human",
            "split": "val",
            "captions": [f"said of {name}"],
        }
        for name in names
    ]
    (tmp_path / "c.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder, tmp_path / "c.jsonl", names


def test_the_tool_searches_in_one_command(world, capsys, monkeypatch):
    folder, captions, names = world
    output = folder / "out"  # also in the folder itself nothing that was written is found
    options = ["--folder", str(folder), "--captions", str(captions), "--output", str(output), "--quiet"]
    query = ["--text", "an image of water", "--image", str(folder / names[3]), "--top", "5"]
    search_images.main([*options, *query])
    out, _ = capsys.readouterr()
    assert "16 images, 16 embedded, 0 were there" in out and "ms an image; memory at most" in out
    assert "1 images cannot be read; results.json lists them" in out
    found = json.loads((output / "results.json").read_text())
    assert found["images"] == 16 and "broken.tif" in found["skipped"]["broken.tif"] and found["engine"] == "exact"
    text, image = found["queries"]
    assert text["text"] == "an image of water" and len(text["matches"]) == len(image["matches"]) == 5
    assert names[3] not in [match["image"] for match in image["matches"]]
    scores = [match["score"] for match in text["matches"]]
    assert scores == sorted(scores, reverse=True)
    best = text["matches"][0]
    assert best["captions"] == [f"said of {best['image']}"]
    rows = list(csv.DictReader((output / "results.csv").open()))
    assert len(rows) == 10 and rows[0]["image"] == best["image"] and rows[9]["query"] == str(folder / names[3])
    with Image.open(output / "sheet.png") as sheet:
        assert sheet.size[0] == 970 and sheet.size[1] > 400 and len(set(sheet.convert("L").getdata())) > 50
    search_images.main([*options, "--text", "a forest"])
    assert "0 embedded, 16 were there" in capsys.readouterr().out
    # the engine that is named is that of the part that is searched, and of a long list the sheet shows the beginning
    compared = []
    monkeypatch.setattr(search_images, "choose_engine", lambda engine, rows: compared.append(rows) or "exact")
    monkeypatch.setattr("mmovseg.projects.sartext.search.sheet._PICTURES", 1)
    search_images.main([*options, "--text", "a forest", "--pattern", f"*{names[0][-5:]}", "--prune"])
    out = capsys.readouterr().out
    assert "16 images, 0 embedded" in out and "are not in the folder" not in out
    part = json.loads((output / "results.json").read_text())
    there = [name for name in names if name.endswith(names[0][-5:])]
    assert sorted(match["image"] for match in part["queries"][0]["matches"]) == there
    assert compared == [part["images"]] == [len(there)] == [2]
    assert "sheet.png shows 1 of 1 queries, 1 of 2 answers; the tables hold all" in out
    os.utime(folder / names[0], ns=(1, 1))
    search_images.main(options)  # without a query: the index alone
    assert "1 embedded, 15 were there" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--text", " "], "--text is empty"),
        (["--text", "a", "--top", "0"], "--top and --batch-size must be at least 1"),
        (["--image", "none.png"], "none.png' does not exist"),
        (["--text", "a", "--config-file", "miniearth/mmovseg_xs.py"], "this tool needs an ImageTextModel"),
        (["--text", "a", "--weights", "none.safetensors"], "checkpoint 'none.safetensors' does not exist"),
    ],
)
def test_the_tool_refuses_in_one_sentence(folder, tmp_path, capsys, arguments, sentence):
    with pytest.raises(SystemExit) as stop:
        search_images.main(["--folder", str(folder), "--output", str(tmp_path / "out"), *arguments])
    err = capsys.readouterr().err
    assert stop.value.code == 2 and sentence in err and err.strip().count("\n") == 0
    assert not (tmp_path / "out").exists()


def test_a_sheet_of_many_answers_stays_small(folder):
    assert drawn_part(1, 12) == (1, 12) and drawn_part(20, 12) == drawn_part(99, 5000) == (20, 12)
    assert drawn_part(1, 10_000) == (1, 240) and drawn_part(1, 0) == (1, 0)
    shown = []

    def show(path):
        shown.append(path)
        return np.zeros((4, 4, 3), np.uint8)

    answers = [[Match(place + 1, 0.5, "a.png") for place in range(500)]] * 30
    draw_sheet(folder / "sheet.png", [Query(text="red")] * 30, answers, folder=folder, show=show)
    assert len(shown) == 240
    with Image.open(folder / "sheet.png") as sheet:
        assert sheet.width == 970 and sheet.height < 10_000


def test_a_row_for_every_file():
    with pytest.raises(ValueError, match="1 files, 3 values"):
        SearchIndex(IndexFacts("m", "r", 3, "f"), np.zeros((2, 3), np.float32), [ImageFile("a", 1, 1)])
