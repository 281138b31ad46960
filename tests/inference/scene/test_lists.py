"""Lists of scenes: folders, tables and STAC items say the same thing in three ways."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest

from mmovseg.errors import UserError
from mmovseg.inference.scene.lists import read_jobs
from mmovseg.inference.scene.rasters import SceneInputs


def _touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()


def _item(name: str, **hrefs: str) -> dict:
    return {"type": "Feature", "id": name, "assets": {key: {"href": href} for key, href in hrefs.items()}}


def _write(path: Path, content: object) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return path


def test_folder_pairs_equal_names(tmp_path):
    _touch(
        tmp_path, "optical/b.tif", "optical/a.tif", "optical/a.tif.aux.xml", "optical/.c.tif", "sar/a.tiff", "sar/b.vrt"
    )
    _touch(tmp_path, "cloud_mask/b.tif", "cloud_mask/unused.tif")
    jobs = read_jobs(tmp_path, output_dir=tmp_path / "maps", defaults=SceneInputs(sar_unit="linear"))
    assert [job.name for job in jobs] == ["a", "b"]
    assert jobs[0].inputs == SceneInputs(
        optical=str(tmp_path / "optical/a.tif"), sar=str(tmp_path / "sar/a.tiff"), sar_unit="linear"
    )
    assert jobs[1].inputs.cloud_mask == str(tmp_path / "cloud_mask/b.tif")
    assert [job.output for job in jobs] == [tmp_path / "maps/a.tif", tmp_path / "maps/b.tif"]


@pytest.mark.parametrize("kind", ["optical", "sar"])
def test_folder_of_one_sensor(tmp_path, kind):
    _touch(tmp_path, f"{kind}/a.tif")
    (job,) = read_jobs(tmp_path, output_dir=tmp_path)
    assert job.inputs == SceneInputs(**{kind: str(tmp_path / kind / "a.tif")})


def test_table_fills_columns_and_defaults(tmp_path):
    path = _write(
        tmp_path / "list.csv",
        "\ufeffname;optical;sar;cloud_mask;output;sar_unit;optical_bands;optical_range;sar_nodata\n"
        "first;o/1.tif;s/1.tif;;;linear;4 3 2;0 3000;-9999\n"
        ";;s/2.tif;;north/two.tif;;;;nan\n"
        "\n"
        "third;https://host/3.tif;/abs/3.tif;m.tif;;;;;\n",
    )
    first, second, third = read_jobs(path, output_dir="maps", defaults=SceneInputs(sar_unit="db", sar_bands=(1, 2)))
    assert first.inputs == SceneInputs(
        optical=str(tmp_path / "o/1.tif"),
        sar=str(tmp_path / "s/1.tif"),
        sar_unit="linear",
        sar_bands=(1, 2),
        optical_bands=(4, 3, 2),
        optical_range=(0.0, 3000.0),
        sar_nodata=-9999.0,
    )
    assert (first.name, first.output) == ("first", Path("maps/first.tif"))
    assert (second.name, second.output) == ("two", Path("maps/north/two.tif"))
    assert second.inputs.optical is None and second.inputs.sar_nodata != second.inputs.sar_nodata
    assert (third.inputs.optical, third.inputs.sar) == ("https://host/3.tif", "/abs/3.tif")
    assert third.inputs.cloud_mask == str(tmp_path / "m.tif") and third.inputs.sar_unit == "db"


def test_names_that_only_gdal_understands_stay(tmp_path):
    names = ['NETCDF:"a.nc":rgb', "/vsizip/a.zip/b.tif", "s3://bucket/a.tif", "GTIFF_DIR:2:a.tif"]
    _touch(tmp_path, "T10:30.tif")
    with (tmp_path / "list.csv").open("w", newline="") as file:
        given = [*names, "T10:30.tif", "a:b.tif"]
        csv.writer(file).writerows([("name", "optical"), *enumerate(given)])
    jobs = read_jobs(tmp_path / "list.csv", output_dir="maps")
    files = [str(tmp_path / name) for name in ("T10:30.tif", "a:b.tif")]
    assert [job.inputs.optical for job in jobs] == names + files


@pytest.mark.parametrize("form", ["collection", "list", "item", "lines"])
def test_stac_items_in_every_form(tmp_path, form):
    items = [
        _item("S 1/a", visual="../o/1.tif", sar="s/1.tif"),
        _item("b", optical="file:///d/o%202.tif", s1="s/2.tif"),
    ]
    items = items[:1] if form == "item" else items
    content = {
        "collection": {"type": "FeatureCollection", "features": items},
        "list": items,
        "item": items[0],
        "lines": "\n".join(json.dumps(item) for item in items) + "\n",
    }[form]
    path = _write(tmp_path / ("items.jsonl" if form == "lines" else "items.json"), content)
    jobs = read_jobs(path, output_dir="maps")
    assert jobs[0].inputs == SceneInputs(optical=str(tmp_path / "../o/1.tif"), sar=str(tmp_path / "s/1.tif"))
    assert (jobs[0].name, jobs[0].output) == ("S 1/a", Path("maps/S_1_a.tif"))
    if form != "item":
        assert (jobs[1].inputs.optical, jobs[1].inputs.sar) == ("/d/o 2.tif", str(tmp_path / "s/2.tif"))


def test_stac_assets_by_key(tmp_path):
    path = _write(tmp_path / "items.json", [_item("a", B04="o.tif", vv="s.tif", visual="no.tif", cloud_mask="c.tif")])
    (job,) = read_jobs(path, output_dir="maps", optical_asset="B04", sar_asset="vv")
    here = {kind: str(tmp_path / f"{kind[0]}.tif") for kind in ("optical", "sar", "cloud_mask")}
    assert job.inputs == SceneInputs(**here)
    (job,) = read_jobs(path, output_dir="maps", optical_asset="none", sar_asset="vv")
    assert job.inputs == SceneInputs(sar=here["sar"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("l.csv", "", "needs a header line"),
        ("l.csv", "name,output\na,b.tif\n", "needs a header line with a column 'optical' or 'sar'"),
        ("l.csv", "optical,sarr\na,b\n", "column 'sarr' that is not known; did you mean 'sar'"),
        ("l.csv", "optical,sar,sar\na,b,c\n", "two columns 'sar'"),
        ("l.csv", "optical,sar\n", "lists no scenes"),
        ("l.csv", "optical,sar\na.tif\n", "line 2 has 1 fields, the header 2"),
        ("l.csv", "name,optical,sar\nx,,\n", "line 2 names neither an optical nor a SAR raster"),
        ("l.csv", "optical,sar,sar_unit\na.tif,b.tif,dB\n", "line 2: sar_unit is 'dB', it must be one of"),
        ("l.csv", "optical,optical_bands\na.tif,4 x\n", "optical_bands holds 'x', which is not a whole number"),
        ("l.csv", "optical,sar_nodata\na.tif,none\n", "sar_nodata holds 'none', which is not a number"),
        ("l.csv", "optical,optical_range\na.tif,1 2 3\n", "optical_range is '1 2 3', it must be two numbers"),
        ("l.csv", "optical,output\na.tif,map.png\n", "output 'map.png' must end in .tif"),
        ("l.csv", "optical\nx/o.tif\ny/o.tif\n", r"two scenes whose map is 'o.tif' \('o' and 'o'\)"),
        ("l.csv", 'optical\n"a.tif\n', "is no table"),
        ("l.json", "{", "is not valid JSON"),
        ("l.json", "[" * 100_000, "is not valid JSON"),
        ("l.json", "[]", "lists no scenes"),
        ("l.json", "[3]", "entry 1 is no STAC item"),
        ("l.json", json.dumps({"type": "Collection", "links": []}), "is a STAC collection; give its items"),
        (
            "l.json",
            json.dumps([_item("a", visual="o.tif", vh="s.tif")]),
            "item 'a' has no asset 'sar' or .* it has: visual, vh",
        ),
        ("l.json", json.dumps([{"id": "a", "assets": {"visual": {}}}]), "asset 'visual' has no 'href'"),
        ("l.jsonl", '{"id": 1}\n', "entry 1 is no STAC item"),
        ("l.txt", "a", "is no list of scenes"),
        ("l.csv", "optical\na\0b.tif\n", "holds a NUL character"),
        ("l.json", '[{"id": "a", "assets": {"sar": {"href": "a\\u0000b.tif"}}}]', "holds a NUL character"),
    ],
)
def test_bad_lists_are_refused_in_one_sentence(tmp_path, name, content, message):
    path = _write(tmp_path / name, content)
    with pytest.raises(UserError, match=message) as caught:
        read_jobs(path, output_dir="maps")
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_lists_that_cannot_be_read_are_refused(tmp_path):
    with pytest.raises(UserError, match=r"none\.csv' cannot be read"):
        read_jobs(tmp_path / "none.csv", output_dir="maps")
    (tmp_path / "latin.csv").write_bytes(b"optical\n\xff\xfe.tif\n")
    with pytest.raises(UserError, match="no text in UTF-8"):
        read_jobs(tmp_path / "latin.csv", output_dir="maps")
    with pytest.raises(UserError, match="neither a folder 'optical'"):
        read_jobs(tmp_path, output_dir="maps")
    path = _write(tmp_path / "items.json", [_item("a", optical="o.tif")])
    with pytest.raises(UserError, match="nothing to map"):
        read_jobs(path, output_dir="maps", optical_asset="none", sar_asset="none")


def test_folders_with_gaps_are_refused(tmp_path):
    _touch(tmp_path, "optical/a.tif", "optical/b.tif", "optical/c.tif", "sar/b.tif")
    with pytest.raises(UserError, match=r"a\.tif' \(and 1 more\) has no partner of that name"):
        read_jobs(tmp_path, output_dir="maps")
    _touch(tmp_path, "sar/a.tif", "sar/c.tif", "sar/c.vrt")
    with pytest.raises(UserError, match="have one name"):
        read_jobs(tmp_path, output_dir="maps")


@pytest.mark.parametrize(("name", "folder"), [("summary.csv", "."), ("summary.csv", "maps/.."), ("a.json", ".")])
def test_a_list_is_not_written_over(tmp_path, name, folder):
    (tmp_path / "maps").mkdir()
    path = tmp_path / name
    item = {"id": "a", "assets": {"optical": {"href": "o.tif"}, "sar": {"href": "s.tif"}}}
    path.write_text(json.dumps(item) if path.suffix == ".json" else "optical,sar\no.tif,s.tif\n")
    with pytest.raises(UserError, match=f"the list '.*{name}' lies where"):
        read_jobs(path, output_dir=tmp_path / folder)
    assert len(read_jobs(path, output_dir=tmp_path / "maps")) == 1
