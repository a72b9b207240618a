"""The command line, on a tiny cohort: results on stdout, progress on stderr, exit codes, nothing lost."""

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import sklearn
from cohorts import CLASSES, Texture, write_cohort
from feature_cohorts import write_feature_cohort
from slide_files import write_slide

from proportion_ssl.__main__ import DONE, FAILED, WRONG_INPUT, main
from proportion_ssl.segmenter import cross_validation
from proportion_ssl.segmenter.run import mean_and_spread
from proportion_ssl.slides import read_annotations

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
FIRST_HOUR = ROOT / "docs" / "guide" / "first_hour.rst"
PATCHES = ["--magnifications", "2.5", "1.25", "--patch-size", "32"]


@pytest.fixture(autouse=True)
def _texture(monkeypatch):
    """The command line builds embedders that need weights; here one that needs none."""
    monkeypatch.setattr("proportion_ssl.embedding.PatchEmbedder", lambda weights: Texture())


@pytest.fixture
def quick(monkeypatch):
    """Few epochs."""
    for name in ("NegativePseudoLabelClassifier",):
        monkeypatch.setattr(f"proportion_ssl.estimators.{name}", few_epochs)


def few_epochs(**settings):
    from proportion_ssl.estimators.negative_pseudo_label import NegativePseudoLabelClassifier

    return NegativePseudoLabelClassifier(max_epochs=3, **settings)


def run(manifest, output, *more):
    return main(["run", str(manifest), "--output", str(output), *PATCHES, *more])


@pytest.mark.slow
def test_run_then_apply(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path / "cohort")
    output = tmp_path / "out"
    assert run(manifest, output) == DONE
    printed = capsys.readouterr()
    assert "Cross-validation over outlined cases" in printed.out and "fit ..." in printed.err
    assert " +- " in printed.out and "nan" not in printed.out, "outlined cases have no record"
    table = pd.read_csv(output / "test.csv", index_col="system")
    assert table.index.tolist() == ["supervised", "published", "robust"]
    assert table.loc["robust", "mIoU"] > 0.9
    assert (
        table.loc["robust", "OP_low"] <= table.loc["robust", "OP"] <= table.loc["robust", "OP_high"]
    )
    compared = pd.read_csv(output / "comparisons.csv")
    assert len(compared) == 4 and set(compared["score"]) == {"OP", "mIoU"}
    assert (compared["system"] == "robust").all() and (
        compared["p_adjusted"] >= compared["p"]
    ).all()
    assert pd.read_csv(output / "agreement.csv")["class"].tolist() == list(CLASSES)
    patterns = pd.read_csv(output / "patterns.csv", index_col="case")
    assert (patterns["predominant_recorded"] == patterns["predominant_predicted"]).all()
    assert len(pd.read_csv(output / "suggested_slides.csv")) == 6
    folds = pd.read_csv(output / "cross_validation.csv")
    assert len(folds) == 9 and folds["mIoU"].between(0, 1).all()
    assert len(pd.read_csv(output / "test_by_slide.csv")) == 6
    assert {"bag", "distance", "doubtful"} <= set(pd.read_csv(output / "doubtful_records.csv"))
    page = (output / "report.html").read_text(encoding="utf-8")
    assert "test_9" in page and "Texture" in page, "a report names the features"
    regions = read_annotations(output / "slides" / "test_9.geojson")
    assert {region.class_name for region in regions} == {*CLASSES, "non-cancer"}

    records = tmp_path / "records.csv"
    records.write_text("slide,acinar,solid,age\ntest_9.tif,90,10,71\n")
    model, slide = output / "model.segmenter", manifest.parent / "test_9.tif"
    there = tmp_path / "there"
    arguments = ["apply", str(model), str(slide), "--output", str(there), "--weights", "none"]
    capsys.readouterr()
    assert main(arguments) == DONE
    printed = capsys.readouterr().out
    assert "recorded" not in printed and " / " not in printed
    assert "Label maps, overlays, outlines for QuPath and slides.csv are in" in printed
    here, applied = (
        pd.read_csv(folder / "slides.csv", index_col="slide").loc["test_9"]
        for folder in (output / "slides", there)
    )
    pd.testing.assert_series_equal(here[applied.index], applied)
    assert main([*arguments, "--proportions", str(records)]) == DONE
    printed = capsys.readouterr().out
    assert "predicted / recorded" in printed
    assert "Predicted with its record, so not an independent test: test_9" in printed
    assert pd.read_csv(there / "slides.csv")["used_record"].tolist() == [True]
    assert main([*arguments, "--mpp", "2"]) == WRONG_INPUT
    assert "test_9.tif states 4 microns per pixel, but --mpp is 2" in capsys.readouterr().err
    assert main([*arguments, "--mpp", "4.01"]) == DONE
    records.write_text("slide,acinar,solid\ntest_9,80,10\n")
    assert main([*arguments, "--proportions", str(records)]) == WRONG_INPUT
    assert "line 2: the percentages of slide 'test_9' sum to 90" in capsys.readouterr().err
    rounded = ["--proportions", str(records), "--rounding-step", "0.1"]
    assert main([*arguments, *rounded]) == DONE
    records.write_text("slide,acinar,solid\ntest_09,90,10\n")
    assert main([*arguments, "--proportions", str(records)]) == WRONG_INPUT
    assert "has no record of test_9; it has records of test_09" in capsys.readouterr().err


def test_scores_that_no_fold_or_only_one_has():
    folds = {"fold": [1, 2] * 2, "cases": "a", "patches": 9, "system": [*"aabb"]}
    scores = {"mIoU": [0.5, 0.7, 0.5, 0.5], "PC": [np.nan, np.nan, np.nan, 0.25], "error": np.nan}
    shown = mean_and_spread(pd.DataFrame({**folds, **scores}))
    assert shown.loc["a"].to_dict() == {"mIoU": "0.600 +- 0.141", "PC": "-"}
    assert shown.loc["b"].to_dict() == {"mIoU": "0.500 +- 0.000", "PC": "0.250"}


@pytest.mark.slow
def test_a_run_goes_on_and_does_not_overwrite_another(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=2, test=1)
    output = tmp_path / "out"
    assert run(manifest, output, "--no-cv", "--compare") == DONE
    made = (output / "features" / "bag_2.h5").stat().st_mtime_ns
    assert run(manifest, output, "--no-cv", "--compare") == DONE, "the same run again"
    assert (output / "features" / "bag_2.h5").stat().st_mtime_ns == made
    assert run(manifest, output, "--no-cv", "--compare", "--seed", "1") == WRONG_INPUT
    error = capsys.readouterr().err
    assert "results of another run: seed was 0 and is 1; random_state was 0 and is 1" in error
    assert run(manifest, output, "--no-cv", "--compare", "--seed", "1", "--overwrite") == DONE


@pytest.mark.slow
def test_slides_are_added_later(tmp_path, quick, capsys):
    """Features of the earlier run are used again, and no table or map of it stays behind."""
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=3, test=1)
    whole = manifest.read_text()
    manifest.write_text("".join(line for line in whole.splitlines(True) if "bag_4" not in line))
    output, quickly = tmp_path / "out", ["--compare", "--no-cv"]
    assert run(manifest, output, *quickly) == DONE
    features = output / "features"
    made = {path.name: path.stat().st_mtime_ns for path in features.iterdir()}
    assert len(list((output / "slides").glob("test_5*"))) == 6
    (output / "slides" / "notes.txt").touch()  # of the user
    (output / "cross_validation.csv").touch()  # of a run with cross-validation
    manifest.write_text(whole.replace("test_5.tif,test_5.geojson,test", "test_5.tif,,bag"))
    assert run(manifest, output, *quickly) == WRONG_INPUT
    assert "another run: the manifest has changed. Give" in capsys.readouterr().err
    assert run(manifest, output, *quickly, "--overwrite") == DONE
    assert {name: (features / name).stat().st_mtime_ns for name in made} == made
    assert len(list(features.glob("*.h5"))) == 6
    assert not (output / "cross_validation.csv").exists()
    assert [path.name for path in (output / "slides").iterdir()] == ["notes.txt"]


@pytest.mark.slow
def test_a_run_that_gave_no_results_does_not_claim_its_folder(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=2, test=1)
    output = tmp_path / "out"
    whole = manifest.read_text()
    manifest.write_text(whole.replace("solid", "papillary", 1))
    assert run(manifest, output) == WRONG_INPUT
    error = capsys.readouterr().err
    assert "labeled_0, labeled_1 is named papillary" in error
    assert "reading and embedding" not in error, "found before slides are embedded"
    manifest.write_text(whole)
    assert run(manifest, output, "--no-cv", "--compare") == DONE


@pytest.mark.slow
def test_rounded_records(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=2, test=1)
    table = pd.read_csv(manifest)
    table.loc[table["role"] == "bag", list(CLASSES)] = [[65, 30], [20, 85]]
    table.to_csv(manifest, index=False)
    assert main(["check", str(manifest), *PATCHES]) == FAILED
    assert "--rounding-step" in capsys.readouterr().out
    rounded = ["--rounding-step", "0.05"]
    assert main(["check", str(manifest), *PATCHES, *rounded]) == DONE
    output = tmp_path / "out"
    assert run(manifest, output, "--no-cv", "--compare", *rounded) == DONE
    deviation = ["--standard-deviation", "0.1"]
    assert run(manifest, output, "--no-cv", "--compare", *deviation, "--overwrite") == DONE
    assert main(["check", str(manifest), *PATCHES, "--rounding-step", "5"]) == WRONG_INPUT
    assert "It looks like percent: divide by 100" in capsys.readouterr().err


@pytest.mark.slow
def test_a_failing_stage_loses_nothing(tmp_path, quick, monkeypatch, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=3, test=1)
    (tmp_path / "cohort" / "bag_4.tif").write_bytes(b"no slide")

    def fail(*arguments):
        raise RuntimeError("in a test")

    monkeypatch.setattr(cross_validation, "_fold", fail)
    output = tmp_path / "out"
    assert run(manifest, output) == FAILED
    error = capsys.readouterr().err
    assert "Problem: cross-validation: RuntimeError: in a test" in error
    assert "Problem: slide bag_4: SlideError" in error
    for name in ("model.segmenter", "test.csv", "report.html", "slides/test_5_overlay.png"):
        assert (output / name).exists(), name


@pytest.mark.slow
def test_one_outlined_slide_and_no_test_slide(tmp_path, quick, capsys, recwarn):
    manifest = write_cohort(tmp_path / "cohort", labeled=1, bags=2, test=0)
    assert run(manifest, tmp_path / "out", "--system", "published", "--compare") == DONE
    error = capsys.readouterr().err
    assert "No test slide" in error and "1 outlined case: no cross-validation" in error
    assert any("Only one case is outlined" in str(w.message) for w in recwarn)


@pytest.mark.slow
def test_the_supervised_system_sees_no_bag(tmp_path, quick):
    manifest = write_cohort(tmp_path / "cohort", labeled=2, bags=2, test=1)
    output = tmp_path / "out"
    assert run(manifest, output, "--system", "supervised", "--compare", "--no-cv") == DONE
    assert pd.read_csv(output / "test.csv")["system"].tolist() == ["supervised"]
    assert not (output / "doubtful_records.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "none.csv"], "file not found: none.csv"),
        (["apply", "none.segmenter", "here.svs"], "model file not found"),
        (["apply", ".", "here.svs"], "is a folder; give the file model.segmenter"),
        (["apply", "none.segmenter", "a.svs", "here.svs"], "file not found: a.svs."),
        (["apply", "none.segmenter", "."], "is a folder; give its slides"),
        (["embed", "a.svs", "--no-normalization"], "file not found: a.svs."),
        (["embed", "a.svs"], "--no-normalization"),
        (["run", "none.csv", "--tissue-masks", "none"], "folder of tissue masks not found: none"),
        (["run", "none.csv", "--folds", "1"], "folds is 1; cross-validation needs two or more"),
        (["run", "none.csv", "--reject-below", "60"], "reject_below must be in [0, 1]; got 60"),
        (["run", "none.csv", "--magnifications", "10", "0"], "magnification must be a positive"),
        (["run", "none.csv", "--stride", "5"], "does not divide patch_size"),
    ],
)
def test_wrong_input(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "here.svs").touch()
    assert main(arguments) == WRONG_INPUT
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err and not captured.out


def test_an_output_that_is_a_file(tmp_path, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=1, bags=0, test=0)
    for output in (manifest, manifest / "below"):
        assert run(manifest, output) == WRONG_INPUT
        assert "is a file, or is inside one" in capsys.readouterr().err
    slide = str(manifest.parent / "labeled_0.tif")
    arguments = ["embed", slide, "--no-normalization", *PATCHES, "--output", str(manifest)]
    assert main(arguments) == WRONG_INPUT
    error = capsys.readouterr().err.splitlines()[-1]
    assert error == f"proportion-ssl: {manifest}: File exists."


def test_no_jobs(capsys):
    with pytest.raises(SystemExit) as stopped:
        main(["run", "cohort.csv", "--jobs", "0"])
    assert stopped.value.code == WRONG_INPUT
    assert "must be -1, or 1 or more; got 0" in capsys.readouterr().err


def test_messages_are_lines_without_code(tmp_path):
    """Warnings show no path of the code, and large_image says nothing of its caches."""
    code = (
        "import logging, warnings; from proportion_ssl.__main__ import _log_to_stderr; _log_to_stderr();"
        "large_image = logging.getLogger('large_image'); large_image.setLevel('INFO');"
        "large_image.info('no cache'); large_image.error('damaged');"
        "warnings.warn('few bags'); logging.getLogger('proportion_ssl').warning('pale')"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path
    )
    assert done.stderr.splitlines() == ["ERROR: damaged", "WARNING: few bags", "WARNING: pale"]


def test_a_table_with_wrong_columns(tmp_path, capsys):
    """What is wrong with the table is said without a traceback; other columns are told apart."""
    for name in ("a.tif", "b.tif", "a.geojson"):
        (tmp_path / name).touch()
    manifest = tmp_path / "cohort.csv"
    manifest.write_text(
        "slide,annotation,role,age,x,y\na.tif,a.geojson,labeled,,,\nb.tif,,bag,71,20,80\n"
    )
    assert run(manifest, tmp_path / "out") == WRONG_INPUT
    error = capsys.readouterr().err
    assert "age" in error and "Traceback" not in error
    assert run(manifest, tmp_path / "out", "--classes", "x", "y") == WRONG_INPUT
    assert "No slide can be the color reference" in capsys.readouterr().err


def test_embed(tmp_path, capsys):
    manifest = write_cohort(tmp_path / "cohort", labeled=1, bags=0, test=0)
    (tmp_path / "broken.tif").write_bytes(b"no slide")
    slides = [str(manifest.parent / "labeled_0.tif"), str(tmp_path / "broken.tif")]
    output = tmp_path / "features"
    arguments = ["embed", *slides, "--output", str(output), "--no-normalization", *PATCHES]
    assert main(arguments) == FAILED
    captured = capsys.readouterr()
    assert captured.out.split() == ["labeled_0", str(output / "labeled_0.h5")]
    assert "Problem: broken: SlideError" in captured.err


@pytest.mark.slow
def test_check(tmp_path, capsys):
    manifest = write_cohort(tmp_path / "cohort")
    assert main(["check", str(manifest), *PATCHES]) == DONE
    assert "labeled_0" in capsys.readouterr().out
    pixels = np.full((512, 512, 3), 243, np.uint8)
    write_slide(manifest.parent / "bag_3.tif", pixels, mpp=None)
    assert main(["check", str(manifest), *PATCHES]) == FAILED
    assert "bag_3" in capsys.readouterr().out


def test_check_of_features_of_another_program(tmp_path, capsys):
    manifest, features = write_feature_cohort(tmp_path / "cohort", program="TRIDENT")
    check = ["check", str(manifest), "--features", str(features)]
    assert main(check) == DONE
    printed = capsys.readouterr().out
    assert "0 errors, 1 warning\nWarning: the resolution of case.labeled_0, " in printed
    assert re.search(r"case\.bag_4 +bag +case\.bag_4 +384 +384 +4 nominal +features +100", printed)
    pd.read_csv(manifest).assign(mpp=4.0).to_csv(tmp_path / "cohort" / "measured.csv", index=False)
    assert main(["check", str(tmp_path / "cohort" / "measured.csv"), *check[2:]]) == DONE
    printed = capsys.readouterr().out
    assert "0 errors, 0 warnings" in printed and "nominal" not in printed
    wrong = str(tmp_path / "typo")
    for command, message in (
        (["check"], f"folder of features not found: {wrong}"),
        (
            ["run", "--output", str(tmp_path / "out")],
            f"The folder of features {wrong} was not found either",
        ),
    ):
        assert main([*command, str(manifest), "--features", wrong]) == WRONG_INPUT
        assert message in capsys.readouterr().err


def test_check_of_features_lists_everything_at_once(tmp_path, capsys):
    manifest, features = write_feature_cohort(tmp_path / "cohort", program="TRIDENT")
    (features / "case.bag_4.h5").unlink()
    (features / "case.bag_5.h5").write_bytes(b"no features")
    text = manifest.read_text().replace(",bag,10.0,90.0", ",bag,10.0,80.0", 1)
    assert "80.0" in text
    manifest.write_text(text)
    assert main(["check", str(manifest), "--features", str(features)]) == FAILED
    found = capsys.readouterr().out
    for part in (
        "sum to 90",
        "has no feature file for this slide",
        "case.bag_5: ",
        "case.labeled_0",
    ):
        assert part in found
    assert "3 errors" in found


def test_a_new_folder_of_features_is_announced(tmp_path, quick, capsys):
    manifest = write_cohort(tmp_path / "cohort", bags=1, test=0)
    folder = tmp_path / "new"
    more = ["--no-cv", "--compare", "--system", "supervised", "--features", str(folder)]
    assert run(manifest, tmp_path / "out", *more) == DONE
    assert f"The folder {folder} does not exist yet; it is created" in capsys.readouterr().err
    assert run(manifest, tmp_path / "out", *more) == DONE
    assert "does not exist yet" not in capsys.readouterr().err


def test_help_of_every_command():
    for command in ("demo", "check", "run", "apply", "embed"):
        run = subprocess.run(
            [sys.executable, "-m", "proportion_ssl", command, "--help"],
            capture_output=True,
            text=True,
            check=True,
        )
        assert "Exit status" in run.stdout
    assert main_help_has_all_options(run.stdout)


def main_help_has_all_options(text):
    """Every option of the last command has help behind it."""
    options = re.findall(r"^  (--[\w-]+)(?: \S+)*(?:\s{2,}|\n\s+)(\S.*)", text, re.MULTILINE)
    return options and all(explained.strip() for _, explained in options)


def code_blocks(page):
    """Python of a page of the guide."""
    blocks = page.read_text(encoding="utf-8").split(".. code-block:: python\n")[1:]
    return [textwrap.dedent(re.split(r"\n(?=\S)", block, maxsplit=1)[0]) for block in blocks]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The pseudo labels are harmful")  # after two epochs they may be
def test_grid_search_of_the_guide(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    *_, make_files, written, search, more = code_blocks(FIRST_HOUR)
    variables = {}
    exec(make_files, variables)
    exec(written, {})
    assert "0.25" in capsys.readouterr().out
    with sklearn.config_context():
        exec(search.replace("max_epochs=30", "max_epochs=2"), variables)
        exec(more, variables)
    assert "std_test_score" in capsys.readouterr().out
    assert variables["search"].classes_.tolist() == ["acinar", "lepidic", "papillary", "solid"]
    assert len(variables["labels"]) == len(variables["given"]) == len(variables["new"])
