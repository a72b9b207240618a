"""NegativePseudoLabelClassifier: the loop checked exactly, then the whole on known truth."""

import pickle

import joblib
import numpy as np
import pandas as pd
import pytest
import torch
from bag_batches import PassThrough
from numpy.testing import assert_allclose, assert_array_equal
from sklearn.base import clone
from skorch import NeuralNetClassifier

from proportion_ssl import (
    AdaptiveSelector,
    Bags,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    PatchEmbedder,
    ThresholdSelector,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.nets import SignedLabelNet
from proportion_ssl.proportions import sum_absolute_error
from proportion_ssl.proportions.counts import class_proportions
from proportion_ssl.pseudo_labels import merge_rounds

DATA = make_bags(n_bags=12, bag_size=(1, 60), n_features=8, class_separation=1.0, random_state=0)


def make(**settings):
    return NegativePseudoLabelClassifier(**{"max_epochs": 5, "random_state": 0, **settings})


def fitted(data=DATA, **settings):
    return make(**settings).fit(data.X_labeled, data.y, data.bags)


def fixed_predictions(seed=0):
    """Labeled logits, and bags whose logits a test dictates."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (90, 3)).astype(np.float32)
    index = np.concatenate([np.arange(4), rng.integers(0, 4, 86)])
    proportions = rng.dirichlet(np.ones(3), 4)
    labeled = 2 * np.eye(3, dtype=np.float32)[[0, 1, 2] * 4]
    return labeled, np.array([0, 1, 2] * 4), Bags(logits, index, proportions)


def probabilities_of(bags):
    return torch.softmax(torch.from_numpy(bags.X), dim=-1).numpy()


def select(selector, bags):
    return selector.transform(
        probabilities_of(bags), bag_ids=bags.index, bag_proportions=bags.proportions
    )


# The loop, with predictions that a test dictates


@pytest.mark.parametrize("net", [SignedLabelNet(PassThrough), NeuralNetClassifier(PassThrough)])
def test_labels_of_the_loop_are_those_of_the_selectors(net):
    X, y, bags = fixed_predictions()
    clf = make(estimator=net).fit(X, y, bags)
    positive, negative = select(AdaptiveSelector(), bags), select(NegativeSelector(), bags)
    assert (positive > 0).any()
    assert (negative < 0).any()
    assert_array_equal(clf.signed_labels_, merge_rounds(positive, negative, negative * 0))
    assert clf.n_iter_ == 5


def test_history_reports_what_was_selected():
    X, y, bags = fixed_predictions()
    clf = make(estimator=SignedLabelNet(PassThrough)).fit(X, y, bags)
    predicted = class_proportions(
        probabilities_of(bags).argmax(axis=1), bags.index, n_bags=4, n_classes=3
    )
    for entry in clf.history_[1:]:
        assert_allclose(
            entry["sum_absolute_error"], sum_absolute_error(bags.proportions, predicted).mean()
        )
        assert entry["n_positive"] == (clf.signed_labels_ > 0).sum(axis=0).tolist()
        assert entry["n_negative"] == (clf.signed_labels_ < 0).sum(axis=0).tolist()
    assert [entry["round"] for entry in clf.history_] == [0, 1, 2, 3, 4, 5]
    assert sum(entry["n_epochs"] for entry in clf.history_[1:]) == 5


def test_labels_that_stand_from_the_start_are_of_round_one():
    X, y, bags = fixed_predictions()
    clf = make(estimator=SignedLabelNet(PassThrough)).fit(X, y, bags)
    assert_array_equal(clf.label_rounds_, (clf.signed_labels_ != 0).astype(int))


class OneNegativePerRound:
    """In round r the r-th class is negative for every instance (as if all were predicted so)."""

    def __init__(self):
        self.round = 0

    def transform(self, probabilities, bag_ids, bag_proportions):
        signed = np.zeros(probabilities.shape, dtype=np.int8)
        signed[:, self.round % probabilities.shape[1]] = -1
        self.round += 1
        return signed


@pytest.mark.parametrize(
    ("settings", "expected", "since"),
    [
        ({"multi_negative": False}, [0, -1, 0], [0, 5, 0]),
        ({"negative_memory": 1}, [0, -1, 0], [0, 5, 0]),
        ({"negative_memory": 2}, [-1, -1, 0], [4, 5, 0]),
        ({"negative_memory": None}, [-1, -1, -1], [1, 2, 3]),
    ],
)
def test_memory_of_negative_labels(settings, expected, since):
    X, y, bags = fixed_predictions()
    clf = make(
        estimator=SignedLabelNet(PassThrough),
        positive_selector=None,
        negative_selector=OneNegativePerRound(),
        **settings,
    ).fit(X, y, bags)
    assert_array_equal(clf.signed_labels_, np.tile(expected, (90, 1)))
    assert_array_equal(clf.label_rounds_, np.tile(since, (90, 1)))


def test_rounds_use_up_the_epochs():
    X, y, bags = fixed_predictions()
    clf = make(estimator=SignedLabelNet(PassThrough), epochs_per_round=2).fit(X, y, bags)
    assert [entry["n_epochs"] for entry in clf.history_[1:]] == [2, 2, 1]
    assert clf.termination_condition_ == "max_epochs"


@pytest.mark.parametrize(
    ("settings", "with_bags", "steps"),
    [({}, True, 7), ({"refit": False, "epochs_per_round": 2}, True, 4), ({}, False, 1)],
)
def test_a_bar_shows_supervised_training_rounds_and_refit(settings, with_bags, steps, capsys):
    X, y, bags = fixed_predictions()
    clf = make(estimator=SignedLabelNet(PassThrough), verbose=True, **settings)
    clf.fit(X, y, bags if with_bags else None)
    out, err = capsys.readouterr()
    assert f"{steps}/{steps}" in err and out == ""
    assert ("refit" in err) == (with_bags and "refit" not in settings)
    clf.set_params(verbose=False).fit(X, y, bags)
    assert capsys.readouterr() == ("", "")


# Settings


def weights(clf):
    return clf.estimator_.module_.linear.weight.detach().numpy()


def test_without_bags_it_is_the_supervised_fit():
    alone = make().fit(DATA.X_labeled, DATA.y)
    switched_off = fitted(positive_selector=None, negative_selector=None)
    assert_array_equal(weights(alone), weights(switched_off))
    assert (alone.n_iter_, alone.termination_condition_) == (0, "no_bags")
    assert switched_off.termination_condition_ == "no_selector"
    assert not hasattr(alone, "signed_labels_")


def test_same_seed_same_result():
    assert_array_equal(weights(fitted()), weights(fitted()))
    assert (weights(fitted()) != weights(fitted(random_state=1))).any()


def test_the_global_generator_is_left_alone():
    before = torch.get_rng_state()
    fitted()
    assert_array_equal(before, torch.get_rng_state())


def test_string_labels_give_the_same_model():
    names = np.array(["d", "e", "f", "g"])
    table = pd.DataFrame(DATA.bags.proportions, index=DATA.bags.names, columns=names)
    bags = Bags(DATA.bags.X, DATA.bags.names[DATA.bags.index], table)
    clf = make().fit(DATA.X_labeled, names[DATA.y], bags)
    assert_array_equal(weights(clf), weights(fitted()))
    assert_array_equal(clf.predict(DATA.X_test), names[fitted().predict(DATA.X_test)])


@pytest.mark.parametrize("form", ["tuple", "list", "Bags and array", "dict"])
def test_every_form_of_bags_gives_the_same_model(form):
    bags = DATA.bags
    arrays = [bags.X[bags.index == i] for i in range(bags.n_bags)]
    frame = pd.DataFrame(bags.proportions, index=bags.names, columns=[0, 1, 2, 3])
    X_bags, proportions = {
        "tuple": (tuple(arrays), bags.proportions),
        "list": (arrays, bags.proportions),
        "Bags and array": (Bags(bags.X, bags.index), bags.proportions),
        "dict": (dict(zip(bags.names.tolist(), arrays, strict=True)), frame.iloc[::-1, ::-1]),
    }[form]
    clf = make().fit(DATA.X_labeled, DATA.y, X_bags, proportions)
    assert_array_equal(weights(clf), weights(fitted()))


ROWS_OF_TABLE_2 = {
    "adaptive": {"negative_selector": None},
    "single": {"positive_selector": None, "multi_negative": False},
    "multi": {"positive_selector": None},
    "adaptive + single": {"multi_negative": False},
    "adaptive + multi": {},
    "pseudo labeling": {
        "positive_selector": ThresholdSelector(threshold=0.5),
        "negative_selector": None,
    },
}


@pytest.mark.parametrize("name", ROWS_OF_TABLE_2)
def test_rows_of_table_2_give_the_labels_they_are_named_after(name):
    clf = fitted(**ROWS_OF_TABLE_2[name], max_epochs=15)
    n_positive, n_negative = (
        np.sum([entry[key] for entry in clf.history_[1:]]) for key in ("n_positive", "n_negative")
    )
    assert (n_positive > 0) == ("adaptive" in name or name == "pseudo labeling")
    assert (n_negative > 0) == ("single" in name or "multi" in name)


def test_nested_parameters_reach_the_net():
    clf = make(estimator=HeadClassifier()).set_params(
        estimator__dropout=0.5, estimator__optimizer=torch.optim.SGD, estimator__lr=0.25
    )
    clf = clone(clf).fit(DATA.X_labeled, DATA.y)
    assert clf.estimator_.module_.dropout.p == 0.5
    assert clf.estimator_.optimizer_.param_groups[0]["lr"] == 0.25
    assert isinstance(clf.estimator_.optimizer_, torch.optim.SGD)


def test_learning_rate_and_batch_size_override_the_net():
    clf = make(estimator=HeadClassifier(lr=1.0), learning_rate=1e-4, batch_size=7)
    clf.fit(DATA.X_labeled, DATA.y)
    assert clf.estimator_.optimizer_.param_groups[0]["lr"] == 1e-4
    assert clf.estimator_.batch_size == 7
    assert clf.estimator.lr == 1.0


@pytest.mark.parametrize("copy", ["pickle", "joblib"])
def test_a_fitted_model_survives_the_disk(copy, tmp_path):
    clf = fitted()
    if copy == "pickle":
        again = pickle.loads(pickle.dumps(clf))
    else:
        joblib.dump(clf, tmp_path / "model.joblib")
        again = joblib.load(tmp_path / "model.joblib")
    assert_array_equal(again.predict_proba(DATA.X_test), clf.predict_proba(DATA.X_test))


def test_early_stopping_keeps_the_best_weights():
    clf = make(max_epochs=60, patience=2, learning_rate=0.5).fit(DATA.X_labeled, DATA.y)
    losses = clf.estimator_.history[:, "valid_loss"]
    assert len(losses) < 60
    best = int(np.argmin(losses))
    assert len(losses) == best + 1 + 2
    rerun = make(max_epochs=best + 1, patience=100, learning_rate=0.5)
    assert_array_equal(weights(clf), weights(rerun.fit(DATA.X_labeled, DATA.y)))


# The refit


def test_refit_changes_the_weights_and_nothing_of_the_rounds():
    kept, anew = fitted(refit=False), fitted(refit=True)
    assert_array_equal(kept.signed_labels_, anew.signed_labels_)
    assert kept.history_ == anew.history_
    assert kept.refit_history_ is None
    assert (weights(kept) != weights(anew)).any()
    best = min(anew.estimator_.history[:, "valid_loss"])
    assert anew.refit_history_["valid_loss"] == best
    assert anew.refit_history_["n_epochs"] == len(anew.estimator_.history)


def test_refit_learns_from_the_pseudo_labels_of_the_last_round_alone():
    """A selector that reveals the truth only in its last round."""

    class LastRound(AdaptiveSelector):
        def select(self, probabilities, bag_index, bag_proportions):
            calls.append(1)
            if len(calls) < 40:
                return np.zeros(probabilities.shape, dtype=np.int8)
            return np.eye(probabilities.shape[1], dtype=np.int8)[DATA.y_bags]

    calls = []
    settings = {"negative_selector": None, "validation_fraction": 0}
    clf = make(positive_selector=LastRound(), max_epochs=40, **settings)
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert_array_equal(clf.signed_labels_.argmax(axis=1), DATA.y_bags)
    X = np.concatenate([DATA.X_labeled, DATA.bags.X])
    y = np.concatenate([DATA.y, DATA.y_bags])
    ceiling = make(max_epochs=40, **settings).fit(X, y)
    supervised = make(max_epochs=40, **settings).fit(DATA.X_labeled, DATA.y)
    scores = [model.score(DATA.X_test, DATA.y_test) for model in (supervised, clf, ceiling)]
    assert scores[0] < scores[1]
    assert_allclose(scores[1], scores[2], atol=0.03)


def test_refit_without_validation_uses_up_the_epochs():
    clf = fitted(validation_fraction=0)
    assert clf.refit_history_["n_epochs"] == 5
    assert clf.refit_history_["valid_loss"] is None


def test_no_refit_without_pseudo_labels():
    assert make().fit(DATA.X_labeled, DATA.y).refit_history_ is None
    assert fitted(positive_selector=None, negative_selector=None).refit_history_ is None


def test_no_validation():
    clf = fitted(validation_fraction=0)
    assert clf.history_[0]["valid_loss"] is None
    assert clf.history_[0]["n_epochs"] == 5


# Images


@pytest.fixture(scope="module")
def images():
    rng = np.random.default_rng(0)
    labels = np.array([0, 1] * 8)
    shade = np.where(labels == 0, 60, 190)[:, None, None, None]
    pixels = np.clip(shade + rng.normal(0, 30, (16, 32, 32, 3)), 0, 255).astype(np.uint8)
    bags = Bags(np.repeat(pixels, 2, axis=0)[:30], np.repeat(np.arange(6), 5), [[0.4, 0.6]] * 6)
    return pixels, labels, bags


@pytest.mark.slow
def test_frozen_images_give_the_same_model_as_embedding_first(images):
    pixels, labels, bags = images
    on_images = make(estimator=MobileNetV2Classifier(weights=None), max_epochs=3)
    on_images.fit(pixels, labels, bags)
    embedder = PatchEmbedder(weights=None)
    features = embedder.transform(pixels)
    on_features = make(max_epochs=3)
    on_features.fit(features, labels, bags.with_instances(embedder.transform(bags.X)))
    assert_array_equal(
        on_images.estimator_.module_.head.linear.weight.detach(),
        on_features.estimator_.module_.linear.weight.detach(),
    )
    assert_array_equal(on_images.predict_proba(pixels), on_features.predict_proba(features))
    assert on_images.n_features_in_ == 3


def test_fine_tuning_images_moves_the_convolutions(images):
    pixels, labels, bags = images
    net = MobileNetV2Classifier(weights=None, freeze=False)
    clf = make(estimator=net, max_epochs=1).fit(pixels, labels, bags)
    first = next(clf.estimator_.module_.backbone.parameters())
    net.classes_inferred_ = np.unique(labels)
    start = next(net.initialize().module_.backbone.parameters())
    assert (first != start).any()
    assert clf.predict_proba(pixels).shape == (16, 2)


def test_lazily_read_images(images):
    pixels, labels, _ = images

    class Lazy:
        """Images that are read when indexed, as from a slide."""

        shape, dtype = pixels.shape, pixels.dtype

        def __len__(self):
            return len(pixels)

        def __getitem__(self, rows):
            return pixels[rows]

    net = MobileNetV2Classifier(weights=None)
    lazy = make(estimator=net, max_epochs=1).fit(Lazy(), labels)
    whole = make(estimator=net, max_epochs=1).fit(pixels, labels)
    assert_array_equal(lazy.predict_proba(Lazy()), whole.predict_proba(pixels))


# Bad input


def changed(**changes):
    arguments = {
        "X_labeled": DATA.X_labeled,
        "y": DATA.y,
        "X_bags": DATA.bags,
        "bag_proportions": None,
        "groups": None,
    }
    return {**arguments, **changes}


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"y": np.zeros(len(DATA.y))}, "one class"),
        (
            {"y": np.where(DATA.y == 0, None, DATA.y.astype(str))},
            rf"{np.sum(DATA.y == 0)} of {len(DATA.y)} labels are None or NaN.*pandas\.notna",
        ),
        ({"y": np.where(DATA.y == 0, np.nan, DATA.y)}, "labels are None or NaN"),
        (
            {"y": np.where(DATA.y == 0, "", np.char.add("class ", DATA.y.astype(str)))},
            rf"{np.sum(DATA.y == 0)} of {len(DATA.y)} labels are texts without a class",
        ),
        ({"y": np.minimum(DATA.y, 2)}, "4 columns but there are 3 classes"),
        ({"groups": [1, 2]}, r"groups has shape \(2,\)"),
        ({"groups": DATA.groups + 4}, "is also a labeled slide"),
        ({"X_bags": None, "bag_proportions": [[1, 0, 0, 0]]}, "without X_bags"),
        ({"X_bags": Bags(DATA.bags.X, DATA.bags.index)}, "12 bags have no proportions"),
        (
            {"X_bags": Bags(DATA.bags.X[:, :3], DATA.bags.index, DATA.bags.proportions)},
            r"shape \(3,\)",
        ),
        ({"bag_proportions": DATA.bags.proportions * 100}, "divide by 100"),
        ({"bag_proportions": DATA.bags.proportions[:5]}, "5 rows but there are 12 bags"),
        ({"X_labeled": np.zeros((len(DATA.y), 9, 9))}, "dim 3"),
        ({"X_bags": [DATA.X_labeled] * len(DATA.y)}, "slices lists and tuples .* drops bags"),
        (
            {
                "X_bags": DATA.bags.with_instances(
                    np.zeros((DATA.bags.n_instances, 32, 32, 3), np.uint8)
                )
            },
            "labeled instances have shape",
        ),
    ],
)
def test_bad_input_is_named(changes, message):
    with pytest.raises(ValueError, match=message):
        make().fit(**changed(**changes))


def test_nan_in_a_bag():
    X = DATA.bags.X.copy()
    X[3, 0] = np.nan
    with pytest.raises(ValueError, match="NaN"):
        make().fit(**changed(X_bags=DATA.bags.with_instances(X)))


def test_float_images_are_refused():
    with pytest.raises(TypeError, match="uint8"):
        make().fit(np.zeros((4, 32, 32, 3), dtype=np.float32), [0, 1, 0, 1])


def test_predicting_another_kind_of_input():
    with pytest.raises(ValueError, match=r"X must be features .*, as in fit"):
        make().fit(DATA.X_labeled, DATA.y).predict(np.zeros((1, 32, 32, 3), np.uint8))


def test_an_estimator_that_is_no_net():
    with pytest.raises(ValueError, match="estimator"):
        make(estimator=object()).fit(DATA.X_labeled, DATA.y)


def test_divergence_is_an_error():
    with pytest.raises(FloatingPointError, match="learning rate"):
        make(estimator=HeadClassifier(optimizer=torch.optim.SGD, lr=float("inf"))).fit(
            DATA.X_labeled, DATA.y
        )


# The whole, on data with known truth


@pytest.mark.slow
def test_bags_improve_on_supervised_training():
    gains, falls = [], []
    for seed in range(5):
        data = make_bags(class_separation=1.0, random_state=seed)
        proposed = make(max_epochs=40).fit(data.X_labeled, data.y, data.bags)
        supervised = make(max_epochs=40).fit(data.X_labeled, data.y)
        test = data.X_test, data.y_test
        gains.append(proposed.score(*test) - supervised.score(*test))
        errors = [entry["sum_absolute_error"] for entry in proposed.history_[1:]]
        falls.append(errors[-1] / errors[0])
    assert min(gains) > 0
    assert np.mean(gains) > 0.05
    assert np.mean(falls) < 0.5
