"""What all systems of the baselines have in common, with those of two streams in particular."""

import pickle

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal
from sklearn import config_context
from sklearn.base import clone
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from skorch import NeuralNetClassifier
from torch import nn

from proportion_ssl import (
    Bags,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    baselines,
    load,
    save,
)
from proportion_ssl.baselines import (
    AssignmentClassifier,
    CountLikelihoodClassifier,
    FixMatchClassifier,
    FixMatchProportionClassifier,
    ICTClassifier,
    L2PAHILClassifier,
    LLPGANClassifier,
    LLPVATClassifier,
    LPLPClassifier,
    MeanTeacherClassifier,
    MixBag,
    MixMatchClassifier,
    MixupClassifier,
    ProportionLossClassifier,
    SoftMatchClassifier,
    VATClassifier,
)
from proportion_ssl.datasets import make_bags

DATA = make_bags(n_bags=6, bag_size=(1, 40), n_features=8, class_separation=1.0, random_state=0)
SYSTEMS = [
    AssignmentClassifier(),
    CountLikelihoodClassifier(),
    FixMatchClassifier(),
    FixMatchProportionClassifier(),
    ICTClassifier(),
    LLPGANClassifier(),
    L2PAHILClassifier(),
    LLPVATClassifier(),
    LPLPClassifier(),
    MeanTeacherClassifier(),
    MixMatchClassifier(),
    MixupClassifier(),
    ProportionLossClassifier(augmentation=MixBag()),
    SoftMatchClassifier(),
    VATClassifier(),
]
#: Mix or perturb their instances, which uint8 images do not allow.
OF_REAL_NUMBERS = [
    ICTClassifier(),
    LLPGANClassifier(),
    LLPVATClassifier(),
    MixMatchClassifier(),
    MixupClassifier(),
    VATClassifier(),
]


def name_of(system):
    return type(system).__name__


every_system = pytest.mark.parametrize("system", SYSTEMS, ids=name_of)


def make(system, **settings):
    return clone(system).set_params(**{"max_epochs": 3, "random_state": 0, **settings})


def fitted(system, bags=DATA.bags, y=DATA.y, groups=None, **settings):
    return make(system, **settings).fit(DATA.X_labeled, y, bags, groups=groups)


@every_system
def test_same_seed_same_result_and_another_seed_another(system):
    first, second, other = (fitted(system, random_state=seed) for seed in (1, 1, 2))
    probabilities = first.predict_proba(DATA.X_test)
    assert_array_equal(probabilities, second.predict_proba(DATA.X_test))
    assert not np.array_equal(probabilities, other.predict_proba(DATA.X_test))
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


@every_system
def test_global_random_state_is_left_alone(system):
    torch.manual_seed(7)
    before = torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    fitted(system)
    assert_array_equal(torch.get_rng_state(), before[0])
    assert_array_equal(np.random.get_state()[1], before[1])  # noqa: NPY002


@every_system
def test_labels_may_be_strings(system):
    names = np.array(["acinar", "lepidic", "papillary", "solid"])
    by_code, by_name = fitted(system), fitted(system, y=names[DATA.y])
    assert_array_equal(by_name.classes_, names)
    assert_array_equal(by_code.predict_proba(DATA.X_test), by_name.predict_proba(DATA.X_test))
    assert_array_equal(names[by_code.predict(DATA.X_test)], by_name.predict(DATA.X_test))


@pytest.mark.parametrize(
    "system", [s for s in SYSTEMS if not isinstance(s, MixupClassifier)], ids=name_of
)
def test_bags_change_the_fit_and_without_them_it_is_supervised(system):
    without = fitted(system, bags=None).predict_proba(DATA.X_test)
    supervised = NegativePseudoLabelClassifier(max_epochs=3, random_state=0)
    supervised.fit(DATA.X_labeled, DATA.y)
    assert_array_equal(without, supervised.predict_proba(DATA.X_test))
    assert not np.array_equal(without, fitted(system).predict_proba(DATA.X_test))


@every_system
def test_labeled_slides_validate_whole(system):
    by_slide = fitted(system, groups=DATA.groups)
    by_patch = fitted(system)
    valid = [clf.estimator_.history[0, "valid_loss"] for clf in (by_slide, by_patch)]
    assert valid[0] != valid[1]
    with pytest.raises(ValueError, match="is also a labeled slide"):
        fitted(system, groups=np.where(DATA.groups == 0, DATA.bags.names[0], DATA.groups))


@every_system
def test_parameters_clone_and_pickle(system):
    clf = make(system, instances_per_bag=7)
    assert clone(clf).get_params() is not clf.get_params()
    assert repr(clone(clf)) == repr(clf)
    parameters = clf.get_params(deep=False)
    assert parameters["instances_per_bag"] == 7 and "kwargs" not in parameters
    assert "kwargs" not in repr(clf) and "max_epochs=3" in repr(clf)
    clf.set_params(bags_per_batch=3)
    assert clf.bags_per_batch == 3
    clf.fit(DATA.X_labeled, DATA.y, DATA.bags)
    again = pickle.loads(pickle.dumps(clf))
    assert_array_equal(again.predict_proba(DATA.X_test), clf.predict_proba(DATA.X_test))


def with_settings_of_the_source():
    every = [getattr(baselines, name) for name in baselines.__all__]
    return [cls for cls in every if hasattr(cls, "SOURCE_SETTINGS") and cls is not MixBag]


@pytest.mark.parametrize("cls", with_settings_of_the_source())
def test_settings_of_the_source_are_parameters(cls):
    assert cls.SOURCE_SETTINGS and set(cls.SOURCE_SETTINGS) <= set(cls().get_params())
    quick = {"max_epochs": 1} if "max_epochs" in cls().get_params() else {}
    clf = cls(**{**cls.SOURCE_SETTINGS, **quick}).fit(DATA.X_labeled, DATA.y, DATA.bags)
    assert clf.predict(DATA.X_test).shape == DATA.y_test.shape


def test_mixbag_with_the_bags_of_the_source():
    """All 40 bags, 32 at a time: a step sees as many bags, some of them mixed."""
    data = make_bags(n_bags=40, bag_size=6, n_features=8, random_state=0)
    seen = []

    class Spy(MixBag):
        def __call__(self, batch):
            mixed = super().__call__(batch)
            seen.append((batch.n_bags, mixed.n_bags, len(mixed.X) == len(batch.X)))
            return mixed

    clf = ProportionLossClassifier(augmentation=Spy(), max_epochs=2, **MixBag.SOURCE_SETTINGS)
    clf.set_params(random_state=0).fit(data.X_labeled, data.y, data.bags)
    assert [n for n, *_ in seen] == [32, 8, 32, 8] and all(n == m for n, m, _ in seen)
    assert not all(same for *_, same in seen)


@pytest.mark.parametrize(
    ("system", "name", "value"),
    [
        (SYSTEMS[0], "weight", -1),
        (SYSTEMS[0], "ramp_up", 1.5),
        (SYSTEMS[0], "bags_per_batch", 0),
        (SYSTEMS[0], "temperature", 0.0),
        (SYSTEMS[0], "gate", 1.1),
        (FixMatchClassifier(), "drop", 1.0),
        (SoftMatchClassifier(), "momentum", 1.0),
        (ICTClassifier(), "alpha", 0),
        (MeanTeacherClassifier(), "decay", 1.0),
        (MixupClassifier(), "alpha", -1.0),
        (VATClassifier(), "n_iter", 0),
        (LLPGANClassifier(), "n_noise", 0),
        (MixMatchClassifier(), "temperature", 0.0),
        (LLPVATClassifier(), "adversarial_weight", -1.0),
        (ProportionLossClassifier(), "augmentation", "mixbag"),
    ],
)
def test_wrong_parameters(system, name, value):
    with pytest.raises(ValueError, match=name):
        fitted(system, **{name: value})


@every_system
def test_saturated_features_stay_finite(system):
    X = DATA.X_labeled * 1e4
    bags = DATA.bags.with_instances(DATA.bags.X * 1e4)
    clf = make(system, learning_rate=1.0, max_epochs=10).fit(X, DATA.y, bags)
    assert np.isfinite(clf.predict_proba(DATA.X_test * 1e4)).all()
    assert np.isfinite(clf.estimator_.history[:, "train_loss"]).all()


# Images


def images(n, seed):
    return np.random.default_rng(seed).integers(0, 256, (n, 32, 32, 3), dtype=np.uint8)


IMAGE_BAGS = Bags(images(9, 1), np.repeat([0, 1, 2], 3), [[0.5, 0.5], [1, 0], [0.2, 0.8]])


def fit_images(system, freeze):
    net = MobileNetV2Classifier(weights=None, freeze=freeze)
    clf = make(system, estimator=net, max_epochs=1, batch_size=4, instances_per_bag=2)
    return clf.fit(images(8, 0), [0, 1] * 4, IMAGE_BAGS)


@pytest.mark.slow
@every_system
def test_images_with_frozen_layers(system):
    clf = fit_images(system, freeze=True)
    assert clf.is_images_ and clf.n_features_in_ == 3
    assert clf.predict_proba(images(2, 3)).shape == (2, 2)


@pytest.mark.parametrize("system", OF_REAL_NUMBERS, ids=name_of)
def test_fine_tuning_cannot_mix_or_move_images(system):
    with pytest.raises(
        ValueError, match="uint8 images do not allow; give features of PatchEmbedder"
    ):
        fit_images(system, freeze=False)


@pytest.mark.parametrize(
    "system",
    [s for s in SYSTEMS if not isinstance(s, tuple(type(o) for o in OF_REAL_NUMBERS))],
    ids=name_of,
)
def test_fine_tuning_on_images(system):
    clf = fit_images(system, freeze=False)
    new = MobileNetV2Classifier(weights=None, freeze=False)
    new.initialize_for(images(2, 0), np.arange(2), clf.classes_)
    first, start = (net.module_.backbone.features[0][0].weight for net in (clf.estimator_, new))
    assert not torch.equal(first, start), "layers have learned"
    assert clf.predict_proba(images(2, 3)).shape == (2, 2)


# Pipelines and searches


@every_system
def test_pipeline_transforms_bags_as_well(system):
    with config_context(enable_metadata_routing=True):
        clf = make(system).set_fit_request(X_bags=True, bag_proportions=True, groups=False)
        pipeline = make_pipeline(StandardScaler(), clf)
        pipeline.transform_input = ["X_bags"]
        pipeline.fit(DATA.X_labeled, DATA.y, X_bags=DATA.bags.flat, bag_proportions=DATA.bags)
    scaler = StandardScaler().fit(DATA.X_labeled)
    bags = DATA.bags.with_instances(scaler.transform(DATA.bags.X))
    by_hand = make(system).fit(scaler.transform(DATA.X_labeled), DATA.y, bags)
    expected = by_hand.predict_proba(scaler.transform(DATA.X_test))
    assert_array_equal(pipeline.predict_proba(DATA.X_test), expected)


@every_system
def test_grid_search_by_slide(system):
    with config_context(enable_metadata_routing=True):
        search = GridSearchCV(
            make(system, max_epochs=1, validation_fraction=0),
            {"weight": [0.1, 1.0]},
            cv=GroupKFold(4),
            scoring="accuracy",
            error_score="raise",
        )
        search.fit(DATA.X_labeled, DATA.y, groups=DATA.groups, X_bags=DATA.bags)
    assert np.isfinite(search.cv_results_["mean_test_score"]).all()
    assert search.best_estimator_.estimator_.initialized_


@every_system
def test_any_net_that_returns_logits(system):
    net = NeuralNetClassifier(nn.Linear(8, 4), lr=0.1, verbose=0)
    clf = fitted(system, estimator=net)
    assert clf.predict_proba(DATA.X_test).shape == (len(DATA.X_test), 4)
    assert type(clf.estimator_) is NeuralNetClassifier


@every_system
def test_a_fitted_classifier_in_a_file(system, tmp_path):
    clf = fitted(system, estimator=HeadClassifier(dropout=0.1))
    save(clf, tmp_path / "model.safetensors")
    again = load(tmp_path / "model.safetensors")
    assert type(again) is type(clf) and repr(again) == repr(clf)
    assert_array_equal(again.predict_proba(DATA.X_test), clf.predict_proba(DATA.X_test))
