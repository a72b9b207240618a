"""HALO, Hamamatsu NDPA, Sedeen and COCO, laid out as other programs write them; masks of public data sets."""

import csv
import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from proportion_ssl.slides import AnnotationError, read_annotations, read_label_map

HALO = """<Annotations>
  <Annotation LineColor="65535" Name="Tumor" Visible="True">
    <Regions>
      <Region Type="Polygon" HasEndcaps="0" NegativeROA="0">
        <Vertices><V X="0" Y="0"/><V X="100" Y="0"/><V X="100" Y="100"/><V X="0" Y="100"/></Vertices>
        <Comments/>
      </Region>
      <Region Type="Polygon" HasEndcaps="0" NegativeROA="1">
        <Vertices><V X="10" Y="10"/><V X="20" Y="10"/><V X="20" Y="20"/><V X="10" Y="20"/></Vertices>
      </Region>
      <Region Type="Ruler" HasEndcaps="1" NegativeROA="0">
        <Vertices><V X="0" Y="0"/><V X="5" Y="5"/></Vertices>
      </Region>
    </Regions>
  </Annotation>
  <Annotation LineColor="255" Name="Stroma" Visible="True">
    <Regions>
      <Region Type="Rectangle" NegativeROA="0">
        <Vertices><V X="200" Y="0"/><V X="230" Y="10"/></Vertices>
      </Region>
      <Region Type="Ellipse" NegativeROA="0">
        <Vertices><V X="300" Y="0"/><V X="320" Y="10"/></Vertices>
      </Region>
    </Regions>
  </Annotation>
</Annotations>
"""

NDPA = """<?xml version="1.0" encoding="utf-8"?>
<annotations>
  <ndpviewstate id="1">
    <title>solid</title><details/><coordformat>nanometers</coordformat>
    <lens>20</lens><x>0</x><y>0</y><z>0</z><showtitle>0</showtitle>
    <annotation type="freehand" displayname="AnnotateFreehand" color="#ff0000">
      <measuretype>0</measuretype><closed>1</closed>
      <pointlist>
        <point><x>-1000000</x><y>2000000</y></point><point><x>-500000</x><y>2000000</y></point>
        <point><x>-500000</x><y>2250000</y></point><point><x>-1000000</x><y>2250000</y></point>
      </pointlist>
    </annotation>
  </ndpviewstate>
  <ndpviewstate id="2">
    <title>acinar</title><coordformat>nanometers</coordformat>
    <annotation type="circle" color="#00ff00"><x>0</x><y>2000000</y><radius>50000</radius></annotation>
  </ndpviewstate>
  <ndpviewstate id="3">
    <title>note</title><coordformat>nanometers</coordformat>
    <annotation type="pin" color="#00ff00"><x>0</x><y>0</y></annotation>
  </ndpviewstate>
</annotations>
"""

SEDEEN = """<session software="Sedeen Viewer" version="5.4">
  <image identifier="slide.svs">
    <dimensions>1000, 800</dimensions>
    <overlays>
      <graphic type="polygon" name="Region 0" description="solid">
        <pen color="#ff0000ff" width="3" style="Solid"/>
        <point-list><point>0,0</point><point>40,0</point><point>40,20</point></point-list>
      </graphic>
      <graphic type="rectangle" name="Region 1" description="">
        <pen color="#00ff00ff"/>
        <point-list><point>100,0</point><point>110,30</point></point-list>
      </graphic>
      <graphic type="dot" name="Dot" description=""><point-list><point>1,1</point></point-list></graphic>
    </overlays>
  </image>
</session>
"""

COCO = {
    "images": [{"id": 7, "width": 1000, "height": 800, "file_name": "slide.png"}],
    "categories": [{"id": 1, "name": "solid"}, {"id": 2, "name": "acinar"}],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 1, "segmentation": [[0, 0, 40, 0, 40, 20]]},
        {
            "id": 2,
            "image_id": 7,
            "category_id": 2,
            "segmentation": [
                [100, 0, 110, 0, 110, 10, 100, 10],
                [200, 0, 210, 0, 210, 10, 200, 10],
            ],
        },
    ],
}

WHOLE = SimpleNamespace(bounds=(0, 0, 1000, 800), dimensions=(1000, 800), mpp=0.5)
CROPPED = SimpleNamespace(bounds=(50, 60, 900, 700), dimensions=(1000, 800), mpp=0.5)
NDPI = SimpleNamespace(
    bounds=(0, 0, 10000, 8000),
    dimensions=(10000, 8000),
    mpp=0.5,
    center_offset_nm=(1_500_000, 1_000_000),
)


def write(path, content):
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_halo(tmp_path):
    regions = read_annotations(write(tmp_path / "a.annotations", HALO), slide=WHOLE)
    assert [r.class_name for r in regions] == ["Tumor", "Stroma", "Stroma"]
    assert [r.geometry.area for r in regions] == pytest.approx([100**2 - 10**2, 300, np.pi * 50])
    assert regions[0].color == (255, 255, 0) and regions[1].color == (255, 0, 0)


def test_ndpa_by_hand(tmp_path):
    """x = (-1,000,000 - 1,500,000) / 500 + 5000 = 0."""
    solid, acinar = read_annotations(write(tmp_path / "a.ndpa", NDPA), slide=NDPI)
    assert solid.class_name == "solid" and solid.geometry.bounds == (0, 6000, 1000, 6500)
    assert acinar.class_name == "acinar"
    assert acinar.geometry.area == pytest.approx(np.pi * 100**2)
    assert acinar.geometry.centroid.coords[0] == pytest.approx((2000, 6000))
    for slide in (None, WHOLE):
        with pytest.raises(
            AnnotationError, match=r"a\.ndpa: .*nanometers from the center of the glass"
        ):
            read_annotations(tmp_path / "a.ndpa", slide=slide)


def test_sedeen(tmp_path):
    path = write(tmp_path / "a.session.xml", SEDEEN)
    regions = read_annotations(path, slide=WHOLE, class_map={"#00ff00": "acinar"})
    assert [(r.class_name, r.geometry.area) for r in regions] == [("solid", 400), ("acinar", 300)]


def test_coco(tmp_path):
    regions = read_annotations(write(tmp_path / "a.json", COCO), slide=WHOLE)
    assert [(r.class_name, r.geometry.area) for r in regions] == [("solid", 400), ("acinar", 200)]


@pytest.mark.parametrize("content", [HALO, SEDEEN, COCO], ids=["HALO", "Sedeen", "COCO"])
def test_where_the_count_begins_is_not_guessed(tmp_path, content):
    with pytest.raises(AnnotationError, match="the origin of such a file is unknown"):
        read_annotations(write(tmp_path / "a.txt", content), slide=CROPPED)


@pytest.mark.parametrize(
    ("content", "old", "new", "message"),
    [
        (HALO, 'Type="Polygon"', 'Type="Blob"', "Type is 'Blob', expected one of Polygon"),
        (HALO, 'X="100"', 'X="far"', "is not a number"),
        (NDPA, "nanometers", "pixels", "coordinates are in 'pixels'"),
        (NDPA, '"freehand"', '"blob"', "the shape 'blob' is not known"),
        (NDPA, "<y>2250000</y>", "", "<point> has no <y>"),
        (NDPA, "-500000", "1e", "is not a number"),
        (SEDEEN, "40,0", "40;0", "'40;0' is not of the form x,y"),
        (SEDEEN, 'type="dot"', 'type="blob"', "the type is 'blob'"),
        (SEDEEN, "#ff0000ff", "red!", "is not a color"),
        (SEDEEN, "</session>", '<image identifier="b"/></session>', "a session of 2 images"),
    ],
)
def test_malformed_xml(tmp_path, content, old, new, message):
    path = write(tmp_path / "a.xml", content.replace(old, new, 1))
    with pytest.raises(AnnotationError, match=rf"a\.xml: .*{message}"):
        read_annotations(path, slide=NDPI)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": []}, "0 images"),
        ({"categories": []}, "category 1 has no name"),
        ({"annotations": [{"image_id": 8}]}, "belongs to image 8"),
        ({"annotations": [3]}, "'annotations' must be a list of objects"),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "segmentation": {"counts": []}}]},
            "given as run lengths",
        ),
        (
            {"annotations": [{"image_id": 7, "category_id": 1, "segmentation": [[1, 2, 3]]}]},
            "polygon 0 must be a list x, y",
        ),
    ],
)
def test_malformed_coco(tmp_path, changes, message):
    path = write(tmp_path / "a.json", {**COCO, **changes})
    with pytest.raises(AnnotationError, match=rf"a\.json: .*{message}"):
        read_annotations(path)


# --- masks of public data sets ---------------------------------------------------------------


def test_anorak(tmp_path):
    pixels = np.zeros((4, 6, 3), np.uint8)
    pixels[:2] = 136, 0, 0
    pixels[3, 1:3] = 255, 255, 0
    Image.fromarray(pixels).save(tmp_path / "a.png")
    regions = read_label_map(tmp_path / "a.png", "ANORAK", downsample=10)
    assert [(r.class_name, r.geometry.area) for r in regions] == [
        *[("papillary", 200)],
        ("solid", 1200),
    ]
    pixels[0, 0] = 1, 2, 3
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(AnnotationError, match=r"are not in classes .*\(1, 2, 3\)"):
        read_label_map(tmp_path / "a.png", "ANORAK", downsample=10)


def test_bcss(tmp_path):
    pixels = np.array([[0, 1, 1], [2, 2, 20]], np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    regions = read_label_map(tmp_path / "a.png", "BCSS", downsample=1)
    assert {r.class_name: r.geometry.area for r in regions} == {"tumor": 2, "stroma": 2, "dcis": 1}


@pytest.mark.parametrize("in_color", [False, True])
def test_wsss4luad(tmp_path, in_color):
    image = Image.fromarray(np.array([[0, 1, 3], [0, 2, 3]], np.uint8)).convert("P")
    image.putpalette([0, 64, 128, 64, 128, 0, 243, 152, 0, 255, 255, 255])
    (image.convert("RGB") if in_color else image).save(tmp_path / "a.png")
    regions = read_label_map(tmp_path / "a.png", "WSSS4LUAD", downsample=1)
    assert {r.class_name: r.geometry.area for r in regions} == {
        "tumor": 2,
        "stroma": 1,
        "normal": 1,
    }


def test_tables_that_do_not_fit(tmp_path):
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match="unknown table 'CAMELYON'; the tables are ANORAK, BCSS"):
        read_label_map(tmp_path / "a.png", "CAMELYON", downsample=1)
    with pytest.raises(AnnotationError, match="masks of this data set are in colors"):
        read_label_map(tmp_path / "a.png", "ANORAK", downsample=1)


# --- Cytomine -----------------------------------------------------------------------------------

SQUARE = "POLYGON ((10 20, 40 20, 40 50, 10 50, 10 20), (20 30, 30 30, 30 40, 20 40, 20 30))"
TWO = "MULTIPOLYGON (((60 10, 70 10, 70 20, 60 20, 60 10)), ((80 10, 90 10, 90 20, 80 20, 80 10)))"
TABLE = (
    "ID;Image;Project;Term;User;Area;Perimeter;WKT \n"
    f"7;3;1;[55];2;800.0;160.0;{SQUARE}\n"
    f"8;3;1;[55, 66];2;200.0;80.0;{TWO}\n"
    "9;3;1;[66];2;0;0;POINT (5 5)\n"
)
REPLY = {
    "collection": [
        {
            "class": "be.cytomine.UserAnnotation",
            "id": 7,
            "image": 3,
            "term": [55],
            "location": SQUARE,
        },
        {
            "class": "be.cytomine.UserAnnotation",
            "id": 8,
            "image": 3,
            "term": [55, 66],
            "location": TWO,
        },
        {
            "class": "be.cytomine.UserAnnotation",
            "id": 9,
            "image": 3,
            "term": [66],
            "location": "POINT (5 5)",
        },
    ],
    "offset": 0,
    "size": 3,
}


@pytest.mark.parametrize("kind", ["table", "commas", "reply", "list"])
def test_cytomine_counts_y_from_below(tmp_path, kind):
    path = tmp_path / "annotations"
    quoted = "\n".join(",".join(f'"{c}"' for c in line.split(";")) for line in TABLE.splitlines())
    text = {
        "table": TABLE,
        "commas": "\ufeff" + quoted,
        "reply": json.dumps(REPLY),
        "list": json.dumps(REPLY["collection"]),
    }[kind]
    path.write_text(text, encoding="utf-8")
    names = {"55": "acinar", "55, 66": "solid"}
    square, two = read_annotations(path, dimensions=(100, 120), class_map=names)
    assert (square.class_name, two.class_name) == ("acinar", "solid")
    assert square.geometry.bounds == (10, 70, 40, 100) and square.geometry.area == 800
    assert [hole.bounds for hole in square.geometry.interiors] == [(20, 80, 30, 90)]
    assert two.geometry.bounds == (60, 100, 90, 110) and two.geometry.area == 200
    slide = SimpleNamespace(bounds=(0, 0, 100, 120), dimensions=(100, 120), mpp=0.5)
    assert read_annotations(path, slide=slide, class_map={"66": "x"})[1].class_name == "x"
    with pytest.raises(AnnotationError, match=r"y from the lower edge.*give slide="):
        read_annotations(path)
    cropped = SimpleNamespace(bounds=(10, 10, 50, 50), dimensions=(100, 120), mpp=0.5)
    with pytest.raises(AnnotationError, match="Cytomine outlines on a slide of which only"):
        read_annotations(path, slide=cropped)


def test_a_long_outline_is_read_and_the_limit_of_csv_is_left_as_it_was(tmp_path):
    before = csv.field_size_limit()
    corners = [(10 + k / 1000, 20) for k in range(9_000)] + [(40, 50), (10, 20)]
    outline = f"POLYGON (({', '.join(f'{x:.3f} {y:.3f}' for x, y in corners)}))"
    assert len(outline) > before
    path = tmp_path / "annotations.csv"
    path.write_text(TABLE.replace(SQUARE, outline))
    assert len(read_annotations(path, dimensions=(100, 120))) == 2
    assert csv.field_size_limit() == before
    path.write_text(TABLE.replace(";2;800.0", ";800.0"))
    with pytest.raises(AnnotationError, match="line 2 has 7 fields"):
        read_annotations(path, dimensions=(100, 120))
    assert csv.field_size_limit() == before


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (TABLE.replace("8;3;", "8;4;"), r"annotations of 2 images \(3, 4\)"),
        (TABLE.replace("POINT (5 5)", "POINT 5 5)"), r"annotation 9: 'POINT 5 5\)' is no WKT"),
        (
            TABLE.replace("POINT (5 5)", ""),
            "annotation 9: has no WKT; fetch annotations with showWKT",
        ),
        (TABLE.replace(";2;800.0", ";800.0"), "line 2 has 7 fields but the header has 8"),
        (
            TABLE.replace("40 50", "4e9 50"),
            r"annotation 7: coordinate 4e\+09 is larger than any slide",
        ),
        ("ID;Image;Term\n7;3;[55]\n", r"neither JSON nor XML .* a column WKT"),
    ],
)
def test_cytomine_files_that_cannot_be_used(tmp_path, text, message):
    path = tmp_path / "annotations.csv"
    path.write_text(text)
    with pytest.raises(AnnotationError, match=message):
        read_annotations(path, dimensions=(100, 120))
