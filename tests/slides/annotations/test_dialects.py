"""Annotation files as other programs, and other versions of them, really write them.

Every document follows the structure of files found in public data sets, shortened.
"""

import json
import math

import numpy as np
import pytest

from proportion_ssl.slides.annotations.read import AnnotationError, read_annotations

SQUARE = [[100, 100], [300, 100], [300, 300], [100, 300], [100, 100]]
AREA = 200 * 200
SMALL = [[400.5, 400], [410.5, 400], [410.5, 410], [400.5, 410], [400.5, 400]]


@pytest.fixture
def read(tmp_path):
    def read(document, **arguments):
        path = tmp_path / "slide.annotation"
        path.write_text(document if isinstance(document, str) else json.dumps(document))
        return read_annotations(path, **arguments)

    return read


def contents(regions):
    return [(r.class_name, pytest.approx(r.geometry.area), r.color) for r in regions]


# --- QuPath ----------------------------------------------------------------------------------


def qupath(geometry, classification=None, **properties):
    """A feature of QuPath 0.4 and later."""
    if classification is not None:
        properties["classification"] = classification
    return {
        "type": "Feature",
        "id": "0b7d1d3e-6d3f-4b0a-8c0e-8f0a63a0e0a1",
        "geometry": geometry,
        "properties": {"objectType": "annotation", **properties},
    }


def polygon(*rings, **more):
    return {"type": "Polygon", "coordinates": list(rings), **more}


TUMOR = {"name": "Tumor", "color": [200, 0, 0]}


def test_qupath_now(read):
    """Derived classes as a list of names, ellipses and planes marked, measurements as object."""
    angle = np.linspace(0, 2 * np.pi, 61)
    ellipse = np.stack([500 + 40 * np.cos(angle), 500 + 20 * np.sin(angle)], axis=1).tolist()
    hole = [[150, 150], [150, 250], [250, 250], [250, 150], [150, 150]]
    regions = read(
        {
            "type": "FeatureCollection",
            "features": [
                qupath(
                    polygon(SQUARE, hole, plane={"c": -1, "z": 2, "t": 0}),
                    TUMOR,
                    name="first",
                    isLocked=True,
                    measurements={"Area px^2": 30000.0, "Tumor: H-score": "NaN"},
                ),
                qupath(polygon(ellipse, isEllipse=True), {"names": ["Tumor", "Positive"]}),
                qupath({"type": "MultiPolygon", "coordinates": [[SQUARE], [SMALL]]}, TUMOR),
            ],
        }
    )
    assert contents(regions) == [
        ("Tumor", AREA - 100 * 100, (200, 0, 0)),
        ("Tumor: Positive", 30 * math.sin(math.pi / 30) * 40 * 20, None),
        ("Tumor", AREA + 100, (200, 0, 0)),
    ]
    assert regions[0].name == "first" and regions[0].measurements == {"Area px^2": 30000.0}


def test_qupath_before_0_4(read):
    """A bare list, colors packed in one signed number, measurements as a list."""
    old = {
        "type": "Feature",
        "id": "PathAnnotationObject",
        "geometry": polygon(SQUARE),
        "properties": {
            "classification": {"name": "Stroma", "colorRGB": -6895466},
            "isLocked": False,
            "measurements": [{"name": "Area", "value": 4.5}, {"name": "Bad", "value": "NaN"}],
        },
    }
    named = {**old, "properties": {**old["properties"], "object_type": "annotation"}}
    del named["id"]
    regions = read([old, named])
    assert contents(regions) == [("Stroma", AREA, (150, 200, 150))] * 2
    assert regions[0].measurements == {"Area": 4.5}


def test_qupath_objects_of_other_types(read):
    """Cells count with their boundary, not with their nucleus; the root has no class."""
    cell = qupath(polygon(SMALL), {"name": "Immune cells"})
    cell["properties"]["objectType"] = "cell"
    cell["nucleusGeometry"] = polygon([[402, 402], [404, 402], [404, 404], [402, 402]])
    tile = qupath(polygon(SQUARE), TUMOR)
    tile["properties"]["objectType"] = "tile"
    root = qupath(polygon([[0, 0], [9000, 0], [9000, 9000], [0, 9000], [0, 0]]))
    root["id"] = "PathRootObject"
    assert contents(read([root, cell, tile])) == [
        ("Immune cells", 100, None),
        ("Tumor", AREA, (200, 0, 0)),
    ]


def test_qupath_shapes_without_area_are_left_out_and_counted(read, caplog):
    shapes = [
        {"type": "Point", "coordinates": [5, 5]},
        {"type": "MultiPoint", "coordinates": [[5, 5], [6, 6]]},
        {"type": "LineString", "coordinates": [[5, 5], [60, 60]]},
        {"type": "MultiLineString", "coordinates": [[[5, 5], [60, 60]]]},
        {"type": "Polygon", "coordinates": []},
        {"type": "GeometryCollection", "geometries": []},
        None,
    ]
    area = {"type": "GeometryCollection", "geometries": [polygon(SQUARE), shapes[2]]}
    features = [qupath(shape, TUMOR) for shape in [*shapes, area]]
    assert contents(read(features)) == [("Tumor", AREA, (200, 0, 0))]
    assert f"{len(shapes)} shape(s) without an area" in caplog.text


def test_a_single_feature_without_properties(read):
    feature = {"type": "Feature", "geometry": polygon(SQUARE)}
    assert read(feature) == [], "unclassified"
    assert contents(read(feature, class_map={None: "tissue"})) == [("tissue", AREA, None)]


@pytest.mark.parametrize("classification", [{}, {"name": None}, {"name": ""}, {"names": []}, None])
def test_unclassified_objects_of_qupath(read, classification):
    feature = qupath(polygon(SQUARE), classification)
    feature["properties"]["classification"] = classification
    assert read([feature]) == []
    assert read([feature], class_map={None: "a"})[0].class_name == "a"


def test_features_of_scripts(read):
    """Scripts that imitate QuPath: misplaced keys, alpha, fractions, numbers as id."""
    features = [
        qupath(polygon(SQUARE), {"name": "A", "color": [255, 0, 0], "isLocked": "true"}),
        {**qupath(polygon(SQUARE), {"name": "B", "color": [255.0, 0.4, 0, 255]}), "id": 7},
        qupath(polygon(SQUARE), "C", color=[0, 0, 255]),
        qupath(polygon(SQUARE), {"name": "D", "color": "#00ff00"}),
    ]
    document = {"type": "FeatureCollection", "metadata": {"wsi_width": 9}, "features": features}
    assert [(r.class_name, r.color) for r in read(document)] == [
        ("A", (255, 0, 0)),
        ("B", (255, 0, 0)),
        ("C", None),
        ("D", (0, 255, 0)),
    ]


def test_a_misspelled_feature_is_named(read):
    wrong = {**qupath(polygon(SQUARE), TUMOR), "type": "feature"}
    with pytest.raises(AnnotationError, match="feature 0: expected an object of type 'Feature'"):
        read({"type": "FeatureCollection", "features": [wrong]})


# --- ASAP ------------------------------------------------------------------------------------


def asap(*annotations, groups=""):
    body = ""
    for attributes, points in annotations:
        coordinates = "".join(
            f'<Coordinate Order="{i}" X="{x}" Y="{y}" />' for i, (x, y) in enumerate(points)
        )
        body += f"<Annotation {attributes}><Coordinates>{coordinates}</Coordinates></Annotation>"
    return (
        '<?xml version="1.0"?>\n<ASAP_Annotations>\n\t<Annotations>'
        f"{body}</Annotations>\n\t<AnnotationGroups>{groups}</AnnotationGroups>\n"
        "</ASAP_Annotations>\n"
    )


OPEN = SQUARE[:-1]


def test_asap_of_camelyon(read):
    """Tumor as _0 and _1, normal tissue inside it as _2, drawn after it."""
    groups = "".join(
        f'<Group Name="{name}" PartOfGroup="None" Color="#00ff00"><Attributes /></Group>'
        for name in ("_0", "_1", "_2")
    )
    inner = [(150.5, 150), (250.5, 150), (250.5, 250), (150.5, 250)]
    text = asap(
        ('Name="Annotation 0" Type="Polygon" PartOfGroup="_0" Color="#F4FA58"', OPEN),
        ('Name="Annotation 1" Type="Polygon" PartOfGroup="_2" Color="#F4FA58"', inner),
        groups=groups,
    )
    class_map = {"_0": "tumor", "_1": "tumor", "_2": "normal"}
    assert contents(read(text, class_map=class_map)) == [
        ("tumor", AREA, (244, 250, 88)),
        ("normal", 100 * 100, (244, 250, 88)),
    ]


@pytest.mark.parametrize("kind", ["Polygon", "Spline", "Rectangle"])
def test_asap_areas(read, kind):
    text = asap((f'Name="a" Type="{kind}" PartOfGroup="Tumor" Color="#f00"', OPEN))
    assert contents(read(text)) == [("Tumor", AREA, (255, 0, 0))]


def test_asap_rectangle_of_two_corners(read):
    text = asap(('Name="a" Type="Rectangle" PartOfGroup="Tumor"', [(300, 100), (100, 300)]))
    assert contents(read(text)) == [("Tumor", AREA, None)]
    two = asap(('Name="a" Type="Polygon" PartOfGroup="Tumor"', [(300, 100), (100, 300)]))
    assert read(two) == [], "a polygon of two points is a line"


@pytest.mark.parametrize("kind", ["Dot", "PointSet", "Measurement", "None"])
def test_asap_shapes_without_area(read, caplog, kind):
    text = asap((f'Name="a" Type="{kind}" PartOfGroup="Tumor" Color="#f00"', OPEN))
    assert read(text) == []
    assert "1 shape(s) without an area" in caplog.text


@pytest.mark.parametrize("group", ['PartOfGroup="None"', 'PartOfGroup=""', ""])
def test_asap_without_a_group(read, caplog, group):
    text = asap((f'name="Annotation 0" Type="Polygon" {group}', OPEN))
    assert read(text) == []
    assert "1 shape(s) without a class left out (name them by class_map" in caplog.text
    assert read(text, class_map={None: "metastasis"})[0].class_name == "metastasis"


def test_asap_without_groups_and_types(read):
    """Converters leave out what their own readers ignore."""
    text = asap(('PartOfGroup="Tumor"', OPEN)).replace("<AnnotationGroups></AnnotationGroups>", "")
    assert contents(read(text)) == [("Tumor", AREA, None)]
    assert read("<ASAP_Annotations><Annotations/></ASAP_Annotations>") == []


def test_asap_order_of_points(read):
    """Points lie in the order of their numbers, with decimal commas of some locales."""
    shuffled = asap(('Type="Polygon" PartOfGroup="Tumor"', [OPEN[i] for i in (0, 1, 2, 3)]))
    shuffled = shuffled.replace('Order="1"', 'Order="9"').replace('Order="2"', 'Order="10"')
    shuffled = shuffled.replace('Order="3"', 'Order="11"').replace('X="300"', 'X="300,0"')
    assert contents(read(shuffled)) == [("Tumor", AREA, None)]


# --- ImageScope ------------------------------------------------------------------------------


def vertices(points):
    return "".join(f'<Vertex X="{x}" Y="{y}" Z="0"/>' for x, y in points)


def region(points, kind=0, negative=0, text="", index=1):
    return (
        f'<Region Id="{index}" Type="{kind}" Zoom="0.042" Selected="0" ImageLocation="" '
        f'ImageFocus="-1" Length="800.0" Area="40000.0" LengthMicrons="201.7" '
        f'AreaMicrons="2541.4" Text="{text}" NegativeROA="{negative}" InputRegionId="0" '
        f'Analyze="1" DisplayId="{index}"><Attributes/><Vertices>{vertices(points)}</Vertices>'
        "</Region>"
    )


HEADERS = (
    '<RegionAttributeHeaders><AttributeHeader Id="9999" Name="Region" ColumnWidth="-1"/>'
    '<AttributeHeader Id="1" Name="Description" ColumnWidth="-1"/></RegionAttributeHeaders>'
)


def imagescope(*regions, name="", color="65280", attribute='Name="Description" Id="0" Value=""'):
    layer = "" if color is None else f'LineColor="{color}"'
    return (
        f'<Annotations MicronsPerPixel="0.252100"><Annotation Id="1" Name="{name}" ReadOnly="0" '
        f'NameReadOnly="0" LineColorReadOnly="0" Incremental="0" Type="4" {layer} Visible="1" '
        f'Selected="1" MarkupImagePath="" MacroName=""><Attributes><Attribute {attribute}/>'
        f"</Attributes><Regions>{HEADERS}{''.join(regions)}</Regions><Plots/></Annotation>"
        "</Annotations>"
    )


def test_imagescope_layer_without_a_name_goes_by_its_color(read):
    text = imagescope(region(OPEN))
    assert contents(read(text)) == [("#00ff00", AREA, (0, 255, 0))]
    assert read(text, class_map={"#00ff00": "tumor"})[0].class_name == "tumor"


@pytest.mark.parametrize(
    ("attribute", "name"),
    [
        ('Name="Description" Id="0" Value="Tumor bed"', "Tumor bed"),  # as ImageScope has it
        ('Id="1" Name="Epithelial" Value=""', "Epithelial"),  # data sets of nuclei
        ('Name="Class" Id="0" Value="Stroma"', "Stroma"),
    ],
)
def test_imagescope_layer_named_by_its_attribute(read, attribute, name):
    text = imagescope(region(OPEN), attribute=attribute)
    assert read(text)[0].class_name == name
    assert read(text, class_map={"#00ff00": "by color"})[0].class_name == "by color"
    named = imagescope(region(OPEN), attribute=attribute, name="Layer 1")
    assert read(named)[0].class_name == "Layer 1", "the name of the layer comes first"
    assert read(named, class_map={name: "a"})[0].class_name == "a"


def test_imagescope_text_of_regions(read):
    text = imagescope(region(OPEN, text="invasive"), region(OPEN, text=""), name="Annotations")
    assert [r.class_name for r in read(text, class_map={"invasive": "tumor"})] == [
        "tumor",
        "Annotations",
    ]
    assert [r.name for r in read(text)] == ["invasive", None]


@pytest.mark.parametrize(
    ("kind", "points", "area"),
    [
        (0, OPEN, AREA),  # freehand
        (1, OPEN, AREA),  # rectangle, its corners
        (1, [(100, 300), (300, 100)], AREA),  # rectangle, two of them
        (2, [(100, 100), (300, 300)], math.pi * 100**2),  # ellipse, corners of its box
        (2, [(100, 100), (300, 100), (300, 200), (100, 200)], math.pi * 100 * 50),
        (2, OPEN + [(90, 200)], AREA + 200 * 10 / 2),  # already drawn as a polygon
    ],
)
def test_imagescope_areas(read, kind, points, area):
    assert contents(read(imagescope(region(points, kind), name="a"))) == [("a", area, (0, 255, 0))]


@pytest.mark.parametrize("kind", [0, 3, 4, 5])
@pytest.mark.parametrize("points", [[(100, 100), (200, 220)], [(100, 100)], []])
def test_imagescope_arrows_rulers_and_counters(read, caplog, kind, points):
    """Whatever their number: one or two points are no area."""
    assert read(imagescope(region(points, kind), name="a")) == []
    assert "1 shape(s) without an area" in caplog.text


def test_imagescope_holes(read):
    hole = [(150, 150), (250, 150), (250, 250), (150, 250)]
    text = imagescope(region(hole, negative=1), region(OPEN, index=2), name="a")
    [found] = read(text)
    assert found.geometry.area == AREA - 100 * 100 and len(found.geometry.interiors) == 1


def test_imagescope_empty_layers(read):
    empty = '<Annotations MicronsPerPixel="0.25"><Annotation Id="1" Name="a"/></Annotations>'
    assert read(empty) == [] and read(imagescope(name="a")) == [] and read("<Annotations/>") == []


def test_imagescope_layer_of_nothing_but_shapes(read, caplog):
    text = imagescope(region(OPEN), color=None)
    assert read(text) == [] and "without a class" in caplog.text
    assert read(text, class_map={None: "a"})[0].class_name == "a"


# --- large_image and the Digital Slide Archive -----------------------------------------------


def element(kind, **more):
    return {
        "id": "5f1d3c9a4b6c0d2e8f7a1b2c",
        "type": kind,
        "group": "tumor",
        "label": {"value": "first", "visibility": "hidden", "fontSize": 3.4},
        "user": {"reviewer": "X"},
        "lineColor": "rgb(255, 0, 0)",
        "lineWidth": 2,
        "fillColor": "rgba(255, 0, 0, 0.25)",
        **more,
    }


POINTS = [[x, y, 0] for x, y in OPEN]
BOX = {"center": [200, 200, 0], "width": 200, "height": 100, "normal": [0, 0, 1]}


@pytest.mark.parametrize(
    ("drawn", "area"),
    [
        (element("polyline", points=POINTS, closed=True), AREA),
        (
            element(
                "polyline",
                points=POINTS,
                closed=True,
                holes=[[[150, 150, 0], [250, 150, 0], [250, 250, 0]]],
            ),
            AREA - 5000,
        ),
        (element("rectangle", **BOX, rotation=0), 20_000),
        (element("rectangle", **BOX, rotation=-0.7), 20_000),
        (element("rectangle", **BOX), 20_000),
        (element("rectanglegrid", **BOX, widthSubdivisions=3, heightSubdivisions=4), 20_000),
        (element("ellipse", **BOX, rotation=1.1), math.pi * 100 * 50),
        (element("circle", center=[200, 200, 0], radius=30), math.pi * 30**2),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else "",
)
def test_dsa_areas(read, drawn, area):
    [found] = read({"name": "an annotation", "description": "", "elements": [drawn]})
    assert contents([found]) == [("tumor", area, (255, 0, 0))]
    assert found.name == "first" and found.measurements is None


def test_dsa_rotated_rectangle_by_hand(read):
    """A quarter turn swaps the sides; an eighth turns the long side down to the right."""
    [turned] = read({"elements": [element("rectangle", **BOX, rotation=math.pi / 2)]})
    np.testing.assert_allclose(turned.geometry.bounds, (150, 100, 250, 300), atol=1e-9)
    [turned] = read({"elements": [element("rectangle", **BOX, rotation=math.pi / 4)]})
    corner = turned.geometry.exterior.coords
    furthest = max(corner, key=lambda point: point[0] + point[1])
    assert furthest[0] + furthest[1] == pytest.approx(400 + 200 / math.sqrt(2))


@pytest.mark.parametrize(
    "drawn",
    [
        element("polyline", points=POINTS, closed=False),
        element("polyline", points=POINTS),  # the schema's default is an open line
        element("polyline", points=POINTS[:2], closed=True),
        element("arrow", points=POINTS[:2]),
        element("point", center=[5, 5, 0]),
        element("heatmap", points=[[5, 5, 0, 1.5]], radius=25),
        element("griddata", values=[1, 2, 3, 4], gridWidth=2, dx=32, dy=32),
        element("pixelmap", girderId="5f1d", values=[1, 2], boundaries=True),
        element("image", girderId="5f1d", opacity=0.5),
    ],
    ids=lambda drawn: drawn["type"],
)
def test_dsa_elements_without_area(read, caplog, drawn):
    assert read({"elements": [drawn]}) == []
    assert "1 shape(s) without an area" in caplog.text


def test_dsa_answers_of_the_server(read):
    """One annotation with its bookkeeping, and the list of all annotations of a slide."""
    annotation = {
        "_id": "5f1d3c9a4b6c0d2e8f7a1b2d",
        "_modelType": "annotation",
        "_version": 7,
        "created": "2020-07-26T10:20:30.000000+00:00",
        "itemId": "5f1d3c9a4b6c0d2e8f7a1b2e",
        "groups": ["tumor", None],
        "annotation": {
            "name": "outlines",
            "description": "",
            "attributes": {"source": "import"},
            "elements": [element("polyline", points=POINTS, closed=True)],
        },
    }
    plain = element("circle", center=[9, 9, 0], radius=2)
    for key in ("group", "label", "lineColor", "fillColor"):
        del plain[key]
    other = {**annotation, "annotation": {"name": "outlines", "elements": [plain]}}
    assert contents(read(annotation)) == [("tumor", AREA, (255, 0, 0))]
    assert contents(read([annotation, other])) == [
        ("tumor", AREA, (255, 0, 0)),
        ("outlines", math.pi * 4, None),
    ], "without group and label the annotation's name is the class"


def test_dsa_list_without_elements_says_so(read):
    """The server's short list of annotations holds no shapes."""
    short = [{"_id": "5f1d", "annotation": {"name": "outlines"}, "itemId": "5f1e"}]
    with pytest.raises(AnnotationError, match="annotation 0: expected an object with a list"):
        read(short)
