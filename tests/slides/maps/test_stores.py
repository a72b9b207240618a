"""Predictions for QuPath's tiles, WSInfer, zarr, TIAToolbox, the Digital Slide Archive and OME-TIFF."""

import gzip
import json
import sqlite3
import zlib
from contextlib import closing

import numpy as np
import pandas as pd
import pytest
import shapely
import tifffile

from proportion_ssl.slides import (
    Region,
    patch_grid,
    prediction_regions,
    read_annotations,
    read_label_map,
    write_annotation_store,
    write_dsa,
    write_geojson,
    write_label_map,
    write_wsinfer,
    write_zarr,
)

CLASSES = ["acinar", "solid", "non-cancer"]


@pytest.fixture
def grid():
    return patch_grid((5000, 4000), mpp=0.499, magnification=10)


@pytest.fixture
def probabilities(grid):
    return np.random.default_rng(0).dirichlet(np.ones(3), size=len(grid))


@pytest.fixture
def tiles(grid, probabilities):
    labels = probabilities.argmax(axis=1)
    labels[3] = -1
    return prediction_regions(
        labels, grid, CLASSES, mpp=0.499, probabilities=probabilities, per="patch"
    )


def check_qupath(document, object_type):
    """What QuPath's GeoJSON says of an object (its manual, "Importing & exporting", and WSInfer's writer)."""
    assert set(document) == {"type", "features"} and document["type"] == "FeatureCollection"
    for feature in document["features"]:
        assert set(feature) <= {"type", "id", "geometry", "properties"}
        assert feature["type"] == "Feature"
        assert feature["geometry"]["type"] in ("Polygon", "MultiPolygon")
        for ring in feature["geometry"]["coordinates"]:
            assert ring[0] == ring[-1] and len(ring) >= 4
            assert all(len(point) == 2 for point in ring)
        properties = feature["properties"]
        assert properties["objectType"] == object_type
        classification = properties["classification"]
        assert isinstance(classification["name"], str)
        assert all(0 <= part <= 255 for part in classification["color"])
        assert all(type(value) is float for value in properties["measurements"].values())


@pytest.mark.parametrize("name", ["tiles.geojson", "tiles.geojson.gz"])
def test_tiles_of_qupath(tmp_path, grid, tiles, probabilities, name):
    path = tmp_path / name
    write_geojson(path, iter(tiles), object_type="tile", offset=(100, 50))
    data = path.read_bytes()
    document = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    check_qupath(document, "tile")
    assert len(document["features"]) == len(grid) - 1, "one has no label"
    first = document["features"][0]["properties"]["measurements"]
    assert list(first) == [f"prob_{name}" for name in CLASSES]
    assert list(first.values()) == pytest.approx(probabilities[0], abs=1e-6)
    again = read_annotations(path, offset=(100, 50))
    assert len(again) == len(tiles)
    for one, other in zip(again, tiles, strict=True):
        assert one.geometry.equals(other.geometry) and one.class_name == other.class_name
        assert one.measurements == pytest.approx(other.measurements)


def test_the_same_tiles_give_the_same_bytes(tmp_path, tiles):
    for name in ("a.geojson.gz", "b.geojson.gz"):
        write_geojson(tmp_path / name, tiles)
    assert (tmp_path / "a.geojson.gz").read_bytes() == (tmp_path / "b.geojson.gz").read_bytes()


def test_a_failure_half_way_leaves_nothing(tmp_path, tiles):
    def failing():
        yield from tiles[:5]
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_geojson(tmp_path / "a.geojson.gz", failing())
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match="object_type must be"):
        write_geojson(tmp_path / "a.geojson", tiles, object_type="cell")
    with pytest.raises(ValueError, match="per must be"):
        prediction_regions(
            [], patch_grid((9, 9), 1, patch_mpp=1, size=9)[:0], [], mpp=1, per="tile"
        )


def test_nothing_to_write(tmp_path):
    write_geojson(tmp_path / "a.geojson", [])
    assert json.loads((tmp_path / "a.geojson").read_text())["features"] == []
    assert read_annotations(tmp_path / "a.geojson") == []


@pytest.mark.parametrize("name", ["a.json", "a.json.gz"])
def test_tiles_of_the_digital_slide_archive(tmp_path, tiles, name):
    write_dsa(tmp_path / name, tiles, name='of "1"')
    data = (tmp_path / name).read_bytes()
    document = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    assert set(document) == {"name", "elements"} and document["name"] == 'of "1"'
    for element in document["elements"]:  # the schema of large_image's annotations
        assert element["type"] == "polyline" and element["closed"] is True
        assert all(len(point) == 3 and point[2] == 0 for point in element["points"])
        assert set(element["user"]["measurements"]) == {f"prob_{name}" for name in CLASSES}
    again = read_annotations(tmp_path / name)
    assert [r.class_name for r in again] == [r.class_name for r in tiles]


@pytest.mark.parametrize("name", ["a.csv", "a.csv.gz"])
def test_table_of_wsinfer(tmp_path, grid, probabilities, name):
    write_wsinfer(tmp_path / name, probabilities, grid, CLASSES)
    table = pd.read_csv(tmp_path / name)
    assert list(table)[:4] == ["minx", "miny", "width", "height"]
    boxes = table[["minx", "miny", "width", "height"]].to_numpy()
    np.testing.assert_array_equal(boxes[:, :2] + boxes[:, 2:], grid.boxes[:, 2:])
    columns = [column for column in table if column.startswith("prob_")]
    np.testing.assert_allclose(table[columns], probabilities)


def read_zarr(folder):
    """An array of zarr format 2, by its specification."""
    about = json.loads((folder / ".zarray").read_text())
    assert about["zarr_format"] == 2 and about["order"] == "C" and about["filters"] is None
    chunks = sorted(
        (path for path in folder.iterdir() if path.name[0] != "."),
        key=lambda p: int(p.name.split(".")[0]),
    )
    blocks = [
        np.frombuffer(zlib.decompress(path.read_bytes()), about["dtype"]).reshape(about["chunks"])
        for path in chunks
    ]
    return np.concatenate(blocks)[: about["shape"][0]]


@pytest.mark.parametrize("n", [0, 1, 4096, 9000])
def test_zarr(tmp_path, n):
    grid = patch_grid((1000, 1000), mpp=1.0, patch_mpp=1.0, size=10)[:n]
    probabilities = np.random.default_rng(0).dirichlet(np.ones(3), size=len(grid))
    path = tmp_path / "a.zarr"
    write_zarr(path, probabilities, grid, CLASSES)
    write_zarr(path, probabilities, grid, CLASSES)  # replaced
    assert json.loads((path / ".zgroup").read_text()) == {"zarr_format": 2}
    assert list(json.loads((path / ".zattrs").read_text())["class_dict"].values()) == CLASSES
    if len(grid):
        np.testing.assert_allclose(read_zarr(path / "probabilities"), probabilities, atol=1e-7)
        np.testing.assert_array_equal(read_zarr(path / "predictions"), probabilities.argmax(axis=1))
        np.testing.assert_array_equal(read_zarr(path / "coordinates"), grid.boxes)
    assert [part.name for part in tmp_path.iterdir()] == ["a.zarr"]
    (tmp_path / "b.zarr").mkdir()
    with pytest.raises(ValueError, match="not a zarr group"):
        write_zarr(tmp_path / "b.zarr", probabilities, grid, CLASSES)


def test_annotation_store(tmp_path):
    hole = shapely.box(0, 0, 9, 9).difference(shapely.box(2, 2, 4, 4))
    regions = [
        Region("solid", hole, (255, 0, 51), "A", {"Area um^2": 77.0}),
        Region(
            "acinar", shapely.MultiPolygon([shapely.box(20, 0, 22, 1), shapely.box(30, 0, 31, 1)])
        ),
    ]
    write_annotation_store(tmp_path / "a.db", regions, offset=(10, 0))
    with closing(sqlite3.connect(tmp_path / "a.db")) as store:
        rows = store.execute("SELECT * FROM annotations").fetchall()
        assert dict(store.execute("SELECT * FROM metadata")) == {
            "version": '"1.0.1"',
            "compression": '"zlib"',
            "compression_level": "9",
        }
        found = store.execute("SELECT id FROM rtree WHERE min_x > 0").fetchall()
    assert found == [(2,)]
    assert [row[2] for row in rows] == ["Polygon", "MultiPolygon"]
    geometries = [shapely.from_wkb(zlib.decompress(row[5])) for row in rows]
    assert [g.area for g in geometries] == [77, 3] and geometries[0].bounds == (-10, 0, -1, 9)
    assert json.loads(rows[0][6]) == {
        "type": "solid",
        "color": [1.0, 0.0, 0.2],
        "name": "A",
        "Area um^2": 77.0,
    }


@pytest.mark.slow
def test_ome_tiff(tmp_path):
    grid = patch_grid((30000, 20000), mpp=0.5, patch_mpp=0.5, size=50)
    labels = np.random.default_rng(0).integers(-1, 2, len(grid))
    for name in ("a.ome.tif", "a.tif"):
        write_label_map(tmp_path / name, labels, grid, ["acinar", "solid"])
    with tifffile.TiffFile(tmp_path / "a.ome.tif") as tiff:
        assert tiff.is_ome and [level.shape for level in tiff.series[0].levels] == [
            *[(400, 600), (200, 300)],
            (100, 150),
        ]
        assert 'PhysicalSizeX="25.0"' in tiff.ome_metadata
        np.testing.assert_array_equal(tiff.asarray().ravel(), labels + 1)
    one, other = (read_label_map(tmp_path / name) for name in ("a.ome.tif", "a.tif"))
    for a, b in zip(one, other, strict=True):
        assert a.class_name == b.class_name and a.geometry.equals(b.geometry)
