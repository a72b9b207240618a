"""Heads that are solved for, in files: alone, and as what a classifier was fitted with."""

import numpy as np
import pytest
from numpy.testing import assert_array_equal
from sklearn.base import clone

from proportion_ssl import NegativePseudoLabelClassifier, RobustProportionClassifier, load, save
from proportion_ssl.datasets import make_bags
from proportion_ssl.heads import DiscriminantClassifier, SoftLabelHead, SoftLogisticRegression

DATA = make_bags(n_bags=10, bag_size=20, random_state=0)
HEADS = [
    DiscriminantClassifier(),
    DiscriminantClassifier(9, shrinkage=0.2, temperature=3, random_state=1),
    SoftLogisticRegression(0.1, n_components=5),
]


@pytest.mark.parametrize("n_classes", [2, 4])
@pytest.mark.parametrize("head", HEADS)
def test_head_alone(head, n_classes, tmp_path):
    names = np.array(["a", "b", "c", "ü"])[:n_classes]
    head = clone(head).fit(DATA.X_labeled, names[DATA.y % n_classes])
    save(head, tmp_path / "head.safetensors")
    loaded = load(tmp_path / "head.safetensors")
    assert type(loaded) is type(head) and repr(loaded) == repr(head)
    assert set(vars(loaded)) == set(vars(head))
    assert_array_equal(loaded.classes_, names)
    assert_array_equal(loaded.predict_proba(DATA.X_test), head.predict_proba(DATA.X_test))
    save(loaded, tmp_path / "again.safetensors")
    first, second = (tmp_path / f"{name}.safetensors" for name in ("head", "again"))
    assert first.read_bytes() == second.read_bytes()


@pytest.mark.parametrize("with_bags", [True, False])
@pytest.mark.parametrize("head", HEADS)
def test_classifier_with_a_head(head, with_bags, tmp_path):
    model = NegativePseudoLabelClassifier(clone(head), random_state=0)
    model.fit(DATA.X_labeled, DATA.y, DATA.bags if with_bags else None)
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert repr(loaded) == repr(model) and loaded.fell_back_ == model.fell_back_
    expected = model.predict_proba(DATA.X_test)
    assert_array_equal(loaded.predict_proba(DATA.X_test), expected)
    assert loaded.history_ == model.history_
    again = loaded.fit(DATA.X_labeled, DATA.y, DATA.bags if with_bags else None)
    assert_array_equal(again.predict_proba(DATA.X_test), expected)


def test_what_the_fit_found_of_the_records(tmp_path):
    model = RobustProportionClassifier(temperature=3, random_state=0)
    model.fit(DATA.X_labeled, DATA.y, DATA.bags)
    save(model, tmp_path / "model.safetensors")
    loaded = load(tmp_path / "model.safetensors")
    assert loaded.record_deviation_ == model.record_deviation_ and loaded.temperature_ == 3.0
    records = {"bag_ids": np.zeros(len(DATA.X_test)), "bag_proportions": [0.4, 0.3, 0.2, 0.1]}
    assert_array_equal(
        loaded.predict_proba(DATA.X_test, **records), model.predict_proba(DATA.X_test, **records)
    )


def test_a_head_of_ones_own_is_named(tmp_path):
    class Own(DiscriminantClassifier):
        pass

    assert issubclass(Own, SoftLabelHead)
    model = NegativePseudoLabelClassifier(Own()).fit(DATA.X_labeled, DATA.y)
    with pytest.raises(TypeError, match=r"estimator is a .*Own, which cannot be saved"):
        save(model, tmp_path / "model.safetensors")
    assert not list(tmp_path.iterdir())
