"""Stain normalization."""

import pickle

import numpy as np
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from sklearn.exceptions import NotFittedError
from sklearn.pipeline import make_pipeline
from sklearn.utils import get_tags
from slide_files import texture, write_slide

from proportion_ssl.slides import SlidePatches, open_slide
from proportion_ssl.slides.patches.stain import MacenkoNormalizer, ReinhardNormalizer

NORMALIZERS = [MacenkoNormalizer(), ReinhardNormalizer()]
RUIFROK = np.array([[0.65, 0.70, 0.29], [0.07, 0.99, 0.11]])
OTHER = np.array([[0.50, 0.80, 0.33], [0.20, 0.90, 0.38]])

by_name = pytest.mark.parametrize("normalizer", NORMALIZERS, ids=lambda n: type(n).__name__)


def unit(stains):
    return stains / np.linalg.norm(stains, axis=1, keepdims=True)


def amounts_of(n=6, size=48, seed=0):
    """Hematoxylin and eosin per pixel: single-stain, mixed, and glass in the corner."""
    rng = np.random.default_rng(seed)
    amounts = rng.gamma(2.0, 0.5, (n, size, size, 2))
    kind = rng.integers(0, 3, (n, size, size))
    amounts[kind == 0, 1] = 0.0
    amounts[kind == 1, 0] = 0.0
    amounts[:, :6, :6] = 0.0
    return amounts


def paint(amounts, stains):
    images = 256 * np.exp(-amounts @ unit(stains)) - 1
    return np.clip(np.round(images), 0, 255).astype(np.uint8)


@pytest.fixture(scope="module")
def reference():
    return paint(amounts_of(), RUIFROK)


@pytest.fixture(scope="module")
def other():
    """The same tissue in other dyes, one of them twice as strong."""
    return paint(amounts_of() * (1.0, 0.6), OTHER)


@by_name
def test_the_reference_is_its_own_normal_form(normalizer, reference):
    fitted = clone(normalizer).fit(reference)
    same = fitted.transform(reference, slide_ids=np.zeros(len(reference)))
    difference = np.abs(same.astype(int) - reference)
    assert difference.mean() < 0.5
    assert difference.max() <= 8  # rounded dark pixels lie beside the plane of the stains
    assert same.dtype == np.uint8


@by_name
def test_other_dyes_come_nearer_to_the_reference(normalizer, reference, other):
    fitted = clone(normalizer).fit(reference)
    normal = fitted.transform(other, slide_ids=np.zeros(len(other)))
    before = np.abs(other.astype(int) - reference).mean()
    after = np.abs(normal.astype(int) - reference).mean()
    assert after < (0.15 if isinstance(normalizer, MacenkoNormalizer) else 0.9) * before
    stained = reference.mean(axis=-1) < 200
    means = [image[stained].mean(axis=0) for image in (reference, other, normal)]
    assert np.abs(means[2] - means[0]).max() < 0.35 * np.abs(means[1] - means[0]).max()


@by_name
def test_white_stays_white(normalizer, reference, other):
    fitted = clone(normalizer).fit(reference)
    images = other.copy()
    images[:, -10:] = 255
    for ids in (None, np.zeros(len(images))):
        assert fitted.transform(images, slide_ids=ids)[:, -10:].min() == 255


@by_name
def test_images_without_tissue_stay_as_they_are(normalizer, reference):
    fitted = clone(normalizer).fit(reference)
    blank = np.full((3, 32, 32, 3), 244, dtype=np.uint8)
    blank[1] = 255
    blank[2, :5, :5] = (150, 80, 140)  # 25 stained pixels say nothing
    assert_array_equal(fitted.transform(blank), blank)
    with pytest.raises(ValueError, match="fewer than 64 stained pixels"):
        clone(normalizer).fit(blank)


@by_name
def test_images_of_one_slide_share_one_estimate(normalizer, reference, other):
    fitted = clone(normalizer).fit(reference)
    mixed = np.concatenate([other[:3], reference[:3]])
    ids = np.array(["b", "b", "b", "a", "a", "a"])
    together = fitted.transform(mixed, slide_ids=ids)
    assert_array_equal(together[:3], fitted.transform(other[:3], slide_ids=[7, 7, 7]))
    order = np.array([5, 0, 3, 1, 4, 2])
    assert_array_equal(fitted.transform(mixed[order], slide_ids=ids[order]), together[order])
    # by default each image by itself: a part of the images gives that part of the result
    alone = fitted.transform(mixed)
    assert_array_equal(fitted.transform(mixed[2:4]), alone[2:4])
    assert not np.array_equal(alone, together)


@by_name
def test_scikit_learns_habits(normalizer, reference):
    copy = clone(normalizer)
    assert copy.get_params() == normalizer.get_params()
    tags = get_tags(copy)
    assert not tags.input_tags.two_d_array
    assert tags.requires_fit
    with pytest.raises(NotFittedError):
        copy.transform(reference)
    before = reference.copy()
    assert copy.fit(reference) is copy
    normal = copy.transform(reference)
    assert_array_equal(reference, before)  # inputs untouched
    assert_array_equal(pickle.loads(pickle.dumps(copy)).transform(reference), normal)
    assert_array_equal(clone(copy).fit(reference).transform(reference), normal)
    assert_array_equal(copy.fit_transform(reference), normal)
    assert_array_equal(make_pipeline(clone(copy)).fit(reference).transform(reference), normal)


@by_name
@pytest.mark.parametrize(
    ("images", "error", "message"),
    [
        (np.zeros((4, 8, 8), dtype=np.uint8), ValueError, r"shape \(n, height, width, 3\)"),
        (np.zeros((4, 8, 8, 4), dtype=np.uint8), ValueError, r"shape \(n, height, width, 3\)"),
        (np.zeros((4, 8, 8, 3)), ValueError, "8-bit"),
        (np.zeros((0, 8, 8, 3), dtype=np.uint8), ValueError, "holds no image"),
        ([[1, 2]], TypeError, "array of images"),
    ],
)
def test_input_is_checked(normalizer, reference, images, error, message):
    with pytest.raises(error, match=message):
        clone(normalizer).fit(images)
    with pytest.raises(error, match=message):
        clone(normalizer).fit(reference).transform(images)


@by_name
def test_slide_ids_are_checked(normalizer, reference):
    with pytest.raises(ValueError, match="one id per image"):
        clone(normalizer).fit(reference).transform(reference, slide_ids=[1, 2])


def test_macenko_finds_the_stains_and_their_amounts(reference):
    fitted = MacenkoNormalizer().fit(reference)
    assert_allclose(fitted.stain_matrix_, unit(RUIFROK).T, atol=0.03)
    assert_allclose(np.linalg.norm(fitted.stain_matrix_, axis=0), 1)
    stained = paint(amounts_of(), RUIFROK).reshape(-1, 3).max(axis=1) < 256 * np.exp(-0.15) - 1
    expected = np.percentile(amounts_of().reshape(-1, 2)[stained], 99, axis=0)
    assert_allclose(fitted.max_concentrations_, expected, rtol=0.05)


def test_macenko_agrees_with_another_implementation():
    # Expected stains computed with torchstain 1.4.1, which takes -log((I + 1) / Io):
    #
    # normalizer = torchstain.normalizers.MacenkoNormalizer(backend="numpy")
    # normalizer.fit(paint(amounts_of(seed=5), OTHER).reshape(-1, 48, 3), Io=256)
    # normalizer.HERef
    expected = [[0.50377379, 0.19833579], [0.79871299, 0.90293508], [0.32904335, 0.3812757]]
    fitted = MacenkoNormalizer().fit(paint(amounts_of(seed=5), OTHER))
    assert_allclose(fitted.stain_matrix_, expected, atol=1e-5)


def test_macenko_is_linear_in_optical_density(reference, other):
    # one pixel worked out by hand from the fitted attributes of both sides
    target, source = MacenkoNormalizer().fit(reference), MacenkoNormalizer().fit(other)
    pixel = other[0, 20, 20]
    density = -np.log((pixel + 1) / 256)
    amounts = np.linalg.lstsq(source.stain_matrix_, density)[0]
    amounts *= target.max_concentrations_ / source.max_concentrations_
    expected = 256 * np.exp(-target.stain_matrix_ @ amounts) - 1
    normal = target.transform(other, slide_ids=np.zeros(len(other)))
    assert_allclose(normal[0, 20, 20], np.clip(expected, 0, 255), atol=0.51)


def test_macenko_rescales_images_of_one_stain_only(reference):
    fitted = MacenkoNormalizer().fit(reference)
    amounts = amounts_of(n=2) * (1.0, 0.0)
    normal = fitted.transform(paint(0.5 * amounts, RUIFROK))
    density = -np.log((normal[:, 10:, 10:].reshape(-1, 3).astype(float) + 1) / 256)
    strong = density[density.sum(axis=1) > 1]
    cosine = strong @ unit(RUIFROK)[0] / np.linalg.norm(strong, axis=1)
    assert cosine.mean() > 0.98  # still hematoxylin, not stretched over two stains
    with pytest.raises(ValueError, match="one stain only"):
        MacenkoNormalizer().fit(paint(amounts, RUIFROK))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_density": 0}, "min_density"),
        ({"percentile": 50}, "percentile"),
        ({"percentile": -1}, "percentile"),
    ],
)
def test_macenko_checks_its_parameters(reference, options, message):
    with pytest.raises(ValueError, match=message):
        MacenkoNormalizer(**options).fit(reference)


def test_reinhard_matches_mean_and_deviation(reference, other):
    fitted = ReinhardNormalizer().fit(reference)
    normal = fitted.transform(other, slide_ids=np.zeros(len(other)))
    result = ReinhardNormalizer().fit(normal)
    assert_allclose(result.mean_, fitted.mean_, atol=0.05)
    assert_allclose(result.std_, fitted.std_, rtol=0.2)


def test_reinhard_color_space_by_hand():
    # l-alpha-beta of a gray pixel: the rows of the RGB to LMS matrix of the paper sum to about 1,
    # so that l is sqrt(3) log10 of the intensity, and alpha and beta are next to 0
    gray = np.full((2, 16, 16, 3), 63, dtype=np.uint8)
    fitted = ReinhardNormalizer().fit(gray)
    assert_allclose(fitted.mean_, [np.sqrt(3) * np.log10(64 / 256), 0, 0], atol=2e-3)


@by_name
def test_fitting_on_a_slide_reads_some_of_its_patches(tmp_path, normalizer):
    path = write_slide(tmp_path / "s.tif", texture(1200, 900))
    with open_slide(path) as slide:
        patches = SlidePatches(slide, slide.grid(magnification=20, size=32))
        assert len(patches) > 2 * 256
        asked = []

        class Watched(SlidePatches):
            def _read(self, indices):
                asked.append(len(indices))
                return super()._read(indices)

        fitted = clone(normalizer).fit(Watched(slide, patches.grid))
        assert sum(asked) <= 256
        assert fitted.transform(patches[:5]).shape == (5, 32, 32, 3)
