"""Patches of slides as lazily read arrays."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.model_selection import GroupKFold, cross_val_score, train_test_split
from slide_files import texture, write_slide

import proportion_ssl.slides.patches.sequences as patches_module
from proportion_ssl.slides import PatchSequence, SlideError, SlidePatches, open_slide
from proportion_ssl.slides.reading.slide import Slide


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cohort")
    return [write_slide(folder / f"slide-{i}.tif", texture(640, 420, seed=i)) for i in range(3)]


@pytest.fixture
def parts(paths):
    slides = [open_slide(path) for path in paths]
    grids = [slide.grid(magnification=10, size=64) for slide in slides]
    yield [SlidePatches(s, g[i:]) for i, (s, g) in enumerate(zip(slides, grids, strict=True))]
    for slide in slides:
        slide.close()


def test_patches_are_those_of_the_grid(parts):
    part = parts[0]
    assert part.shape == (15, 64, 64, 3)
    assert (len(part), part.dtype, part.ndim) == (15, np.uint8, 4)
    expected = np.stack([part.slide.read_region(box, 64) for box in part.grid.boxes])
    assert_array_equal(part[:], expected)
    assert_array_equal(np.asarray(part), expected)
    assert_array_equal(np.stack(list(part)), expected)
    assert_array_equal(np.concatenate(list(part.batches(4))), expected)


INDICES = [
    0,
    -1,
    np.int64(3),
    slice(2, 9, 3),
    slice(None, None, -1),
    [5, 1, 1, 0],
    np.array([], dtype=int),
    np.arange(14) % 3 == 0,
    (slice(1, 3), slice(None), 5),
    ([2, 0], Ellipsis),
    (4, 10, 10),
]


@pytest.mark.parametrize("index", INDICES, ids=repr)
def test_indexing_is_that_of_an_array(parts, index):
    for patches in (parts[1], PatchSequence([parts[1]])):
        expected = np.asarray(patches)[index]
        assert_array_equal(patches[index], expected)
        assert patches[index].shape == expected.shape


def test_a_sequence_runs_over_all_slides(parts):
    sequence = PatchSequence(parts)
    assert sequence.shape == (15 + 14 + 13, 64, 64, 3)
    everything = np.concatenate([np.asarray(part) for part in parts])
    assert_array_equal(sequence.slide_ids, [0] * 15 + [1] * 14 + [2] * 13)
    for index in (0, -1, 15, slice(10, 35, 4), np.random.default_rng(0).permutation(42)):
        assert_array_equal(sequence[index], everything[index])
    assert_array_equal(np.concatenate(list(sequence.batches(10))), everything)
    assert [len(batch) for batch in sequence.batches(10)] == [10, 5, 10, 4, 10, 3]
    assert_array_equal(np.array(sequence, dtype=np.float32), everything.astype(np.float32))


def test_slides_without_patches_are_stepped_over(parts):
    empty = SlidePatches(parts[0].slide, parts[0].grid[:0])
    sequence = PatchSequence([empty, parts[1], empty, parts[2], empty])
    assert_array_equal(np.unique(sequence.slide_ids), [1, 3])
    assert_array_equal(sequence[14], parts[2][0])
    assert sum(len(batch) for batch in sequence.batches()) == len(sequence) == 27
    assert PatchSequence([empty]).shape == (0, 64, 64, 3)
    assert PatchSequence([empty])[:].shape == (0, 64, 64, 3)


def test_nothing_is_read_before_it_is_asked_for(monkeypatch, parts):
    read = []
    original = Slide.read_patches

    def watched(self, grid, batch_size=64):
        read.append((self.name, len(grid)))
        return original(self, grid, batch_size)

    monkeypatch.setattr(Slide, "read_patches", watched)
    sequence = PatchSequence(parts)
    assert sequence.shape[0] == 42
    assert read == []
    sequence[[16, 20]]
    assert read == [("slide-1", 2)]


def test_few_slides_stay_open(monkeypatch, parts):
    released = []
    monkeypatch.setattr(patches_module, "OPEN_SLIDES", 2)
    release = Slide.release
    monkeypatch.setattr(Slide, "release", lambda s: (released.append(s.name), release(s)))
    sequence = PatchSequence(parts)
    expected = np.concatenate([np.asarray(part) for part in parts])
    assert_array_equal(sequence[:], expected)
    assert released == ["slide-0"]
    assert_array_equal(sequence[3], expected[3])  # opened again, and the next one closed
    assert released == ["slide-0", "slide-1"]


def test_patches_can_be_pickled(parts):
    sequence = PatchSequence(parts)
    expected = sequence[[0, 20, 41]]
    copy = pickle.loads(pickle.dumps(sequence))
    assert_array_equal(copy[[0, 20, 41]], expected)
    assert_array_equal(copy.slide_ids, sequence.slide_ids)
    for part in copy.parts:
        part.slide.close()
    assert_array_equal(sequence[[0, 20, 41]], expected)


class MeanColor(ClassifierMixin, BaseEstimator):
    """Tells slides by their mean color; takes any sequence of images."""

    def fit(self, X, y):
        means = np.array([X[i].mean(axis=(0, 1)) for i in range(len(X))])
        self.classes_ = np.unique(y)
        self.centers_ = np.stack([means[y == c].mean(axis=0) for c in self.classes_])
        return self

    def predict(self, X):
        means = np.array([X[i].mean(axis=(0, 1)) for i in range(len(X))])
        return self.classes_[((means[:, None] - self.centers_) ** 2).sum(-1).argmin(1)]


def test_scikit_learn_can_split_them(parts):
    X = PatchSequence(parts)
    y = np.arange(len(X)) % 2
    train, test, _, _ = train_test_split(X, y, random_state=0)
    assert train.shape == (31, 64, 64, 3)
    assert test.dtype == np.uint8
    scores = cross_val_score(MeanColor(), X, y, cv=GroupKFold(3), groups=X.slide_ids)
    assert np.isfinite(scores).all()


def test_wrong_use_is_a_clear_error(parts):
    part = parts[0]
    for index in (15, -16):
        with pytest.raises(IndexError, match=f"patch {index} does not exist: there are 15"):
            part[index]
    with pytest.raises(IndexError):
        part[[3, 99]]
    with pytest.raises(IndexError, match="one axis"):
        part[np.array([[0, 1]])]
    with pytest.raises(ValueError, match="always a copy"):
        np.asarray(part, copy=False)
    with pytest.raises(ValueError, match="parts is empty"):
        PatchSequence([])
    other = SlidePatches(part.slide, part.slide.grid(magnification=10, size=32))
    with pytest.raises(ValueError, match="patches of one size"):
        PatchSequence([part, other])
    assert repr(part) == "<SlidePatches of 'slide-0': 15>"
    assert repr(PatchSequence([part])) == "<PatchSequence of 1 slides: 15>"


def test_reading_after_the_slide_was_closed_names_it(paths):
    with open_slide(paths[0]) as slide:
        patches = SlidePatches(slide, slide.grid(magnification=10, size=64))
    with pytest.raises(SlideError, match=r"slide-0\.tif is closed"):
        patches[0]
