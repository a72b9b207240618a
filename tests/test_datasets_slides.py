"""Synthetic slides are real files whose records agree with their outlines."""

import json
from pathlib import Path

import numpy as np
import openslide
import pytest
from shapely.geometry import shape

from proportion_ssl.datasets import load_cohort, make_slides

COUNTS = {"n_labeled": 1, "n_bags": 1, "n_test": 1, "slide_size": 1024}


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return make_slides(tmp_path_factory.mktemp("slides"), random_state=0, **COUNTS)


def test_slides_open_with_resolution_and_pyramid(manifest):
    for path in load_cohort(manifest).slides["path"]:
        with openslide.OpenSlide(path) as slide:
            assert slide.dimensions == (1024, 1024)
            assert [round(d) for d in slide.level_downsamples] == [1, 2, 4, 8]
            pixels_per_cm = float(slide.properties["tiff.XResolution"])
            assert slide.properties["tiff.ResolutionUnit"] == "centimeter"
            assert 1e4 / pixels_per_cm == pytest.approx(0.5)


def test_recorded_shares_are_the_areas_of_the_outlines(manifest):
    cohort = load_cohort(manifest)
    for slide in (*cohort.labeled, *cohort.test):
        features = json.loads(Path(cohort.slides.loc[slide, "annotation"]).read_text())["features"]
        areas = dict.fromkeys(cohort.classes, 0.0)
        for feature in features:
            name = feature["properties"]["classification"]["name"]
            if name in areas:
                areas[name] += shape(feature["geometry"]).area
        shares = np.array(list(areas.values())) / sum(areas.values())
        np.testing.assert_allclose(cohort.proportions.loc[slide], shares, atol=0.006)


def test_the_same_seed_writes_the_same_bytes(manifest, tmp_path):
    again = make_slides(tmp_path / "again", random_state=0, n_jobs=2, **COUNTS)
    files = sorted(
        p.relative_to(manifest.parent) for p in manifest.parent.rglob("*") if p.is_file()
    )
    assert len(files) == 6
    for file in files:
        assert (manifest.parent / file).read_bytes() == (again.parent / file).read_bytes(), file


def test_an_existing_cohort_is_not_overwritten_by_accident(manifest):
    with pytest.raises(FileExistsError):
        make_slides(manifest.parent, random_state=0, **COUNTS)
