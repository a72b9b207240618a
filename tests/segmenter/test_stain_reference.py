"""The reference of colors in a file: the same normalizer, and nothing wrong is believed."""

import json

import numpy as np
import pytest
from cohorts import write_one
from numpy.testing import assert_array_equal

from proportion_ssl.segmenter.stain_reference import FILE, build, describe, find_reference
from proportion_ssl.slides import MacenkoNormalizer, ReinhardNormalizer

IMAGES = np.random.default_rng(0).integers(90, 220, (4, 32, 32, 3)).astype(np.uint8)


@pytest.mark.parametrize("normalizer", [ReinhardNormalizer(), MacenkoNormalizer(percentile=2.0)])
def test_round_trip(normalizer):
    normalizer.fit(IMAGES)
    again = build(json.loads(json.dumps(describe(normalizer))))
    assert_array_equal(again.transform(IMAGES), normalizer.transform(IMAGES))
    assert again.get_params() == normalizer.get_params()


def test_a_normalizer_of_another_class_is_refused():
    class Own(ReinhardNormalizer):
        pass

    with pytest.raises(TypeError, match="class Own cannot be written"):
        describe(Own().fit(IMAGES))


@pytest.mark.parametrize(
    "change",
    [
        {"class": "Own"},
        {"class": "MacenkoNormalizer"},
        {"parameters": {"x": 1}},
        {"state": {"mean_": [1, 2, 3]}},
        {"state": {"mean_": [1, 2, float("nan")], "std_": [1, 1, 1]}},
        {"state": None},
    ],
)
def test_what_describes_no_normalizer_is_refused(change):
    description = {**describe(ReinhardNormalizer().fit(IMAGES)), **change}
    with pytest.raises(ValueError):
        build(description)


def find(folder, unfitted=None, held=(None, None)):
    unfitted = ReinhardNormalizer() if unfitted is None else unfitted
    slides = [("none", folder / "none.tif", None), ("a", folder / "a.tif", None)]
    (folder / "none.tif").write_bytes(b"no slide")
    settings = {"magnification": 2.5, "size": 32, "min_tissue": 0.25}
    return find_reference(unfitted, held, folder / "features", slides, **settings)


def test_the_file_of_the_folder_wins_over_the_slides(tmp_path):
    write_one(tmp_path / "a.tif", 0.5, seed=0)
    first, name = find(tmp_path)
    assert name == "a"
    write_one(tmp_path / "a.tif", 0.1, seed=9)
    again, _ = find(tmp_path)
    assert_array_equal(again.mean_, first.mean_)
    held, name = find(tmp_path, held=(ReinhardNormalizer().fit(IMAGES), "earlier"))
    assert name == "earlier" and not np.array_equal(held.mean_, first.mean_)


def test_a_damaged_file_and_one_of_another_normalizer(tmp_path):
    write_one(tmp_path / "a.tif", 0.5, seed=0)
    find(tmp_path)
    with pytest.raises(ValueError, match=r"MacenkoNormalizer.* is requested"):
        find(tmp_path, MacenkoNormalizer())
    (tmp_path / "features" / FILE).write_text("{")
    with pytest.raises(ValueError, match="damaged"):
        find(tmp_path)
