import numpy as np
import pytest
import rasterio
from rasterio.crs import CRS
from rasterio.enums import ColorInterp
from rasterio.errors import RasterioError
from rasterio.transform import Affine
from rasterio.windows import Window
from rio_cogeo import cog_validate

from mmovseg.data.vocabulary import vocabulary_from_names
from mmovseg.errors import UserError
from mmovseg.inference.scene import cog
from mmovseg.inference.scene.layers import (
    QUALITY,
    SCORE_SCALE,
    confidence_layer,
    label_layer,
    probability_layer,
    quality_layer,
)
from mmovseg.testing.scene_maps import (
    FOUR_CLASSES,
    UTM33,
    blocky_labels,
    map_arrays,
    map_grid,
    map_store,
    write_parts,
)

SHAPE = (530, 1100)
ROTATED = Affine(8.0, 3.0, 500000.0, 3.0, -8.0, 5_000_000.0)
DEGREES = Affine(1e-4, 0.0, 14.0, 0.0, -1e-4, 46.0)


def write(path, grid, layers, arrays, *, rows=130, tags=None):
    store = map_store(path, grid, layers, rows=rows)
    store.begin()
    write_parts(store, arrays)
    return store.finish(tags or {})


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        (UTM33, Affine(10.0, 0.0, 500000.0, 0.0, -10.0, 5_000_000.0)),
        (UTM33, ROTATED),
        (CRS.from_epsg(4326), DEGREES),
        (CRS.from_epsg(4326), Affine(1e-4, 0.0, 14.0, 0.0, 1e-4, 46.0)),  # south up
        (CRS.from_epsg(3035), Affine(10.0, 0.0, 4.4e6, 0.0, -10.0, 3.2e6)),  # northing comes first in its definition
        (CRS.from_proj4("+proj=laea +lat_0=10.5 +lon_0=20.25 +ellps=GRS80 +units=m"), ROTATED),
        (None, Affine(10.0, 0.0, 5.0, 0.0, -10.0, 7.0)),
        (None, Affine.identity()),
    ],
    ids=["utm", "rotated", "degrees", "south up", "northing first", "no code", "no crs", "no place"],
)
@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_place_and_pixels_are_kept(tmp_path, crs, transform):
    arrays = map_arrays(blocky_labels(SHAPE))
    grid = map_grid(SHAPE, crs=crs, transform=transform)
    layers = [label_layer(vocabulary_from_names(FOUR_CLASSES)), confidence_layer()]
    for path, array in zip(write(tmp_path / "map.tif", grid, layers, arrays), arrays.values(), strict=False):
        with rasterio.open(path) as source:
            assert source.crs == crs
            assert np.allclose(source.transform, transform, rtol=1e-14)
            assert np.array_equal(source.read(1), array)
        assert cog_validate(path, strict=True) == (True, [], [])


def test_labels_carry_colours_and_names(tmp_path):
    vocabulary = vocabulary_from_names(["water", 'a "road" <&>', "Gebäude", "line\nbreak\x07"])
    arrays = map_arrays(blocky_labels(SHAPE))
    path = write(tmp_path / "map.tif", map_grid(SHAPE), [label_layer(vocabulary)], arrays, tags={"MODEL": "a < b"})[0]
    with rasterio.open(path) as source:
        assert source.nodata == 255 and source.dtypes == ("uint8",)
        assert source.colorinterp == (ColorInterp.palette,)
        colors = source.colormap(1)
        assert [colors[value] for value in range(4)] == [(*color, 255) for color in vocabulary.colors]
        assert colors[255][3] == 0
        assert source.descriptions == ("class",)
        names = {key: value for key, value in source.tags(1).items() if key.startswith("CLASS_")}
        assert names == {"CLASS_0": "water", "CLASS_1": 'a "road" <&>', "CLASS_2": "Gebäude", "CLASS_3": "line break "}
        assert source.tags()["MODEL"] == "a < b"
        assert not any("time" in key.lower() or "date" in key.lower() for key in source.tags())
        assert source.profile["compress"] == "deflate" and source.block_shapes == [(512, 512)]
        assert source.overviews(1) == [2, 4]


def test_many_classes_take_two_bytes(tmp_path):
    vocabulary = vocabulary_from_names([f"class {number}" for number in range(300)])
    labels = blocky_labels(SHAPE, classes=300, nodata=65535)
    path = write(tmp_path / "map.tif", map_grid(SHAPE), [label_layer(vocabulary)], {"labels": labels})[0]
    with rasterio.open(path) as source:
        assert source.dtypes == ("uint16",) and source.nodata == 65535
        assert np.array_equal(source.read(1), labels)
        assert source.colormap(1)[299] == (*vocabulary.colors[299], 255)
        assert source.tags(1)["CLASS_299"] == "class 299"
    assert cog_validate(path, strict=True) == (True, [], [])


def test_the_number_of_classes_decides_the_type():
    names = [f"c{number}" for number in range(256)]
    assert label_layer(vocabulary_from_names(names[:255])).dtype == "uint8"
    assert label_layer(vocabulary_from_names(names)).dtype == "uint16"


def test_more_classes_than_two_bytes_are_refused():
    class Endless:
        def __len__(self):
            return 70_000

    with pytest.raises(UserError, match="at most 65535 classes, but 70000"):
        label_layer(Endless())


def test_scores_and_quality_say_what_they_mean(tmp_path):
    vocabulary = vocabulary_from_names(FOUR_CLASSES)
    arrays = map_arrays(blocky_labels(SHAPE))
    arrays["probabilities"] = np.random.default_rng(0).integers(0, 251, (4, *SHAPE)).astype(np.uint8)
    layers = [label_layer(vocabulary), confidence_layer(), quality_layer(), probability_layer(vocabulary)]
    paths = write(tmp_path / "map.tif", map_grid(SHAPE), layers, arrays)
    with rasterio.open(paths[1]) as source:
        assert source.scales == (SCORE_SCALE,) and source.nodata == 255
    with rasterio.open(paths[2]) as source:
        assert source.nodata is None
        assert [source.tags(1)[f"CLASS_{value}"] for value in range(4)] == [name for name, _ in QUALITY.values()]
        assert source.colormap(1)[1] == QUALITY[1][1]
    with rasterio.open(paths[3]) as source:
        assert source.descriptions == tuple(vocabulary.names)
        assert source.scales == (SCORE_SCALE,) * 4 and source.nodata == 255
        assert np.array_equal(source.read(), arrays["probabilities"])
    assert cog_validate(paths[3], strict=True) == (True, [], [])
    assert paths[3].name == "map.probabilities.tif"


def test_overviews_hold_classes_that_exist_and_mean_scores(tmp_path):
    labels = np.zeros((600, 600), dtype=np.uint8)
    labels[:, 300:] = 3
    labels[::2, ::2] = 255
    arrays = {"labels": labels, "confidence": np.where(np.indices(labels.shape)[1] % 2, 100, 200).astype(np.uint8)}
    layers = [label_layer(vocabulary_from_names(FOUR_CLASSES)), confidence_layer()]
    label_path, confidence_path = write(tmp_path / "map.tif", map_grid((600, 600)), layers, arrays)
    with rasterio.open(label_path, overview_level=0) as source:
        half = source.read(1)
    assert (half[:, :150] == 0).all() and (half[:, 150:] == 3).all()
    with rasterio.open(confidence_path, overview_level=0) as source:
        assert (source.read(1) == 150).all()


def test_many_bands_get_smaller_tiles(tmp_path):
    vocabulary = vocabulary_from_names([f"class {number}" for number in range(70)])
    layer = probability_layer(vocabulary)
    assert [cog.block_size(item) for item in (confidence_layer(), layer)] == [512, 256]
    values = np.random.default_rng(0).integers(0, 251, (70, 40, 300)).astype(np.uint8)
    layers = [label_layer(vocabulary), layer]
    arrays = {"labels": values[0] % 70, "probabilities": values}
    path = write(tmp_path / "map.tif", map_grid((40, 300)), layers, arrays, rows=25)[1]
    with rasterio.open(path) as source:
        assert np.array_equal(source.read(), values)
    assert cog_validate(path, strict=True) == (True, [], [])


def test_a_cut_file_does_not_pass_for_whole(tmp_path):
    path = write(tmp_path / "map.tif", map_grid(SHAPE), None, map_arrays(blocky_labels(SHAPE)))[0]
    cog.read_every_block(path)
    path.write_bytes(path.read_bytes()[:-2000])
    with pytest.raises((OSError, RasterioError)):
        cog.read_every_block(path)


def test_a_window_is_read_without_the_rest(tmp_path):
    labels = blocky_labels(SHAPE)
    path = write(tmp_path / "map.tif", map_grid(SHAPE), None, map_arrays(labels))[0]
    with rasterio.open(path) as source:
        assert np.array_equal(source.read(1, window=Window(500, 100, 50, 400)), labels[100:500, 500:550])
