"""The synthetic cohort: real files whose tables, outlines and pixels agree."""

import hashlib
import json
import math

import numpy as np
import openslide
import pandas as pd
import pytest
import shapely
import tifffile
from numpy.testing import assert_allclose, assert_array_equal
from shapely.geometry import shape

from proportion_ssl import load_cohort
from proportion_ssl.datasets import make_slides
from proportion_ssl.datasets._slide_files import write_slide
from proportion_ssl.datasets._slides import _draw_shares, _record
from proportion_ssl.datasets._tissue.fields import (
    pack_points,
    resize_field,
    smooth_noise,
    tessellate,
    upsample_rows,
)
from proportion_ssl.datasets._tissue.regions import (
    CANCER_CLASSES,
    CLASSES,
    COLORS,
    GLASS,
    class_shares,
    draw_regions,
    polygonise,
)
from proportion_ssl.datasets._tissue.stain import EOSIN, HEMATOXYLIN, absorb, draw_stain

SMALL = dict(n_labeled=1, n_bags=1, n_test=1, slide_size=(1100, 1001), random_state=3)


def digests(folder):
    """What every file of a cohort contains, by relative path."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def outlines_of(path):
    """Class to union of its polygons, from the GeoJSON."""
    features = json.loads(path.read_text(encoding="utf-8"))["features"]
    polygons = {}
    for feature in features:
        name = feature["properties"]["classification"]["name"]
        polygons.setdefault(name, []).append(shape(feature["geometry"]))
    return {name: shapely.union_all(parts) for name, parts in polygons.items()}


@pytest.fixture(scope="module")
def cohort_folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    assert make_slides(folder, **SMALL) == folder / "cohort.csv"
    return folder


def test_files_and_manifest(cohort_folder):
    assert list(digests(cohort_folder)) == [
        "annotations/labeled_01.geojson",
        "annotations/test_01.geojson",
        "cohort.csv",
        "slides/bag_01.tif",
        "slides/labeled_01.tif",
        "slides/test_01.tif",
    ]
    cohort = load_cohort(cohort_folder / "cohort.csv", classes=CANCER_CLASSES)
    assert cohort.classes == list(CANCER_CLASSES)
    assert (cohort.labeled, cohort.bags, cohort.test) == (["labeled_01"], ["bag_01"], ["test_01"])
    assert_allclose(cohort.proportions.sum(axis=1), 1.0, atol=1e-12)


@pytest.mark.parametrize("name", ["labeled_01", "bag_01", "test_01"])
def test_slides_open_with_their_resolution_and_levels(cohort_folder, name):
    with openslide.OpenSlide(cohort_folder / "slides" / f"{name}.tif") as slide:
        assert slide.dimensions == (1100, 1001)
        assert slide.level_dimensions == ((1100, 1001), (550, 500), (275, 250), (137, 125))
        assert_allclose(slide.level_downsamples, [1, 2, 4, 8], rtol=0.01)
        for axis in "xy":
            assert_allclose(float(slide.properties[f"openslide.mpp-{axis}"]), 0.5, rtol=1e-6)
        corner = np.asarray(slide.read_region((0, 0), 0, (60, 60)).convert("RGB"))
        center = np.asarray(slide.read_region((400, 350), 0, (300, 300)).convert("RGB"))
    # glass is bright and almost even; tissue absorbs, green most of all
    assert corner.min() > 215
    assert corner.std(axis=(0, 1)).max() < 6
    mean = center.reshape(-1, 3).mean(axis=0)
    assert mean[1] < mean[0] < corner.mean()


def test_tiles_are_jpeg(cohort_folder):
    with tifffile.TiffFile(cohort_folder / "slides" / "bag_01.tif") as file:
        assert len(file.pages) == 4
        for page in file.pages:
            assert page.compression == tifffile.COMPRESSION.JPEG
            assert page.is_tiled
            assert page.tags["ResolutionUnit"].value == tifffile.RESUNIT.CENTIMETER
        assert [page.is_reduced for page in file.pages] == [False, True, True, True]


@pytest.mark.parametrize("name", ["labeled_01", "test_01"])
def test_outlines_are_what_qupath_writes(cohort_folder, name):
    text = (cohort_folder / "annotations" / f"{name}.geojson").read_text(encoding="utf-8")
    collection = json.loads(text)
    assert collection["type"] == "FeatureCollection"
    names = []
    for feature in collection["features"]:
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "annotation"
        kind = feature["properties"]["classification"]
        assert tuple(kind["color"]) == COLORS[kind["name"]]
        names.append(kind["name"])
        assert all(ring[0] == ring[-1] for ring in feature["geometry"]["coordinates"])
        polygon = shape(feature["geometry"])
        assert polygon.is_valid
        assert polygon.within(shapely.box(0, 0, 1100, 1001))
    assert names == sorted(names, key=CLASSES.index)  # vague last
    assert len({feature["id"] for feature in collection["features"]}) == len(names)
    polygons = list(outlines_of(cohort_folder / "annotations" / f"{name}.geojson").values())
    union = shapely.union_all(polygons)
    assert_allclose(union.area, sum(p.area for p in polygons), rtol=1e-9)  # no overlaps
    assert 0.4 < union.area / (1100 * 1001) < 0.8


@pytest.mark.parametrize("name", ["labeled_01", "test_01"])
def test_recorded_percentages_are_areas_of_the_outlines(cohort_folder, name):
    cohort = load_cohort(cohort_folder / "cohort.csv", classes=CANCER_CLASSES)
    recorded = cohort.proportions.loc[name]
    outlines = outlines_of(cohort_folder / "annotations" / f"{name}.geojson")
    areas = pd.Series({c: outlines[c].area if c in outlines else 0.0 for c in CANCER_CLASSES})
    assert_allclose(recorded, areas / areas.sum(), atol=0.001)


def test_tissue_lies_inside_the_outlines(cohort_folder):
    # stain of the picture, averaged over each side of the outer rim
    picture = tifffile.imread(cohort_folder / "slides" / "labeled_01.tif", key=2)
    dark = 255 - picture.mean(axis=2)
    outlines = outlines_of(cohort_folder / "annotations" / "labeled_01.geojson")
    specimen = shapely.union_all(list(outlines.values()))
    rows, columns = np.indices(dark.shape)
    scale = 1001 / dark.shape[0]
    x, y = (columns + 0.5) * scale, (rows + 0.5) * scale
    inside = shapely.contains_xy(specimen.buffer(-40), x, y)
    outside = ~shapely.contains_xy(specimen.buffer(40), x, y)
    assert dark[outside].mean() < 25
    assert dark[inside].mean() > dark[outside].mean() + 25
    assert np.percentile(dark[outside], 99.9) < 60


@pytest.mark.slow
def test_same_seed_same_files_whatever_the_number_of_workers(cohort_folder, tmp_path):
    make_slides(tmp_path / "again", **SMALL, n_jobs=2)
    assert digests(tmp_path / "again") == digests(cohort_folder)


@pytest.mark.slow
def test_slides_do_not_depend_on_how_many_there_are_nor_on_recording(cohort_folder, tmp_path):
    settings = {**SMALL, "n_labeled": 0, "n_bags": 2, "n_test": 0}
    make_slides(tmp_path, **settings, proportion_noise=15.0, rounding=5)
    old, new = digests(cohort_folder), digests(tmp_path)
    assert new["slides/bag_01.tif"] == old["slides/bag_01.tif"]
    assert new["slides/bag_02.tif"] != old["slides/bag_01.tif"]
    rough = pd.read_csv(tmp_path / "cohort.csv")[list(CANCER_CLASSES)].to_numpy()
    assert_array_equal(rough % 5, 0)
    assert_array_equal(rough.sum(axis=1), 100)


def test_another_seed_gives_other_slides(cohort_folder, tmp_path):
    make_slides(tmp_path, **{**SMALL, "n_bags": 0, "n_test": 0, "random_state": 4})
    assert (
        digests(tmp_path)["slides/labeled_01.tif"]
        != digests(cohort_folder)["slides/labeled_01.tif"]
    )


@pytest.mark.slow
def test_a_cohort_is_not_replaced_unless_asked(tmp_path):
    small = {**SMALL, "slide_size": 768, "n_bags": 0, "n_test": 0}
    make_slides(tmp_path, **{**small, "n_labeled": 2})
    before = digests(tmp_path)
    with pytest.raises(FileExistsError, match=r"already holds a cohort.*overwrite=True"):
        make_slides(tmp_path, **small)
    (tmp_path / "cohort.csv").unlink()
    with pytest.raises(FileExistsError, match=r"no cohort\.csv, so a run was interrupted"):
        make_slides(tmp_path, **small)
    (tmp_path / "slides" / "mine.tif").touch()
    make_slides(tmp_path, **small, overwrite=True)
    after = digests(tmp_path)
    # the second slide of the old cohort is gone, a stranger's file is not
    assert set(before) - set(after) == {
        "slides/labeled_02.tif",
        "annotations/labeled_02.geojson",
    }
    assert "slides/mine.tif" in after
    assert after["slides/labeled_01.tif"] == before["slides/labeled_01.tif"]


@pytest.mark.slow
def test_a_failed_run_leaves_no_manifest(tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise OSError("disk full")

    small = {**SMALL, "slide_size": 768}
    make_slides(tmp_path, **small)
    monkeypatch.setattr("proportion_ssl.datasets._slides.write_outlines", broken)
    with pytest.raises(OSError, match="disk full"):
        make_slides(tmp_path, **small, overwrite=True)
    assert not (tmp_path / "cohort.csv").exists()


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"n_bags": -1}, ValueError, "n_bags is -1; give 0 or more"),
        ({"n_test": 1.0}, TypeError, "n_test is 1.0; give a whole number"),
        ({"n_labeled": 0, "n_bags": 0, "n_test": 0}, ValueError, "at least one slide"),
        ({"slide_size": 500}, ValueError, "slide_size is 500; .* at least 768"),
        ({"slide_size": (1000, 1000, 3)}, TypeError, r"slide_size is .*\(width, height\)"),
        ({"slide_size": 1000.0}, TypeError, r"slide_size is 1000\.0"),
        ({"slide_size": (1000.0, 1000)}, TypeError, "must be ints"),
        ({"stain_variation": -0.1}, ValueError, "stain_variation is -0.1"),
        ({"architecture_variation": math.nan}, ValueError, "architecture_variation is nan"),
        ({"proportion_noise": "much"}, TypeError, "proportion_noise is 'much'"),
        ({"rounding": 0}, ValueError, "rounding is 0; .* divides 100"),
        ({"rounding": 30}, ValueError, "rounding is 30; .* divides 100"),
        ({"rounding": 200}, ValueError, "rounding is 200; .* divides 100"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(tmp_path, settings, error, message):
    with pytest.raises(error, match=message):
        make_slides(tmp_path / "cohort", **{**SMALL, **settings})
    assert not (tmp_path / "cohort").exists()


# --- what is recorded -------------------------------------------------------------------------


def test_predominant_pattern_goes_round():
    shares = _draw_shares(np.random.default_rng(0), 40)
    assert_allclose(shares.sum(axis=1), 1.0)
    present = (shares > 0).sum(axis=1)
    assert present.min() >= 1
    assert present.max() <= 4
    assert shares[shares > 0].min() >= 0.08
    for start in range(0, 40, 5):
        assert sorted(shares[start : start + 5].argmax(axis=1)) == [0, 1, 2, 3, 4]
    assert_array_equal(_draw_shares(np.random.default_rng(0), 7), shares[:7])


def test_recorded_percentages_sum_to_100_and_are_near():
    rng = np.random.default_rng(0)
    for step in (0.1, 1.0, 5.0, 12.5):
        for shares in rng.dirichlet(np.ones(5), 40):
            percentages = np.array(_record(shares, 0.0, step, rng))
            assert_allclose(percentages.sum(), 100, atol=1e-9)
            assert np.abs(percentages - 100 * shares).max() < step
            assert_allclose(percentages / step, np.round(percentages / step), atol=1e-9)


def test_noise_of_the_record_has_the_stated_size_and_spares_absent_classes():
    rng = np.random.default_rng(0)
    shares = np.array([0.0, 0.5, 0.5, 0.0, 0.0])
    records = np.array([_record(shares, 8.0, 0.1, rng) for _ in range(2000)])
    assert_array_equal(records[:, [0, 3, 4]], 0)
    # renormalizing two equal shares leaves half of the difference of two errors
    assert_allclose(records[:, 1].std(), 8.0 / math.sqrt(2), rtol=0.08)
    assert_allclose(records[:, 1].mean(), 50, atol=0.6)
    hopeless = np.array([_record(shares, 1000.0, 0.1, rng) for _ in range(50)])
    assert_allclose(hopeless.sum(axis=1), 100)
    assert_array_equal(hopeless[:, [0, 3, 4]], 0)


# --- regions ----------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(4))
def test_regions_have_about_the_wanted_shares(seed):
    rng = np.random.default_rng(seed)
    wanted = np.array([0.5, 0.3, 0.0, 0.2, 0.0])
    regions = draw_regions(rng, (2400, 2400), wanted, 0.25, 0.04)
    labels = regions.labels
    found = np.bincount(labels[labels >= 0], minlength=len(CLASSES)) / (labels >= 0).sum()
    assert_allclose(found[:5] / found[:5].sum(), wanted, atol=0.05)
    assert_allclose(found[5], 0.25, atol=0.05)
    assert 0.005 < found[6] < 0.06
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    assert (edge == GLASS).all()
    assert_array_equal(regions.outline > 0, labels != GLASS)


def test_polygons_without_simplification_are_the_pixels():
    labels = np.full((7, 9), GLASS)
    labels[1:6, 1:8] = 0
    labels[2:5, 3:6] = 6  # a hole, filled by the vague region
    labels[3, 4] = 1
    labels[1, 7] = labels[0, 8] = 4  # touch at a corner
    outlines = polygonise(labels, 16.0, 0.0)
    assert list(outlines) == ["lepidic", "acinar", "solid", "vague"]
    for name, polygons in outlines.items():
        assert polygons.is_valid
        assert polygons.area == 256.0 * (labels == CLASSES.index(name)).sum()
    assert len(outlines["solid"].geoms) == 2
    assert len(outlines["lepidic"].geoms[0].interiors) == 1
    assert outlines["acinar"].bounds == (64.0, 48.0, 80.0, 64.0)


def test_simplified_polygons_still_tile_the_specimen():
    regions = draw_regions(np.random.default_rng(1), (1500, 1500), np.full(5, 0.2), 0.2, 0.05)
    outlines = polygonise(regions.labels, 16.0, 14.0)
    parts = [polygon for polygons in outlines.values() for polygon in polygons.geoms]
    assert shapely.coverage_is_valid(parts)
    pixels = np.bincount(regions.labels[regions.labels >= 0], minlength=len(CLASSES))
    for number, name in enumerate(CLASSES):
        assert_allclose(outlines[name].area, 256 * pixels[number], rtol=0.05)


def test_shares_leave_out_vague_and_non_cancer():
    squares = {
        "acinar": shapely.MultiPolygon([shapely.box(0, 0, 1, 3)]),
        "solid": shapely.MultiPolygon([shapely.box(5, 0, 6, 1)]),
        "non-cancer": shapely.MultiPolygon([shapely.box(9, 0, 12, 9)]),
        "vague": shapely.MultiPolygon([shapely.box(20, 0, 29, 9)]),
    }
    assert_allclose(class_shares(squares), [0, 0.75, 0, 0, 0.25])


# --- building blocks --------------------------------------------------------------------------


def test_rows_of_an_enlarged_field_are_the_enlarged_field():
    field = smooth_noise(np.random.default_rng(0), (40, 30), 5.0)
    whole = resize_field(field, (160, 120))
    for start, stop in ((0, 7), (7, 33), (33, 40)):
        assert_allclose(
            upsample_rows(field, 4, start, stop), whole[4 * start : 4 * stop], atol=1e-5
        )


def test_smooth_noise_has_unit_variance_and_the_stated_scale():
    noise = smooth_noise(np.random.default_rng(0), (600, 500), 10.0)
    assert noise.shape == (600, 500)
    assert_allclose(noise.std(), 1.0, atol=0.1)
    near = (noise[:, 1:] * noise[:, :-1]).mean()
    far = (noise[:, 40:] * noise[:, :-40]).mean()
    assert near > 0.95
    assert abs(far) < 0.1


def test_tessellation_agrees_with_a_search_over_all_centers():
    rng = np.random.default_rng(0)
    rows, columns = np.indices((60, 70), dtype=np.float32)
    x, y = columns.ravel() * 2, rows.ravel() * 2
    cells = tessellate(rng, x, y, 30.0, jitter=0.3)
    # the centers, recovered from the points of each cell
    seen = np.unique(cells.cell)
    first = np.array([np.flatnonzero(cells.cell == c)[0] for c in seen])
    centers = np.stack([(x - cells.dx)[first], (y - cells.dy)[first]], axis=1)
    distances = np.hypot(x[:, None] - centers[:, 0], y[:, None] - centers[:, 1])
    own = np.hypot(cells.dx, cells.dy)
    assert_allclose(distances.min(axis=1), own, atol=1e-3)
    # points well inside: the nearest border is the bisector with the nearest other center
    interior = (x > 40) & (x < 98) & (y > 40) & (y < 78)
    index = np.searchsorted(seen, cells.cell)
    expected = np.full(x.size, np.inf)
    for k in range(len(seen)):
        gap = np.hypot(*(centers[k] - centers[index]).T)
        with np.errstate(divide="ignore", invalid="ignore"):
            bisector = (distances[:, k] ** 2 - own**2) / (2 * gap)
        expected = np.where(index == k, expected, np.minimum(expected, bisector))
    assert_allclose(cells.border[interior], expected[interior], atol=1e-2)


def test_joined_cells_have_no_border_between_them():
    rows, columns = np.indices((80, 80), dtype=np.float32)
    x, y = columns.ravel(), rows.ravel()
    apart = tessellate(np.random.default_rng(0), x, y, 20.0, merged=0.0)
    joined = tessellate(np.random.default_rng(0), x, y, 20.0, merged=0.5)
    assert_array_equal(apart.group, apart.cell)
    assert_array_equal(joined.cell, apart.cell)
    assert len(np.unique(joined.group)) < len(np.unique(apart.group))
    assert (joined.border >= apart.border).all()
    assert joined.border.mean() > 1.08 * apart.border.mean()


def test_packed_points_keep_their_distance_and_stay_where_allowed():
    rng = np.random.default_rng(0)
    occupied = np.zeros((80, 90), np.uint8)
    occupied[:, :20] = 1
    allowed = np.ones((80, 90), bool)
    allowed[40:] = False
    points = pack_points(rng, occupied, allowed, 5.0)
    assert (points[:, 0] < 40).all()
    assert (points[:, 1] >= 20).all()
    distances = np.hypot(*(points[:, None] - points[None]).transpose(2, 0, 1))
    np.fill_diagonal(distances, np.inf)
    assert distances.min() >= 4.0  # the smallest disc has four fifths of the radius
    # nothing more fits
    assert (occupied[:40] == 1).all()


def test_beer_lambert():
    stain = draw_stain(np.random.default_rng(0), 0.0)
    assert_allclose(stain.vectors, [HEMATOXYLIN, EOSIN])
    assert_allclose(stain.strength, 1.0)
    hematoxylin = np.array([[0.0, 1.0, 0.0, 0.7]], np.float32)
    eosin = np.array([[0.0, 0.0, 1.0, 0.4]], np.float32)
    picture = absorb(hematoxylin, eosin, stain, np.zeros((1, 4), np.float32))
    density = -np.log(picture[0] / stain.light)
    assert_allclose(density[0], 0, atol=0.005)
    assert_allclose(density[1], HEMATOXYLIN, atol=0.01)
    assert_allclose(density[2], EOSIN, atol=0.02)
    assert_allclose(density[3], 0.7 * HEMATOXYLIN + 0.4 * EOSIN, atol=0.02)


def test_stain_variation_scales_the_spread_between_slides():
    def spread(variation):
        stains = [draw_stain(np.random.default_rng(k), variation) for k in range(200)]
        return np.log([s.strength for s in stains]).std(axis=0)

    assert_array_equal(spread(0.0), 0)
    assert_allclose(spread(2.0), 2 * spread(1.0))
    assert (spread(1.0) > 0.15).all()


def test_levels_of_a_slide_are_means_of_the_finer_one(tmp_path):
    ramp = np.linspace(40, 220, 640).astype(np.uint8)
    picture = np.repeat(np.broadcast_to(ramp, (513, 640))[..., None], 3, axis=2)
    write_slide(tmp_path / "ramp.tif", np.ascontiguousarray(picture), 0.25)
    with tifffile.TiffFile(tmp_path / "ramp.tif") as file:
        assert [page.shape[:2] for page in file.pages] == [
            (513, 640),
            (256, 320),
            (128, 160),
            (64, 80),
        ]
        for level, page in zip((1, 2, 4, 8), file.pages, strict=True):
            expected = ramp.reshape(-1, level).mean(axis=1)
            found = page.asarray()[..., 0].mean(axis=0)
            assert_allclose(found, expected, atol=2.5)
    assert not list(tmp_path.glob("*.partial"))
