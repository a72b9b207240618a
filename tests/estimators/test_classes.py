"""Classes that no labeled patch shows, and messages about labels that do not fit."""

import warnings

import numpy as np
import pandas as pd
import pytest
import sklearn
from numpy.testing import assert_array_equal
from scipy.sparse import csr_array, csr_matrix
from sklearn.base import clone
from sklearn.model_selection import GroupKFold, cross_validate

from proportion_ssl import (
    Bags,
    ClassifyAndCount,
    HeadClassifier,
    MultiFieldOfViewNet,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    SoftAssignmentSelector,
    TumorProposer,
    mean_iou_score,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    FixMatchClassifier,
    MeanMapClassifier,
    ProportionLossClassifier,
    ProportionSVMClassifier,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import _learners
from proportion_ssl.estimators._classes import known_classes
from proportion_ssl.heads import DiscriminantClassifier

NAMES = np.array(["a", "b", "c", "d"])
DATA = make_bags(n_bags=15, bag_size=30, n_features=8, class_separation=2.0, random_state=0)
Y = NAMES[DATA.y]
IS_LABELED = Y != "c"
X, LABELS = DATA.X_labeled[IS_LABELED], Y[IS_LABELED]

QUICK = {"max_epochs": 25, "learning_rate": 0.05, "random_state": 0}
LEARN_FROM_PROPORTIONS = [
    NegativePseudoLabelClassifier(**QUICK),
    RobustProportionClassifier(random_state=0),
    AssignmentClassifier(**QUICK),
    ProportionLossClassifier(**QUICK),
    MeanMapClassifier(),
    ProportionSVMClassifier(random_state=0),
]
EVERY = [*LEARN_FROM_PROPORTIONS, FixMatchClassifier(**QUICK)]


def table(**changes):
    names = [f"slide {i:02}" for i in range(DATA.bags.n_bags)]
    recorded = pd.DataFrame(DATA.bags.proportions, index=names, columns=NAMES)
    return recorded.assign(**changes)


def bags(proportions=None):
    names = np.array([f"slide {i:02}" for i in range(DATA.bags.n_bags)])
    return Bags(DATA.bags.X, names[DATA.bags.index], proportions)


every = pytest.mark.parametrize("model", EVERY, ids=lambda m: type(m).__name__)


# --- classes that only bags show ----------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("named", ["columns", "classes"])
@pytest.mark.parametrize("model", LEARN_FROM_PROPORTIONS, ids=lambda m: type(m).__name__)
def test_bags_teach_a_class_that_no_labeled_patch_shows(model, named):
    model, recorded = clone(model), table()
    if named == "classes":
        model.set_params(classes=["a", "b", "c", "d"])
        recorded = recorded.loc[bags().names].to_numpy()
    model.fit(X, LABELS, bags(recorded))
    assert_array_equal(model.classes_, NAMES)
    predicted, truth = model.predict(DATA.X_test), NAMES[DATA.y_test]
    assert (predicted == truth).mean() > 0.9
    assert (predicted[truth == "c"] == "c").mean() > 0.9


@pytest.mark.parametrize("n_labels", [1, 2])
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(
    "model",
    [
        RobustProportionClassifier(),
        NegativePseudoLabelClassifier(
            DiscriminantClassifier(),
            positive_selector=SoftAssignmentSelector(),
            negative_selector=None,
        ),
    ],
    ids=["robust", "soft"],
)
def test_a_class_with_few_labels_is_not_lost(model, seed, n_labels):
    """One or two patches say little in 300 dimensions: the bags tell the class better."""
    data = make_bags(
        20, n_labeled_slides=3, n_features=300, class_separation=0.45, random_state=seed
    )
    few = data.y == 3
    kept = ~few | (np.cumsum(few) <= n_labels)
    labeled = data.X_labeled[kept], data.y[kept]
    model = clone(model).fit(*labeled, data.bags, groups=data.groups[kept])
    assert mean_iou_score(data.y_test, model.predict(data.X_test)) > 0.98


@pytest.mark.filterwarnings("ignore::proportion_ssl.estimators.HarmfulLabelsWarning")
@pytest.mark.parametrize("seed", range(3))
def test_bags_with_records_of_others_tell_no_class_that_has_labels(seed, monkeypatch):
    """Means told by wrong records would make predictions fit these records."""
    data = make_bags(
        16,
        bag_size=25,
        n_labeled_slides=4,
        n_features=20,
        class_separation=0.7,
        slide_shift=0.5,
        random_state=seed,
    )
    few = data.y == 3
    kept = ~few | (np.cumsum(few) <= 2)
    labeled = data.X_labeled[kept], data.y[kept]
    seen, fit = [], _learners.SolvedLearner.fit_labeled

    def fit_labeled(self):
        losses = fit(self)
        seen.append(self.told[1].argmax(axis=1))
        return losses

    monkeypatch.setattr(_learners.SolvedLearner, "fit_labeled", fit_labeled)
    exchanged = data.bags.proportions[np.random.default_rng(seed).permutation(16)]
    for proportions in (data.bags.proportions, exchanged):
        bags = Bags(data.bags.X, data.bags.names[data.bags.index], proportions)
        model = RobustProportionClassifier(random_state=0)
        model.fit(*labeled, bags, groups=data.groups[kept])
    assert 3 in seen[0] and not len(seen[1])
    assert model.fell_back_


@pytest.mark.filterwarnings("ignore::proportion_ssl.estimators.HarmfulLabelsWarning")
def test_a_fit_that_falls_back_learns_of_no_class_with_labels_from_bags(monkeypatch):
    monkeypatch.setattr(_learners, "labels_say_so", lambda *_: True)
    few = DATA.y == 3
    kept = ~few | (np.cumsum(few) <= 2)
    labeled = DATA.X_labeled[kept], DATA.y[kept]
    model = RobustProportionClassifier(random_state=0)
    fitted = clone(model).fit(*labeled, DATA.bags)
    others = Bags(DATA.bags.X, DATA.bags.index, np.roll(DATA.bags.proportions, 1, axis=1))
    other = clone(model).fit(*labeled, others)
    assert fitted.fell_back_ and other.fell_back_
    assert_array_equal(fitted.predict(DATA.X_test), other.predict(DATA.X_test))


@every
def test_without_bags_a_class_without_labels_is_known_and_not_predicted(model):
    model = clone(model).set_params(classes=NAMES).fit(X, LABELS)
    assert_array_equal(model.classes_, NAMES)
    predicted, truth = model.predict(DATA.X_test), NAMES[DATA.y_test]
    assert "c" not in predicted
    assert (predicted == truth)[truth != "c"].mean() > 0.8
    if hasattr(model, "predict_proba"):
        probabilities = model.predict_proba(DATA.X_test)
        assert probabilities.shape == (len(truth), 4)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        assert probabilities[:, 2].max() < 0.5


def test_naming_the_classes_that_are_there_changes_nothing():
    models = [
        NegativePseudoLabelClassifier(max_epochs=3, random_state=0, classes=classes)
        for classes in (None, ["a", "b", "c", "d"], np.array(["d", "c", "b", "a"]))
    ]
    first, *others = (m.fit(DATA.X_labeled, Y, bags(table())).predict_proba(X) for m in models)
    for other in others:
        assert_array_equal(first, other)


@pytest.mark.parametrize(
    "classes", [{"c", "a", "b"}, frozenset("abc"), dict.fromkeys("cab").keys()]
)
def test_classes_may_be_a_set_or_the_keys_of_a_dict(classes):
    assert_array_equal(known_classes(np.array(["a", "b"]), classes, None), ["a", "b", "c"])


def test_columns_without_names_beside_classes_in_another_order_are_doubted():
    recorded = table().loc[bags().names].to_numpy()
    model = NegativePseudoLabelClassifier(max_epochs=1, classes=["d", "c", "b", "a"])
    with pytest.warns(
        UserWarning, match="columns .* assumed to be in the order 'a', 'b', 'c', .*'d', 'c'"
    ):
        model.fit(X, LABELS, bags(recorded))


def test_a_set_of_classes_has_no_order_to_doubt():  # warnings are errors
    recorded = table().loc[bags().names].to_numpy()
    NegativePseudoLabelClassifier(max_epochs=1, classes=set("dcba")).fit(X, LABELS, bags(recorded))


@pytest.mark.slow
def test_grouped_cross_validation_goes_on_where_a_fold_lacks_a_class():
    slides = np.where(Y == "c", 0, 1 + np.arange(len(Y)) % 2)
    model = NegativePseudoLabelClassifier(**QUICK)
    scores = cross_validate(
        *(model, DATA.X_labeled, Y),
        groups=slides,
        cv=GroupKFold(3),
        params={"X_bags": bags(table())},
        scoring="accuracy",
        error_score="raise",
    )["test_score"]
    assert (scores > 0.9).all()


def test_classes_by_bags_of_which_all_labels_are_one_class():
    only = Y == "a"
    model = NegativePseudoLabelClassifier(max_epochs=3, random_state=0)
    model.fit(DATA.X_labeled[only], Y[only], bags(table()))
    assert_array_equal(model.classes_, NAMES)


def test_a_column_of_zeros_for_a_class_without_labels_is_left_out_and_named():
    model = NegativePseudoLabelClassifier(max_epochs=2, random_state=0)
    with pytest.warns(UserWarning, match="Class 'mucinous' has a column .* it is left out") as seen:
        model.fit(DATA.X_labeled, Y, bags(table(mucinous=0.0)))
    assert seen[0].filename == __file__
    assert_array_equal(model.classes_, NAMES)
    model.set_params(classes=[*NAMES, "mucinous"])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model.fit(DATA.X_labeled, Y, bags(table(mucinous=0.0)))
    assert model.classes_.tolist() == [*NAMES, "mucinous"]


def test_bags_left_out_of_a_search_teach_the_class_too():
    names = bags().names
    model = ClassifyAndCount(ProportionLossClassifier(**QUICK))
    model.fit(names[:10], labeled=(X, LABELS), bags=bags(table()))
    assert model.score(names[10:]) > -0.2


def test_labels_of_numbers_meet_columns_of_numbers():
    recorded = table().set_axis([10, 20, 30, 40], axis=1)
    model = NegativePseudoLabelClassifier(max_epochs=2, random_state=0)
    model.fit(X, (DATA.y[IS_LABELED] + 1) * 10, bags(recorded))
    assert model.classes_.tolist() == [10, 20, 30, 40] and model.classes_.dtype.kind == "i"


# --- messages -----------------------------------------------------------------------------------


def fit(y=Y, proportions=None, model=None, X=DATA.X_labeled, **more):
    model = NegativePseudoLabelClassifier(max_epochs=1) if model is None else model
    return model.fit(X, y, bags(table() if proportions is None else proportions), **more)


def of_classes(classes):
    return NegativePseudoLabelClassifier(max_epochs=1, classes=classes)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"y": DATA.y}, r"y holds numbers \(0, 1, 2\) but the columns of bag_proportions strings"),
        (
            {"proportions": table().set_axis([0, 1, 2, 3], axis=1)},
            r"y holds strings \('a', 'b', 'c'\) but the columns of bag_proportions numbers",
        ),
        (
            {"proportions": table().set_axis(["a", "b", "c", 3], axis=1)},
            r"but the columns of bag_proportions strings and other values \('a', 3\)",
        ),
        ({"model": of_classes([0, 1])}, r"y holds strings .* but classes numbers .* use one kind"),
        ({"model": of_classes(["a", "b", "c"])}, r"y holds 'd', which is not in classes="),
        (
            {"model": of_classes([*NAMES, "e"])},
            "Class 'e' has no column in bag_proportions",
        ),
        (
            {
                "model": of_classes(NAMES),
                "proportions": table(a=table()["a"] / 2, e=table()["a"] / 2),
            },
            "bag_proportions has a column for 'e', which is not in classes=",
        ),
        ({"model": of_classes(3)}, "'classes' parameter"),
        (
            {"y": LABELS, "X": X, "proportions": table().to_numpy()},
            "4 columns but there are 3 classes .* use classes= or a DataFrame with named columns",
        ),
    ],
)
def test_names_that_do_not_fit(arguments, message):
    with pytest.raises(ValueError, match=message):
        fit(**arguments)


@every
def test_a_single_class_says_what_to_do(model):
    with pytest.raises(ValueError, match=r"one class \(.*'a'.*\).* Label patches .* with classes="):
        clone(model).fit(DATA.X_labeled, np.full(len(Y), "a"))


@every
@pytest.mark.parametrize("sparse", [csr_array, csr_matrix])
def test_sparse_features_are_refused_with_what_to_do(model, sparse):
    model = clone(model)
    with pytest.raises(TypeError, match=r"toarray\(\)"):
        model.fit(sparse(DATA.X_labeled), Y)
    for parts in ([sparse(DATA.bags.X)], [sparse(DATA.bags.X), sparse(DATA.bags.X)]):
        with pytest.raises(TypeError, match=r"X of the bags is a sparse matrix.*toarray\(\)"):
            model.fit(DATA.X_labeled, Y, parts, DATA.bags.proportions[: len(parts)])
    with pytest.raises(TypeError, match=r"X of the bags is a sparse matrix.*toarray\(\)"):
        Bags(sparse(DATA.bags.X), DATA.bags.index)
    model.fit(DATA.X_labeled, Y)
    with pytest.raises(TypeError, match=r"toarray\(\)"):
        model.predict(sparse(DATA.X_labeled))


@pytest.mark.parametrize(
    "model", [HeadClassifier(max_epochs=1), MultiFieldOfViewNet(1), TumorProposer()]
)
def test_other_models_refuse_sparse_features_too(model):
    with pytest.raises(TypeError, match=r"toarray\(\)"):
        clone(model).fit(csr_array(DATA.X_labeled), DATA.y > 1)


# --- logarithms of probabilities ----------------------------------------------------------------


@pytest.mark.parametrize(
    "model",
    [
        *(m for m in EVERY if hasattr(m, "predict_proba")),
        HeadClassifier(max_epochs=3),
        MultiFieldOfViewNet(2, expert=HeadClassifier(max_epochs=3), random_state=0),
    ],
    ids=lambda m: type(m).__name__,
)
def test_logarithms_of_probabilities(model):
    X = DATA.X_labeled.astype(np.float32)
    model = clone(model).fit(X, Y)
    logs = model.predict_log_proba(X)
    np.testing.assert_allclose(np.exp(logs), model.predict_proba(X), rtol=1e-4, atol=1e-6)
    far = np.full((1, X.shape[1]), 1e4, dtype=np.float32)
    assert (model.predict_proba(far) == 0).any()
    if not isinstance(model, MultiFieldOfViewNet):
        assert np.isfinite(model.predict_log_proba(far)).all()
    assert model.predict_log_proba(far).argmax() == model.predict_proba(far).argmax()


# --- groups -------------------------------------------------------------------------------------


class Recorder(NegativePseudoLabelClassifier):
    """Notes the groups that arrive in ``fit``."""

    seen: list = []  # noqa: RUF012

    def fit(self, X_labeled, y, X_bags=None, bag_proportions=None, *, groups=None):
        self.seen.append(groups)
        return super().fit(X_labeled, y, X_bags, bag_proportions, groups=groups)


def scores_with(routing, model):
    groups = np.arange(len(Y)) % 4
    Recorder.seen.clear()
    with sklearn.config_context(enable_metadata_routing=routing):
        more = {"params": {"groups": groups}} if routing else {"groups": groups}
        return cross_validate(
            *(model, DATA.X_labeled, Y), cv=GroupKFold(4), error_score="raise", **more
        )["test_score"]


def test_groups_go_to_the_splitter_alone_with_routing_and_without():
    scores = []
    for routing in (False, True):
        scores.append(scores_with(routing, Recorder(max_epochs=2, random_state=0)))
        assert Recorder.seen == [None] * 4
    assert_array_equal(*scores)


def test_groups_are_handed_to_the_fit_on_request():
    with sklearn.config_context(enable_metadata_routing=True):
        model = Recorder(max_epochs=2, random_state=0).set_fit_request(groups=True)
    scores_with(True, model)
    assert sorted(len(np.unique(groups)) for groups in Recorder.seen) == [3] * 4


# --- spelling -----------------------------------------------------------------------------------

LONG = dict(zip("abcd", ["acinar", "solid", "papillary", "lepidic"], strict=True))
Y_LONG = np.array([LONG[label] for label in Y])


def misspelled(name, *, partial):
    """Bags whose records have another name for "solid", of all classes or without "lepidic"."""
    recorded = table().rename(columns=LONG | {"b": name})
    shown = {}
    if partial:
        shares = recorded.drop(columns="lepidic")
        recorded = shares.div(shares.sum(axis=1).where(shares.sum(axis=1) > 0, 1.0), axis=0)
        recorded[shares.sum(axis=1) <= 0] = 1 / 3
        shown = {"among": list(recorded.columns)}
    rows = np.array(table().index)[DATA.bags.index]
    return Bags(DATA.bags.X, rows, recorded, **shown)


@pytest.mark.parametrize("name", ["Solid", " solid", "solid "])
@pytest.mark.parametrize("partial", [False, True])
def test_a_column_that_differs_from_a_label_only_in_case_or_spaces(name, partial):
    model = RobustProportionClassifier(random_state=0)
    message = f"column {name!r} and y the class 'solid', which differ only in case or spaces"
    with pytest.raises(ValueError, match=message):
        model.fit(DATA.X_labeled, Y_LONG, misspelled(name, partial=partial))


def test_classes_that_differ_in_case_can_be_listed():
    names = [*LONG.values(), "Solid"]
    model = RobustProportionClassifier(random_state=0, classes=names)
    model.fit(DATA.X_labeled, Y_LONG, misspelled("Solid", partial=True))
    assert model.classes_.tolist() == sorted(names)


def test_a_misspelled_column_of_incomplete_records_is_pointed_out():
    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(UserWarning, match="column 'sollid', .* Did you mean 'solid'"):
        model.fit(DATA.X_labeled, Y_LONG, misspelled("sollid", partial=True))


@pytest.mark.parametrize(
    ("label", "column"), [("grade 4", "grade 2"), ("papillary", "micropapillary")]
)
def test_related_classes_are_no_misspelling(label, column):
    recorded = pd.DataFrame({"x": [0.5, 1.0], column: [0.5, 0.0]})
    given = Bags([np.zeros((2, 1)), np.ones((2, 1))], proportions=recorded, among=["x", column])
    assert known_classes(np.array(["x", label]), None, given).tolist() == sorted(
        ["x", label, column]
    )


@pytest.mark.parametrize("name", ["solid growth", "solid_pct", "solid %"])
def test_a_column_with_a_longer_name_is_pointed_out(name):
    recorded = pd.DataFrame({"acinar": [0.5, 1.0], name: [0.5, 0.0]})
    given = Bags([np.zeros((2, 1)), np.ones((2, 1))], proportions=recorded, among=list(recorded))
    with pytest.warns(UserWarning, match=f"column {name!r}, .* Did you mean 'solid'"):
        known_classes(np.array(["acinar", "solid"]), None, given)


@pytest.mark.parametrize(
    ("label", "name"), [("necrosis", "no necrosis"), ("tumor", "non-tumor"), ("", "x")]
)
def test_a_negated_class_is_no_misspelling(label, name):
    recorded = pd.DataFrame({"acinar": [0.5, 1.0], name: [0.5, 0.0]})
    given = Bags([np.zeros((2, 1)), np.ones((2, 1))], proportions=recorded, among=list(recorded))
    known = known_classes(np.array(["acinar", label]), None, given)  # warnings are errors
    assert len(known) == 3


@pytest.mark.parametrize("twin", ["SOLID", "solid ", "so\u0301lid"])
def test_labels_in_two_spellings_are_pointed_out(twin):
    other = "s\u00f3lid" if not twin.isascii() else "solid"
    with pytest.warns(UserWarning, match="differ only in case or spaces; they are taken as two"):
        assert len(known_classes(np.array(["acinar", other, twin]), None, None)) == 3
    known_classes(np.array(["acinar", other, twin]), ["acinar", other, twin], None)


def test_a_misspelled_column_of_complete_records_is_pointed_out():
    model = RobustProportionClassifier(random_state=0)
    with (
        pytest.warns(UserWarning, match="column 'sollid', .* Did you mean 'solid'"),
        pytest.raises(ValueError, match="Class 'solid' has no column"),
    ):
        model.fit(DATA.X_labeled, Y_LONG, misspelled("sollid", partial=False))


def test_a_label_that_is_misspelled_in_classes_is_pointed_out():
    model = RobustProportionClassifier(classes=["acinar", "sollid", "papillary", "lepidic"])
    with pytest.raises(ValueError, match=r"y holds 'solid', .* Did you mean 'sollid'"):
        model.fit(DATA.X_labeled, Y_LONG)
