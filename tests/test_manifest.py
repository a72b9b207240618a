"""Manifests: what people write is understood, what cannot be right is named."""

import math

import numpy as np
import pandas as pd
import pytest

from proportion_ssl import load_cohort
from proportion_ssl.manifest import Cohort

HEADER = "slide,annotation,role,acinar,solid\n"
GOOD = HEADER + "a.svs,a.geojson,labeled,,\nb.svs,,bag,62.5,37.5\nc.svs,c.geojson,test,100,\n"


@pytest.fixture
def write(tmp_path):
    """Write a manifest beside the files that it usually names; return its path."""
    for name in ("a.svs", "a.geojson", "b.svs", "c.svs", "c.geojson"):
        (tmp_path / name).touch()

    def write(text, encoding="utf-8"):
        path = tmp_path / "cohort.csv"
        path.write_bytes(text.encode(encoding))
        return path

    return write


def test_reads_slides_roles_and_proportions(write, tmp_path):
    cohort = load_cohort(write(GOOD))
    assert isinstance(cohort, Cohort)
    assert cohort.slides.index.tolist() == ["a", "b", "c"]
    assert (cohort.labeled, cohort.bags, cohort.test) == (["a"], ["b"], ["c"])
    assert cohort.classes == ["acinar", "solid"] == cohort.proportions.columns.tolist()
    assert cohort.slides.loc["a", "path"] == tmp_path / "a.svs"
    assert cohort.slides.loc["a", "annotation"] == tmp_path / "a.geojson"
    assert cohort.slides.loc["b", "annotation"] is None
    assert cohort.slides["mpp"].isna().all()
    assert cohort.proportions.loc["a"].isna().all()
    assert cohort.proportions.loc["b"].tolist() == [0.625, 0.375]
    # an empty cell beside a filled one is a class that does not occur
    assert cohort.proportions.loc["c"].tolist() == [1.0, 0.0]


@pytest.mark.parametrize(
    ("text", "encoding"),
    [
        (GOOD, "utf-8-sig"),
        (GOOD.replace("\n", "\r\n"), "utf-8"),
        (GOOD.replace(",", ";").replace("62.5;37.5", "62,5;37,5"), "utf-8-sig"),
        (GOOD.replace(",", "\t"), "utf-8"),
        ("sep=;\r\n" + GOOD.replace(",", ";").replace(".5", ",5"), "utf-8"),
        (GOOD.replace("62.5,37.5", '"62,5","37,5"'), "utf-8"),
        (GOOD.replace("62.5,37.5", "62.5%,37.5 %"), "utf-8"),
        (GOOD.replace("\n", ",,\n"), "utf-8"),
        (GOOD.replace("\n", "\n,,,,\n\n"), "utf-8"),
        (GOOD.replace("slide,annotation,role", "Slide, Annotation ,ROLE"), "utf-8"),
        (GOOD.replace("bag", "Bag "), "utf-8"),
    ],
    ids=[
        "byte order mark",
        "windows line ends",
        "semicolon and decimal comma",
        "tab",
        "separator line",
        "quoted decimal comma",
        "percent signs",
        "trailing empty columns",
        "empty lines",
        "spelling of columns",
        "spelling of roles",
    ],
)
def test_spreadsheet_dialects_read_alike(write, text, encoding):
    expected = load_cohort(write(GOOD))
    found = load_cohort(write(text, encoding))
    pd.testing.assert_frame_equal(found.slides, expected.slides)
    pd.testing.assert_frame_equal(found.proportions, expected.proportions)


def test_absolute_paths_and_suffixes(write, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    slide = other / "patient 7, block 2.ome.tif"
    slide.touch()
    cohort = load_cohort(write(f'slide,role,solid\n"{slide}",test,\n'))
    assert cohort.test == ["patient 7, block 2.ome"]
    assert cohort.slides["path"].tolist() == [slide]


def test_mpp_column_is_optional_and_may_have_gaps(write):
    text = "slide,annotation,role,mpp,solid\na.svs,a.geojson,labeled,0.2527,\nb.svs,,bag,,100\n"
    mpp = load_cohort(write(text)).slides["mpp"]
    assert mpp["a"] == 0.2527
    assert math.isnan(mpp["b"])


def test_rounded_percentages_are_kept_as_written(write):
    header = "slide,role,x,y,z\n"
    cohort = load_cohort(write(header + "b.svs,bag,33,33,33\na.svs,bag,34,34,33\n"))
    np.testing.assert_array_equal(cohort.proportions, [[0.33, 0.33, 0.33], [0.34, 0.34, 0.33]])


def test_classes_choose_and_order_columns(write):
    text = "slide,role,patient,acinar,solid\nb.svs,bag,P07,40,60\n"
    with pytest.raises(ValueError, match=r"(?s)'b' has 'P07' for class 'patient'.*classes="):
        load_cohort(write(text))
    with pytest.raises(ValueError, match=r"read as classes: age, solid.*\n.*sum to 150"):
        load_cohort(write("slide,role,age,solid\nb.svs,bag,50,100\n"))
    cohort = load_cohort(write(text), classes=["solid", "acinar"])
    assert cohort.classes == ["solid", "acinar"]
    assert cohort.proportions.loc["b"].tolist() == [0.6, 0.4]
    with pytest.raises(ValueError, match=r"no class column.*lepidic"):
        load_cohort(write(text), classes=["solid", "lepidic"])
    with pytest.raises(ValueError, match="twice"):
        load_cohort(write(text), classes=["solid", "solid"])
    with pytest.raises(TypeError, match="list of column names"):
        load_cohort(write(text), classes="solid")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is empty"),
        ("\n \n", "is empty"),
        (HEADER, "header but no slides"),
        ("slide,annotation,acinar\nb.svs,,100\n", "no column 'role'"),
        ("file,role\nb.svs,test\n", "no column 'slide'"),
        ("slide,role,solid,solid\nb.svs,bag,50,50\n", r"same name: \['solid'\]"),
        ("slide,role,Role\nb.svs,bag,bag\n", r"same name: \['role', 'Role'\]"),
        ("slide,role,,solid\nb.svs,bag,,100\n", "column 3 .* has no name"),
        (HEADER + "b.svs,,bag,60,50\n", "slide 'b' sum to 110; they must sum to 100 within 1"),
        (HEADER + "b.svs,,bag,60,38.9\n", "slide 'b' sum to 98.9"),
        (HEADER + "b.svs,,bag,0.6,0.4\n", "slide 'b' sum to 1; these look like fractions: give"),
        (HEADER + "b.svs,,bag,110,-10\n", "slide 'b' has '-10' for class 'solid'"),
        (HEADER + "b.svs,,bag,most,40\n", "slide 'b' has 'most' for class 'acinar'"),
        (HEADER + "b.svs,,bag,nan,100\n", "slide 'b' has 'nan'"),
        (HEADER + "b.svs,,bag,,\n", "slide 'b' is a bag but has no proportions"),
        ("slide,role\nb.svs,bag\n", "slide 'b' is a bag but has no proportions"),
        (HEADER + "a.svs,,labeled,50,50\n", "slide 'a' is labeled but has no annotation"),
        ("slide,role,solid\na.svs,labeled,100\n", "slide 'a' is labeled but has no annotation"),
        (HEADER + "b.svs,,train,50,50\n", "slide 'b' has role 'train'; roles are 'labeled', 'bag'"),
        (HEADER + "b.svs,,,50,50\n", "slide 'b' has role ''"),
        (HEADER + ",,bag,50,50\n", "line 2: the slide column is empty"),
        (HEADER + "b.svs,,bag,50,50\nb.tif,,bag,50,50\n", r"'b' occurs twice \(lines 2 and 3\)"),
        (HEADER + "b.svs,,bag,62,5,37,5\n", "line 2 has 7 fields but the header has 5"),
        ("slide,role,mpp,solid\nb.svs,bag,20x,100\n", "slide 'b' has mpp '20x'"),
        ("slide,role,mpp,solid\nb.svs,bag,0,100\n", "slide 'b' has mpp '0'"),
    ],
)
def test_bad_manifest_is_refused_with_the_reason(write, text, message):
    with pytest.raises(ValueError, match=message):
        load_cohort(write(text))


def test_every_bad_row_is_named_at_once(write):
    text = HEADER + "a.svs,,labeled,50,50\nb.svs,,bag,60,50\nc.svs,,tset,50,50\n"
    with pytest.raises(ValueError, match=r"(?s)slide 'a'.*slide 'b'.*slide 'c'"):
        load_cohort(write(text))


def test_a_long_list_of_problems_is_cut_short(write):
    rows = "".join(f"s{k}.svs,,bag,,\n" for k in range(40))
    with pytest.raises(ValueError, match="and 28 more"):
        load_cohort(write(HEADER + rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "d.svs,,bag,50,50\n", "slide 'd' .*no file .*d.svs"),
        (HEADER + "a.svs,d.geojson,labeled,50,50\n", "slide 'a' .*no annotation file .*d.geojson"),
    ],
)
def test_missing_files_are_named(write, text, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_cohort(write(text))


def test_missing_manifest_and_foreign_encoding(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"there is no manifest .*nowhere\.csv"):
        load_cohort(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"not UTF-8 text.*CSV UTF-8"):
        load_cohort(write(GOOD.replace("a.svs", "ä.svs"), "cp1252"))
