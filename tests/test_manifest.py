"""Manifests: what people write is understood, what cannot be right is named."""

import math

import numpy as np
import pandas as pd
import pytest

from proportion_ssl import Bags, load_cohort
from proportion_ssl.manifest import Cohort, read_resolutions

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
    with pytest.raises(ValueError, match=r"read as classes: age, solid.*\n.*'age' .*sums to 150"):
        load_cohort(write("slide,role,age,solid\nb.svs,bag,50,100\n"))
    cohort = load_cohort(write(text), classes=["solid", "acinar"])
    assert cohort.classes == ["solid", "acinar"]
    assert cohort.proportions.loc["b"].tolist() == [0.6, 0.4]
    with pytest.raises(ValueError, match=r"no class column.*lepidic(?!.*Did you mean)"):
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
        ("slide,role,solid,Solid\nb.svs,bag,50,50\n", "'solid' and 'Solid' differ only in case"),
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
        (
            "slide,role,mpp,solid\nb.svs,bag,500,100\n",
            r"line 2: slide 'b' has mpp '500'.*0\.02 to 20",
        ),
        ("slide,role,mpp,solid\nb.svs,bag,0.0025,100\n", r"mpp '0\.0025'"),
        (HEADER + "..,,bag,50,50\n", r"line 2: '\.\.' names no file"),
        (HEADER + "sub/..,,bag,50,50\n", "names no file"),
        (HEADER + "/,,bag,50,50\n", "names no file"),
        (HEADER + f"{'b' * 201}.svs,,bag,50,50\n", "name of 201 characters"),
        (HEADER + "b\x07.svs,,bag,50,50\n", "control characters"),
        (
            HEADER + "b.svs,,bag,50,50\nB.svs,,bag,50,50\n",
            r"(?s)'b' \(line 2\), 'B' \(line 3\).*same",
        ),
        (
            HEADER + "caf\u00e9.svs,,bag,50,50\ncafe\u0301.svs,,bag,50,50\n",
            "some file systems treat as the same",
        ),
        (HEADER + 'b.svs,,bag,"50,50\n', "line 2 cannot be read as a table.*not\\s+closed"),
        (HEADER + f"b.svs,,bag,{'5' * 200_000},50\n", "line 2 cannot be read as a table"),
        (HEADER + "b.svs,,bag,+,100\n", r"'b' has '\+' for class 'acinar'"),
        (HEADER + "b.svs,,bag,80-70,25\n", "'b' has '80-70' for class 'acinar'"),
        (HEADER + "b.svs,,bag,90-120,5\n", "'b' has '90-120'"),
        (HEADER + "b.svs,,bag,20-Oct,85\n", "'20-Oct'.*format the column as text"),
        (
            HEADER + "b.svs,,bag,10-20,40-60\n",
            r"slide 'b' sum to at most 80 \(acinar 10 to 20, solid 40 to 60\); they must sum to 100",
        ),
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
    with pytest.raises(ValueError, match="and 68 more"):
        load_cohort(write(HEADER + rows))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEADER + "d.svs,,bag,50,50\n", "slide 'd': file not found: .*d.svs"),
        (
            HEADER + "a.svs,d.geojson,labeled,50,50\n",
            "slide 'a': annotation file not found: .*d.geojson",
        ),
    ],
)
def test_missing_files_are_named(write, text, message):
    with pytest.raises(FileNotFoundError, match=message):
        load_cohort(write(text))


def test_missing_slides_may_be_those_of_features(write):
    """The remedy for a cohort of features is named where slides are missing, not where outlines are."""
    with pytest.raises(FileNotFoundError, match=r"need_slides=False\).* --features"):
        load_cohort(write(HEADER + "d.svs,,bag,50,50\n"))
    with pytest.raises(FileNotFoundError, match=r"d\.geojson\.$"):
        load_cohort(write(HEADER + "a.svs,d.geojson,labeled,50,50\n"))


def test_missing_files_are_named_beside_other_problems(write):
    text = HEADER + "d.svs,,bag,50,50\na.svs,a.geojson,marked,50,50\n"
    with pytest.raises(ValueError, match=r"(?s)has role 'marked'.*file not found: .*d\.svs"):
        load_cohort(write(text))


def test_missing_manifest_and_foreign_encoding(write, tmp_path):
    with pytest.raises(FileNotFoundError, match=r"file not found: .*nowhere\.csv"):
        load_cohort(tmp_path / "nowhere.csv")
    with pytest.raises(ValueError, match=r"not UTF-8 text.*line 2.*CSV UTF-8"):
        load_cohort(write(GOOD.replace("a.svs", "ä.svs"), "cp1252"))
    with pytest.raises(ValueError, match=r"is UTF-16 text.*CSV UTF-8"):
        load_cohort(write(GOOD, "utf-16"))
    with pytest.raises(ValueError, match=r"zero bytes.*CSV UTF-8"):
        load_cohort(write(GOOD, "utf-16-le"))
    with pytest.raises(ValueError, match=r"is a folder"):
        load_cohort(tmp_path)
    (tmp_path / "cohort.xlsx").write_bytes(b"PK\x03\x04 and so on")
    with pytest.raises(ValueError, match=r"Excel.*CSV UTF-8"):
        load_cohort(tmp_path / "cohort.xlsx")


# --- rows ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("mark", ["\v", "\f", "\x1c", "\x85", "\u2028", "\u2029"])
def test_marks_that_are_no_line_ends_stay_in_their_field(write, mark):
    text = HEADER.replace("role", "role,remark") + f'b.svs,,bag,"two{mark}lines",62.5,37.5\n'
    cohort = load_cohort(write(text), classes=["acinar", "solid"])
    assert cohort.proportions.loc["b"].tolist() == [0.625, 0.375]


def test_lines_are_counted_where_fields_have_several(write):
    text = HEADER.replace("role", "role,remark") + (
        'a.svs,a.geojson,labeled,"one\r\ntwo\nthree",,\nb.svs,,bag,,60,50\n'
    )
    with pytest.raises(ValueError, match="line 5: the percentages of slide 'b'"):
        load_cohort(write(text), classes=["acinar", "solid"])


def test_a_separator_within_a_quoted_name_of_a_column_is_none(write):
    text = 'slide;role;"a, b, c, d"\nb.svs;bag;100\n'
    assert load_cohort(write(text)).classes == ["a, b, c, d"]


@pytest.mark.slow
def test_rows_of_several_blocks_are_all_read(write, tmp_path):
    n = 5_001  # more than one block
    rows = "".join(f"s{k}.svs,,bag,{k % 100},{100 - k % 100}\n" for k in range(n))
    for k in range(n):
        (tmp_path / f"s{k}.svs").touch()
    cohort = load_cohort(write(HEADER + rows))
    assert cohort.bags == [f"s{k}" for k in range(n)]
    expected = (np.arange(n) % 100) / 100
    np.testing.assert_array_equal(cohort.proportions["acinar"], expected)


# --- percentages --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "lower", "upper"),
    [
        ("70-80", 70, 80),
        ("70\u201380", 70, 80),
        ("70 \u2014 80 %", 70, 80),
        ("70%-80%", 70, 80),
        ("70 to 80", 70, 80),
        ("72,5-77,5", 72.5, 77.5),
        ("75\u00b15", 70, 80),
        ("75 +/- 5", 70, 80),
        ("<5", 0, 5),
        ("\u2264 5%", 0, 5),
        ("<= 5", 0, 5),
        (">90", 90, 100),
        ("\u226590", 90, 100),
        ("~10", 5, 15),
        ("\u2248 10 %", 5, 15),
        ("ca. 10", 5, 15),
        ("about 10", 5, 15),
        ("~3", 0, 8),
        ("~98", 93, 100),
        ("trace", 0, 5),
        ("Traces", 0, 5),
        ("0-100", 0, 100),
        ("70", 70, 70),
        ("1e1", 10, 10),
    ],
)
def test_percentages_as_people_write_them(write, text, lower, upper):
    """The other class may be anything, so that every text is admitted."""
    cohort = load_cohort(write(HEADER + f'b.svs,,bag,"{text}",0-100\n'))
    ends = cohort.lower.at["b", "acinar"], cohort.upper.at["b", "acinar"]
    assert ends == pytest.approx((lower / 100, upper / 100), abs=1e-12)
    shares = cohort.proportions.loc["b"]
    assert shares.sum() == pytest.approx(1, abs=1e-9)
    assert (cohort.lower.loc["b"] <= shares).all() and (shares <= cohort.upper.loc["b"]).all()


def test_proportions_lie_within_intervals_and_sum_to_one(write):
    header = "slide,role,x,y,z\n"
    cohort = load_cohort(write(header + "b.svs,bag,70-80,<5,~10\n"))
    # 75 + 2.5 + 10 is 12.5 too little; the ends are 5, 2.5 and 5 away, together 12.5
    np.testing.assert_allclose(cohort.proportions.loc["b"], [0.80, 0.05, 0.15])
    cohort = load_cohort(write(header + "b.svs,bag,70,<5,26-30\n"))
    assert cohort.proportions.loc["b", "x"] == 0.7, "a plain number is exact"
    np.testing.assert_allclose(cohort.proportions.loc["b", "y":"z"].sum(), 0.3)
    assert cohort.lower.loc["b"].tolist() == [0.7, 0.0, 0.26]


def test_numbers_without_a_stated_error_are_exact(write):
    cohort = load_cohort(write(GOOD))
    pd.testing.assert_frame_equal(cohort.lower, cohort.proportions)
    pd.testing.assert_frame_equal(cohort.upper, cohort.proportions)


@pytest.mark.parametrize("row", ["60,35", "60,45", "47.5,47.5"])
def test_rows_off_100_need_a_stated_error(write, row):
    text = HEADER + f"b.svs,,bag,{row}\n"
    with pytest.raises(ValueError, match=r"sum to (95|105); they must .*rounding_step="):
        load_cohort(write(text))
    for stated in ({"rounding_step": 0.05}, {"standard_deviation": 0.05}):
        cohort = load_cohort(write(text), **stated)
        written = np.array([float(share) / 100 for share in row.split(",")])
        half = stated.get("standard_deviation", 0.025)
        np.testing.assert_allclose(cohort.lower.loc["b"], written - half, atol=1e-9)
        np.testing.assert_allclose(cohort.upper.loc["b"], written + half, atol=1e-9)
        assert cohort.proportions.loc["b"].sum() == pytest.approx(1, abs=1e-9)


def test_a_stated_error_is_for_plain_numbers_and_zeros_as_in_bags(write):
    text = HEADER + "b.svs,,bag,0,100\nc.svs,,bag,70-80,25\n"
    rounded = load_cohort(write(text), rounding_step=0.1)
    np.testing.assert_allclose(rounded.upper.loc["b"], [0.05, 1.0], atol=1e-9)
    np.testing.assert_allclose(rounded.lower.loc["c"], [0.7, 0.2], atol=1e-9)
    noisy = load_cohort(write(text), standard_deviation=0.1)
    assert noisy.upper.loc["b"].tolist() == [0.0, 1.0], "what was not seen stays so"
    np.testing.assert_allclose(noisy.lower.loc["c"], [0.7, 0.15], atol=1e-9)
    with pytest.raises(
        ValueError,
        match=r"sum to at most 90 \(acinar 35 to 45, solid 35 to 45\); they must sum to 100",
    ):
        load_cohort(write(HEADER + "b.svs,,bag,40,40\n"), rounding_step=0.1)


def test_a_class_in_another_case_is_suggested(write):
    with pytest.raises(ValueError, match=r"no class column 'Solid'.* Did you mean 'solid'\?"):
        load_cohort(write(GOOD), classes=["acinar", "Solid"])
    with pytest.raises(ValueError, match=r"no class column 'lepidic'; its header reads .*\]\.$"):
        load_cohort(write(GOOD), classes=["acinar", "lepidic"])


@pytest.mark.parametrize(
    ("stated", "error", "message"),
    [
        (
            {"rounding_step": 5},
            ValueError,
            r"rounding_step must be in \(0, 0\.5\]; got 5\. .* percent",
        ),
        ({"rounding_step": 1}, ValueError, r"in \(0, 0\.5\]; got 1"),
        ({"rounding_step": 0}, ValueError, r"in \(0, 0\.5\]; got 0"),
        ({"standard_deviation": -0.1}, ValueError, r"in \[0, 0\.5\]; got -0\.1"),
        ({"standard_deviation": 10}, ValueError, r"in \[0, 0\.5\]; got 10"),
        ({"standard_deviation": math.nan}, ValueError, r"in \[0, 0\.5\]; got nan"),
        ({"standard_deviation": "5"}, TypeError, "give a number"),
        ({"rounding_step": 0.1, "standard_deviation": 0.1}, ValueError, "in one way"),
    ],
)
def test_errors_that_cannot_be_meant(write, stated, error, message):
    with pytest.raises(error, match=message):
        load_cohort(write(GOOD), **stated)


def test_records_of_a_cohort_are_accepted_by_bags(write):
    cohort = load_cohort(write(HEADER + "b.svs,,bag,70-80,~20\nc.svs,,bag,>90,trace\n"))
    cases = cohort.bag_cases
    bags = Bags(
        [np.zeros((2, 1))] * 2,
        cases,
        cohort.proportions.loc[cases],
        lower=cohort.lower.loc[cases],
        upper=cohort.upper.loc[cases],
    )
    np.testing.assert_allclose(bags.upper, [[0.8, 0.25], [1.0, 0.05]])


# --- columns that are no classes ----------------------------------------------------------------

EXTRA = "slide,role,{},acinar,solid\n"
FOUR = [f"s{k}.svs,bag,{{}},{10 * k + 10},{90 - 10 * k}\n" for k in range(4)]


def extra_column(name, values):
    rows = (row.format(value) for row, value in zip(FOUR, values, strict=True))
    return EXTRA.format(name) + "".join(rows)


@pytest.mark.parametrize(
    ("name", "values", "message"),
    [
        ("age", [61, 70, 55, 48], "'age' does not look like a class: without it .*sums to 161;"),
        ("weight", [81, 170, 155, 92], "slide 's1' has '170' for class 'weight'"),
        ("recurrence", [0, 1, 1, 0], "'recurrence' does not look like a class: without it"),
        ("score", [0.5, 0.25, 0, 0.5], "'score' does not look like a class: without it"),
        ("empty", [0, 0, 0, 0], "'empty' does not look like a class: it is 0 in every record"),
        (
            "remark",
            ["", "", "", ""],
            "'remark' does not look like a class: it is 0 in every record",
        ),
        (
            "patient",
            ["P1", "P2", "P3", "P4"],
            "slide 's0' has 'P1' for class 'patient' .*and|1 more",
        ),
    ],
)
def test_an_extra_column_is_named_once_with_the_remedy(write, tmp_path, name, values, message):
    for k in range(4):
        (tmp_path / f"s{k}.svs").touch()
    text = extra_column(name, values)
    with pytest.raises(ValueError, match=message) as caught:
        load_cohort(write(text))
    said = str(caught.value).splitlines()
    assert len(said) == 2 and f"'{name}'" in said[1], "one line for the column, none for its rows"
    assert "classes=[" in said[1]
    assert load_cohort(write(text), classes=["acinar", "solid"]).classes == ["acinar", "solid"]


@pytest.mark.parametrize("values", [[61, 70, 55, 48], [1, 0, 1, 1], [0.5, 0.25, 0, 0.5]])
def test_an_extra_column_that_slides_without_percentages_have_too(write, tmp_path, values):
    text = extra_column("score", values)
    for k in range(6):
        (tmp_path / f"s{k}.svs").touch()
        (tmp_path / f"t{k}.svs").touch()
        text += f"t{k}.svs,test,{values[k % 3]},,\n"
    with pytest.raises(
        ValueError, match="'score' does not look like a class: without it"
    ) as caught:
        load_cohort(write(text))
    (said,) = str(caught.value).splitlines()[1:]
    assert "with it slide 's" in said
    assert load_cohort(write(text), classes=["acinar", "solid"]).classes == ["acinar", "solid"]


@pytest.mark.parametrize("name", ["non-cancer", "vague"])
@pytest.mark.parametrize("named", [False, True])
def test_names_of_other_outlines_are_no_classes(write, name, named):
    path = write(f"slide,annotation,role,a,b,{name}\na.tif,a.xml,labeled,,,\nb.tif,,bag,40,30,30\n")
    with pytest.raises(ValueError, match=f"'{name}' as a class.*divide the other percentages"):
        load_cohort(path, classes=["a", "b", name] if named else None)


def test_several_extra_columns_are_named_at_once(write):
    header = "slide,role,age,score,zero,acinar,solid\n"
    rows = "".join(
        f"s{k}.svs,bag,{50 + k},{3 * k},0,{10 * k},{100 - 10 * k}\n" for k in range(1, 6)
    )
    with pytest.raises(ValueError, match="does not look like a class") as caught:
        load_cohort(write(header + rows))
    *said, absent = str(caught.value).split("\n  - ")[1:5]
    assert [line.split("'")[1] for line in said] == ["age", "score", "zero"]
    assert "file not found" in absent
    assert all("classes=['acinar', 'solid']" in line for line in said)


def test_a_class_without_a_record_is_taken_where_it_is_named(write):
    text = extra_column("lepidic", [0, 0, 0, 0]).replace("s0.svs", "b.svs").split("s1.svs")[0]
    cohort = load_cohort(write(text), classes=["lepidic", "acinar", "solid"])
    assert cohort.proportions.loc["b"].tolist() == [0.0, 0.1, 0.9]


def test_columns_without_any_record_name_classes(write):
    cohort = load_cohort(write(HEADER + "a.svs,a.geojson,labeled,,\nc.svs,,test,,\n"))
    assert cohort.classes == ["acinar", "solid"]


def test_rows_rounded_to_whole_percents_are_no_sign_of_a_foreign_column(write, tmp_path):
    header = "slide,role,x,y,z\n"
    shares = ["33,33,33", "60,40,1", "50,25,25", "10,45,45", "34,33,33"]
    for k in range(5):
        (tmp_path / f"s{k}.svs").touch()
    rows = "".join(f"s{k}.svs,bag,{row}\n" for k, row in enumerate(shares))
    assert load_cohort(write(header + rows)).classes == ["x", "y", "z"]


def test_a_slip_in_one_cell_leaves_the_column_a_class(write):
    rows = "a.svs,,bag,50,50\nb.svs,,bag,5o,50\nc.svs,,bag,20,80\n"
    with pytest.raises(ValueError, match="line 3: slide 'b' has '5o' for class 'acinar'") as caught:
        load_cohort(write(HEADER + rows))
    assert len(str(caught.value).splitlines()) == 2


# --- cases --------------------------------------------------------------------------------------

CASES = "slide,annotation,role,case,acinar,solid\n"


def test_without_a_column_every_slide_is_a_case(write):
    cohort = load_cohort(write(GOOD))
    assert cohort.cases.tolist() == ["a", "b", "c"] == cohort.proportions.index.tolist()
    assert cohort.bag_cases == ["b"] and cohort.case_slides("b") == ["b"]


@pytest.mark.parametrize("second", ["60,40", ","])
def test_a_record_is_that_of_the_case(write, second):
    text = CASES + f"b.svs,,bag,P1,60,40\nc.svs,,bag,P1,{second}\na.svs,a.geojson,labeled,P2,,\n"
    cohort = load_cohort(write(text))
    assert cohort.bag_cases == ["P1"]
    assert cohort.case_slides("P1") == ["b", "c"] and cohort.case_of("c") == "P1"
    assert cohort.proportions.index.tolist() == ["P1", "P2"]
    assert cohort.proportions.loc["P1"].tolist() == [0.6, 0.4]
    assert cohort.proportions.loc["P2"].isna().all()
    assert cohort.slides["case"].tolist() == ["P1", "P1", "P2"]
    with pytest.raises(KeyError, match="no case 'P3'"):
        cohort.case_slides("P3")


def test_the_only_record_may_stand_in_any_row(write):
    text = CASES + "b.svs,,bag,P1,,\nc.svs,,bag,P1,60,40\n"
    assert load_cohort(write(text)).proportions.loc["P1"].tolist() == [0.6, 0.4]


def test_a_slide_without_a_case_is_its_own(write):
    text = CASES + "b.svs,,bag,,60,40\nc.svs,,bag,P1,50,50\n"
    assert load_cohort(write(text)).bag_cases == ["b", "P1"]


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (
            "b.svs,,bag,P1,60,40\nc.svs,,bag,P1,50,50\n",
            r"rows of case 'P1' contradict .*'b' \(line 2\), 'c' \(line 3\)",
        ),
        (
            "b.svs,,bag,P1,60,40\nc.svs,,bag,P1,60,~40\n",
            "rows of case 'P1' contradict",
        ),
        (
            "a.svs,a.geojson,labeled,P1,,\nc.svs,,test,P1,,\nb.svs,,bag,P2,60,40\n",
            r"'P1' is used for training \(slide 'a' \(line 2\)\) and for testing \(slide 'c' \(line 3\)\)",
        ),
        (
            "b.svs,,bag,P1,60,40\nc.svs,,test,P1,60,40\n",
            "'P1' is used for training .*'b'.*for testing .*'c'",
        ),
        (
            "a.svs,a.geojson,labeled,P1,,\nb.svs,,bag,P1,60,40\n",
            r"outlined slides \(slide 'a' .*and bags \(slide 'b' .*remove one of the two",
        ),
        ("b.svs,,bag,P1,,\nc.svs,,bag,P1,,\n", "'b' is a bag but has no proportions.*case 'P1'"),
        ("b.svs,,bag,p1,60,40\nc.svs,,bag,P1,60,40\n", "cases 'p1' and 'P1' .*one way"),
        ("b.svs,,bag,,60,40\nc.svs,,test,b,60,40\n", "'b' has no case, but 'b' is the case of"),
    ],
    ids=[
        *("contradiction", "interval against number", "labeled and test", "bag and test"),
        *("labeled and bag", "no record", "spelling", "slide named like a case"),
    ],
)
def test_cases_that_leak_or_contradict_are_refused(write, rows, message):
    with pytest.raises(ValueError, match=message):
        load_cohort(write(CASES + rows))


def test_very_many_missing_files_are_counted(write):
    rows = "".join(f"x{k}.svs,,bag,50,50\n" for k in range(1_100))
    with pytest.raises(FileNotFoundError, match="and 989 more"):  # 1,000 named, 12 of them shown
        load_cohort(write(HEADER + rows))


def test_resolutions_of_a_table_beside_the_slides(write, tmp_path):
    table = tmp_path / "metadata.csv"
    table.write_text(
        "File Name;Class;Microns Per Pixel\nsome/b.svs;Solid;0,5039\nc.tif;;0.25\nd.svs;;\n"
    )
    assert read_resolutions(table) == {"b": 0.5039, "c": 0.25}
    text = "slide,annotation,role,mpp,solid\na.svs,a.geojson,labeled,,\nb.svs,,bag,,100\nc.svs,,test,1.5,\n"
    cohort = load_cohort(write(text), resolutions=table)
    assert cohort.slides["mpp"].tolist() == pytest.approx([np.nan, 0.5039, 1.5], nan_ok=True)
    table.write_text("wsi,mpp\nb.svs,0.25\n")
    assert read_resolutions(table) == {"b": 0.25}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("File,Microns Per Pixel\nb.svs,1\n", "no column of file names"),
        ("wsi,resolution\nb.svs,1\n", r"no column of microns per pixel \(mpp"),
        ("wsi,mpp\nb.svs,500\n", "line 2: slide 'b' has '500' microns per pixel"),
        ("wsi,mpp\nb.svs,half\n", "line 2: slide 'b' has 'half' microns"),
        (
            "wsi,mpp\nb.svs,0.5\nb.tif,0.25\n",
            "line 3: slide 'b' has 0.25 microns per pixel, but 0.5",
        ),
    ],
)
def test_tables_of_resolutions_that_cannot_be_right(tmp_path, text, message):
    table = tmp_path / "metadata.csv"
    table.write_text(text)
    with pytest.raises(ValueError, match=message):
        read_resolutions(table)


@pytest.mark.parametrize(
    ("header", "message"),
    [
        (
            "slide,annotations,role,acinar,solid\n",
            "'annotations'. Did you mean 'annotation'. .*--classes",
        ),
        ("slide,annotation,rol,acinar,solid\n", "no column 'role'.*Did you mean 'rol'"),
        ("slides,annotation,role,acinar,solid\n", "no column 'slide'.*Did you mean 'slides'"),
        ("slide,annotation,role,cases,acinar,solid\n", "'cases'. Did you mean 'case'"),
    ],
)
def test_misspelled_columns_are_recognized(write, header, message):
    with pytest.raises(ValueError, match=message):
        load_cohort(write(header + "b.svs,,bag,30,70\n"))


def test_misspelled_roles_and_suffixes_are_pointed_out(write, tmp_path):
    (tmp_path / "a.geojson").touch()
    (tmp_path / "b.svs").touch()
    text = "slide,role,annotation,solid,acinar\na.svs,label,A.geojsn,,\nb.svs,bags,,50,50\n"
    (tmp_path / "a.svs").touch()
    with pytest.raises(ValueError, match=r"not found|roles are") as caught:
        load_cohort(write(text))
    message = str(caught.value)
    assert "Did you mean 'labeled'?" in message
    assert "Did you mean 'bag'?" in message
    assert "A.geojsn (the folder has 'a.geojson')" in message
