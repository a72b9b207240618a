"""Names of slides and cases, and pictures of labels, stay where they are."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import tifffile
from cohorts import MPP, SETTINGS, Texture, tissue, write_cohort
from numpy.testing import assert_array_equal
from PIL import Image
from slide_files import aperio_description

from proportion_ssl import RobustProportionClassifier, SlideSegmenter, load_cohort
from proportion_ssl.__main__ import main
from proportion_ssl.segmenter.anonymous import anonymize_cohort, key_path
from proportion_ssl.segmenter.run import RunOptions, run_cohort_job

LABEL = (255, 0, 255)  # of the paper label in these tests; no tissue has it


def test_cohort_with_numbers(tmp_path):
    cases = ["Smith", "Jones", "Smith", "Young", "Stone", "Woods", "Reed", "Hills"]
    manifest = write_cohort(tmp_path / "cohort", labeled=3, bags=4, test=1, cases=cases)
    cohort = load_cohort(manifest)
    anonymous, masks = anonymize_cohort(cohort, {"bag_4": "mask.png"}, tmp_path / "out")
    assert anonymous.slides.index.tolist() == [f"slide_{i}" for i in range(1, 9)]
    assert anonymous.slides["case"].tolist() == [f"case_{i}" for i in (1, 2, 1, 3, 4, 5, 6, 7)]
    assert masks == {"slide_5": "mask.png"}
    key = pd.read_csv(key_path(tmp_path / "out"))
    assert key["slide"].tolist() == cohort.slides.index.tolist() and key["case"].tolist() == cases
    for row in key.itertuples():
        assert anonymous.case_of(row.number) == row.case_number
        assert anonymous.slides.at[row.number, "path"] == cohort.slides.at[row.slide, "path"]
        for table in ("proportions", "lower", "upper"):
            assert_array_equal(
                getattr(anonymous, table).loc[row.case_number], getattr(cohort, table).loc[row.case]
            )
    assert not (tmp_path / "out").exists()


def secret_cohort(folder):
    """A cohort whose slides and cases have the names of people."""
    manifest = write_cohort(folder, labeled=2, bags=3, test=1)
    table = pd.read_csv(manifest)
    for i, name in enumerate(table["slide"]):
        (folder / name).rename(folder / f"Secret{i}.tif")
    table["slide"] = [f"Secret{i}.tif" for i in range(len(table))]
    table["case"] = [f"Patient{i}" for i in range(len(table))]
    table.to_csv(manifest, index=False)
    return manifest


def named_files(folder):
    """Files whose name or content has a name of a person."""
    found = []
    for path in sorted(folder.rglob("*")):
        content = path.read_bytes() if path.is_file() else b""
        if "Secret" in path.name or b"Secret" in content or b"Patient" in content:
            found.append(str(path.relative_to(folder)))
    return found


@pytest.mark.slow
def test_nothing_that_a_run_writes_has_a_name(tmp_path, monkeypatch):
    from proportion_ssl.segmenter import run
    from proportion_ssl.segmenter.systems import System

    systems = {"robust": System(RobustProportionClassifier(random_state=0))}
    monkeypatch.setattr(run, "standard_systems", lambda seed: systems)
    manifest = secret_cohort(tmp_path / "in")
    (tmp_path / "in" / "Secret4.tif").write_bytes(b"no slide")
    segmenter = SlideSegmenter(embedder=Texture(), proposer=None, **SETTINGS)
    options = RunOptions(tmp_path / "out", compare=(), folds=0, anonymize=True)
    result = run_cohort_job(manifest, segmenter, options)
    assert "slide_5" in " ".join(result.problems)
    assert (tmp_path / "out" / "slides" / "slide_6_overlay.png").exists()
    assert "slide_6" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert named_files(tmp_path / "out") == []
    assert named_files(tmp_path) != []  # the key and the slides themselves
    assert pd.read_csv(tmp_path / "out_key.csv")["slide"].tolist() == [
        f"Secret{i}" for i in range(6)
    ]


@pytest.mark.slow
def test_apply_with_numbers(fitted, manifest, tmp_path, capsys):
    fitted.save(tmp_path / "m.segmenter", network=False)
    slide = tmp_path / "Secret.tif"
    slide.write_bytes((manifest.parent / "test_9.tif").read_bytes())
    records = tmp_path / "records.csv"
    records.write_text("slide,acinar,solid\nSecret,90,10\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("proportion_ssl.embedding.PatchEmbedder", lambda weights: Texture())
        status = main(
            [
                *("apply", str(tmp_path / "m.segmenter"), str(slide), "--weights", "none"),
                *("--output", str(tmp_path / "out"), "--proportions", str(records), "--anonymize"),
            ]
        )
    assert status == 0
    assert "Secret" not in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "slides.csv")
    assert table["slide"].tolist() == ["slide_1"] and table["recorded_acinar"].tolist() == [0.9]
    assert named_files(tmp_path / "out") == []
    assert pd.read_csv(tmp_path / "out_key.csv")["slide"].tolist() == ["Secret"]


# --- label and macro images ---------------------------------------------------------------------


def slide_with_label(path, pixels):
    """An Aperio file with a thumbnail, a label and a macro image, which have a color of their own."""
    small = np.ascontiguousarray(pixels[::4, ::4])
    foreign = np.full((64, 96, 3), LABEL, dtype=np.uint8)
    with tifffile.TiffWriter(path) as tif:
        options = {"photometric": "rgb", "metadata": None}
        text = aperio_description(pixels, mpp=MPP, magnification=2.5)
        tif.write(pixels, tile=(256, 256), description=text, **options)
        tif.write(small, description=aperio_description(small), **options)
        for name, kind in (("label", 1), ("macro", 9)):
            text = f"Aperio Image Library v12.0.0\r\n{name} 96x64"
            tif.write(foreign, description=text, subfiletype=kind, **options)


def test_label_and_macro_images_never_enter_an_output(fitted, tmp_path):
    pixels = np.full((384, 384, 3), 243, dtype=np.uint8)
    pixels[32:352, 32:352] = tissue("acinar", 320, 320, 0)
    slide_with_label(tmp_path / "labeled.svs", pixels)
    import openslide

    with openslide.OpenSlide(tmp_path / "labeled.svs") as there:
        assert {"label", "macro"} <= set(there.associated_images), "the test has what it looks for"
    one = fitted.segment(tmp_path / "labeled.svs")
    paths = one.write(tmp_path / "out")
    pictures = {"overview": one.overview}
    for name, path in paths.items():
        if path.suffix == ".png":
            pictures[name] = np.asarray(Image.open(path).convert("RGB"))
        elif path.suffix == ".tif":
            with tifffile.TiffFile(path) as tif:
                assert len({page.shape for page in tif.pages}) == len(tif.pages), "levels alone"
    for name, picture in pictures.items():
        distance = np.abs(picture.astype(int) - LABEL).max(axis=-1)
        assert (distance > 60).all(), name
    assert Path(paths["overlay"]).exists() and replace(one, overview=None).overview is None
