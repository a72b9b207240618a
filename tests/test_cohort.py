"""Manifests of cohorts: what is read, and errors that name the slide."""

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal

from proportion_ssl.datasets import load_cohort

HEADER = "slide,annotation,role,acinar,solid\n"


@pytest.fixture
def write(tmp_path):
    for name in ("a.tif", "b.tif", "c.tif", "a.geojson"):
        (tmp_path / name).write_bytes(b"")

    def write(text, encoding="utf-8"):
        (tmp_path / "cohort.csv").write_text(text, encoding=encoding)
        return tmp_path / "cohort.csv"

    return write


def test_roles_paths_and_shares(write, tmp_path):
    cohort = load_cohort(
        write(HEADER + "a.tif,a.geojson,labeled,,\nb.tif,,bag,70,30\nc.tif,,test,33.3,66.6\n")
    )
    assert (cohort.labeled, cohort.bags, cohort.test) == (["a"], ["b"], ["c"])
    assert cohort.classes == ["acinar", "solid"]
    assert cohort.slides.loc["a", "path"] == tmp_path / "a.tif"
    assert cohort.slides.loc["a", "annotation"] == tmp_path / "a.geojson"
    assert cohort.slides.loc["b", "annotation"] is None
    assert cohort.slides["mpp"].isna().all()
    assert_allclose(cohort.proportions, [[np.nan, np.nan], [0.7, 0.3], [0.333, 0.666]])


def test_a_table_from_a_german_spreadsheet(write):
    text = "slide;annotation;role;mpp;acinar;solid\na.tif;;bag;0,25;62,5;37,5\n"
    cohort = load_cohort(write(text, encoding="utf-8-sig"))
    assert cohort.slides.loc["a", "mpp"] == 0.25
    assert_array_equal(cohort.proportions, [[0.625, 0.375]])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no slides"),
        (HEADER, "lists no slides"),
        ("slide,role,acinar\na.tif,bag,100\n", "no column 'annotation'"),
        ("slide,annotation,role\na.tif,,bag\n", "no class columns"),
        ("slide,annotation,role,x,x\na.tif,,bag,50,50\n", "name of its own"),
        (HEADER + "a.tif,,bag,100\n", "line 2: 4 cells for 5 columns"),
        (HEADER + "a.tif,,bag,70,30\na.tif,,test,,\n", "'a' is listed more than once"),
        (HEADER + "a.tif,,train,70,30\n", "'a': role is 'train'"),
        (HEADER + "a.tif,,labeled,70,30\n", "'a' is labeled but has no annotation"),
        (HEADER + "a.tif,,bag,,\n", "'a' is a bag but has no percentages"),
        (HEADER + "a.tif,,bag,100,\n", "'a': class 'solid' is empty"),
        (HEADER + "a.tif,,bag,0.7,0.3\n", "'a': the classes sum to 1, not 100.*Give percent"),
        (HEADER + "a.tif,,bag,70,20\n", "'a': the classes sum to 90"),
        (HEADER + "a.tif,,bag,110,-10\n", "'a': class 'solid' is negative"),
        (HEADER + "a.tif,,bag,most,30\n", "'a': acinar is 'most', not a number"),
        (HEADER + "a.tif,,bag,nan,100\n", "'a': acinar is 'nan', not a number"),
        ("slide,annotation,role,mpp,x\na.tif,,bag,0,100\n", "'a': mpp is 0"),
    ],
)
def test_wrong_manifests(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_cohort(write(text))


@pytest.mark.parametrize("row", ["missing.tif,,bag,70,30\n", "a.tif,missing.json,bag,70,30\n"])
def test_missing_files(write, row):
    with pytest.raises(FileNotFoundError, match=r"there is no (slide|annotation) file .*missing"):
        load_cohort(write(HEADER + row))


def test_not_utf8(write):
    with pytest.raises(ValueError, match="not UTF-8"):
        load_cohort(write(HEADER + "ä.tif,,bag,70,30\n", encoding="latin-1"))


def test_no_manifest(tmp_path):
    with pytest.raises(FileNotFoundError):
        load_cohort(tmp_path / "cohort.csv")
