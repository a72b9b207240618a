"""Each program counts pixels in its own frame, and a file that does not fit the slide is refused."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
import shapely
import tifffile

from proportion_ssl.slides.annotations.read import AnnotationError, read_annotations
from proportion_ssl.slides.maps.write import prediction_regions, write_dsa, write_geojson
from proportion_ssl.slides.reading.slide import open_slide

SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c"
uuid="urn:uuid:1" sizeX="2048000" sizeY="1536000"><barcode></barcode><image name="main"
uuid="urn:uuid:2"><creationDate>2020-01-01T00:00:00Z</creationDate><device model="Leica SCN400"
version="1"/><pixels sizeX="1024" sizeY="768"><dimension sizeX="1024" sizeY="768" r="0" ifd="0"/>
</pixels><view sizeX="512000" sizeY="384000" offsetX="520000" offsetY="264000" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings>
<illuminationSettings><numericalAperture>0.4</numericalAperture>
<illuminationSource>brightfield</illuminationSource></illuminationSettings></scanSettings></image></collection></scn>"""
BOUNDS, DIMENSIONS = (1040, 528, 1024, 768), (4096, 3072)
CROPPED = SimpleNamespace(bounds=BOUNDS, dimensions=DIMENSIONS, mpp=0.5)
WHOLE = SimpleNamespace(bounds=(0, 0, *DIMENSIONS), dimensions=DIMENSIONS, mpp=0.5)


def corners(x, y, width, height):
    return [[x, y], [x + width, y], [x + width, y + height], [x, y + height]]


def geojson(*rings, **properties):
    properties = {"classification": {"name": "tumor"}, **properties}
    return json.dumps(
        [
            {
                "type": "Feature",
                "geometry": {"type": "Polygon", "coordinates": [ring]},
                "properties": properties,
            }
            for ring in rings
        ]
    )


def dsa(*rings):
    elements = [
        {"type": "polyline", "closed": True, "group": "tumor", "points": [[*p, 0] for p in ring]}
        for ring in rings
    ]
    return json.dumps({"name": "outlines", "elements": elements})


def asap(*rings):
    body = ""
    for i, ring in enumerate(rings):
        points = "".join(
            f'<Coordinate Order="{k}" X="{x}" Y="{y}"/>' for k, (x, y) in enumerate(ring)
        )
        body += (
            f'<Annotation Name="gland {i}" Type="Polygon" PartOfGroup="tumor">'
            f"<Coordinates>{points}</Coordinates></Annotation>"
        )
    return f"<ASAP_Annotations><Annotations>{body}</Annotations></ASAP_Annotations>"


def imagescope(*rings, mpp="0.5"):
    body = ""
    for ring in rings:
        points = "".join(f'<Vertex X="{x}" Y="{y}"/>' for x, y in ring)
        body += f'<Region NegativeROA="0"><Vertices>{points}</Vertices></Region>'
    return (
        f'<Annotations MicronsPerPixel="{mpp}"><Annotation Name="tumor"><Regions>{body}</Regions>'
        "</Annotation></Annotations>"
    )


FROM_BOUNDS = {"geojson": geojson, "dsa": dsa}
FROM_WHOLE = {"asap": asap}
ALL = {**FROM_BOUNDS, **FROM_WHOLE, "imagescope": imagescope}


@pytest.fixture
def read(tmp_path):
    def read(text, **arguments):
        path = tmp_path / "outlines"
        path.write_text(text)
        return read_annotations(path, **arguments)

    return read


@pytest.fixture(scope="module")
def scn(tmp_path_factory):
    """A Leica slide of which the part at (1040, 528) was scanned, opened."""
    path = tmp_path_factory.mktemp("scn") / "leica.scn"
    pixels = np.full((768, 1024, 3), (200, 130, 180), np.uint8)
    options = {"tile": (256, 256), "photometric": "rgb", "metadata": None}
    options |= {"resolution": (2e4, 2e4), "resolutionunit": "CENTIMETER"}
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        tiff.write(pixels, description=SCN, **options)
    with open_slide(path) as slide:
        assert (slide.bounds, slide.dimensions, slide.mpp) == (BOUNDS, DIMENSIONS, 0.5)
        yield slide


# --- frames ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("write", "ring"),
    [
        (geojson, corners(0, 0, 1024, 768)),
        (dsa, corners(0, 0, 1024, 768)),
        (asap, corners(*BOUNDS)),
    ],
)
def test_the_scanned_part_in_the_frame_of_each_program(read, scn, write, ring):
    [region] = read(write(ring), slide=scn)
    assert region.geometry.bounds == (1040, 528, 2064, 1296)
    [region] = read(write(ring))
    assert region.geometry.bounds[:2] == tuple(ring[0]), "without a slide nothing is shifted"


@pytest.mark.parametrize("name", ALL)
def test_without_bounds_all_programs_agree(read, name):
    [region] = read(ALL[name](corners(10, 20, 30, 40)), slide=WHOLE)
    assert region.geometry.bounds == (10, 20, 40, 60)


def test_imagescope_on_a_cropped_slide_is_refused(read):
    with pytest.raises(
        AnnotationError, match="ImageScope outlines on a slide of which only x 1040"
    ):
        read(imagescope(corners(0, 0, 9, 9)), slide=CROPPED)
    [region] = read(imagescope(corners(0, 0, 9, 9)), offset=(1040, 528), dimensions=DIMENSIONS)
    assert region.geometry.bounds == (1040, 528, 1049, 537)


def test_what_is_written_for_other_programs_comes_back(tmp_path, scn):
    grid = scn.grid(patch_mpp=1.0, size=64)
    x, y = scn.bounds[:2]
    inside = (grid.boxes[:, :2] >= (x, y)).all(axis=1)
    inside &= (grid.boxes[:, 2:] <= (x + 1024, y + 768)).all(axis=1)
    labels = np.where(inside, "a", None)
    regions = prediction_regions(labels, grid, ["a"], mpp=scn.mpp_xy)
    write_geojson(tmp_path / "a.geojson", regions, offset=(x, y))
    write_dsa(tmp_path / "a.json", regions, name="prediction", offset=(x, y))
    for name in ("a.geojson", "a.json"):
        [back] = read_annotations(tmp_path / name, slide=scn)
        assert back.geometry.equals(regions[0].geometry)


# --- outlines that do not lie on the slide -----------------------------------------------------


@pytest.mark.parametrize("name", [*FROM_BOUNDS, *FROM_WHOLE])
def test_outlines_in_another_frame_are_refused(read, name):
    """Whole-slide coordinates in GeoJSON, coordinates of the scanned part in ASAP."""
    ring = corners(*BOUNDS) if name in FROM_BOUNDS else corners(0, 0, 1024, 528)
    with pytest.raises(AnnotationError) as caught:
        read(ALL[name](ring), slide=CROPPED)
    message = str(caught.value)
    assert "('tumor'): x" in message and "entirely outside the scanned part" in message
    assert "x 1040..2064, y 528..1296 of 4096 x 3072 level-0 pixels" in message
    assert "corner of the scanned part at (1040, 528)" in message or "whole slide" in message


def test_the_outline_outside_is_named(read):
    text = asap(corners(1100, 600, 50, 50), corners(5000, 600, 50, 50))
    with pytest.raises(AnnotationError, match=r"annotation 1 \('gland 1'\) \('tumor'\): x 5000"):
        read(text, slide=CROPPED)


@pytest.mark.parametrize(("inside", "is_right"), [(60, True), (40, False)])
def test_an_outline_for_the_most_part_outside(read, caplog, inside, is_right):
    text = geojson(corners(4096 - inside, 0, 100, 10))
    if is_right:
        [region] = read(text, slide=WHOLE)
        assert region.geometry.bounds == (4036, 0, 4096, 10)
        assert (
            "1 shape(s) cut at the border of the slide: feature 0 ('tumor') by 40.0%" in caplog.text
        )
        return
    with pytest.raises(AnnotationError, match="for 60% outside"):
        read(text, slide=WHOLE)
    with pytest.raises(AnnotationError, match="for 60% outside the slide of 4096 x 3072"):
        read(text, dimensions=DIMENSIONS)


# --- resolution ------------------------------------------------------------------------------


@pytest.mark.parametrize("mpp", ["0.5", "0.5045", "0,4960", "", "0", "0.0000"])
def test_imagescope_resolution_that_agrees_or_is_not_stated(read, mpp):
    assert len(read(imagescope(corners(0, 0, 9, 9), mpp=mpp), slide=WHOLE)) == 1


@pytest.mark.parametrize("mpp", ["0.25", "0.52", "0.48", "5e-4"])
def test_imagescope_resolution_of_another_slide(read, mpp):
    text = imagescope(corners(0, 0, 9, 9), mpp=mpp)
    with pytest.raises(AnnotationError, match=r"MicronsPerPixel is .* the slide has 0\.5;"):
        read(text, slide=WHOLE)
    assert len(read(text, dimensions=DIMENSIONS)) == 1, "not looked at without a slide"


def test_pixels_that_are_not_square(read):
    slide = SimpleNamespace(bounds=WHOLE.bounds, dimensions=DIMENSIONS, mpp=(0.25, 1.0))
    assert len(read(imagescope(corners(0, 0, 9, 9), mpp="0.5"), slide=slide)) == 1
    measured = {"Area µm^2": 50 * 40 * 0.25}
    assert len(read(geojson(corners(0, 0, 50, 40), measurements=measured), slide=slide)) == 1


def test_imagescope_resolution_that_is_no_number(read):
    with pytest.raises(AnnotationError, match=r"MicronsPerPixel='fine' .* is not a number"):
        read(imagescope(corners(0, 0, 9, 9), mpp="fine"), slide=WHOLE)


@pytest.mark.parametrize("unit", ["µm^2", "\u03bcm^2", "um^2"])
@pytest.mark.parametrize("mpp", [0.25, 0.5])
def test_measured_areas_of_qupath_imply_the_resolution(read, unit, mpp):
    measured = {f"Area {unit}": 50 * 40 * mpp**2, "Perimeter": 1}
    text = geojson(corners(0, 0, 50, 40), corners(100, 0, 50, 40), measurements=measured)
    if mpp == 0.5:
        assert len(read(text, slide=WHOLE)) == 2
        return
    with pytest.raises(
        AnnotationError, match=r"measured areas imply 0\.25 um per pixel, the slide"
    ):
        read(text, slide=WHOLE)


def test_measurements_older_than_the_outlines_say_nothing(read):
    """One outline was changed after it had been measured, so the two disagree."""
    text = geojson(
        corners(0, 0, 50, 40), corners(0, 0, 50, 80), measurements={"Area µm^2": 50 * 40 * 0.0625}
    )
    assert len(read(text, slide=WHOLE)) == 2


# --- arguments -------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [{"offset": (0, 0)}, {"dimensions": DIMENSIONS}])
def test_slide_and_what_it_says_are_not_given_together(read, arguments):
    with pytest.raises(ValueError, match="give one or the other"):
        read(geojson(corners(0, 0, 9, 9)), slide=WHOLE, **arguments)


@pytest.mark.parametrize(
    ("slide", "error", "message"),
    [
        ("slide.svs", TypeError, "must have bounds, dimensions and mpp.*got str"),
        (
            SimpleNamespace(bounds=BOUNDS, dimensions=DIMENSIONS),
            TypeError,
            "like the result of open_slide",
        ),
        (SimpleNamespace(bounds=BOUNDS[:2], dimensions=DIMENSIONS, mpp=1.0), ValueError, "bounds"),
        (
            SimpleNamespace(bounds=BOUNDS, dimensions=DIMENSIONS, mpp=0.0),
            ValueError,
            "mpp must be 1 or 2",
        ),
        (SimpleNamespace(bounds=BOUNDS, dimensions=DIMENSIONS, mpp=np.nan), ValueError, "mpp"),
    ],
)
def test_what_is_no_slide(read, slide, error, message):
    with pytest.raises(error, match=message):
        read(geojson(corners(0, 0, 9, 9)), slide=slide)


def test_regions_are_cut_to_the_slide_not_to_the_scanned_part(read):
    [region] = read(asap(corners(1000, 500, 1100, 900)), slide=CROPPED)
    assert region.geometry.equals(shapely.box(1000, 500, 2100, 1400))
