"""Predictions out: maps, polygons, pictures, tables; and back in again without loss."""

import json
import os

import large_image
import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from slide_files import texture, write_slide

from proportion_ssl._atomic import replacing
from proportion_ssl.colors import FIGURE5_COLORS
from proportion_ssl.slides.annotations._polygonize import cell_borders
from proportion_ssl.slides.annotations.read import (
    Region,
    class_fractions,
    patch_labels,
    read_annotations,
    read_label_map,
)
from proportion_ssl.slides.grid import patch_grid
from proportion_ssl.slides.maps.write import (
    label_picture,
    overlay_picture,
    prediction_regions,
    slide_summary,
    write_dsa,
    write_geojson,
    write_label_map,
    write_picture,
    write_probability_map,
    write_table,
)
from proportion_ssl.slides.reading.slide import open_slide

CLASSES = ["lepidic", "acinar", "papillary", "micropapillary", "solid"]
TILED = {"generic-tiff"}


def outlines(rng, dimensions, n=24):
    """Freehand-like areas, some with holes, some vague, overlapping."""
    regions = []
    for i in range(n):
        angle = np.linspace(0, 2 * np.pi, 200, endpoint=False)
        waves = sum(rng.uniform(0, 0.25) * np.sin(k * angle + rng.uniform(0, 6)) for k in (2, 3, 5))
        radius = rng.uniform(0.05, 0.2) * max(dimensions) * (1 + waves)
        center = rng.uniform(0, 1, 2) * dimensions
        shape = shapely.Polygon(center + radius[:, None] * np.c_[np.cos(angle), np.sin(angle)])
        if i % 3 == 0:
            shape = shape.difference(shapely.Point(center).buffer(radius.mean() / 2))
        name = "vague" if i % 8 == 7 else CLASSES[i % 5]
        regions.append(Region(name, shape.buffer(0), FIGURE5_COLORS[name]))
    return regions


def labels_of(regions, grid):
    fractions, ignored = class_fractions(regions, grid, CLASSES)
    return patch_labels(fractions, CLASSES, ignored=ignored)


def random_labels(rng, grid, p_none=0.2):
    """Patchy labels: blocks of 3 x 3 patches, some without a label."""
    blocks = rng.integers(0, len(CLASSES), (grid.shape[0] // 3 + 1, grid.shape[1] // 3 + 1))
    codes = blocks[grid.cells[:, 0] // 3, grid.cells[:, 1] // 3]
    labels = np.array(CLASSES, dtype=object)[codes]
    labels[rng.random(len(grid)) < p_none] = None
    return labels


@pytest.fixture
def grid():
    return patch_grid((9000, 6000), mpp=0.4987, magnification=10)


@pytest.fixture
def labels(grid):
    return random_labels(np.random.default_rng(0), grid)


# --- the round trip --------------------------------------------------------------------------


def round_trip(regions, grid, folder, slide_mpp, offset=(0, 0)):
    """Outlines -> patches -> label map -> GeoJSON, DSA JSON, TIFF, PNG -> patches."""
    labels = labels_of(regions, grid)
    drawn = prediction_regions(labels, grid, CLASSES, mpp=slide_mpp)
    write_geojson(folder / "a.geojson", drawn, offset=offset)
    write_dsa(folder / "a.json", drawn, name="prediction", offset=offset)
    back = [read_annotations(folder / name, offset=offset) for name in ("a.geojson", "a.json")]
    for name in ("a.tif", "a.png"):
        write_label_map(folder / name, labels, grid, CLASSES)
        back.append(read_label_map(folder / name))
    return labels, [labels_of(one, grid) for one in back]


@pytest.mark.parametrize("offset", [(0, 0), (1200, 3400)])
@pytest.mark.parametrize("slide_mpp", [0.5, 0.2527, 0.4987])
def test_round_trip_on_a_synthetic_slide(tmp_path, slide_mpp, offset):
    dimensions = (20_000, 15_000)
    grid = patch_grid(dimensions, mpp=slide_mpp, magnification=10, edge="pad")
    regions = outlines(np.random.default_rng(1), dimensions)
    labels, back = round_trip(regions, grid, tmp_path, slide_mpp, offset)
    n_labeled = sum(label is not None for label in labels)
    assert n_labeled > 0.4 * len(grid) and n_labeled < len(grid)
    for again in back:
        assert again.tolist() == labels.tolist(), "all patches, labeled or not"


def test_round_trip_on_a_real_slide(real_data, tmp_path):
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        for magnification in (10, 20, 40):
            grid = slide.grid(magnification=magnification)
            regions = outlines(np.random.default_rng(2), slide.dimensions, n=16)
            labels, back = round_trip(regions, grid, tmp_path, slide.mpp_xy, slide.bounds[:2])
            assert sum(label is not None for label in labels) > 0.3 * len(grid) > 5
            for again in back:
                assert again.tolist() == labels.tolist()


def chain(slide, regions, folder, magnification):
    """Outlines -> patches -> label map -> GeoJSON -> patches, each step from the last one's file.

    Returns the labels of the patches before and after.
    """
    grid = slide.grid(magnification=magnification, size=64)
    before = labels_of(regions, grid)
    write_label_map(folder / "labels.tif", before, grid, CLASSES)
    drawn = read_label_map(folder / "labels.tif")
    write_geojson(folder / "labels.geojson", drawn, offset=slide.bounds[:2])
    back = read_annotations(
        folder / "labels.geojson", offset=slide.bounds[:2], dimensions=slide.dimensions
    )
    return before, labels_of(back, grid)


def agreement(before, after):
    """Share of the patches with a majority class that keep it."""
    labeled = np.array([label is not None for label in before])
    assert 0.3 * len(before) < labeled.sum() < len(before)
    return np.mean(before[labeled] == after[labeled])


@pytest.mark.slow
def test_agreement_is_complete_on_a_synthetic_slide(tmp_path):
    pixels = texture(2300, 1900)
    path = write_slide(tmp_path / "slide.tif", pixels, mpp=0.4987, n_levels=2)
    with open_slide(path) as slide:
        regions = outlines(np.random.default_rng(4), slide.dimensions)
        for magnification in (10, 20, 37):
            before, after = chain(slide, regions, tmp_path, magnification)
            assert agreement(before, after) == 1.0
            assert after.tolist() == before.tolist()


@pytest.mark.slow
def test_agreement_is_complete_on_a_real_slide(real_data, tmp_path):
    with open_slide(real_data / "slides" / "CMU-1-Small-Region.svs") as slide:
        regions = outlines(np.random.default_rng(2), slide.dimensions, n=16)
        for magnification in (10, 20, 40):
            before, after = chain(slide, regions, tmp_path, magnification)
            assert agreement(before, after) == 1.0
            assert after.tolist() == before.tolist()


@pytest.mark.slow
@settings(max_examples=40, deadline=None)
@given(st.data())
def test_round_trip_of_any_label_map(tmp_path_factory, data):
    """Islands, diagonal neighbors, rings, missing patches."""
    grid = patch_grid((700, 600), mpp=0.7, patch_mpp=1.0, size=70)
    codes = st.lists(st.integers(-1, 2), min_size=len(grid), max_size=len(grid))
    labels = np.array([*CLASSES, None], dtype=object)[data.draw(codes)]
    keep = np.array(data.draw(st.lists(st.booleans(), min_size=len(grid), max_size=len(grid))))
    grid, labels = grid[keep], labels[keep]
    folder = tmp_path_factory.mktemp("maps")
    for per in ("region", "class"):
        drawn = prediction_regions(labels, grid, CLASSES, mpp=0.7, per=per)
        write_geojson(folder / "a.geojson", drawn)
        assert labels_of(read_annotations(folder / "a.geojson"), grid).tolist() == labels.tolist()


# --- polygons --------------------------------------------------------------------------------


def test_polygons_follow_the_patches(grid, labels):
    for per in ("region", "class"):
        drawn = prediction_regions(labels, grid, CLASSES, mpp=0.5, per=per)
        for name in CLASSES:
            boxes = shapely.union_all(shapely.box(*grid.boxes[labels == name].T.astype(float)))
            mine = [r.geometry for r in drawn if r.class_name == name]
            assert all(shape.is_valid for shape in mine)
            assert shapely.union_all(mine).equals(boxes)
            assert sum(shape.area for shape in mine) == boxes.area
    assert len(drawn) == len(set(labels) - {None}), "one per class"


def test_regions_are_connected_by_edges():
    grid = patch_grid((30, 30), mpp=1.0, patch_mpp=1.0, size=10)
    labels = ["solid", None, None, None, "solid", "solid", None, None, None]
    drawn = prediction_regions(labels, grid, CLASSES, mpp=1.0)
    assert sorted(r.geometry.area for r in drawn) == [100, 200]
    [one] = prediction_regions(labels, grid, CLASSES, mpp=1.0, per="class")
    assert one.geometry.geom_type == "MultiPolygon" and one.geometry.is_valid


def test_measurements():
    grid = patch_grid((40, 10), mpp=1.0, patch_mpp=1.0, size=10)
    probabilities = np.array([[0.9, 0.1], [0.7, 0.3], [0.2, 0.8], [0.6, 0.4]])
    arguments = {"mpp": (0.5, 0.25), "probabilities": probabilities}
    drawn = prediction_regions([0, 0, 1, 0], grid, ["a", "b"], **arguments)
    assert [r.measurements for r in drawn] == [
        {"Area um^2": 200 * 0.125, "Mean probability": pytest.approx(0.8)},
        {"Area um^2": 100 * 0.125, "Mean probability": pytest.approx(0.6)},
        {"Area um^2": 100 * 0.125, "Mean probability": pytest.approx(0.8)},
    ]
    merged = prediction_regions([0, 0, 1, 0], grid, ["a", "b"], per="class", **arguments)
    assert merged[0].measurements["Mean probability"] == pytest.approx((0.9 + 0.7 + 0.6) / 3)


def test_overlapping_patches_share_the_overlap():
    grid = patch_grid((25, 10), mpp=1.0, patch_mpp=1.0, size=10, overlap=(5, 0))
    drawn = prediction_regions(["a", "b", "b", "a"], grid, ["a", "b"], mpp=1.0)
    assert [r.geometry.bounds[::2] for r in drawn] == [(0, 7.5), (17.5, 25), (7.5, 17.5)]


def test_cell_borders_of_a_subset():
    grid = patch_grid((50, 20), mpp=1.0, patch_mpp=1.0, size=10)
    x, y = cell_borders(grid[(grid.cells[:, 1] == 1) & (grid.cells[:, 0] == 1)])
    np.testing.assert_array_equal(x, [np.nan, 10, 20, np.nan, np.nan, np.nan])
    np.testing.assert_array_equal(y, [np.nan, 10, 20])


def test_geojson_is_what_qupath_reads(tmp_path, grid, labels):
    probabilities = np.full((len(grid), 5), 0.2)
    for per in ("region", "class"):
        arguments = {"mpp": 0.5, "probabilities": probabilities, "per": per}
        write_geojson(
            tmp_path / "a.geojson", prediction_regions(labels, grid, CLASSES, **arguments)
        )
        document = json.loads((tmp_path / "a.geojson").read_text())
        assert document["type"] == "FeatureCollection"
        for feature in document["features"]:
            assert feature["type"] == "Feature"
            properties = feature["properties"]
            assert properties["objectType"] == "annotation"
            name = properties["classification"]["name"]
            assert properties["classification"]["color"] == list(FIGURE5_COLORS[name])
            assert set(properties["measurements"]) == {"Area um^2", "Mean probability"}
            polygons = feature["geometry"]["coordinates"]
            if feature["geometry"]["type"] == "Polygon":
                polygons = [polygons]
            else:
                assert len(polygons) > 1, "one part must be a Polygon"
            for ring in (ring for polygon in polygons for ring in polygon):
                assert ring[0] == ring[-1] and len(ring) >= 5
                assert all(isinstance(v, int) for point in ring for v in point)
            assert shapely.geometry.shape(feature["geometry"]).is_valid


def test_geojson_keeps_everything(tmp_path):
    hole = shapely.box(0.1, 0.2, 10, 10).difference(shapely.box(2, 2, 3, 3.3))
    regions = [
        Region("Drüse", hole, (1, 2, 3), "one", {"Fläche µm^2": 1.5}),
        Region("b", shapely.MultiPolygon([shapely.box(0, 0, 1, 1), shapely.box(5, 5, 6, 6)])),
    ]
    write_geojson(tmp_path / "a.geojson", regions)
    assert read_annotations(tmp_path / "a.geojson") == regions


def test_dsa_keeps_everything(tmp_path):
    """Elements are single polygons, and one name is the label."""
    hole = shapely.box(0.1, 0.2, 10, 10).difference(shapely.box(2, 2, 3, 3.3))
    region = Region("Drüse", hole, (1, 2, 3), "one", {"Area um^2": 1.5})
    write_dsa(tmp_path / "a.json", [region], name="prediction")
    [back] = read_annotations(tmp_path / "a.json")
    assert back.geometry.equals(hole)
    assert (back.class_name, back.color, back.name) == ("Drüse", (1, 2, 3), "one")
    assert back.measurements == {"Area um^2": 1.5}
    document = json.loads((tmp_path / "a.json").read_text())
    assert document["name"] == "prediction"
    [element] = document["elements"]
    assert element["type"] == "polyline" and element["closed"] is True
    assert element["points"][0] != element["points"][-1], "closed says so"
    assert all(len(point) == 3 for point in element["points"] + element["holes"][0])
    assert element["lineColor"] == "rgb(1, 2, 3)"


def test_dsa_follows_the_published_schema(tmp_path, grid, labels):
    """Keys that large_image's schema allows for a polyline; others are rejected on upload."""
    write_dsa(tmp_path / "a.json", prediction_regions(labels, grid, CLASSES, mpp=0.5), name="a")
    allowed = {"id", "type", "user", "label", "group", "lineColor", "lineWidth", "fillColor"}
    allowed |= {"points", "closed", "holes"}
    for element in json.loads((tmp_path / "a.json").read_text())["elements"]:
        assert set(element) <= allowed
        assert set(element["label"]) == {"value"}
        assert len(element["points"]) >= 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"labels": ["solid"]}, "one label for each of 2 patches"),
        ({"labels": ["solid", "tumor"]}, r"labels \['tumor'\] are not among the classes"),
        ({"labels": [0, 5]}, r"must be -1 \(none\) or 0 to 4"),
        ({"labels": [-2, 0]}, r"must be -1 \(none\) or 0 to 4"),
        ({"per": "tile"}, "per must be"),
        ({"mpp": 0}, "mpp must be positive"),
        ({"mpp": (1, 2, 3)}, "mpp must be positive"),
        ({"probabilities": np.zeros((2, 4))}, r"must have shape \(2, 5\)"),
        ({"probabilities": np.full((2, 5), np.nan)}, "must lie in"),
        ({"probabilities": np.full((2, 5), 3.0)}, "not logits"),
    ],
)
def test_bad_predictions(arguments, message):
    grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    arguments = {"labels": [0, None], "classes": CLASSES, "mpp": 1.0, **arguments}
    if arguments["labels"] == [0, None]:
        arguments["labels"] = ["solid", None]
    with pytest.raises(ValueError, match=message):
        prediction_regions(grid=grid, **arguments)


def test_labels_by_number_and_by_name_agree(grid, labels):
    codes = [-1 if label is None else CLASSES.index(label) for label in labels]
    with_nan = pd.Series(labels).where(pd.notna(labels), np.nan)
    by_name = prediction_regions(labels, grid, CLASSES, mpp=1.0)
    assert prediction_regions(codes, grid, CLASSES, mpp=1.0) == by_name
    assert prediction_regions(with_nan, grid, CLASSES, mpp=1.0) == by_name


def test_nothing_predicted(grid, tmp_path):
    nothing = [None] * len(grid)
    assert prediction_regions(nothing, grid, CLASSES, mpp=1.0) == []
    assert prediction_regions([], grid[:0], CLASSES, mpp=1.0) == []
    write_geojson(tmp_path / "a.geojson", [])
    assert read_annotations(tmp_path / "a.geojson") == []
    write_label_map(tmp_path / "a.tif", nothing, grid, CLASSES)
    assert read_label_map(tmp_path / "a.tif") == []
    with pytest.raises(ValueError, match="no patches"):
        write_label_map(tmp_path / "b.tif", [], grid[:0], CLASSES)
    assert [p.name for p in tmp_path.iterdir() if p.suffix != ".geojson"] == ["a.tif"]


# --- TIFF maps -------------------------------------------------------------------------------


@pytest.fixture
def large_grid():
    """600 x 300 patches: a map of three levels."""
    grid = patch_grid((269_400, 134_800), mpp=0.4987, magnification=10)
    assert min(grid.shape) > 256
    return grid


def colors_of(values):
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[1:6] = [FIGURE5_COLORS[name] for name in CLASSES]
    return table[values]


@pytest.mark.slow
def test_label_map_opens_in_openslide_and_large_image(tmp_path, large_grid):
    labels = random_labels(np.random.default_rng(0), large_grid)
    path = tmp_path / "labels.tif"
    write_label_map(path, labels, large_grid, CLASSES)
    values = np.zeros(large_grid.shape, dtype=np.uint8)
    codes = [0 if label is None else CLASSES.index(label) + 1 for label in labels]
    values[tuple(large_grid.cells.T)] = codes
    np.testing.assert_array_equal(tifffile.imread(path), values)
    n_rows, n_columns = large_grid.shape
    with openslide.OpenSlide(path) as slide:
        assert openslide.OpenSlide.detect_format(path) in TILED
        assert slide.level_dimensions[0] == (n_columns, n_rows)
        assert slide.level_count == 3 and max(slide.level_dimensions[-1]) <= 256
        np.testing.assert_allclose(slide.level_downsamples, [1, 2, 4], rtol=0.02)
        for axis in "xy":
            assert float(slide.properties[f"openslide.mpp-{axis}"]) == pytest.approx(224)
        for level, size in enumerate(slide.level_dimensions):
            shown = np.asarray(slide.read_region((0, 0), level, size).convert("RGB"))
            step = 2**level
            np.testing.assert_array_equal(shown, colors_of(values[::step, ::step]))
    source = large_image.open(str(path), noCache=True)
    metadata = source.getMetadata()
    assert (metadata["sizeX"], metadata["sizeY"]) == (n_columns, n_rows)
    assert metadata["mm_x"] == pytest.approx(0.224)
    shown, _ = source.getRegion(format="numpy")
    np.testing.assert_array_equal(shown[..., :3], colors_of(values))
    assert len(read_label_map(path, dimensions=(269_400, 134_800))) == 5


def test_label_map_table(tmp_path, grid, labels):
    write_label_map(tmp_path / "a.tif", labels, grid, CLASSES, colors={"solid": (9, 8, 7)})
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        page = tiff.pages[0]
        table = json.loads(page.description)["proportion_ssl label map"]
        assert page.is_tiled and page.compression == 8
        assert page.colormap[:, 5].tolist() == [9 * 257, 8 * 257, 7 * 257]
        assert page.colormap[:, 0].tolist() == [65535] * 3
    assert table["classes"] == {str(i + 1): name for i, name in enumerate(CLASSES)}
    assert table["colors"]["solid"] == [9, 8, 7]
    assert table["downsample"] == pytest.approx([449.1678] * 2, abs=0.05)
    assert table["mpp"] == [224.0, 224.0]
    with Image.open(tmp_path / "a.tif") as image:
        assert image.mode == "P" and image.size == grid.shape[::-1]


def test_map_of_overlapping_and_of_few_patches(tmp_path):
    grid = patch_grid((250, 100), mpp=1.0, patch_mpp=1.0, size=100, overlap=(50, 0))
    write_label_map(tmp_path / "a.tif", ["a", "b", "b", "a"], grid, ["a", "b"])
    areas = {r.class_name: r.geometry for r in read_label_map(tmp_path / "a.tif")}
    assert areas["b"].bounds == (75, 0, 175, 100), "the middle parts of the two patches"
    with tifffile.TiffFile(tmp_path / "a.tif") as tiff:
        assert tiff.pages[0].get_resolution("MICROMETER") == pytest.approx((1 / 50, 1 / 100))
    write_label_map(tmp_path / "b.png", ["a"], grid[2], ["a", "b"])
    assert read_label_map(tmp_path / "b.png")[0].geometry.area == 100 * 100


def test_label_map_errors(tmp_path, grid, labels):
    with pytest.raises(ValueError, match=r"\.png, \.tif or \.tiff"):
        write_label_map(tmp_path / "a.jpg", labels, grid, CLASSES)
    with pytest.raises(ValueError, match="255 classes, got 256"):
        write_label_map(tmp_path / "a.tif", [-1] * len(grid), grid, [str(i) for i in range(256)])
    assert list(tmp_path.iterdir()) == []


def test_probability_map(tmp_path, large_grid):
    probabilities = np.random.default_rng(0).random(len(large_grid))
    keep = np.random.default_rng(1).random(len(large_grid)) < 0.5
    path = tmp_path / "solid.tif"
    write_probability_map(path, probabilities[keep], large_grid[keep], "solid")
    stored = tifffile.imread(path).astype(float)
    rows, columns = large_grid.cells[keep].T
    read = (stored[rows, columns] - 1) / 254
    assert np.abs(read - probabilities[keep]).max() <= 0.5 / 254 + 1e-9
    stored[rows, columns] = 0
    assert not stored.any(), "0 where there is no patch"
    with openslide.OpenSlide(path) as slide:
        assert slide.level_count == 3
        for level, size in enumerate(slide.level_dimensions):
            shown = np.asarray(slide.read_region((0, 0), level, size))[..., 0]
            np.testing.assert_array_equal(shown, tifffile.imread(path, key=level))
        assert float(slide.properties["openslide.mpp-x"]) == pytest.approx(224)
    source = large_image.open(str(path), noCache=True)
    shown, _ = source.getRegion(format="numpy")
    np.testing.assert_array_equal(shown[..., 0], tifffile.imread(path, key=0))
    assert source.getMetadata()["mm_x"] == pytest.approx(0.224)
    with tifffile.TiffFile(path) as tiff:
        table = json.loads(tiff.pages[0].description)["proportion_ssl probability map"]
        assert all(page.is_tiled for page in tiff.pages)
    assert table == {
        "class": "solid",
        "probability": "(value - 1) / 254; value 0: no patch",
        "mpp": [224.0, 224.0],
    }


def test_smaller_levels_average_the_patches_there_are(tmp_path):
    grid = patch_grid((10 * 300, 10), mpp=1.0, patch_mpp=1.0, size=10)
    probabilities = np.linspace(0, 1, 300)
    keep = np.ones(300, dtype=bool)
    keep[1] = keep[298] = keep[299] = False
    write_probability_map(tmp_path / "a.tif", probabilities[keep], grid[keep], "a")
    first = tifffile.imread(tmp_path / "a.tif", key=0)[0].astype(int)
    half = tifffile.imread(tmp_path / "a.tif", key=1)[0].astype(int)
    assert half[0] == first[0] and half[149] == 0
    assert abs(half[50] - (first[100] + first[101]) / 2) <= 0.5


def test_probability_map_errors(tmp_path, grid):
    for values, path, message in [
        (np.zeros(3), "a.tif", "one per patch"),
        (np.full(len(grid), 2.0), "a.tif", "must lie in"),
        (np.full(len(grid), np.nan), "a.tif", "must lie in"),
        (np.zeros(len(grid)), "a.png", r"is a \.tif or \.tiff file"),
    ]:
        with pytest.raises(ValueError, match=message):
            write_probability_map(tmp_path / path, values, grid, "solid")
    assert list(tmp_path.iterdir()) == []


# --- pictures --------------------------------------------------------------------------------


def test_label_picture(grid, labels, tmp_path):
    picture = label_picture(labels, grid, CLASSES, patch_pixels=4, legend=False)
    pixels = np.asarray(picture)
    assert pixels.shape == (grid.shape[0] * 4, grid.shape[1] * 4, 3)
    for (row, column), label in zip(grid.cells, labels, strict=True):
        expected = (255, 255, 255) if label is None else FIGURE5_COLORS[label]
        assert (pixels[row * 4 : row * 4 + 4, column * 4 : column * 4 + 4] == expected).all()
    write_picture(tmp_path / "a.png", picture)
    assert (np.asarray(Image.open(tmp_path / "a.png")) == pixels).all()


def test_legend_shows_every_color(grid):
    picture = label_picture([None] * len(grid), grid, CLASSES)
    pixels = np.asarray(picture)[:, grid.shape[1] * 8 :].reshape(-1, 3)
    for name in CLASSES:
        assert (pixels == FIGURE5_COLORS[name]).all(axis=1).sum() > 100


def test_overlay_colors_the_patch_and_nothing_else():
    grid = patch_grid((1000, 700), mpp=0.77, patch_mpp=1.0, size=97)
    grid = grid[np.arange(len(grid)) % 3 != 0]
    rng = np.random.default_rng(0)
    thumbnail = rng.integers(0, 256, (91, 130, 3)).astype(np.uint8)
    codes = rng.integers(-1, 5, len(grid))
    picture = overlay_picture(
        thumbnail, (1000, 700), codes, grid, CLASSES, opacity=0.5, legend=False
    )
    expected = thumbnail.astype(float)
    x, y = (np.arange(130) + 0.5) * 1000 / 130, (np.arange(91) + 0.5) * 700 / 91
    for (x0, y0, x1, y1), code in zip(grid.boxes, codes, strict=True):
        if code >= 0:
            inside = np.ix_((y >= y0) & (y < y1), (x >= x0) & (x < x1))
            expected[inside] = (thumbnail[inside] + FIGURE5_COLORS[CLASSES[code]]) / 2
    assert np.abs(np.asarray(picture) - expected).max() <= 0.5


def test_overlay_limits(grid, labels):
    white = np.full((60, 90, 3), 255, dtype=np.uint8)
    empty = overlay_picture(white, (9000, 6000), [], grid[:0], CLASSES, legend=False)
    assert (np.asarray(empty) == 255).all()
    for arguments, message in [
        ({"thumbnail": white[..., 0]}, "must be an RGB image"),
        ({"thumbnail": white / 255}, "must be an RGB image"),
        ({"opacity": 1.5}, "opacity must lie in"),
    ]:
        arguments = {"thumbnail": white, "opacity": 0.5, **arguments}
        with pytest.raises(ValueError, match=message):
            overlay_picture(
                dimensions=(9000, 6000), labels=labels, grid=grid, classes=CLASSES, **arguments
            )


# --- tables ----------------------------------------------------------------------------------


def test_summary_by_hand():
    grid = patch_grid((5000, 1000), mpp=0.5, patch_mpp=0.5, size=1000)
    classes = ["acinar", "solid", "non-cancer"]
    probabilities = np.array(
        [[0.8, 0.1, 0.1], [0.6, 0.2, 0.2], [0.6, 0.4, 0], [0.1, 0.7, 0.2], [0, 0, 1]]
    )
    row = slide_summary(
        "A",
        ["acinar", "acinar", "acinar", "solid", "non-cancer"],
        grid,
        classes,
        mpp=(0.5, 0.5),
        probabilities=probabilities,
        recorded={"acinar": 0.6, "solid": 0.4},
    )
    assert row == {
        "slide": "A",
        "n_patches": 5,
        "tumor_area_mm2": pytest.approx(4 * 0.25),
        "mean_confidence": pytest.approx((0.8 + 0.6 + 0.6 + 0.7) / 4),
        "predicted_acinar": 0.75,
        "predicted_solid": 0.25,
        "area_mm2_acinar": pytest.approx(0.75),
        "area_mm2_solid": pytest.approx(0.25),
        "recorded_acinar": 0.6,
        "recorded_solid": 0.4,
        "proportion_distance": pytest.approx(0.3),
    }


def test_summary_distance_is_at_most_one():
    grid = patch_grid((10, 10), mpp=1.0, patch_mpp=1.0, size=10)
    row = slide_summary("A", ["a"], grid, ["a", "b"], mpp=1.0, recorded={"b": 1.0})
    assert row["proportion_distance"] == 1.0


def test_summary_of_figure_4():
    """The paper's example, printed SAE = .13; its predicted shares sum to .99 only, which counts
    of patches cannot, so that ours are larger by 1 / .99."""
    names = ["a", "b", "c", "d", "e"]
    codes = np.repeat(np.arange(5), [7, 64, 14, 0, 14])
    grid = patch_grid((990, 10), mpp=1.0, patch_mpp=1.0, size=10)
    recorded = dict(zip(names, [0.05, 0.70, 0.15, 0.0, 0.10], strict=True))
    row = slide_summary("A", codes, grid, names, mpp=1.0, recorded=recorded)
    by_hand = abs(np.array([7, 64, 14, 0, 14]) / 99 - list(recorded.values())).sum()
    assert row["proportion_distance"] == pytest.approx(by_hand)
    assert by_hand == pytest.approx(0.13, abs=0.006)


def test_summary_without_tumor():
    grid = patch_grid((20, 10), mpp=1.0, patch_mpp=1.0, size=10)
    arguments = {"mpp": 1.0, "probabilities": np.full((2, 2), 0.5), "recorded": {"a": 1.0}}
    row = slide_summary("A", ["non-cancer", None], grid, ["a", "non-cancer"], **arguments)
    assert row["n_patches"] == 1 and row["tumor_area_mm2"] == 0
    for key in ("predicted_a", "mean_confidence", "proportion_distance"):
        assert np.isnan(row[key])


def test_summary_area_of_overlapping_patches_counts_once():
    grid = patch_grid((2000, 1000), mpp=1.0, patch_mpp=1.0, size=1000, overlap=(500, 0))
    row = slide_summary("A", ["a", "a", "a"], grid, ["a"], mpp=1.0)
    assert row["tumor_area_mm2"] == pytest.approx(2.0)


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        ({"a": 60, "b": 40}, "look like percent: divide by 100"),
        ({"a": 0.5, "b": 0.4}, r"sum to 0\.9, not 1 \(within 0\.01\)"),
        ({"a": 1.5, "b": -0.5}, "hold a negative share"),
        ({"a": float("nan"), "b": 1.0}, "hold a number that is not finite"),
        ({"a": 0.5, "c": 0.5}, r"slide A: recorded proportions name \['c'\]"),
    ],
)
def test_bad_recorded_proportions(recorded, message):
    grid = patch_grid((10, 10), mpp=1.0, patch_mpp=1.0, size=10)
    with pytest.raises(ValueError, match=message):
        slide_summary("A", ["a"], grid, ["a", "b"], mpp=1.0, recorded=recorded)


def test_rounded_record_counts_from_the_nearest_share_within():
    grid = patch_grid((30, 10), mpp=1.0, patch_mpp=1.0, size=10)
    shares = {"recorded": 0.3, "lower": 0.25, "upper": 0.35}
    record = {name: dict.fromkeys("abc", share) for name, share in shares.items()}
    row = slide_summary("A", ["a", "b", "c"], grid, list("abc"), mpp=1.0, **record)
    assert row["recorded_a"] == 0.3 and row["proportion_distance"] == 0
    row = slide_summary("A", ["a", "a", "c"], grid, list("abc"), mpp=1.0, **record)
    assert row["proportion_distance"] == pytest.approx((2 / 3 - 0.35) + 0.25)
    with pytest.raises(ValueError, match="slide A: lower and upper belong together"):
        slide_summary(
            *("A", ["a"] * 3, grid, list("abc")),
            mpp=1.0,
            recorded=record["recorded"],
            lower=record["lower"],
        )
    record["upper"] = record["recorded"]
    with pytest.raises(ValueError, match="Bag 'A' has upper ends that sum to less than 1"):
        slide_summary("A", ["a"] * 3, grid, list("abc"), mpp=1.0, **record)


def test_table(tmp_path):
    rows = [{"slide": "A, left", "x": 1.5}, {"slide": "B", "x": float("nan")}]
    write_table(tmp_path / "a.csv", rows)
    assert (tmp_path / "a.csv").read_text() == 'slide,x\n"A, left",1.5\nB,\n'
    write_table(tmp_path / "b.csv", pd.DataFrame(rows))
    assert (tmp_path / "b.csv").read_text() == (tmp_path / "a.csv").read_text()


# --- all or nothing --------------------------------------------------------------------------


def test_replacing_keeps_the_old_file_when_writing_fails(tmp_path):
    path = tmp_path / "a.txt"
    path.write_text("old")
    with pytest.raises(RuntimeError), replacing(path) as temporary:
        temporary.write_text("half of the n")
        raise RuntimeError
    assert path.read_text() == "old" and os.listdir(tmp_path) == ["a.txt"]
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new" and os.listdir(tmp_path) == ["a.txt"]


def test_failed_writes_leave_nothing(tmp_path, grid, monkeypatch):
    region = Region("a", shapely.box(0, 0, 1, 1), None, None, {"bad": float("nan")})
    for write in (write_geojson, lambda *a: write_dsa(*a, name="a")):
        with pytest.raises(ValueError, match="not JSON compliant"):
            write(tmp_path / "a.json", [region])

    def fail(*arguments, **options):
        raise OSError("disk full")

    monkeypatch.setattr(tifffile.TiffWriter, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_label_map(tmp_path / "a.tif", [None] * len(grid), grid, CLASSES)
    assert os.listdir(tmp_path) == []
