"""Two stages: any classifier of patches, and a U-Net on the grid of the slide."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal
from scipy.ndimage import gaussian_filter
from sklearn.base import BaseEstimator, ClassifierMixin, clone

from proportion_ssl import Bags, NegativePseudoLabelClassifier, RobustProportionClassifier
from proportion_ssl.baselines import ContextClassifier
from proportion_ssl.baselines._context_net import ContextNet, halve, lay, moved
from proportion_ssl.baselines.context import SMALLEST, parts_of, slides_of
from proportion_ssl.pseudo_labels import probabilities_given_records

# The net


def random_net(depth=2, kernel_size=3, n_inputs=5, n_outputs=3, seed=0):
    """All weights and biases random, none of them small."""
    net = ContextNet(n_inputs, n_outputs, width=6, depth=depth, kernel_size=kernel_size).double()
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(torch.randn(parameter.shape, dtype=torch.float64) * 0.5)
    return net


def random_slides(sizes=(30, 45), extent=12, seed=0, n_inputs=5):
    rng = np.random.default_rng(seed)
    slide = np.repeat(np.arange(len(sizes)), sizes)
    cells = [rng.permutation(extent**2)[:size] for size in sizes]
    cells = np.concatenate([np.stack(np.divmod(of_slide, extent), axis=1) for of_slide in cells])
    values = torch.tensor(rng.normal(size=(len(slide), n_inputs)))
    return values, torch.tensor(slide), torch.tensor(cells)


@torch.no_grad()
def test_with_kernels_of_one_cell_each_patch_is_seen_by_itself():
    net = random_net(depth=0, kernel_size=1)
    values, slide, cells = random_slides()
    x = torch.relu(net.embed(values))
    for layer in (net.bottom.first, net.bottom.second):
        x = torch.relu(x @ layer.weight[:, :, 0, 0].T + layer.bias)
    torch.testing.assert_close(net(values, slide, cells), net.head(x))


@torch.no_grad()
@pytest.mark.parametrize("depth", [0, 1, 2, 3])
def test_shifts_by_whole_steps_change_nothing(depth):
    net, (values, slide, cells) = random_net(depth), random_slides()
    expected = net(values, slide, cells)
    for shift in ([1, 0], [3, -5], [-40, 7]):
        shifted = cells + torch.tensor(shift) * 2**depth
        torch.testing.assert_close(net(values, slide, shifted), expected)
    if depth:
        assert not torch.allclose(net(values, slide, cells + 1), expected)


@torch.no_grad()
def test_slides_do_not_see_each_other_whatever_their_extent():
    net, (values, slide, cells) = random_net(), random_slides()
    cells = cells.clone()
    cells[slide == 1] *= 3
    together = net(values, slide, cells)
    for one in (0, 1):
        of_slide = slide == one
        alone = net(values[of_slide], slide[of_slide] * 0, cells[of_slide])
        torch.testing.assert_close(together[of_slide], alone)


@torch.no_grad()
def test_empty_cells_have_no_effect():
    """A patch far from all others, with empty cells between, is as good as alone on its slide."""
    net, (values, slide, cells) = random_net(), random_slides((30,))
    with_far = torch.cat([cells, cells[:1] + 64])
    together = net(torch.cat([values, values[:1]]), torch.zeros(31, dtype=torch.int64), with_far)
    torch.testing.assert_close(together[:-1], net(values, slide, cells))
    alone = net(values[:1], slide[:1], cells[:1])
    torch.testing.assert_close(together[-1:], alone)


@torch.no_grad()
def test_patches_see_their_neighbors():
    net, (values, slide, cells) = random_net(depth=0), random_slides((144,))
    other = values.clone()
    at = (cells == 6).all(dim=1)
    other[at] += 1
    changed = (net(other, slide, cells) != net(values, slide, cells)).any(dim=1)
    reach = (cells - 6).abs().amax(dim=1)
    assert changed[reach <= 1].all() and not changed[reach > 2].any(), "two layers of three cells"


def test_halving_averages_over_tissue():
    x = torch.arange(16.0).reshape(1, 1, 4, 4)
    tissue = torch.tensor([[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]]).float()
    found, of_tissue = halve(x * tissue, tissue.reshape(1, 1, 4, 4))
    assert found.flatten().tolist() == pytest.approx(
        [(0 + 4 + 5) / 3, 0, 0, (10 + 11 + 14 + 15) / 4]
    )
    assert of_tissue.flatten().tolist() == [1, 0, 0, 1]


def test_maps_begin_at_whole_steps():
    slide, cells = torch.tensor([0, 0, 1]), torch.tensor([[-3, 5], [4, 6], [9, 0]])
    (number, row, column), shape = lay(slide, cells, 4)
    assert number.tolist() == [0, 0, 1]
    assert row.tolist() == [1, 8, 1] and column.tolist() == [1, 2, 0] and shape == (2, 12, 4)


def test_maps_are_moved_in_every_way():
    cells = np.array([[0, 0], [0, 1], [2, 0]])
    shapes, shifts = set(), set()
    for seed in range(200):
        found = moved(cells, 1, np.random.RandomState(seed))
        shapes.add(tuple(map(tuple, found - found[0])))
        shifts.add(tuple(found[0]))
        assert_allclose(
            np.linalg.norm(found[:, None] - found, axis=2),
            np.linalg.norm(cells[:, None] - cells, axis=2),
        )
    assert len(shapes) == 8 and shifts == {(0, 0), (0, 1), (1, 0), (1, 1)}


def test_the_new_net_says_nothing():
    net = ContextNet(5, 3, width=4, depth=2, kernel_size=3)
    values, slide, cells = random_slides()
    assert (net(values.float(), slide, cells) == 0).all()


# The classifier


def cohort(n_slides, seed, noise=2.0, side=12, n_classes=3, dim=6):
    """Slides with patches of one class next to each other: features, labels, cells, slides."""
    rng, slides = np.random.default_rng(seed), []
    for _ in range(n_slides):
        fields = [gaussian_filter(rng.normal(size=(side, side)), 2.0) for _ in range(n_classes)]
        tissue = gaussian_filter(rng.normal(size=(side, side)), 2.0) > -0.1
        row, column = np.nonzero(tissue)
        y = np.argmax(fields, axis=0)[row, column]
        X = 2 * np.eye(n_classes, dim)[y] + rng.normal(0, noise, (len(y), dim))
        slides.append((X.astype(np.float32), y, np.stack([row, column], axis=1)))
    X, y, cells = (np.concatenate(parts) for parts in zip(*slides, strict=True))
    return X, y, cells, np.repeat(np.arange(n_slides), [len(of_slide[1]) for of_slide in slides])


X, Y, CELLS, GROUPS = cohort(3, 0)
X_BAGS, Y_BAGS, BAG_CELLS, OF_BAG = cohort(6, 1)
X_TEST, Y_TEST, TEST_CELLS, TEST_GROUPS = cohort(4, 2)
BAGS = Bags(
    X_BAGS,
    [f"b{bag}" for bag in OF_BAG],
    [np.bincount(Y_BAGS[b == OF_BAG], minlength=3) / (b == OF_BAG).sum() for b in range(6)],
)
PLACES = {"groups": GROUPS, "cells": CELLS}


def fitted(bags=BAGS, places=True, **settings):
    quick = {"max_epochs": 1, "validation_fraction": 0.0}
    settings = {**quick, "random_state": 0, "width": 4, **settings}
    where = dict(PLACES) if places else {}
    if bags is not None and places:
        where["bag_cells"] = BAG_CELLS
    return ContextClassifier(**settings).fit(X, Y, bags, **where)


def predicted(clf):
    return clf.predict_proba(X_TEST, groups=TEST_GROUPS, cells=TEST_CELLS)


def test_it_starts_from_the_map_of_the_first_stage():
    clf = fitted(learning_rate=1e-12)
    first = RobustProportionClassifier(random_state=0).fit(X, Y, BAGS, groups=GROUPS)
    expected = np.maximum(first.predict_proba(X_TEST), SMALLEST)
    expected /= expected.sum(axis=1, keepdims=True)
    assert_allclose(predicted(clf), expected, atol=1e-5)
    assert_array_equal(clf.estimator_.predict(X_TEST), first.predict(X_TEST))


class Remembers(ClassifierMixin, BaseEstimator):
    """Refuses to predict what it was fitted on."""

    def fit(self, X, y, bags=None, groups=None):
        self.classes_ = np.unique(y)
        self.seen_ = {row.tobytes() for row in X}
        self.n_labeled_, self.n_bags_ = len(X), 0 if bags is None else bags.n_bags
        if bags is not None:
            self.seen_ |= {row.tobytes() for row in bags.X}
        return self

    def predict_proba(self, X):
        assert not any(row.tobytes() in self.seen_ for row in X)
        assert self.n_bags_ in (0, 4, 6)
        shares = np.abs(X[:, : len(self.classes_)]) + 0.1
        return shares / shares.sum(axis=1, keepdims=True)


@pytest.mark.parametrize("places", [True, False])
def test_the_net_is_trained_on_what_first_stages_have_not_seen(places):
    clf = fitted(estimator=Remembers(), places=places, n_folds=3, depth=1)
    assert clf.estimator_.n_labeled_ == len(X) and clf.estimator_.n_bags_ == 6
    assert np.isfinite(predicted(clf)).all()
    one_slide = ContextClassifier(Remembers(), max_epochs=1, random_state=0)
    one_slide.fit(
        X, Y, groups=np.zeros(len(X)), cells=np.stack(np.divmod(np.arange(len(X)), 24), axis=1)
    )


def test_a_class_that_a_first_stage_lacks_has_a_column():
    slide_of_class = Y  # each slide shows one class; left out, its class is not known
    cells = np.stack([np.arange(len(X)), np.zeros(len(X), dtype=int)], axis=1)
    clf = ContextClassifier(Remembers(), max_epochs=1, random_state=0)
    clf.fit(X, Y, groups=slide_of_class, cells=cells)
    assert predicted(clf).shape == (len(X_TEST), 3)


def test_same_seed_same_result_and_torchs_generator_is_left_alone():
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    first, second, other = (predicted(fitted(random_state=seed)) for seed in (1, 1, 2))
    assert_array_equal(first, second)
    assert not np.array_equal(first, other)
    assert_array_equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002
    assert_allclose(first.sum(axis=1), 1, rtol=1e-5)


def test_cells_of_bags_all_at_once_or_bag_by_bag():
    expected = predicted(fitted())
    by_bag = [BAG_CELLS[bag == OF_BAG] for bag in range(6)]
    clf = clone(fitted())
    assert_array_equal(predicted(clone(clf).fit(X, Y, BAGS, bag_cells=by_bag, **PLACES)), expected)
    parts = tuple(X_BAGS[bag == OF_BAG] for bag in range(6))
    clf.fit(X, Y, parts, BAGS.proportions, bag_cells=by_bag, **PLACES)
    assert_array_equal(predicted(clf), expected)


def test_order_of_patches_and_slides_does_not_matter_for_prediction():
    clf = fitted()
    order = np.random.default_rng(0).permutation(len(X_TEST))
    found = clf.predict_proba(
        X_TEST[order], groups=TEST_GROUPS[order].astype(str), cells=TEST_CELLS[order]
    )
    assert_allclose(found, predicted(clf)[order], atol=1e-5)


def test_without_cells_patches_have_no_neighbors():
    clf = fitted(places=False)
    together = clf.predict_proba(X_TEST)
    one_by_one = np.concatenate([clf.predict_proba(X_TEST[i : i + 1]) for i in range(20)])
    assert_allclose(together[:20], one_by_one, atol=1e-5)
    far_apart = 1000 * np.stack([np.arange(20)] * 2, axis=1)
    names = np.arange(20)
    assert_allclose(
        together[:20], clf.predict_proba(X_TEST[:20], cells=far_apart, groups=names), atol=1e-5
    )


def test_names_pickle_and_records_at_prediction():
    names = np.array(["acinar", "lepidic", "solid"])
    clf = clone(fitted()).set_params(classes=names)
    clf.fit(X, names[Y], BAGS, bag_cells=BAG_CELLS, **PLACES)
    assert_array_equal(clf.classes_, names)
    assert_allclose(predicted(clf), predicted(fitted()), atol=1e-6)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(predicted(again), predicted(clf))
    where = {"groups": TEST_GROUPS, "cells": TEST_CELLS}
    assert_array_equal(names[predicted(clf).argmax(axis=1)], clf.predict(X_TEST, **where))
    assert_allclose(clf.predict_log_proba(X_TEST, **where), np.log(predicted(clf)))
    recorded = {"bag_ids": TEST_GROUPS, "bag_proportions": [[0.0, 0.5, 0.5]] * 4}
    index = np.unique(TEST_GROUPS, return_inverse=True)[1]
    record = np.tile([0.0, 0.5, 0.5], (4, 1))
    expected = probabilities_given_records(
        *(predicted(clf), index, record, record),
        standard_deviation=clf.estimator_.record_deviation_,
        instance_weight=clf.estimator_.instance_weight_,
    )
    assert_allclose(clf.predict_proba(X_TEST, **where, **recorded), expected)
    assert clf.record_deviation_ == clf.estimator_.record_deviation_
    clf.record_deviation_ = 0.02  # a sure record
    shares = [(clf.predict(X_TEST, **where, **more) == "acinar").mean() for more in ({}, recorded)]
    assert shares[1] < 0.6 * shares[0]


def test_weight_of_zero_and_what_is_logged():
    with_bags = fitted(weight=0.0, validation_fraction=0.25)
    losses = {"labeled_loss", "bag_loss", "valid_loss"}
    assert [set(epoch) for epoch in with_bags.history_] == [{"valid_loss"}, losses]
    assert [set(epoch) for epoch in fitted(bags=None).history_] == [set(), {"labeled_loss"}]
    with_bags = fitted(weight=0.0)
    assert not np.array_equal(predicted(with_bags), predicted(fitted(weight=10.0)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"cells": CELLS[:-1]}, "give row and column of each of the"),
        ({"cells": CELLS + 0.5}, "as whole numbers"),
        ({"cells": CELLS * 0}, "patches in row 0, column 0"),
        ({"bag_cells": None}, "Give both cells and bag_cells, or neither"),
        ({"cells": None}, "Give both cells and bag_cells, or neither"),
        ({"bag_cells": [BAG_CELLS[:3]] * 6}, "give one per bag"),
        ({"bag_cells": BAG_CELLS * 0}, "slide 'b[0-5]' has"),
        ({"groups": GROUPS[:-1]}, "groups has"),
    ],
)
def test_places_that_do_not_fit(change, message):
    places = {**PLACES, "bag_cells": BAG_CELLS, **change}
    clf = ContextClassifier(max_epochs=1)
    with pytest.raises(ValueError, match=message):
        clf.fit(X, Y, BAGS, **places)
    assert not vars(clf).keys() & {"classes_", "_cells"}, "as before the fit"


def test_what_else_is_refused():
    with pytest.raises(ValueError, match="kernel_size is 2; give an odd number"):
        fitted(kernel_size=2)
    with pytest.raises(ValueError, match="inputs"):
        fitted(inputs="pixels")
    with pytest.raises(ValueError, match="bag_cells is given without X_bags"):
        ContextClassifier().fit(X, Y, bag_cells=BAG_CELLS, **PLACES)
    with pytest.raises(ValueError, match="of X has shape"):
        fitted().predict(X_TEST, cells=TEST_CELLS[:-1])
    with pytest.raises(ValueError, match="multiples of 224 apart, like pixel coordinates"):
        fitted().predict(X_TEST, groups=TEST_GROUPS, cells=TEST_CELLS * 224 + 1000)
    far = np.array([[0, 0], [0, 160]])  # two patches may be far apart
    np.testing.assert_array_equal(slides_of(2, None, far, "X")[1], far)
    with pytest.raises(ValueError, match=r"groups of X has shape \(1,\), but there are 2 patches"):
        slides_of(2, ["a"], [[0, 0], [0, 1]], "X")


def test_parts_hold_whole_slides():
    slide = np.array([2, 0, 1, 1, 0, 2, 1])
    parts = list(parts_of(slide, 4, np.array([1, 0, 2])))
    assert [sorted(rows) for rows in parts] == [[1, 2, 3, 4, 6], [0, 5]]


def test_the_best_epoch_is_kept_and_training_ends_without_a_better_one():
    settings = {"bags": None, "validation_fraction": 0.25, "random_state": 1}
    clf = fitted(max_epochs=60, patience=3, **settings)
    valid = [epoch["valid_loss"] for epoch in clf.history_]
    best = int(np.argmin(valid))
    assert len(valid) == best + 4 < 61 and best > 0
    assert_array_equal(predicted(fitted(max_epochs=best, **settings)), predicted(clf))
    worse = fitted(max_epochs=2, **{**settings, "learning_rate": 10.0})
    assert worse.history_[0]["valid_loss"] <= worse.history_[1]["valid_loss"]
    first = worse.estimator_.predict_proba(X_TEST)
    assert_allclose(predicted(worse), first, atol=3e-3)


# What context is worth


def stripes(n_slides, seed, side=16):
    """Class 0 comes in stripes, class 1 as a chessboard; features of single patches are the same."""
    rng, slides = np.random.default_rng(seed), []
    row, column = (index.ravel() for index in np.indices((side, side)))
    for _ in range(n_slides):
        border, turned = rng.integers(4, side - 4), rng.integers(2)
        y = ((row if turned else column) >= border).astype(int)
        bright = np.where(y == 1, (row + column) % 2, (column if rng.integers(2) else row) % 2)
        X = np.stack([2.0 * bright - 1, rng.normal(size=side**2)], axis=1)
        slides.append((X.astype(np.float32), y, np.stack([row, column], axis=1)))
    parts = (np.concatenate(part) for part in zip(*slides, strict=True))
    return (*parts, np.repeat(np.arange(n_slides), side**2))


@pytest.mark.slow
def test_a_pattern_that_no_classifier_of_patches_can_learn():
    X, y, cells, groups = stripes(4, 0)
    X_test, y_test, test_cells, test_groups = stripes(4, 1)
    clf = ContextClassifier(
        NegativePseudoLabelClassifier(max_epochs=5),
        inputs="features",
        max_epochs=60,
        learning_rate=0.01,
        random_state=0,
    ).fit(X, y, groups=groups, cells=cells)
    first = clf.estimator_.score(X_test, y_test)
    second = (clf.predict(X_test, groups=test_groups, cells=test_cells) == y_test).mean()
    assert first < 0.6 and second > 0.9


@pytest.mark.slow
def test_neighbors_help():
    scores = []
    for bags in (None, BAGS):
        clf = fitted(bags, max_epochs=8, validation_fraction=0.25, random_state=1)
        scores.append((predicted(clf).argmax(axis=1) == Y_TEST).mean())
        first = clf.estimator_.score(X_TEST, Y_TEST)
        assert scores[-1] > first + 0.1


def test_cells_of_any_kind_of_whole_numbers():
    cells = np.array([[0, 1], [3, 2]])
    for dtype in (np.uint8, np.uint64, np.int32):
        slide, found = slides_of(2, None, cells.astype(dtype), "X")
        assert_array_equal(found, cells, strict=True)
        assert slide.tolist() == [0, 0]
