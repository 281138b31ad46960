"""tools/check_data.py: ten planted faults, each found alone; clean copies; manifests; bad names."""

import json
import shutil

import check_data
import numpy as np
import pytest
import rasterio
from rasterio.transform import Affine

from mmovseg.data.datasets.check import FAULT_KINDS, check_dataset, inspect_dataset
from mmovseg.data.datasets.manifest import write_manifest
from mmovseg.testing.fakes import write_raster
from mmovseg.testing.trees import write_tree


@pytest.fixture(scope="module")
def masters(tmp_path_factory):
    """Data roots with manifests: `pie` without, `oem` with georeference."""
    root = tmp_path_factory.mktemp("masters")
    for name in ("pie_cloud", "oem_thick"):
        write_tree(name, root, count=3)
    for folder in ("pie", "oem"):
        write_manifest(root / folder)
    return root


@pytest.fixture
def root(masters, tmp_path):
    return shutil.copytree(masters, tmp_path / "sets")


@pytest.fixture
def check(root, capsys):
    """Run tools/check_data.py on the copy; returns (exit status, stdout lines, stderr)."""

    def check_it(*arguments):
        try:
            status = check_data.main([*arguments, "--root", str(root), "--quiet"])
        except SystemExit as stop:
            status = stop.code
        out, err = capsys.readouterr()
        return status, out.splitlines(), err

    return check_it


def exchange(one, other):
    third = one.with_name("third")
    one.rename(third)
    other.rename(one)
    third.rename(other)


def rewrite(path, change=None, **profile):
    with rasterio.open(path) as file:
        pixels, options = file.read(), {"crs": file.crs, "transform": file.transform, "nodata": file.nodata}
    pixels = pixels.transpose(1, 2, 0)
    path.unlink()
    write_raster(path, pixels if change is None else change(pixels), **(options | profile))


def missing_sar(root):
    path = root / "pie/train/sar/2.png"
    path.unlink()
    return path.with_suffix(".*")


def swapped_pair(root):
    exchange(root / "pie/train/sar/1.png", root / "pie/train/sar/3.png")
    return root / "pie/train/sar/1.png"


def swapped_place(root):
    exchange(root / "oem/val/sar/Area_5.tif", root / "oem/val/sar/Area_6.tif")
    (root / "oem/manifest.json").unlink()
    return root / "oem/val/sar/Area_5.tif"


def wrong_size(root):
    path = root / "pie/val/label/4.png"
    rewrite(path, lambda pixels: pixels[:-1])
    return path


def truncated(root):
    path = root / "pie/val/optical_cloud/4.png"
    path.write_bytes(path.read_bytes()[:-40])
    return path


def truncated_tif(root):
    path = root / "oem/val/sar/Area_4.tif"
    path.write_bytes(path.read_bytes()[:-500])
    return path


def unknown_label(root):
    path = root / "pie/train/label/1.png"
    rewrite(path, lambda pixels: np.where(pixels == pixels[5, 5], 9, pixels))
    return path


def duplicate_id(root):
    path = root / "pie/train/optical_cloud/1.png"
    with rasterio.open(path) as file:
        write_raster(path.with_suffix(".jpg"), file.read().transpose(1, 2, 0))
    return path.with_suffix(".jpg")  # the one that the manifest does not list


def same_content_in_two_splits(root):
    for role in ("optical_cloud", "sar", "label"):
        shutil.copy(root / f"pie/train/{role}/1.png", root / f"pie/val/{role}/77.png")
    write_manifest(root / "pie")
    return root / "pie/val/optical_cloud/77.png"


def crs_mismatch(root):
    path = root / "oem/train/sar/Area_1.tif"
    rewrite(path, crs="EPSG:32655")
    return path


def other_place(root):
    path = root / "oem/train/label/Area_1.tif"
    rewrite(path, transform=Affine(0.5, 0, 1_000, 0, -0.5, 3_950_000))
    return path


def empty_split(root):
    for role in ("optical_cloud", "sar", "label"):
        shutil.rmtree(root / f"pie/val/{role}")
    return root / "pie/val/optical_cloud"


def empty_folder(root):
    for path in (root / "pie/val/sar").iterdir():
        path.unlink()
    return root / "pie/val/sar"


def extra_file(root):
    shutil.copy(root / "oem/train/sar/Area_1.tif", root / "pie/train/sar/stray.tif")
    return root / "pie/train/sar/stray.tif"


def extra_text(root):
    (root / "pie/train/label/Thumbs.db").write_text("x")
    return root / "pie/train/label/Thumbs.db"


def manifest_hash(root):
    path = root / "pie/train/optical_cloud/2.png"
    rewrite(path, lambda pixels: pixels // 2)
    return path


PLANTS = {
    "missing_sar": [missing_sar],
    "swapped_pair": [swapped_pair, swapped_place],
    "wrong_size": [wrong_size],
    "truncated": [truncated, truncated_tif],
    "unknown_label": [unknown_label],
    "duplicate_id": [duplicate_id, same_content_in_two_splits],
    "crs_mismatch": [crs_mismatch, other_place],
    "empty_split": [empty_split, empty_folder],
    "extra_file": [extra_file, extra_text],
    "manifest_hash": [manifest_hash],
}


@pytest.mark.parametrize(("kind", "plant"), [(kind, plant) for kind, plants in PLANTS.items() for plant in plants])
def test_a_planted_fault_is_found_and_nothing_else(check, root, kind, plant):
    path = plant(root)
    name = "oem_thick" if "oem" in path.parts else "pie_cloud"
    status, lines, _ = check(name)
    faults = [line for line in lines if line.split(":")[0] in FAULT_KINDS]
    without_count = [line for line in faults if not line.startswith("wrong_count")]
    assert status == 1 and without_count
    assert {line.split(":")[0] for line in without_count} == {kind}, without_count
    assert any(f"{kind}: {path}: " in line for line in without_count), without_count
    assert len(without_count) <= 2  # both files of an exchange, both rasters of a copied pair


def test_a_clean_copy_has_no_fault(check):
    for name in ("pie_cloud", "pie_clean", "oem_thick", "oem_thin"):
        status, lines, _ = check(name)
        assert status == 0 and lines[-1] == f"{name}: pairs: train 3, val 3; no fault"


def test_the_name_of_a_script_means_all_that_it_makes(check, root):
    status, lines, _ = check("pie", "--quiet")
    assert status == 0
    assert [line for line in lines if "no fault" in line] == [
        f"{name}: pairs: train 3, val 3; no fault" for name in ("pie_cloud", "pie_clean")
    ]
    truncated(root)  # a cloudy image: only one of the two has it
    status, lines, _ = check("pie", "--split", "val")
    assert status == 1 and [line.split(":")[0] for line in lines if "pairs:" in line and "truncated" in line] == [
        "pie_cloud"
    ]
    assert lines[-1] == "pie_clean: pairs: val 3; no fault"
    shutil.rmtree(root / "pie/train/optical_cloud")
    shutil.rmtree(root / "pie/val/optical_cloud")
    assert [line for line in check("pie", "--fast")[1] if line.startswith("pie_cloud")] == []


def test_fast_looks_at_names_and_headers(check, root):
    manifest_hash(root)
    assert check("pie_cloud", "--fast")[0] == 0
    missing_sar(root)
    status, lines, _ = check("pie_cloud", "--fast", "--split", "train")
    assert status == 1 and lines[0].startswith("missing_sar: ") and lines[-1].startswith("pie_cloud: pairs: train 2;")
    assert check("pie_cloud", "--fast", "--split", "val")[0] == 0


def test_without_manifest_a_swap_is_said_to_be_invisible(check, root):
    swapped_pair(root)
    (root / "pie/manifest.json").unlink()
    status, lines, _ = check("pie_cloud")
    assert status == 1 and all(line.startswith(("wrong_count", "note", "pie_cloud")) for line in lines)
    assert "note: rasters have no georeference: without a manifest a swapped pair cannot be seen" in lines
    assert any("2433 as reported" in line for line in lines)


def test_a_manifest_is_written_for_a_clean_copy_only(check, root):
    (root / "pie/manifest.json").unlink()
    unknown = unknown_label(root)
    assert check("pie_cloud", "--write-manifest")[0] == 1 and not (root / "pie/manifest.json").exists()
    unknown.unlink()
    for role in ("optical", "optical_cloud", "sar"):
        (root / f"pie/train/{role}/1.png").unlink()
    status, lines, _ = check("pie_cloud", "--write-manifest")
    assert status == 0 and "wrote " in lines[-1]
    assert len(json.loads((root / "pie/manifest.json").read_text())["files"]) == 5 * 4
    assert check("pie_cloud")[0] == 0


def test_the_release_is_checked_as_it_lies(tmp_path):
    for name in ("pie_cloud", "pie_clean", "ddhr_sk", "ddhr_ch", "oem_thick", "oem_thin"):
        root = write_tree(name, tmp_path / name, layout="release", count=2)
        assert {fault.kind for fault in check_dataset(name, root=root)} <= {"wrong_count"}, name
    path = tmp_path / "ddhr_sk/DDSK/train/D2masks3class/1.png"
    rewrite(path, lambda pixels: np.where(pixels == 255, 4, pixels))
    faults = [fault for fault in check_dataset("ddhr_sk", root=tmp_path / "ddhr_sk") if fault.kind != "wrong_count"]
    assert [(fault.kind, fault.path) for fault in faults] == [("unknown_label", str(path))]
    assert "number the seen classes alone" in faults[0].message


def test_sizes_other_than_reported_are_a_note(root):
    notes = inspect_dataset("pie_cloud", root=root).notes
    assert any("32x32 pixels here, 256x256 as reported" in note for note in notes)
    assert any("has 3 pairs, 2433 as reported" in note for note in notes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pies"], "unknown data set 'pies'; known: miniearth, pie_cloud"),
        (["ddhr"], "data set 'ddhr_sk"),
        (["miniearth"], "is generated; there are no files"),
        (["pie_cloud", "--split", "test"], "has no split 'test' on disk; it has: train, val"),
        (["ddhr_sk"], "prepare_ddhr.py --source <download>"),
    ],
)
def test_what_cannot_be_checked_is_said(check, arguments, message):
    status, _, err = check(*arguments)
    assert status == 2 and message in err and err.count("\n") == 1


def test_a_damaged_manifest_is_named(check, root):
    (root / "pie/manifest.json").write_text("{")
    status, _, err = check("pie_cloud")
    assert status == 2 and "manifest.json' is not valid JSON" in err
    (root / "pie/manifest.json").write_text('{"version": 99, "files": {}}')
    assert "has version 99; this program reads 1" in check("pie_cloud")[2]
