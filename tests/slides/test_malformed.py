"""Malformed annotation files: each ends in our error, naming the file, soon and in little memory."""

import gzip
import io
import json
import re
import struct
import time
import tracemalloc
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from proportion_ssl.slides.annotations.read import AnnotationError, read_annotations, read_label_map

SAMPLES = Path(__file__).parents[1] / "data" / "annotations"
SECONDS, MEGABYTES = 20, 1200
SQUARE = [[0, 0], [10, 0], [10, 10], [0, 10], [0, 0]]


def feature(coordinates, kind="Polygon", **properties):
    properties = {"classification": {"name": "tumor"}, **properties}
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def collection(*features):
    return {"type": "FeatureCollection", "features": list(features)}


def polyline(**changes):
    points = [[x, y, 0] for x, y in SQUARE]
    return {"elements": [{"type": "polyline", "closed": True, "points": points, **changes}]}


def shape(**changes):
    element = {"type": "ellipse", "group": "a", "center": [5, 5, 0], "width": 4, "height": 4}
    return {"elements": [{**element, **changes}]}


def asap(x="1", order="0", kind="Polygon", color="#ff0000", inner=None):
    inner = inner or f'<Coordinates><Coordinate Order="{order}" X="{x}" Y="2"/></Coordinates>'
    return (
        f'<ASAP_Annotations><Annotations><Annotation Name="n" Type="{kind}" PartOfGroup="g" '
        f'Color="{color}">{inner}</Annotation></Annotations></ASAP_Annotations>'
    )


def imagescope(vertex='<Vertex X="1" Y="2"/>', kind="0", color="255", wrap="Vertices"):
    return (
        f'<Annotations><Annotation Id="1" Name="a" LineColor="{color}"><Regions><Region Id="1" '
        f'Type="{kind}"><{wrap}>{vertex}</{wrap}></Region></Regions></Annotation></Annotations>'
    )


def sample(name):
    return (SAMPLES / name).read_bytes()


def zipped(*names):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in names:
            archive.writestr(name, b"[]")
    return buffer.getvalue()


LAUGHS = (
    '<?xml version="1.0"?><!DOCTYPE x [<!ENTITY a "ha">'
    + "".join(f'<!ENTITY a{i} "{f"&a{i - 1 if i else chr(0)};" * 10}">' for i in range(1, 12))
    + "]><ASAP_Annotations>&a11;</ASAP_Annotations>"
).replace("a\0", "a")
QUADRATIC = (
    f'<!DOCTYPE x [<!ENTITY a "{"ha" * 50_000}">]><Annotations>{"&a;" * 20_000}</Annotations>'
)
OUTSIDE = '<!DOCTYPE x [<!ENTITY a SYSTEM "file:///etc/hostname">]><Annotations>&a;</Annotations>'


def tangle(n, n_outlines=1):
    points = np.random.default_rng(0).uniform(0, 1e5, (n_outlines, n, 2)).round(1)
    return collection(*(feature([ring]) for ring in points.tolist()))


def overlapping(n, n_features):
    squares = [[[[x, 0], [x + 500, 0], [x + 500, 9], [x, 9]]] for x in range(n)]
    return collection(*([feature(squares, "MultiPolygon")] * n_features))


def combs(n_teeth, n):
    """Positive and negative combs, each valid, that cross like a grid."""
    regions = ""
    for k in range(n):
        teeth = [
            (i + dx, y)
            for i in range(n_teeth)
            for dx, y in ((0, 0), (0, 1e4), (0.5, 1e4), (0.5, 0))
        ]
        points = [point[::-1] if k % 2 else point for point in teeth]
        vertices = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in points)
        regions += f'<Region NegativeROA="{k % 2}"><Vertices>{vertices}</Vertices></Region>'
    return (
        f'<Annotations><Annotation Name="a"><Regions>{regions}</Regions></Annotation></Annotations>'
    )


def bars(n):
    upright = [[[[4 * i, 0], [4 * i + 2, 0], [4 * i + 2, 4 * n], [4 * i, 4 * n]]] for i in range(n)]
    level = [[[[y, x] for x, y in bar[0]]] for bar in upright]
    return collection(feature(upright + level, "MultiPolygon"))


OUTLINES = {
    # nothing there, or something else
    "empty": b"",
    "white space": b" \n\t ",
    "byte order mark alone": b"\xef\xbb\xbf",
    "binary": bytes(range(1, 256)) * 20,
    "zero bytes": bytes(4096),
    "plain text": b"tumor at 100, 200",
    "csv": b"x,y,class\n1,2,a\n",
    "jpeg": b"\xff\xd8\xff\xe0" + bytes(100),
    "png": b"\x89PNG\r\n\x1a\n" + bytes(50),
    "tiff": b"II*\x00" + bytes(50),
    "hdf5": b"\x89HDF\r\n\x1a\n" + bytes(50),
    # not JSON
    "truncated": sample("qupath.geojson")[:700],
    "truncated in a number": sample("dsa.json")[:-400],
    "two documents": sample("qupath_0.2.json") * 2,
    "single quotes": b"{'type': 'FeatureCollection'}",
    "trailing comma": b'{"type": "FeatureCollection", "features": [],}',
    "javascript": b"var regions = [];",
    "latin-1 text": '{"type": "Feature", "name": "Drüse"}'.encode("latin-1"),
    "half of a utf-16 character": '{"type": "Feature"}'.encode("utf-16")[:-1],
    "nested lists": b"[" * 200_000,
    "nested objects": b'{"a":' * 100_000 + b"1" + b"}" * 100_000,
    "nested coordinates": json.dumps(collection(feature("@"))).replace(
        '"@"', "[" * 50_000 + "]" * 50_000
    ),
    "number of 10,000 digits": f'[{{"type": "Feature", "id": {"9" * 10_000}}}]',
    "ten million lists": b"[" + b"[]," * 10_000_001 + b"[]]",
    # JSON of another kind
    "number": b"[1, 2, 3]",
    "topology": {"type": "Topology", "objects": {}},
    "coco": {"images": [], "annotations": []},
    "unknown type": {"type": "FeatureColection", "features": []},
    # GeoJSON
    "features missing": {"type": "FeatureCollection"},
    "features an object": {"type": "FeatureCollection", "features": {"0": feature([SQUARE])}},
    "feature a string": collection("tumor"),
    "feature null": collection(feature([SQUARE]), None),
    "feature a geometry": collection({"type": "Polygon", "coordinates": [SQUARE]}),
    "second of a list wrong": [feature([SQUARE]), {"type": "Polygon"}],
    "properties a list": [{**feature([SQUARE]), "properties": ["tumor"]}],
    "classification a number": [feature([SQUARE], classification=3)],
    "class name a number": [feature([SQUARE], classification={"name": 3})],
    "class names a string": [feature([SQUARE], classification={"names": "a"})],
    "color of two": [feature([SQUARE], classification={"name": "a", "color": [1, 2]})],
    "color beyond 255": [feature([SQUARE], classification={"name": "a", "color": [1, 2, 256]})],
    "color a word": [feature([SQUARE], classification={"name": "a", "color": "reddish"})],
    "packed color a string": [feature([SQUARE], classification={"name": "a", "colorRGB": "-1"})],
    "measurements a number": [feature([SQUARE], measurements=4)],
    "measurements unnamed": [feature([SQUARE], measurements=[{"value": 4}])],
    "geometry a string": [{**feature([SQUARE]), "geometry": "POLYGON ((0 0, 1 1, 1 0))"}],
    "geometry a circle": [feature([SQUARE], "Circle")],
    "coordinates missing": [{**feature([SQUARE]), "geometry": {"type": "Polygon"}}],
    "coordinates a string": [feature("0,0 1,1")],
    "coordinates an object": [feature({"x": 1})],
    "ring not nested": [feature(SQUARE)],
    "ring nested too deep": [feature([[SQUARE]])],
    "polygon in a multipolygon not nested": [feature([SQUARE], "MultiPolygon")],
    "multipolygon of numbers": [feature([1, 2], "MultiPolygon")],
    "point of one number": [feature([[[0], [1], [2], [0]]])],
    "points of mixed length": [feature([[[0, 0], [1, 0], [1, 1, 0], [0, 0]]])],
    "coordinates as strings": [feature([[["0", "0"], ["1", "0"], ["1", "1"]]])],
    "coordinates null": [feature([[[0, None], [1, 0], [1, 1]]])],
    "coordinates true": [feature([[[True, False], [True, True], [False, True]]])],
    "coordinates objects": [feature([[{"x": 0, "y": 0}, {"x": 1, "y": 0}]])],
    "coordinate NaN": [feature([[[0, 0], [float("nan"), 0], [1, 1]]])],
    "coordinate infinite": [feature([[[0, 0], [float("inf"), 0], [1, 1]]])],
    "coordinate overflowing": json.dumps([feature([[[0, 0], ["@", 0], [1, 1]]])]).replace(
        '"@"', "1e999"
    ),
    "coordinate huge": [feature([[[0, 0], [1e300, 0], [1, 1]]])],
    "coordinate a huge integer": [feature([[[0, 0], [10**400, 0], [1, 1]]])],
    "coordinate larger than any slide": [feature([[[0, 0], [2e8, 0], [1, 1]]])],
    "geometries a number": [{**feature([]), "geometry": {"type": "GeometryCollection"}}],
    "tangle of 2,000 vertices": tangle(2000),
    "tangle of 100,000 vertices": tangle(100_000),
    "tangles of 300 vertices": tangle(300, 200),
    "crossing bars": bars(400),
    "overlapping bars": overlapping(200, 20),
    "negative combs": combs(200, 40),
    # large_image
    "elements missing": {"annotation": {"name": "a"}},
    "elements an object": {"elements": {"type": "polyline"}},
    "annotation a list": {"annotation": [1]},
    "annotations of numbers": [{"elements": []}, 4],
    "element a string": {"elements": ["polyline"]},
    "element of unknown type": {"elements": [{"type": "spline"}]},
    "label a string": polyline(label="a"),
    "label value a number": polyline(label={"value": 4}),
    "group a number": polyline(group=4),
    "line color a number": polyline(lineColor=4),
    "line color a word": polyline(lineColor="colorful"),
    "points missing": polyline(points=None),
    "points flat": polyline(points=[0, 0, 1, 1]),
    "points NaN": polyline(points=[[0, 0, 0], [float("nan"), 1, 0], [1, 1, 0]]),
    "holes a number": polyline(holes=3),
    "holes flat": polyline(holes=[[0, 0, 0], [1, 1, 0]]),
    "center missing": shape(center=None),
    "width negative": shape(width=-1),
    "width a string": shape(width="4"),
    "width infinite": shape(width=float("inf")),
    "height huge": shape(height=1e200),
    "radius missing": shape(type="circle"),
    "rotation a string": shape(rotation="left"),
    "rotation NaN": shape(rotation=float("nan")),
    # compressed
    "gzip truncated": gzip.compress(sample("qupath.geojson"))[:-30],
    "gzip of nothing": gzip.compress(b""),
    "gzip damaged": gzip.compress(b"[]" * 100)[:12] + bytes(30),
    "gzip bomb": gzip.compress(b"[" + b" " * 160 * 2**20, 1),
    "zip truncated": zipped("a.geojson")[:40],
    "zip of two": zipped("a.geojson", "b.geojson"),
    "zip of nothing": b"PK\x03\x04" + zipped()[4:],
    # XML
    "xml truncated": sample("asap.xml")[:900],
    "xml mismatched": b"<ASAP_Annotations><Annotations></ASAP_Annotations>",
    "xml of two roots": b"<Annotations/><Annotations/>",
    "xml without quotes": b"<Annotations><Annotation Id=1/></Annotations>",
    "xml unknown encoding": b'<?xml version="1.0" encoding="klingon"?><Annotations/>',
    "xml wrong encoding": '<?xml version="1.0"?><Annotations a="ü"/>'.encode("latin-1"),
    "xml with zero byte": b"<Annotations>\0</Annotations>",
    "xml nested": b"<Annotations>" * 100_000,
    "xml undeclared entity": b"<Annotations>&lol;</Annotations>",
    "html": b"<!DOCTYPE html><html><body>404</body></html>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><path d="M0 0"/></svg>',
    "billion laughs": LAUGHS,
    "quadratic blowup": QUADRATIC,
    "external entity": OUTSIDE,
    "external document type": b'<!DOCTYPE x SYSTEM "http://example.org/a.dtd"><Annotations/>',
    "asap without annotations": b"<ASAP_Annotations/>",
    "asap without coordinates": asap(inner="<Points/>"),
    "asap foreign coordinate": asap(inner='<Coordinates><V X="1" Y="2"/></Coordinates>'),
    "asap without Y": asap(inner='<Coordinates><Coordinate X="1"/></Coordinates>'),
    "asap NaN": asap("NaN"),
    "asap infinite": asap("-inf"),
    "asap word": asap("twelve"),
    "asap thousands separator": asap("1,234.5"),
    "asap underscore": asap("1_0"),
    "asap empty number": asap(""),
    "asap huge": asap("1e30"),
    "asap long number": asap("1" * 1000),
    "asap order a word": asap(order="first"),
    "asap unknown type": asap(kind="Blob"),
    "asap color": asap(color="#ggg"),
    "imagescope foreign layer": b"<Annotations><Layer/></Annotations>",
    "imagescope without vertices": imagescope(wrap="Points"),
    "imagescope foreign vertex": imagescope('<Point X="1" Y="2"/>'),
    "imagescope without X": imagescope('<Vertex Y="2"/>'),
    "imagescope NaN": imagescope('<Vertex X="nan" Y="2"/>'),
    "imagescope type a word": imagescope(kind="Polygon"),
    "imagescope negative a word": imagescope('<Vertex X="1" Y="2"/>').replace(
        "<Region ", '<Region NegativeROA="maybe" '
    ),
    "imagescope color a word": imagescope(color="red"),
}


def read_bounded(read, path, **arguments):
    """Call a reader that must fail; return the message after checking time and memory."""
    tracemalloc.start()
    start = time.perf_counter()
    try:
        with pytest.raises(AnnotationError) as caught:
            read(path, **arguments)
        assert time.perf_counter() - start < SECONDS
        assert tracemalloc.get_traced_memory()[1] < MEGABYTES * 2**20
    finally:
        tracemalloc.stop()
    return str(caught.value)


@pytest.mark.slow
@pytest.mark.parametrize("case", OUTLINES)
def test_malformed_outlines(tmp_path, case):
    content = OUTLINES[case]
    path = tmp_path / "case_7.geojson"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    message = read_bounded(read_annotations, path)
    assert message.startswith(f"{path}: ")
    assert 20 < len(message) - len(str(path)) < 400
    assert "object at 0x" not in message


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("truncated", "not valid JSON, or truncated: .* line 24"),
        ("empty", "the file is empty"),
        ("jpeg", "neither JSON nor XML"),
        ("png", "is a PNG image; read it with read_label_map"),
        ("latin-1 text", "not UTF-8 text"),
        ("nested lists", "nested too deeply"),
        ("features missing", "needs a list 'features', got NoneType"),
        ("feature null", "feature 1: expected an object of type 'Feature', got null"),
        (
            "ring not nested",
            r"feature 0, ring 0: expected a list of \[x, y\] numbers, got \[0, 0\]",
        ),
        ("coordinate NaN", "feature 0, ring 0: a coordinate is NaN or infinite"),
        ("coordinate huge", "larger than any slide"),
        ("tangle of 2,000 vertices", "feature 0: its lines cross about"),
        ("tangles of 300 vertices", "up to this one the outlines of the file cross .* times"),
        ("crossing bars", "feature 0: its polygons overlap"),
        (
            "overlapping bars",
            "feature [1-9]: its polygons overlap, with those of the shapes before",
        ),
        ("negative combs", "layer 0: its lines cross about"),
        ("element of unknown type", "element 0: the type must be one of polyline"),
        ("width negative", "element 0: 'width' must be a non-negative number, got -1"),
        ("gzip truncated", "compressed file is truncated or broken"),
        ("gzip bomb", "more than 128 MiB of text"),
        ("zip of two", "must hold one annotation file, this one has 2"),
        ("xml truncated", "not well-formed XML, or truncated"),
        ("xml nested", "XML nested deeper than"),
        ("billion laughs", "declares a document type or entities"),
        ("svg", "the root element is .*svg.*expected <ASAP_Annotations>"),
        ("asap word", r"annotation 0 \('n'\): X='twelve' of <Coordinate> is not a number"),
        ("asap without Y", "<Coordinate> has no attribute Y"),
        (
            "imagescope foreign vertex",
            "layer 1, region 1: <Vertices> holds <Point>, expected <Vertex>",
        ),
    ],
)
def test_message_says_where_and_what(tmp_path, case, words):
    content = OUTLINES[case]
    path = tmp_path / "a.xml"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        path.write_text(content if isinstance(content, str) else json.dumps(content))
    with pytest.raises(AnnotationError, match=words):
        read_annotations(path)


def test_entities_of_a_file_are_never_read(tmp_path):
    secret = tmp_path / "secret.txt"
    secret.write_text("1234567")
    path = tmp_path / "a.xml"
    path.write_text(
        f'<!DOCTYPE x [<!ENTITY s SYSTEM "{secret.as_uri()}">]>' + asap(inner="&s;<Coordinates/>")
    )
    with pytest.raises(AnnotationError) as caught:
        read_annotations(path)
    assert "1234567" not in str(caught.value)


def test_more_vertices_than_a_file_of_outlines_has(tmp_path, monkeypatch):
    monkeypatch.setattr("proportion_ssl.slides.annotations._assemble.MAX_VERTICES", 1000)
    many = [feature([SQUARE])] * 210
    path = tmp_path / "cells.geojson"
    path.write_text(json.dumps(many))
    with pytest.raises(AnnotationError, match="more than 1,000 vertices"):
        read_annotations(path)
    monkeypatch.setattr("proportion_ssl.slides.annotations._documents.MAX_VERTICES", 1000)
    path.write_text("<Annotations>" + "<a/>" * 2000 + "</Annotations>")
    with pytest.raises(AnnotationError, match="more than 1,000 XML elements"):
        read_annotations(path)
    path.write_text(json.dumps(many))
    with pytest.raises(AnnotationError, match="more than 2,000 lists and objects"):
        read_annotations(path)


def test_too_many_negative_regions(tmp_path, monkeypatch):
    monkeypatch.setattr("proportion_ssl.slides.annotations._negative.MAX_HOLE_PAIRS", 3)
    path = tmp_path / "a.xml"
    vertices = '<Vertex X="0" Y="0"/><Vertex X="9" Y="0"/><Vertex X="9" Y="9"/>'
    region = f'<Region NegativeROA="{{}}"><Vertices>{vertices}</Vertices></Region>'
    path.write_text(
        '<Annotations><Annotation Name="a"><Regions>'
        + (region.format(0) + region.format(1)) * 2
        + "</Regions></Annotation></Annotations>"
    )
    with pytest.raises(AnnotationError, match="layer 0: more than 3 pairs of a region and a neg"):
        read_annotations(path)


# --- rasters ---------------------------------------------------------------------------------


def png(array=None, mode=None):
    buffer = io.BytesIO()
    array = np.ones((8, 8), dtype=np.uint8) if array is None else array
    Image.fromarray(array).save(buffer, format="PNG")
    return buffer.getvalue()


def png_claiming(width, height):
    """A PNG whose header claims a size that its few bytes of pixels do not have."""
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    for kind, body in ((b"IHDR", header), (b"IDAT", zlib.compress(bytes(100))), (b"IEND", b"")):
        data += struct.pack(">I", len(body)) + kind + body
        data += struct.pack(">I", zlib.crc32(kind + body))
    return data


def tiff(array=None, **options):
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, np.ones((8, 8), np.uint8) if array is None else array, **options)
    return buffer.getvalue()


def jpeg():
    buffer = io.BytesIO()
    Image.fromarray(np.ones((8, 8), np.uint8)).save(buffer, format="JPEG")
    return buffer.getvalue()


def table(text):
    key = '{"proportion_ssl label map": '
    return tiff(description=key + text + "}", metadata=None)


NOISE = np.random.default_rng(0).integers(0, 256, (32, 32, 3)).astype(np.uint8)
RASTERS = {
    "empty": b"",
    "binary": bytes(range(256)),
    "geojson": sample("qupath.geojson"),
    "jpeg": jpeg(),
    "png header alone": png()[:20],
    "png truncated": png(NOISE)[:-200],
    "png damaged": png(NOISE)[:60] + bytes(40) + png(NOISE)[100:],
    "png claiming 2e9 pixels": png_claiming(60_000, 40_000),
    "png claiming 4e18 pixels": png_claiming(2**31 - 1, 2**31 - 1),
    "png without its pixels": png_claiming(1000, 1000),
    "png of no pixels": png_claiming(0, 0),
    "png of unnamed colors": png(NOISE),
    "png of unnamed numbers": png(NOISE[..., 0]),
    "tiff header alone": b"II*\x00",
    "tiff of zeros": b"II*\x00" + bytes(200),
    "tiff truncated": tiff(NOISE[..., 0], compression="zlib")[:-300],
    "tiff with a directory beyond its end": b"II*\x00" + struct.pack("<I", 10**9) + bytes(20),
    "tiff directory looping": b"II*\x00\x08\x00\x00\x00\xff\xff" + bytes(12) * 3,
    "tiff of floats": tiff(np.full((8, 8), 0.5, np.float32)),
    "tiff of complex numbers": tiff(np.ones((8, 8), np.complex64)),
    "tiff of four channels": tiff(np.ones((8, 8, 4), np.uint8), photometric="rgb"),
    "tiff of planes": tiff(np.ones((3, 8, 8), np.uint8), photometric="rgb"),
    "tiff of lossy compression": tiff(
        np.ones((16, 16), np.uint8), compression="jpeg", photometric="minisblack"
    ),
    "tiff of noise": tiff(np.arange(10_000, dtype=np.uint16).reshape(100, 100)),
}


TABLES = {
    "table damaged": table('{"classes": {"1": "a"'),
    "table without scale": table('{"classes": {"1": "a"}}'),
    "table of words": table('{"classes": {"one": "a"}, "downsample": [1, 1]}'),
    "table of bad scale": table('{"classes": {"1": "a"}, "downsample": [0, 1]}'),
    "table a list": table("[1, 2]"),
    "table of bad origin": table('{"classes": {"1": "a"}, "downsample": 1, "origin": ["a", 1]}'),
}


@pytest.mark.parametrize("case", TABLES)
def test_damaged_class_tables(tmp_path, case):
    path = tmp_path / "case_7.tif"
    path.write_bytes(TABLES[case])
    message = read_bounded(read_label_map, path)
    assert message.startswith(f"{path}: the class table in the file is damaged")
    assert len(read_label_map(path, {1: "a"}, downsample=1)) == 1, "not needed, not read"


@pytest.mark.parametrize("case", RASTERS)
def test_malformed_rasters(tmp_path, case):
    path = tmp_path / "case_7.mask"
    path.write_bytes(RASTERS[case])
    classes = {(1, 1, 1): "a"} if case in ("png of unnamed colors",) else {1: "a"}
    message = read_bounded(read_label_map, path, classes=classes, downsample=4)
    assert message.startswith(f"{path}: ")
    assert len(message) - len(str(path)) < 500


def test_noise_is_no_label_map(tmp_path, monkeypatch):
    monkeypatch.setattr("proportion_ssl.slides.annotations._polygonize.MAX_SEGMENTS", 500)
    path = tmp_path / "noise.png"
    path.write_bytes(png(NOISE[..., 0] % 2))
    with pytest.raises(AnnotationError, match=f"^{re.escape(str(path))}.*looks like noise"):
        read_label_map(path, {1: "a"}, downsample=1)


def test_the_corpus_is_large():
    assert len(OUTLINES) + len(RASTERS) >= 40
