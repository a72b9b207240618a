"""Annotation formats in, one model of a region, exact class fractions, patch labels."""

import gzip
import json
import logging
import zipfile
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from proportion_ssl.colors import (
    FIGURE5_COLORS,
    class_colors,
    parse_css,
    unpack_argb,
    unpack_bgr,
)
from proportion_ssl.slides.annotations._ellipse import ellipse, rectangle
from proportion_ssl.slides.annotations._polygonize import polygonize
from proportion_ssl.slides.annotations.read import (
    AnnotationError,
    Region,
    class_fractions,
    patch_labels,
    read_annotations,
    read_label_map,
)
from proportion_ssl.slides.grid import patch_grid

SAMPLES = Path(__file__).parents[2] / "data" / "annotations"
ELLIPSE_AREA = np.pi * 200 * 100
ACINAR, SOLID = 800 * 800 - 200 * 200, 800 * 400 / 2

# what each sample file describes: class, area in pixels, color
CONTENTS = {
    "qupath.geojson": [
        ("Acinar", ACINAR, (255, 255, 0)),
        ("Solid: Necrotic", SOLID, (0, 0, 255)),
        ("Papillary", 60_000, (0, 255, 0)),
        ("Ignore*", 40_000, (180, 180, 180)),
    ],
    "qupath_0.2.json": [("Acinar", ACINAR, (255, 255, 0)), ("Solid", SOLID, (0, 0, 255))],
    "asap.xml": [
        ("Acinar", 640_000, (244, 250, 88)),
        ("Exclusion", 40_000, (100, 254, 46)),
        ("Solid", SOLID, (0, 0, 255)),
    ],
    "imagescope.xml": [
        ("Acinar", ACINAR, (255, 255, 0)),
        ("#0000ff", SOLID, (0, 0, 255)),
        ("Papillary", ELLIPSE_AREA, (0, 255, 0)),
        ("Vague", 40_000, (0, 0, 0)),
    ],
    "dsa.json": [
        ("Acinar", ACINAR, (255, 255, 0)),
        ("Solid", SOLID, (0, 0, 255)),
        ("Papillary", ELLIPSE_AREA, (0, 255, 0)),
        ("Papillary", np.pi * 50**2, (0, 255, 0)),
        ("Vague", 40_000, (0, 0, 0)),
    ],
}
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(rings, name="tumor", kind="Polygon", **properties):
    classification = {} if name is None else {"classification": {"name": name}}
    return {
        "type": "Feature",
        "geometry": {"type": kind, "coordinates": rings},
        "properties": {**classification, **properties},
    }


@pytest.fixture
def write(tmp_path):
    def write(document, name="slide.geojson"):
        path = tmp_path / name
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return path

    return write


# --- formats ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTENTS)
def test_sample_files(name):
    regions = read_annotations(SAMPLES / name)
    assert [(r.class_name, r.color) for r in regions] == [(c, rgb) for c, _, rgb in CONTENTS[name]]
    np.testing.assert_allclose(
        [r.geometry.area for r in regions], [a for _, a, _ in CONTENTS[name]]
    )
    assert all(r.geometry.is_valid for r in regions)
    assert regions[0].geometry.bounds == (100, 100, 900, 900)


@pytest.mark.parametrize("name", CONTENTS)
def test_samples_give_the_same_patches(name):
    """The formats draw the same glands and triangle: one class map makes them agree."""
    class_map = {
        "Acinar": "acinar",
        "Solid": "solid",
        "#0000ff": "solid",
        "Papillary": None,
        "Exclusion": "vague",
        "Vague": None,
        "Ignore*": None,
    }
    regions = read_annotations(SAMPLES / name, class_map=class_map, dimensions=(2000, 1000))
    grid = patch_grid((2000, 1000), mpp=0.5, patch_mpp=0.5, size=100)
    fractions, ignored = class_fractions(regions, grid, ["acinar", "solid"])
    np.testing.assert_allclose(fractions.sum(axis=0) * 100**2, [ACINAR, SOLID])
    assert ignored.sum() == (4 if name == "asap.xml" else 0)


def test_left_out_shapes_are_logged(caplog):
    with caplog.at_level(logging.WARNING):
        read_annotations(SAMPLES / "qupath.geojson")
    assert [r.getMessage().split(": ", 1)[1] for r in caplog.records] == [
        "1 shape(s) without a class left out (name them by class_map={None: ...})",
        "1 shape(s) without an area (points, lines) left out",
    ]


def test_qupath_properties():
    region = read_annotations(SAMPLES / "qupath.geojson")[0]
    assert region.name == "gland field"
    assert region.measurements == {"Area µm^2": 150000.0}, "NaN measurements are no numbers"
    old = read_annotations(SAMPLES / "qupath_0.2.json")[0]
    assert old.measurements == {"Area µm^2": 150000.0}
    assert old.color == (255, 255, 0), "colorRGB -256 is opaque yellow"


@pytest.mark.parametrize(
    "document",
    [
        {"type": "FeatureCollection", "features": [feature([SQUARE])]},
        [feature([SQUARE])],
        feature([SQUARE]),
        feature([[SQUARE]], kind="MultiPolygon"),
        feature([[[*point, 3.5] for point in SQUARE]]),
        feature([SQUARE[:-1]]),
        {"elements": [{"type": "polyline", "closed": True, "group": "tumor", "points": SQUARE}]},
        [
            {
                "annotation": {
                    "name": "tumor",
                    "elements": [
                        {"type": "rectangle", "center": [5, 5, 0], "width": 10, "height": 10}
                    ],
                }
            }
        ],
        [{"type": "rectangle", "group": "tumor", "center": [5, 5, 0], "width": 10, "height": 10}],
    ],
    ids=[
        "collection",
        "list",
        "feature",
        "multi",
        "3d",
        "open ring",
        "dsa",
        "dsa list",
        "elements",
    ],
)
def test_json_shapes(write, document):
    [region] = read_annotations(write(document))
    assert region.class_name == "tumor"
    assert region.geometry.equals(shapely.box(0, 0, 10, 10))


def test_bare_geometry_is_unclassified(write):
    path = write({"type": "Polygon", "coordinates": [SQUARE]})
    assert read_annotations(path) == []
    assert read_annotations(path, class_map={None: "tissue"})[0].class_name == "tissue"


@pytest.mark.parametrize("document", [{"type": "FeatureCollection", "features": []}, []])
def test_no_annotation_is_no_error(write, document):
    assert read_annotations(write(document)) == []


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_encodings(tmp_path, encoding):
    path = tmp_path / "slide.json"
    path.write_bytes(json.dumps([feature([SQUARE], "Drüse")], ensure_ascii=False).encode(encoding))
    assert read_annotations(path)[0].class_name == "Drüse"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_xml_encodings(tmp_path, encoding):
    text = (SAMPLES / "asap.xml").read_text().replace("Acinar", "Drüse")
    text = text.replace('version="1.0"', f'version="1.0" encoding="{encoding}"')
    path = tmp_path / "slide.txt"
    path.write_bytes(text.encode(encoding))
    assert read_annotations(path)[0].class_name == "Drüse"


def test_compressed(tmp_path):
    text = (SAMPLES / "qupath.geojson").read_bytes()
    packed = tmp_path / "slide.geojson.gz"
    packed.write_bytes(gzip.compress(text))
    archive = tmp_path / "slide.zip"
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("slide.geojson", text)
    plain = read_annotations(SAMPLES / "qupath.geojson")
    for path in (packed, archive):
        assert read_annotations(path) == plain


def test_content_decides_not_the_name(tmp_path):
    path = tmp_path / "outlines.geojson"
    path.write_bytes((SAMPLES / "imagescope.xml").read_bytes())
    assert read_annotations(path)[0].class_name == "Acinar"


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_annotations(tmp_path / "none.geojson")


def imagescope(*regions):
    body = ""
    for i, (negative, box) in enumerate(regions):
        x0, y0, x1, y1 = box
        corners = ((x0, y0), (x1, y0), (x1, y1), (x0, y1))
        vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in corners)
        body += (
            f'<Region Id="{i}" Type="0" NegativeROA="{negative}">'
            f"<Vertices>{vertices}</Vertices></Region>"
        )
    return (
        '<Annotations><Annotation Id="1" Name="a"><Regions>'
        f"{body}</Regions></Annotation></Annotations>"
    )


def test_imagescope_island_in_a_hole_stays(write, caplog):
    """A ring with an island inside, and a hole in the island."""
    path = write(
        imagescope(
            (0, (0, 0, 100, 100)),
            (1, (10, 10, 90, 90)),
            (0, (30, 30, 70, 70)),
            (1, (40, 40, 50, 50)),
        )
    )
    ring, island = read_annotations(path)
    assert ring.geometry.area == 100**2 - 80**2
    assert island.geometry.area == 40**2 - 10**2
    assert "1 shape(s) kept as islands in a negative region: layer 1, region 2" in caplog.text


def test_imagescope_hole_outside_any_region_marks_nothing(write, caplog):
    path = write(imagescope((0, (0, 0, 10, 10)), (1, (20, 20, 30, 30))))
    [region] = read_annotations(path)
    assert region.geometry.area == 100
    assert "negative, but over no region of their layer: layer 1, region 1" in caplog.text


def test_imagescope_geoshape_of_converters(write):
    """Converters write the class as Type and the shape as GeoShape: no ellipse then."""
    text = imagescope((0, (0, 0, 10, 10))).replace('Type="0"', 'Type="2" GeoShape="Rectangle"')
    assert read_annotations(write(text))[0].geometry.area == 100
    points = text.replace("Rectangle", "Points")
    assert read_annotations(write(points, "points.xml")) == []


def test_dsa_rotation_turns_x_towards_y(write):
    element = {
        "type": "rectangle",
        "group": "a",
        "center": [50, 50, 0],
        "width": 20,
        "height": 2,
        "rotation": np.pi / 6,
    }
    [region] = read_annotations(write({"elements": [element]}))
    end = 50 + 9 * np.cos(np.pi / 6), 50 + 9 * np.sin(np.pi / 6)
    assert region.geometry.contains(shapely.Point(end))
    assert region.geometry.area == pytest.approx(40)


def test_shapes_have_exact_areas():
    assert shapely.Polygon(ellipse((5, 6), 30, 10, 0.3)).area == pytest.approx(np.pi * 15 * 5)
    assert shapely.Polygon(rectangle((5, 6), 30, 10, 0.3)).area == pytest.approx(300)
    np.testing.assert_allclose(ellipse((5, 6), 30, 10).mean(axis=0), (5, 6))


def test_asap_group_hierarchy_and_order(write):
    regions = read_annotations(SAMPLES / "asap.xml", class_map={"Tumor": "tumor"})
    assert [r.class_name for r in regions] == ["tumor", "Exclusion", "tumor"]
    ordered = read_annotations(SAMPLES / "asap.xml", order=["Solid", "Exclusion"])
    assert [r.class_name for r in ordered] == ["Acinar", "Solid", "Exclusion"]


# --- names, offset, extent -------------------------------------------------------------------


def test_class_map(write):
    path = write([feature([SQUARE], "A"), feature([SQUARE], "B: C"), feature([SQUARE], None)])
    names = [r.class_name for r in read_annotations(path, class_map={"A": "x", "B": "y"})]
    assert names == ["x", "y"]
    names = [r.class_name for r in read_annotations(path, class_map={"A": None, None: "z"})]
    assert names == ["B: C", "z"]


def test_class_map_by_color():
    mapped = read_annotations(SAMPLES / "imagescope.xml", class_map={"#0000ff": "solid"})
    assert mapped[1].class_name == "solid"


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"class_map": ["a"]}, TypeError, "class_map must be a mapping"),
        ({"class_map": {"a": 1}}, TypeError, "names to names or None"),
        ({"offset": (1,)}, ValueError, "offset must be two finite numbers"),
        ({"offset": (1, float("nan"))}, ValueError, "offset must be two finite numbers"),
        ({"order": "abc"}, TypeError, "order must be a sequence of names"),
        ({"order": ["a", "a"]}, ValueError, "order names a class twice"),
    ],
)
def test_bad_arguments(arguments, error, message):
    with pytest.raises(error, match=message):
        read_annotations(SAMPLES / "qupath.geojson", **arguments)


def test_offset_shifts_to_level_0(write):
    [region] = read_annotations(write(feature([SQUARE])), offset=(1000, 2000))
    assert region.geometry.bounds == (1000, 2000, 1010, 2010)


def test_regions_are_clipped_to_the_slide(write):
    [region] = read_annotations(write(feature([SQUARE])), dimensions=(6, 100))
    assert region.geometry.bounds == (0, 0, 6, 10)


def test_region_outside_the_slide(write):
    path = write([feature([SQUARE]), feature([[[900, 0], [910, 0], [910, 9]]])])
    assert len(read_annotations(path)) == 2, "without dimensions there is no outside"
    with pytest.raises(AnnotationError, match=r"feature 1 \('tumor'\).*entirely outside.*offset="):
        read_annotations(path, dimensions=(100, 100))


# --- repairs ---------------------------------------------------------------------------------


def test_bow_tie_encloses_both_wings(write, caplog):
    [region] = read_annotations(write(feature([[[0, 0], [4, 4], [4, 0], [0, 4], [0, 0]]])))
    assert region.geometry.is_valid
    assert region.geometry.area == 8
    assert "1 shape(s) repaired" in caplog.text and "feature 0 ('tumor')" in caplog.text


def test_a_ring_across_the_first_is_a_hole_inside_and_a_part_outside(write, caplog):
    """As viewers fill it: by the even-odd rule over all rings."""
    across = [[5, 5], [15, 5], [15, 8], [5, 8], [5, 5]]
    [region] = read_annotations(write(feature([SQUARE, across])))
    assert region.geometry.area == 100 - 5 * 3 + 5 * 3
    assert not region.geometry.contains(shapely.Point(7, 6))
    assert region.geometry.contains(shapely.Point(12, 6))
    assert "1 shape(s) repaired" in caplog.text


def test_overlapping_parts_are_united(write):
    shifted = [[x + 5, y] for x, y in SQUARE]
    [region] = read_annotations(write(feature([[SQUARE], [shifted]], kind="MultiPolygon")))
    assert region.geometry.area == 150
    assert region.geometry.geom_type == "Polygon"


def test_outline_without_area_is_left_out(write):
    flat = [[0, 0], [5, 0], [10, 0], [0, 0]]
    assert read_annotations(write([feature([flat]), feature([[[1, 1], [1, 1]]])])) == []


def inside_by_ray(points, x, y):
    """Even-odd rule, spelled out: edges crossed by the ray from (x, y) to the right."""
    crossed = 0
    for (x0, y0), (x1, y1) in zip(points, points[1:] + points[:1], strict=True):
        if (y0 > y) != (y1 > y) and x < (x1 - x0) * (y - y0) / (y1 - y0) + x0:
            crossed += 1
    return crossed % 2 == 1


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=4, max_size=12),
    st.lists(st.tuples(st.floats(-1, 10), st.floats(-1, 10)), min_size=20, max_size=20),
)
def test_repair_follows_the_even_odd_rule(tmp_path_factory, outline, places):
    path = tmp_path_factory.mktemp("repair") / "a.json"
    path.write_text(json.dumps(feature([outline])))
    regions = read_annotations(path)
    area = regions[0].geometry if regions else shapely.Polygon()
    assert area.is_valid
    edges = shapely.LinearRing(outline)
    for x, y in places:
        if edges.distance(shapely.Point(x, y)) > 1e-6:
            assert area.contains(shapely.Point(x, y)) == inside_by_ray(outline, x, y)


# --- fractions and labels --------------------------------------------------------------------


@pytest.fixture
def grid():
    return patch_grid((100, 60), mpp=1.0, patch_mpp=1.0, size=20)


def test_fractions_of_a_box_by_hand(grid):
    fractions, ignored = class_fractions([Region("a", shapely.box(5, 5, 45, 25))], grid, ["a"])
    by_hand = np.zeros((3, 5))
    by_hand[0, :3] = np.array([15, 20, 5]) * 15 / 400
    by_hand[1, :3] = np.array([15, 20, 5]) * 5 / 400
    np.testing.assert_allclose(fractions[:, 0], by_hand.ravel(), atol=1e-12)
    assert not ignored.any()


def test_the_last_drawn_lies_on_top(grid):
    whole, right = shapely.box(0, 0, 20, 20), shapely.box(10, 0, 20, 20)
    corner = shapely.box(15, 0, 30, 5)
    regions = [
        Region("a", whole),
        Region("b", right),
        Region("vague", corner),
        Region("a", shapely.box(15, 0, 16, 1)),
    ]
    fractions, ignored = class_fractions(regions, grid, ["a", "b"])
    np.testing.assert_allclose(fractions[0] * 400, [200 + 1, 200 - 25])
    np.testing.assert_allclose(ignored[0] * 400, 24)
    upside_down, _ = class_fractions(regions[::-1], grid, ["a", "b"])
    np.testing.assert_allclose(upside_down[0] * 400, [400, 0])


def random_blobs(rng, n, classes, extent=(100, 60), n_vertices=40):
    regions = []
    for i in range(n):
        angle = np.sort(rng.uniform(0, 2 * np.pi, n_vertices))
        radius = rng.uniform(5, 25) * rng.uniform(0.5, 1, n_vertices)
        ring = rng.uniform(0, 1, 2) * extent + radius[:, None] * np.c_[np.cos(angle), np.sin(angle)]
        area = shapely.make_valid(shapely.Polygon(ring))
        area = area.difference(shapely.Point(ring.mean(axis=0)).buffer(2))
        regions.append(Region(classes[i % len(classes)], area))
    return regions


def test_fractions_agree_with_counting_points(grid):
    """Oracle: the topmost region at each point of a fine lattice, asked one by one."""
    regions = random_blobs(np.random.default_rng(3), 12, ["a", "b", "vague"])
    fractions, ignored = class_fractions(regions, grid, ["a", "b"])
    step = 0.25
    x, y = np.meshgrid(np.arange(step / 2, 100, step), np.arange(step / 2, 60, step))
    top = np.full(x.shape, "", dtype=object)
    for region in regions:
        top[shapely.contains_xy(region.geometry, x, y)] = region.class_name
    for i, (x0, y0, x1, y1) in enumerate(grid.boxes):
        inside = top[(y > y0) & (y < y1) & (x > x0) & (x < x1)]
        counted = [(inside == name).mean() for name in ("a", "b", "vague")]
        np.testing.assert_allclose([*fractions[i], ignored[i]], counted, atol=0.02)


def test_areas_of_patches_add_up(grid):
    """Exactness: over all patches the parts of each region sum to what is visible of it."""
    regions = random_blobs(np.random.default_rng(4), 9, ["a", "b", "vague"], n_vertices=800)
    fractions, ignored = class_fractions(regions, grid, ["a", "b"])
    slide = shapely.box(0, 0, 100, 60)
    seen = {"a": 0.0, "b": 0.0, "vague": 0.0}
    above = shapely.Polygon()
    for region in reversed(regions):
        seen[region.class_name] += region.geometry.difference(above).intersection(slide).area
        above = above.union(region.geometry)
    areas = np.r_[fractions.sum(axis=0), ignored.sum()] * 400
    np.testing.assert_allclose(areas, list(seen.values()), rtol=1e-9)
    assert (fractions.sum(axis=1) + ignored <= 1 + 1e-12).all()


def test_fractions_without_regions_or_patches(grid):
    assert class_fractions([], grid, ["a"]).fractions.shape == (15, 1)
    regions = [Region("a", shapely.box(0, 0, 5, 5))]
    fractions, ignored = class_fractions(regions, grid[:0], ["a", "b"])
    assert fractions.shape == (0, 2) and ignored.shape == (0,)


def test_patch_reaching_beyond_the_slide_counts_whole():
    grid = patch_grid((30, 20), mpp=1.0, patch_mpp=1.0, size=20, edge="pad")
    fractions, _ = class_fractions([Region("a", shapely.box(0, 0, 30, 20))], grid, ["a"])
    np.testing.assert_allclose(fractions[:, 0], [1, 0.5])


def test_unknown_class_is_named(grid):
    regions = [Region("Ignore*", shapely.box(0, 0, 5, 5))]
    with pytest.raises(ValueError, match=r"class \['Ignore\*'\] are neither in classes.*class_map"):
        class_fractions(regions, grid, ["a"])
    assert class_fractions(regions, grid, ["a"], ignore=["Ignore*"]).ignored[0] == 25 / 400
    with pytest.raises(ValueError, match="both in classes and in ignore"):
        class_fractions([], grid, ["vague"])


def test_too_many_overlaps_end_in_an_error(grid, monkeypatch):
    monkeypatch.setattr("proportion_ssl.slides.annotations._coverage.MAX_OVERLAPS", 1000)
    regions = [Region("a", shapely.box(0, 0, 5, 5))] * 50
    with pytest.raises(ValueError, match="pairs of regions overlap"):
        class_fractions(regions, grid, ["a"])


def test_label_rules():
    fractions = np.array([[0.5, 0.5], [0.5, 0.3], [0.49, 0.3], [0, 0], [0.6, 0.1], [0.6, 0.1]])
    ignored = np.array([0, 0.2, 0.2, 0, 0.25, 0.26])
    labels = patch_labels(fractions, ["a", "b"], ignored=ignored)
    assert labels.tolist() == [None, "a", None, None, "a", None]
    strict = patch_labels(fractions, ["a", "b"], ignored=ignored, min_fraction=0.6, max_ignored=0)
    assert strict.tolist() == [None] * 6
    loose = patch_labels(fractions, ["a", "b"], min_fraction=0.1)
    assert loose.tolist() == [None, "a", "a", None, "a", "a"]
    assert patch_labels(np.zeros((0, 2)), ["a", "b"]).shape == (0,)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"fractions": np.zeros((3, 1))}, "one column for each of 2 classes"),
        ({"min_fraction": 0}, "min_fraction must lie in"),
        ({"max_ignored": 1.1}, "max_ignored must lie in"),
        ({"ignored": np.zeros(2)}, "one value for each of 3 patches"),
        ({"classes": ["a", "a"]}, "names a class twice"),
    ],
)
def test_bad_label_arguments(arguments, message):
    arguments = {"fractions": np.zeros((3, 2)), "classes": ["a", "b"], **arguments}
    with pytest.raises(ValueError, match=message):
        patch_labels(**arguments)


# --- label-map rasters -----------------------------------------------------------------------

MASK = np.array([[1, 1, 0, 2], [1, 0, 0, 2], [255, 255, 2, 1]], dtype=np.uint8)
NAMES = {1: "acinar", 2: "solid", 255: "vague"}


def save_mask(path, kind):
    if kind == "gray png":
        Image.fromarray(MASK).save(path)
    elif kind == "palette png":
        image = Image.frombytes("P", MASK.shape[::-1], MASK.tobytes())
        image.putpalette(np.random.default_rng(0).integers(0, 256, 768).astype(np.uint8).tobytes())
        image.save(path)
    elif kind == "palette tiff":
        colormap = np.random.default_rng(0).integers(0, 2**16, (3, 256)).astype(np.uint16)
        tifffile.imwrite(path, MASK, photometric="palette", colormap=colormap)
    else:
        tifffile.imwrite(path, MASK.astype(kind.split()[0]), compression="zlib", tile=(16, 16))


KINDS = ["gray png", "palette png", "palette tiff", "uint8 tiff", "uint16 tiff", "int32 tiff"]


@pytest.mark.parametrize("kind", KINDS)
def test_label_map_numbers_count_not_colors(tmp_path, kind):
    path = tmp_path / f"mask.{kind[-3:]}"
    save_mask(path, kind)
    regions = read_label_map(path, NAMES, downsample=10, dimensions=(40, 30))
    assert {r.class_name: r.geometry.area for r in regions} == {
        "acinar": 400,
        "solid": 300,
        "vague": 200,
    }
    grid = patch_grid((40, 30), mpp=1.0, patch_mpp=1.0, size=10)
    fractions, ignored = class_fractions(regions, grid, ["acinar", "solid"])
    np.testing.assert_array_equal(fractions[:, 0].reshape(3, 4), MASK == 1)
    np.testing.assert_array_equal(fractions[:, 1].reshape(3, 4), MASK == 2)
    np.testing.assert_array_equal(ignored.reshape(3, 4), MASK == 255)


def test_label_map_in_figure_5_colors(tmp_path):
    table = np.full((256, 3), 255, dtype=np.uint8)
    table[1], table[2] = FIGURE5_COLORS["acinar"], FIGURE5_COLORS["solid"]
    table[255] = FIGURE5_COLORS["vague"]
    classes = {FIGURE5_COLORS[name]: name for name in ("acinar", "solid", "vague")}
    Image.fromarray(table[MASK]).save(tmp_path / "mask.png")
    tifffile.imwrite(tmp_path / "mask.tif", table[MASK], photometric="rgb")
    for name in ("mask.png", "mask.tif"):
        regions = read_label_map(tmp_path / name, classes, downsample=1)
        assert [(r.class_name, r.geometry.area) for r in regions] == [
            ("acinar", 4),
            ("solid", 3),
            ("vague", 2),
        ]
        assert regions[1].color == (0, 0, 255)


def test_bilevel_mask(tmp_path):
    Image.fromarray(MASK == 2).save(tmp_path / "mask.png")
    [region] = read_label_map(tmp_path / "mask.png", {1: "solid"}, downsample=1)
    assert region.geometry.area == 3


def test_label_map_scale(tmp_path):
    path = tmp_path / "mask.png"
    save_mask(path, "gray png")
    by_mpp = read_label_map(path, NAMES, mpp=8.0, slide_mpp=(0.5, 0.25))
    assert by_mpp[0].geometry.bounds == (0, 0, 64, 96)
    for arguments, message in [
        ({}, "scale of the map is not known"),
        ({"mpp": 8.0}, "needs slide_mpp"),
        ({"mpp": 8.0, "slide_mpp": 0.5, "downsample": 16}, "not both"),
        ({"downsample": 0}, "downsample must be a positive number"),
        ({"downsample": float("nan")}, "downsample must be a positive number"),
        ({"downsample": (1, 2, 3)}, "downsample must be a positive number"),
    ]:
        with pytest.raises(ValueError, match=message):
            read_label_map(path, NAMES, **arguments)
    with pytest.raises(AnnotationError, match="do not fit a slide of 80 x 60"):
        read_label_map(path, NAMES, downsample=10, dimensions=(80, 60))


def test_label_map_classes(tmp_path):
    path = tmp_path / "mask.png"
    save_mask(path, "gray png")
    with pytest.raises(AnnotationError, match=r"mask.png.*not in classes.*\[2, 255\]"):
        read_label_map(path, {1: "acinar"}, downsample=1)
    with pytest.raises(ValueError, match="carries no class table"):
        read_label_map(path, downsample=1)
    with pytest.raises(ValueError, match="must be integers"):
        read_label_map(path, {"1": "acinar"}, downsample=1)
    with pytest.raises(ValueError, match="must map values to class names"):
        read_label_map(path, {1: 5}, downsample=1)
    merged = read_label_map(path, {0: "a", 1: "a", 2: "a", 255: "b"}, downsample=1, background=9)
    assert [(r.class_name, r.geometry.area) for r in merged] == [("a", 10), ("b", 2)]


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 7), st.integers(1, 7), st.integers(1, 4))
def test_polygonize_is_exact(data, n_rows, n_columns, n_values):
    cell = st.integers(-1, n_values - 1)
    size = n_rows * n_columns
    values = np.array(data.draw(st.lists(cell, min_size=size, max_size=size)))
    values = values.reshape(n_rows, n_columns)
    x, y = np.arange(n_columns + 1) * 3.5 - 2, np.cumsum(np.arange(n_rows + 1) + 1.0)
    polygons, of_value = polygonize(values, x, y, outside=-1)
    assert all(polygon.is_valid for polygon in polygons)
    heights = np.diff(y)
    for value in range(n_values):
        mine = polygons[of_value == value]
        expected = ((values == value) * heights[:, None] * 3.5).sum()
        assert sum(p.area for p in mine) == pytest.approx(expected)
        assert len(mine) == 0 or shapely.MultiPolygon(list(mine)).is_valid
        for row, column in np.argwhere(values == value):
            center = shapely.Point(x[column] + 1.75, (y[row] + y[row + 1]) / 2)
            assert sum(p.contains(center) for p in mine) == 1


# --- colors ---------------------------------------------------------------------------------


def test_colors():
    assert unpack_argb(-65536) == unpack_argb(0xFFFF0000) == (255, 0, 0)
    assert unpack_bgr(65280) == (0, 255, 0) and unpack_bgr(255) == (255, 0, 0)
    for text in ("#f00", "#ff0000", "rgb(255,0,0)", "rgba(255, 0, 0, 0.3)", "red", "#ff000080"):
        assert parse_css(text) == (255, 0, 0)
    with pytest.raises(ValueError):
        parse_css("no color")
    palette = class_colors(["x", "solid", "y"], {"y": (1, 2, 3)})
    assert list(palette) == ["x", "solid", "y"]
    assert palette["solid"] == (0, 0, 255) and palette["y"] == (1, 2, 3)
    for bad in [(1, 2), (1, 2, 300), (1, 2, 0.5), "red", None]:
        with pytest.raises(ValueError, match="three integers"):
            class_colors(["y"], {"y": bad})


def test_figure_5_palette():
    assert [FIGURE5_COLORS[c] for c in ("lepidic", "acinar", "papillary")] == [
        (255, 0, 0),
        (255, 255, 0),
        (0, 255, 0),
    ]
    assert FIGURE5_COLORS["micropapillary"] == (0, 255, 255)
    assert FIGURE5_COLORS["solid"] == (0, 0, 255)
    assert FIGURE5_COLORS["vague"] == (0, 0, 0)
