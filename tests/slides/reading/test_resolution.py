"""Microns per pixel: believed where they can be, else asked for."""

import numpy as np
import pytest
import tifffile
from slide_files import texture, write_slide

from proportion_ssl.slides import SlideError, open_slide
from proportion_ssl.slides.reading._resolution import check_given_mpp, contradicts, stated_mpp

PIXELS = texture(300, 200)


def refused(path, match):
    with pytest.raises(SlideError, match=match):
        open_slide(path)
    with open_slide(path, mpp=0.5) as slide:
        assert slide.mpp == 0.5


@pytest.mark.parametrize("mpp", [0.05, 0.079, 20.5, 25400 / 72])
def test_resolutions_that_no_slide_has_are_refused(tmp_path, mpp):
    path = write_slide(tmp_path / "odd.tif", PIXELS, mpp=mpp)
    refused(
        path, rf"odd\.tif states {mpp:.4g} um per pixel .* between 0\.08 and 20.*: mpp= in Python"
    )


@pytest.mark.parametrize("mpp", [0.08, 0.1, 0.25, 1.0, 10.0, 20.0])
def test_resolutions_of_slides_are_believed(tmp_path, mpp):
    with open_slide(write_slide(tmp_path / "s.tif", PIXELS, mpp=mpp)) as slide:
        assert slide.mpp == pytest.approx(mpp, rel=1e-6)


@pytest.mark.parametrize(
    ("mpp", "magnification", "fine"),
    [
        (0.5, 20, True),
        (0.2527, 40, True),
        (0.34, 20, True),
        (0.74, 20, True),
        (0.25, 20, False),
        (0.5, 40, False),
        (0.33, 20, False),
        (0.76, 20, False),
        (5.0, 20, False),
    ],
)
def test_aperios_magnification_and_microns_must_agree(tmp_path, mpp, magnification, fine):
    path = write_slide(
        tmp_path / "s.svs", PIXELS, aperio=True, mpp=mpp, magnification=magnification
    )
    if fine:
        with open_slide(path) as slide:
            assert slide.mpp == mpp
    else:
        nominal = 10 / magnification
        refused(path, rf"states {mpp:g} um per pixel.*{magnification}x \(AppMag\).*{nominal:g} um")


def write_ome(path, ome, tag=None, unit="µm"):
    resolution = {} if tag is None else {"resolution": (1e4 / tag,) * 2, "resolutionunit": 3}
    metadata = {"axes": "YXS"}
    if ome is not None:
        metadata |= {"PhysicalSizeX": ome, "PhysicalSizeY": ome}
        metadata |= {"PhysicalSizeXUnit": unit, "PhysicalSizeYUnit": unit}
    with tifffile.TiffWriter(path, ome=True) as tif:
        tif.write(PIXELS, photometric="rgb", tile=(128, 128), metadata=metadata, **resolution)
    return path


@pytest.mark.parametrize("tag", [None, 25400 / 72, 0.55, 0.05])
def test_omes_physical_size_is_preferred_to_tags(tmp_path, tag):
    with open_slide(write_ome(tmp_path / "s.ome.tif", 0.5, tag)) as slide:
        assert slide.mpp == 0.5


def test_units_of_ome(tmp_path):
    for size, unit in ((500.0, "nm"), (0.0005, "mm"), (0.5, "µm")):
        with open_slide(write_ome(tmp_path / "s.ome.tif", size, unit=unit)) as slide:
            assert slide.mpp == pytest.approx(0.5)
    with pytest.raises(SlideError, match="no resolution metadata"):  # a length of no known unit
        open_slide(write_ome(tmp_path / "s.ome.tif", 0.5, unit="pixel"))


@pytest.mark.parametrize(("ome", "tag"), [(0.5, 0.25), (0.5, 0.8), (500.0, 0.5)])
def test_omes_physical_size_and_tags_must_agree(tmp_path, ome, tag):
    path = write_ome(tmp_path / "s.ome.tif", ome, tag)
    refused(path, rf"contradicts itself: it states {ome:g} um .*PhysicalSize and {tag:g} um")


def test_both_are_named_where_neither_can_be(tmp_path):
    path = write_ome(tmp_path / "s.ome.tif", 500.0, 25400 / 72)
    refused(path, r"states 500 um .*PhysicalSize and 352\.8 um")


def test_two_directions_are_compared_each():
    assert stated_mpp("s", (0.5, 1.0), None, None, None) == (0.5, 1.0)
    assert stated_mpp("s", (0.5, 0.6), (0.5, 0.7), None, None) == (0.5, 0.7)
    with pytest.raises(SlideError, match=r"0\.5 x 0\.5 um|0\.5 um"):
        stated_mpp("s", (0.5, 1.0), (0.5, 0.5), None, None)
    with pytest.raises(SlideError, match=r"0\.5 x 50 um"):
        stated_mpp("s", (0.5, 50.0), None, None, None)


@pytest.mark.parametrize("mpp", [500, 1e6, 0.001, (0.5, 500)])
def test_a_given_resolution_is_checked(mpp):
    with pytest.raises(ValueError, match=r"between 0\.02 and 200 microns.*got"):
        check_given_mpp(mpp)


@pytest.mark.parametrize("mpp", [0, -1, np.nan, np.inf, (1, 2, 3), "x", None])
def test_a_given_resolution_is_one_or_two_numbers(mpp):
    with pytest.raises(ValueError, match=r"one or two \(x, y\) positive numbers"):
        check_given_mpp(mpp)


def test_a_given_resolution_goes_before_the_file_is_looked_at(tmp_path):
    assert check_given_mpp(0.02) == (0.02, 0.02)
    assert check_given_mpp((200, 0.25)) == (200.0, 0.25)
    path = write_slide(tmp_path / "s.tif", PIXELS)
    with pytest.raises(ValueError, match="between"):
        open_slide(path, mpp=500)


def test_what_the_file_states_is_known_beside_what_was_given(tmp_path):
    path = write_slide(tmp_path / "s.tif", PIXELS, mpp=0.5)
    with open_slide(path, mpp=0.25) as slide:
        assert slide.mpp == 0.25 and slide.stated_mpp == pytest.approx(0.5, rel=1e-6)
        assert contradicts(slide.stated_mpp, slide.mpp)
    with open_slide(path) as slide:
        assert slide.stated_mpp == slide.mpp
    with open_slide(write_slide(tmp_path / "t.tif", PIXELS, mpp=0.05), mpp=0.25) as slide:
        assert slide.stated_mpp is None and not contradicts(slide.stated_mpp, slide.mpp)
    assert [contradicts(0.5, mpp) for mpp in (0.5, 0.505, 0.495, 0.52, 0.48)] == [0, 0, 0, 1, 1]
