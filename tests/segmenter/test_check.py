"""A look at a cohort: everything is opened, all problems come at once, nothing is computed."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from cohorts import CLASSES, MPP, PATCH, N, layout, write_cohort, write_one, write_outlines
from slide_files import write_slide

from proportion_ssl import load_cohort
from proportion_ssl.segmenter import CohortCheck, check_cohort

HOW = {"magnification": 2.5, "patch_size": PATCH}


@pytest.fixture
def folder(tmp_path):
    write_cohort(tmp_path, labeled=3, bags=3, test=1)
    return tmp_path


def look(folder, **options):
    return check_cohort(folder / "cohort.csv", **{**HOW, **options})


def change(folder, edit):
    """Rewrite the manifest; ``edit`` changes the table, indexed by slide."""
    path = folder / "cohort.csv"
    table = pd.read_csv(path, index_col="slide", dtype=object, keep_default_na=False)
    changed = edit(table)
    (table if changed is None else changed).to_csv(path)


def messages(check, fatal):
    return [str(problem) for problem in check.problems if problem.fatal == fatal]


def only(check, fatal):
    """The only problem there is."""
    assert [problem.fatal for problem in check.problems] == [fatal], check.problems
    return str(check.problems[0])


def test_what_a_good_cohort_shows(folder):
    check = look(folder)
    assert isinstance(check, CohortCheck) and not check.fatal and not check.problems
    slides = check.slides
    assert slides["role"].tolist() == ["labeled"] * 3 + ["bag"] * 3 + ["test"]
    assert (slides[["width", "height"]] == N * PATCH).all(axis=None)
    assert (slides["mpp"] == MPP).all() and (slides["reader"] == "openslide").all()
    assert (slides["n_patches"] == (N - 2) ** 2).all() and (slides["error"] == "").all()
    names = layout(0.3)
    for label in (*CLASSES, "non-cancer"):
        row = check.outlines.loc[("labeled_0", label)]
        assert row["n_patches"] == (names == label).sum()
        expected = (names == label).sum() * (PATCH * MPP / 1000) ** 2
        assert row["area"] == pytest.approx(expected, rel=1e-9) and row["dropped"] == 0
    assert check.records.loc["bag_3", ["slides", "sum", "least", "most"]].tolist() == [
        1,
        *[100] * 3,
    ]
    assert set(check.records.index) == {"bag_3", "bag_4", "bag_5", "test_6"}


def test_text_names_slides_tables_and_counts(folder):
    (folder / "bag_4.tif").write_bytes(b"no slide")
    text = str(look(folder))
    assert "labeled_0" in text and "0.16 mm2" in text and "1 error, 0 warnings" in text
    assert text.splitlines()[-1].startswith("Error: bag_4: ")


@pytest.mark.slow
def test_a_cohort_in_memory_is_looked_at_as_its_manifest(folder):
    cohort = load_cohort(folder / "cohort.csv")
    check, expected = check_cohort(cohort, **HOW), look(folder)
    pd.testing.assert_frame_equal(check.slides, expected.slides)
    pd.testing.assert_frame_equal(check.outlines, expected.outlines)
    with pytest.raises(ValueError, match="pass them to load_cohort"):
        check_cohort(cohort, classes=["acinar"], **HOW)
    (folder / "bag_3.tif").unlink()
    assert "bag_3: file not found: " in only(check_cohort(cohort, **HOW), True)


def test_all_problems_come_at_once(folder):
    (folder / "bag_3.tif").write_bytes(b"no slide")
    (folder / "labeled_1.geojson").write_text("{")
    (folder / "bag_4.tif").unlink()

    def edit(table):
        table.loc["bag_5.tif", "acinar"] = "99"

    change(folder, edit)
    check = look(folder)
    found = messages(check, True)
    assert check.fatal and len(found) == 4
    for part in (
        "line 7: the percentages of slide 'bag_5' sum to",
        "line 6: slide 'bag_4': file not found: ",
        "bag_3: ",
        "labeled_1: outlines: ",
    ):
        assert sum(part in message for message in found) == 1, part
    assert check.slides.index.tolist() == ["labeled_0", "labeled_1", "labeled_2", "bag_3", "test_6"]
    assert (check.slides["error"] != "").tolist() == [False, True, False, True, False]


def test_outlines_by_other_names_are_listed_with_their_number(folder):
    path = folder / "labeled_2.geojson"
    path.write_text(path.read_text().replace('"acinar"', '"Acinar"'))
    message = only(look(folder), True)
    assert message.startswith(
        "Error: labeled_2: outlines are named 'Acinar' (45), which is not a class"
    )
    assert "(acinar, solid)" in message


@pytest.mark.slow
def test_class_that_only_bags_have(folder):
    def edit(table):
        table["lepidic"] = ["", "", "", "10", "0", "0", "0"]
        table.loc["bag_3.tif", ["acinar", "solid"]] = ["40", "50"]

    change(folder, edit)
    message = only(look(folder), True)
    assert "class 'lepidic' is recorded in 1 bag, but no labeled slide shows" in message
    assert only(look(folder, bags_may_teach=True), False) == message.replace("Error", "Warning")


@pytest.mark.slow
def test_class_that_nothing_shows_is_a_warning(folder):
    change(folder, lambda table: table.assign(lepidic=["", "", "", 0, 0, 0, 0]))
    names = ["acinar", "solid", "lepidic"]
    assert "'lepidic' has neither outlines" in only(look(folder, classes=names), False)
    message = messages(look(folder), True)
    assert len(message) == 1 and "'lepidic' does not look like a class" in message[0]


@pytest.mark.parametrize("role", ["test", "labeled", "unheard-of"])
def test_a_rejected_row_has_no_consequences(folder, role):
    """The only test slide, or all labeled slides, are in rows with another error."""

    def edit(table):
        table["mpp"] = ""
        if role == "unheard-of":
            table.loc[["labeled_0.tif", "labeled_1.tif", "labeled_2.tif", "test_6.tif"], "role"] = (
                role
            )
        else:
            table.loc[table["role"] == role, "mpp"] = "500"

    change(folder, edit)
    check = look(folder)
    wrong = f"has role {role!r}" if role == "unheard-of" else "has mpp '500'"
    assert len(check.problems) == {"test": 1, "labeled": 3, "unheard-of": 4}[role]
    assert all(wrong in problem.message for problem in check.problems)


def test_a_class_of_a_rejected_row_is_not_missed(folder):
    """The only slide that shows acinar cannot be used, so that its absence elsewhere says nothing."""
    for name in ("labeled_1", "labeled_2"):
        names = layout(0.3)
        names[names == "acinar"] = "solid"
        write_outlines(folder / f"{name}.geojson", names)
    change(folder, lambda table: table.assign(mpp=["500", *[""] * 6]))
    assert "line 2: slide 'labeled_0' has mpp '500'" in only(look(folder), True)
    change(folder, lambda table: table.drop(columns="mpp"))
    (folder / "labeled_0.geojson").write_text("{")
    assert "labeled_0: outlines: " in only(look(folder), True)
    (folder / "labeled_0.geojson").unlink()
    assert "labeled_0.geojson" in only(look(folder), True)
    (folder / "labeled_0.geojson").write_text("{")
    (folder / "labeled_0.tif").unlink()
    assert "labeled_0': file not found" in only(look(folder), True)
    change(folder, lambda table: table.drop("labeled_0.tif"))
    assert "class 'acinar' is recorded in 3 bags, but no labeled" in only(look(folder), True)


def test_outlines_named_as_a_rejected_column_have_no_consequences(folder):
    names = layout(0.3)
    names[names == "non-cancer"] = "lepidic"
    write_outlines(folder / "labeled_0.geojson", names)
    change(folder, lambda table: table.assign(lepidic=["", "", "", 0, 0, 0, 0]))
    assert "'lepidic' does not look like a class" in only(look(folder), True)


def on_glass(folder, *slides):
    """Outline the upper row of windows of the slides, which is glass, as solid; else acinar only."""
    for name in slides:
        names = layout(0.3)
        names[np.isin(names, ["solid", "non-cancer"])] = "acinar"
        names[0] = "solid"
        write_outlines(folder / f"{name}.geojson", names)


def test_outlines_outside_the_tissue(folder):
    for name in ("labeled_0", "labeled_1", "labeled_2"):
        names = np.full((N, N), "", dtype=object)
        names[0] = "solid"
        write_outlines(folder / f"{name}.geojson", names)
    check = look(folder)
    expected = f"the tissue mask drops all {N} patches that lie within outlines of classes. Do the"
    assert len(check.problems) == 3 and check.fatal
    assert all(expected in problem.message for problem in check.problems)


def test_a_class_that_is_outlined_outside_the_tissue(folder):
    on_glass(folder, "labeled_0", "labeled_1", "labeled_2")
    message = messages(look(folder), True)
    assert len(message) == 1 and "Outline them" not in message[0]
    assert "'solid' is recorded in 3 bags, but the tissue mask drops all its" in message[0]
    assert "in labeled_0, labeled_1, labeled_2. Lower min_tissue (--min-tissue)" in message[0]


@pytest.mark.slow
def test_a_fit_to_a_class_that_is_outlined_outside_the_tissue(folder, new):
    on_glass(folder, "labeled_0", "labeled_1", "labeled_2")
    with pytest.raises(
        ValueError, match=r"tissue mask drops all patches outlined as solid in .* labeled_2\. Lower"
    ):
        new().fit(folder / "cohort.csv", features=folder / "features")


def test_summary_of_the_records(folder):
    def edit(table):
        table["predominant"] = ["", "", "", "", "", "solid", ""]
        table.loc["bag_3.tif", ["acinar", "solid"]] = ["10", "90"]
        table.loc["bag_4.tif", ["acinar", "solid"]] = ["25-35", "65-75"]
        table.loc["bag_5.tif", ["acinar", "solid"]] = ["", ""]
        table.loc["test_6.tif", ["acinar", "solid"]] = ["100", "?"]

    change(folder, edit)
    check = look(folder)
    assert check.records["kind"].tolist() == ["exact", "interval", "predominant", "partial"]
    assert check.mean_shares.tolist() == pytest.approx([(10 + 30 + 100) / 3, (90 + 70) / 2])
    text = str(check)
    assert "Kinds of record: exact (1 case, 1 slide), interval (1 case, 1 slide), predomin" in text
    assert "Mean recorded share: acinar 46.7%, solid 80%" in text


def test_labeled_slide_whose_outlines_label_no_patch(folder):
    path = folder / "labeled_0.geojson"
    ring = [[[5, 5], [12, 5], [12, 12], [5, 12], [5, 5]]]
    document = json.loads(path.read_text())
    document["features"] = document["features"][:1]
    document["features"][0]["geometry"]["coordinates"] = ring
    document["features"][0]["properties"]["classification"]["name"] = "solid"
    path.write_text(json.dumps(document))
    found = messages(look(folder), True)
    assert len(found) == 1 and found[0].startswith("Error: labeled_0: is labeled, but no patch")


@pytest.mark.slow
def test_outlined_glass_is_reported_by_slide_and_class(folder):
    names = layout(0.3)
    names[0] = "solid"  # a row of glass
    write_outlines(folder / "labeled_0.geojson", names)
    check = look(folder)
    expected = N / (names == "solid").sum()
    assert check.outlines.loc[("labeled_0", "solid"), "dropped"] == pytest.approx(
        expected, abs=0.02
    )
    assert check.outlines.loc[("labeled_0", "acinar"), "dropped"] == 0
    message = only(check, False)
    assert message.startswith(
        f"Warning: labeled_0: the tissue mask drops {expected:.0%} of the area"
    )
    mask = np.ones((N, N))
    everything = look(folder, tissue_mask={"labeled_0": mask})
    assert not everything.problems and everything.slides.at["labeled_0", "n_patches"] == N**2


def test_slide_without_tissue(folder):
    blank = np.full((N * PATCH, N * PATCH, 3), 243, dtype=np.uint8)
    write_slide(folder / "bag_3.tif", blank, mpp=MPP, compression=None)
    assert "Error: bag_3: " in (message := only(look(folder), True)) and "no tissue" in message


@pytest.mark.parametrize(
    ("stored", "stated", "message"),
    [
        (MPP, "6", "pixels (6 microns) are coarser than those of patches at 2.5x (4)"),
        (MPP, "0.05", "0.05 microns per pixel is implausible"),
        (
            None,
            "",
            "Give the true microns per pixel: mpp= in Python, the column mpp of a manifest, or --mpp",
        ),
    ],
)
def test_resolutions_that_cannot_be(folder, stored, stated, message):
    write_one(folder / "bag_3.tif", 0.1, 3, mpp=stored)

    def edit(table):
        table["mpp"] = ""
        table.loc["bag_3.tif", "mpp"] = stated

    change(folder, edit)
    assert message in only(look(folder), True)


def test_too_few_outlined_cases_and_nothing_to_test(folder):
    change(folder, lambda table: table.drop(["labeled_1.tif", "labeled_2.tif", "test_6.tif"]))
    check = look(folder)
    found = messages(check, False)
    assert not check.fatal and len(found) == 2
    assert "only one case is outlined" in found[0] and "role 'test'" in found[1]
    change(folder, lambda table: table.drop("labeled_0.tif"))
    assert (
        "no slide has the role 'labeled', so there is nothing to learn from"
        in messages(look(folder), True)[0]
    )


def test_two_slides_of_one_case_are_one_case(folder):
    def edit(table):
        table["case"] = ["P1", "P1", "P1", "", "", "", ""]

    change(folder, edit)
    assert "only one case is outlined" in only(look(folder), False)


def test_test_slide_with_nothing_to_compare_with(folder):
    def edit(table):
        table.loc["test_6.tif", ["annotation", "acinar", "solid"]] = ""

    change(folder, edit)
    assert "test_6: this test slide has neither" in only(look(folder), False)


def test_class_outlined_in_one_case(folder):
    for name in ("labeled_1", "labeled_2"):
        names = layout(0.3)
        names[names == "acinar"] = "solid"
        write_outlines(folder / f"{name}.geojson", names)
    assert "'acinar' is outlined in one case only (labeled_0)" in only(look(folder), False)


def test_intervals_are_shown_as_they_were_read(folder):
    def edit(table):
        table.loc["bag_3.tif", ["acinar", "solid"]] = [">90", "~10"]

    change(folder, edit)
    row = look(folder).records.loc["bag_3"]
    assert (row["least"], row["most"]) == (95, 115)
    assert row["intervals"] == "acinar 90 to 100, solid 5 to 15"


@pytest.mark.slow
def test_slides_may_be_feature_files(folder, new, tmp_path):
    manifest, features = folder / "cohort.csv", tmp_path / "features"
    expected = look(folder)
    new(normalizer=None).read_cohort(manifest, features=features)
    cohort = load_cohort(manifest)
    paths = [features / f"{name}.h5" for name in cohort.slides.index]
    stored = replace(cohort, slides=cohort.slides.assign(path=paths))
    check = check_cohort(stored, **HOW)
    assert not check.problems and (check.slides["reader"] == "features").all()
    pd.testing.assert_frame_equal(check.outlines, expected.outlines)


@pytest.mark.slow
def test_slides_are_looked_at_in_parallel_with_the_same_result(folder):
    (folder / "bag_3.tif").write_bytes(b"no slide")
    one, two = look(folder), look(folder, n_jobs=2)
    pd.testing.assert_frame_equal(one.slides, two.slides)
    assert one.problems == two.problems


@pytest.mark.parametrize("options", [{"min_tissue": 0}, {"magnification": 0}])
def test_arguments_out_of_range(folder, options):
    with pytest.raises(ValueError, match=r"min_tissue|magnification"):
        look(folder, **options)


def test_a_resolution_that_contradicts_the_file_is_told(folder):
    def edit(table):
        table["mpp"] = ""
        table.loc[["bag_3.tif", "bag_4.tif"], "mpp"] = [str(0.75 * MPP), str(0.99 * MPP)]

    change(folder, edit)
    message = only(look(folder), fatal=False)
    assert "bag_3: the manifest gives 3 microns per pixel, the file states 4; that of" in message
