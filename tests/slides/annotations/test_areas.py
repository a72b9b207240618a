"""What outlines enclose, in every dialect, against counting cells.

Outlines run along the lines of a lattice, so that every cell lies wholly inside or outside: the
area of a class is a number of cells, found by the even-odd rule spelled out.
"""

import json
import math

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from proportion_ssl.slides.annotations.read import (
    Region,
    class_fractions,
    read_annotations,
    read_label_map,
)
from proportion_ssl.slides.grid import patch_grid

SIZE = 12
CLASSES = ("a", "b")


# --- writers ---------------------------------------------------------------------------------


def geojson(shapes):
    """One feature per shape, a class and its rings."""
    return json.dumps(
        [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [r + r[:1] for r in rings]},
                "properties": {"classification": {"name": name}},
            }
            for name, rings in shapes
        ]
    )


def dsa(shapes):
    elements = [
        {
            "type": "polyline",
            "closed": True,
            "group": name,
            "points": [[*p, 0] for p in rings[0]],
            "holes": [[[*p, 0] for p in ring] for ring in rings[1:]],
        }
        for name, rings in shapes
    ]
    return json.dumps({"name": "outlines", "elements": elements})


def asap(shapes):
    body = ""
    for i, (name, rings) in enumerate(shapes):
        assert len(rings) == 1, "ASAP has no holes"
        points = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>' for k, (x, y) in enumerate(rings[0])
        )
        body += (
            f'<Annotation Name="{i}" Type="Polygon" PartOfGroup="{name}"><Coordinates>{points}'
            "</Coordinates></Annotation>"
        )
    return f"<ASAP_Annotations><Annotations>{body}</Annotations></ASAP_Annotations>"


def roi(ring, negative=False, kind=0):
    vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring)
    return (
        f'<Region Type="{kind}" NegativeROA="{int(negative)}"><Vertices>{vertices}</Vertices>'
        "</Region>"
    )


def layer(name, *regions):
    return f'<Annotation Name="{name}"><Regions>{"".join(regions)}</Regions></Annotation>'


def imagescope(shapes):
    """One layer per shape; the first ring positive, the others negative."""
    body = "".join(
        layer(name, *(roi(ring, i > 0) for i, ring in enumerate(rings))) for name, rings in shapes
    )
    return f"<Annotations>{body}</Annotations>"


WRITERS = {"geojson": geojson, "dsa": dsa, "asap": asap, "imagescope": imagescope}


# --- the oracle ------------------------------------------------------------------------------


def inside(ring):
    """Cells (y, x) inside a ring: those from which a ray to the right crosses it oddly often."""
    x, y = np.meshgrid(np.arange(SIZE) + 0.5, np.arange(SIZE) + 0.5)
    odd = np.zeros((SIZE, SIZE), dtype=bool)
    for (x0, y0), (x1, y1) in zip(ring, ring[1:] + ring[:1], strict=True):
        if x0 == x1:
            odd ^= (np.minimum(y0, y1) < y) & (y < np.maximum(y0, y1)) & (x < x0)
    return odd


def painted(shapes):
    """Class of each cell, the last shape on top; every shape by the even-odd rule."""
    cells = np.full((SIZE, SIZE), "", dtype=object)
    for name, rings in shapes:
        cells[np.logical_xor.reduce([inside(ring) for ring in rings])] = name
    return cells


def read_cells(path):
    """Class of each cell from a file of outlines."""
    regions = read_annotations(path)
    assert all(region.geometry.is_valid for region in regions)
    grid = patch_grid((SIZE, SIZE), mpp=1.0, patch_mpp=1.0, size=1)
    fractions, ignored = class_fractions(regions, grid, CLASSES)
    shares = np.c_[fractions, ignored]
    np.testing.assert_allclose(shares, shares.round(), atol=1e-9)
    cells = np.full((SIZE, SIZE), "", dtype=object)
    for i, name in enumerate([*CLASSES, "vague"]):
        rows, columns = grid.cells[shares[:, i] > 0.5].T
        cells[rows, columns] = name
    return cells


# --- random outlines, in every dialect -----------------------------------------------------------

names = st.sampled_from([*CLASSES, "vague"])
number = st.integers(0, SIZE)


@st.composite
def lattice_rings(draw, max_corners=5):
    """A closed walk along the lattice that may cross, touch and retrace itself."""
    n = draw(st.integers(2, max_corners))
    xs = draw(st.lists(number, min_size=n, max_size=n))
    ys = draw(st.lists(number, min_size=n, max_size=n))
    ring = [[x, ys[i]] for i in range(n) for x in (xs[i], xs[(i + 1) % n])]
    return ring if draw(st.booleans()) else ring[::-1]


def square(x, y, reverse=False):
    ring = [[x, y], [x + 1, y], [x + 1, y + 1], [x, y + 1]]
    return ring[::-1] if reverse else ring


@st.composite
def shapes_with_holes(draw):
    """Crossing outlines with holes inside them, which mean the same in all dialects."""
    shapes = []
    for _ in range(draw(st.integers(1, 3))):
        ring = draw(lattice_rings())
        rows, columns = np.nonzero(inside(ring))
        picks = draw(st.sets(st.integers(0, max(len(rows) - 1, 0)), max_size=4))
        holes = [
            square(int(columns[i]), int(rows[i]), draw(st.booleans())) for i in picks if len(rows)
        ]
        shapes.append((draw(names), [ring, *holes]))
    return shapes


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(shapes_with_holes())
def test_the_same_holes_in_every_dialect(tmp_path_factory, shapes):
    expected = painted(shapes).tolist()
    folder = tmp_path_factory.mktemp("dialects")
    for name in ("geojson", "dsa", "imagescope"):
        path = folder / name
        path.write_text(WRITERS[name](shapes))
        assert read_cells(path).tolist() == expected, name


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(names, st.lists(lattice_rings(), min_size=1, max_size=1)), max_size=4))
def test_the_same_crossing_outlines_in_every_dialect(tmp_path_factory, shapes):
    """Overlapping shapes of several classes, and the label map that they paint."""
    cells = painted(shapes)
    folder = tmp_path_factory.mktemp("dialects")
    for name, write in WRITERS.items():
        path = folder / name
        path.write_text(write(shapes))
        if shapes:
            assert read_cells(path).tolist() == cells.tolist(), name
    numbers = np.searchsorted(["", "a", "b", "vague"], cells.astype(str)).astype(np.uint8)
    Image.fromarray(numbers).save(folder / "map.png")
    regions = read_label_map(folder / "map.png", {1: "a", 2: "b", 3: "vague"}, downsample=1)
    areas = {region.class_name: region.geometry.area for region in regions}
    assert areas == {n: (cells == n).sum() for n in ("a", "b", "vague") if (cells == n).any()}


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(names, st.lists(lattice_rings(), min_size=1, max_size=5)), min_size=1, max_size=3
    )
)
def test_rings_of_every_kind_follow_the_even_odd_rule(tmp_path_factory, shapes):
    """Rings across the first, beside it, nested, equal, in either order and orientation."""
    expected = painted(shapes).tolist()
    folder = tmp_path_factory.mktemp("rings")
    for name in ("geojson", "dsa"):
        path = folder / name
        path.write_text(WRITERS[name](shapes))
        assert read_cells(path).tolist() == expected, name


def cut_by_hand(positive, negative):
    """Cells of each positive region without the negative ones, except those it is an island in."""
    left = []
    for i, cells in enumerate(positive):
        rest = cells.copy()
        for hole in negative:
            is_within = not (cells & ~hole).any() and cells.sum() < hole.sum()
            around = [
                (other & hole).sum() > 0.5 * hole.sum()
                for j, other in enumerate(positive)
                if j != i and (other & ~hole).any()
            ]
            if not (is_within and any(around)):
                rest &= ~hole
        left.append(rest)
    return left


@pytest.mark.slow
@settings(max_examples=60, deadline=None)
@given(
    st.lists(lattice_rings(4), min_size=1, max_size=4),
    st.lists(lattice_rings(4), min_size=1, max_size=3),
    st.randoms(use_true_random=False),
)
def test_negative_regions_are_cut_out_of_all_others(tmp_path_factory, positive, negative, random):
    """In whatever order they come."""
    regions = [roi(ring) for ring in positive] + [roi(ring, True) for ring in negative]
    random.shuffle(regions)
    path = tmp_path_factory.mktemp("negative") / "a.xml"
    path.write_text(f"<Annotations>{layer('a', *regions)}</Annotations>")
    left = cut_by_hand([inside(ring) for ring in positive], [inside(ring) for ring in negative])
    expected = np.logical_or.reduce(left)
    assert (read_cells(path) == "a").tolist() == expected.tolist()


# --- by hand ---------------------------------------------------------------------------------


def box(x0, y0, x1, y1):
    return [[x0, y0], [x1, y0], [x1, y1], [x0, y1]]


@pytest.fixture
def read(tmp_path):
    def read(text, **arguments):
        path = tmp_path / "outlines"
        path.write_text(text)
        return read_annotations(path, **arguments)

    return read


def areas(regions):
    return [region.geometry.area for region in regions]


@pytest.mark.parametrize("write", [geojson, dsa])
@pytest.mark.parametrize(
    ("rings", "area"),
    [
        ([box(0, 0, 10, 10), box(20, 0, 30, 10)], 200),  # two parts
        ([box(0, 0, 9, 9), box(1, 1, 8, 8), box(2, 2, 7, 7), box(3, 3, 6, 6)], 81 - 49 + 25 - 9),
        ([box(3, 3, 6, 6), box(0, 0, 9, 9)], 81 - 9),  # the hole first
        ([box(0, 0, 10, 10), box(2, 2, 6, 6), box(4, 4, 8, 8)], 100 - 16 - 16 + 2 * 4),
        ([box(0, 0, 10, 10), box(0, 0, 10, 10)], None),  # twice the same
        ([box(0, 0, 10, 10), box(0, 0, 10, 10)[::-1], box(0, 0, 10, 10)], 100),
        ([box(0, 0, 10, 10), box(10, 0, 20, 10)], 200),  # side by side
        ([box(0, 0, 10, 10), box(0, 0, 5, 10)], 50),  # a shared side
        ([box(0, 0, 10, 0), box(0, 0, 5, 5)], 25),  # the first without an area
        ([[[0, 0], [1, 1]], box(0, 0, 5, 5)], 25),
    ],
)
def test_rings_of_a_polygon(read, write, rings, area):
    for order in (rings, [ring[::-1] for ring in rings]):
        assert areas(read(write([("a", order)]))) == ([] if area is None else [area])


def test_parts_of_a_multipolygon_are_united(read):
    """A hole in one part is no hole where another part covers it."""
    coordinates = [[box(0, 0, 10, 10), box(2, 2, 8, 8)], [box(4, 4, 6, 6)], [box(5, 5, 20, 6)]]
    document = json.loads(geojson([("a", [box(0, 0, 1, 1)])]))
    document[0]["geometry"] = {"type": "MultiPolygon", "coordinates": coordinates}
    [region] = read(json.dumps(document))
    assert region.geometry.area == 100 - 36 + 4 + (15 - 1 - 2)


@pytest.mark.parametrize(
    ("regions", "expected"),
    [
        # across two regions, drawn first
        ([roi(box(5, 0, 17, 10), True), roi(box(0, 0, 10, 10)), roi(box(12, 0, 22, 10))], [50, 50]),
        # beyond its region
        ([roi(box(0, 0, 10, 10)), roi(box(5, -2, 14, 12), True)], [50]),
        # a whole region, and half of another: no island, as no region is around
        ([roi(box(0, 0, 10, 10)), roi(box(12, 2, 14, 4)), roi(box(5, 0, 16, 10), True)], [50]),
        # the same outline
        ([roi(box(0, 0, 10, 10)), roi(box(0, 0, 10, 10), True)], []),
        # overlapping negatives are united
        ([roi(box(0, 0, 10, 10)), roi(box(1, 1, 5, 5), True), roi(box(3, 3, 7, 7), True)], [72]),
        # a rectangle by two corners and an ellipse by those of its box
        ([roi(box(0, 0, 10, 10)), roi([[2, 2], [4, 4]], True, kind=1)], [96]),
        ([roi(box(0, 0, 10, 10)), roi([[2, 2], [8, 6]], True, kind=2)], [100 - math.pi * 3 * 2]),
        ([roi([[0, 0], [10, 10]], kind=2), roi(box(4, 4, 6, 6), True)], [math.pi * 25 - 4]),
        # a negative outline that crosses itself
        ([roi(box(0, 0, 10, 10)), roi([[2, 2], [6, 6], [6, 2], [2, 6]], True)], [92]),
    ],
)
def test_negative_regions(read, regions, expected):
    text = f"<Annotations>{layer('a', *regions)}</Annotations>"
    assert areas(read(text)) == pytest.approx(expected)


def test_negative_regions_stay_in_their_layer(read):
    one = layer("a", roi(box(0, 0, 10, 10)))
    other = layer("b", roi(box(0, 0, 10, 10)), roi(box(2, 2, 4, 4), True))
    assert areas(read(f"<Annotations>{one}{other}</Annotations>")) == [100, 96]


def test_an_island_whose_surroundings_are_left_out_stays(read):
    """class_map leaves the region around the hole out, the island in the hole is kept."""
    text = roi(box(0, 0, 10, 10)) + roi(box(1, 1, 9, 9), True) + roi(box(4, 4, 6, 6))
    text = text.replace("<Region ", '<Region Text="outer" ', 1)
    text = f"<Annotations>{layer('', text)}</Annotations>".replace(
        '<Annotation Name="">', '<Annotation LineColor="255">'
    )
    regions = read(text, class_map={"#ff0000": "a", "outer": None})
    assert areas(regions) == [64 + 36 - 64, 4], "the color of the layer comes before the text"
    regions = read(text, class_map={"outer": None})
    assert areas(regions) == [4]


# --- what is said ----------------------------------------------------------------------------

PENTAGRAM = [
    [round(100 * math.sin(4 * math.pi * i / 5), 6), round(100 * math.cos(4 * math.pi * i / 5), 6)]
    for i in range(5)
]


@pytest.mark.parametrize("name", WRITERS)
def test_area_lost_in_a_repair_is_named(read, caplog, name):
    """The inner pentagon of a pentagram is encircled twice."""
    [region] = read(WRITERS[name]([("a", [PENTAGRAM])]))
    inner = 2.5 * math.sin(0.4 * math.pi) * (50 * (3 - math.sqrt(5))) ** 2
    share = inner / (region.geometry.area + inner)
    assert share == pytest.approx(0.309, abs=1e-3)
    assert "1 shape(s) losing area in the repair, because it is encircled twice: " in caplog.text
    assert f"('a') {share:.1%}" in caplog.text


def test_a_way_into_a_hole_is_no_loss(read, caplog):
    """A ring that walks to the hole, around it and back encloses the hole not at all."""
    ring = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0], [4, 4], [4, 6], [6, 6], [6, 4], [4, 4]]
    [region] = read(geojson([("a", [ring])]))
    assert region.geometry.area == 96
    assert "losing area" not in caplog.text


@pytest.mark.parametrize("name", WRITERS)
def test_hidden_outlines_are_named(read, caplog, name):
    shapes = [("a", [box(2, 2, 4, 4)]), ("a", [box(8, 8, 12, 12)]), ("b", [box(0, 0, 10, 10)])]
    regions = read(WRITERS[name](shapes))
    assert len(regions) == 3
    [line] = [r.getMessage() for r in caplog.records if "hidden" in r.getMessage()]
    assert "1 shape(s) entirely hidden by a later one: " in line
    assert "('a') by " in line and line.endswith("('b')")
    caplog.clear()
    read(WRITERS[name](shapes), order=["b", "a"])
    assert "hidden" not in caplog.text


def test_repeated_outlines_are_named(read, caplog):
    read(geojson([("a", [box(0, 0, 5, 5)])] * 9))
    assert "8 shape(s) entirely hidden by a later one: feature 0 ('a') by " in caplog.text
    assert "and 3 more" in caplog.text


def test_hidden_by_several_together_is_named_where_classes_are_counted(caplog):
    left, right = shapely.box(0, 0, 6, 10), shapely.box(5, 0, 10, 10)
    regions = [
        Region("a", shapely.box(1, 1, 9, 9), name="gland"),
        Region("b", left),
        Region("b", right),
    ]
    grid = patch_grid((10, 10), mpp=1.0, patch_mpp=1.0, size=10)
    fractions, _ = class_fractions(regions, grid, CLASSES)
    assert fractions.tolist() == [[0, 1]]
    assert "1 region(s) entirely hidden by later ones: region 0 ('gland')" in caplog.text


def test_a_region_cut_out_altogether_is_named(read, caplog):
    text = layer("a", roi(box(0, 0, 10, 10)), roi(box(-1, -1, 11, 11), True))
    assert read(f"<Annotations>{text}</Annotations>") == []
    assert "1 shape(s) entirely cut out by negative regions: layer 0, region 0 ('a')" in caplog.text
