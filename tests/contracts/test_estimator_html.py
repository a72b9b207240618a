"""Estimators in a notebook: net and selectors as nested blocks, without noise."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import (
    AdaptiveSelector,
    HeadClassifier,
    MobileNetV2Classifier,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    ThresholdSelector,
)
from proportion_ssl.datasets import make_bags


class Blocks(HTMLParser):
    """Labels of the blocks with their depth, and the parameters that the block of a class shows."""

    def __init__(self, html):
        super().__init__()
        self.labels = []  # [depth, text]
        self.rows = []  # of the tables of parameters
        self._open = []  # elements around the current one: tag and classes
        self.feed(html)
        assert self._open == [], "every element is closed"

    def parameters(self, block):
        """Values of the parameters in the table of a block, and which of them are marked as set."""
        rows = [row for row in self.rows if row["block"] == block]
        values = {row["param"]: row["value"] for row in rows}
        return values, {row["param"] for row in rows if row["is_set"]}

    def handle_starttag(self, tag, attributes):
        classes = (dict(attributes).get("class") or "").split()
        if tag in ("input", "br"):
            return
        self._open.append((tag, classes))
        if "sk-toggleable__label" in classes:
            depth = sum("sk-parallel-item" in names for _, names in self._open)
            self.labels.append([depth, ""])
        if tag == "tr" and {"user-set", "default"} & set(classes):
            is_set = "user-set" in classes
            row = {"block": self.labels[-1][1], "is_set": is_set, "param": "", "value": ""}
            self.rows.append(row)

    def handle_startendtag(self, tag, attributes):
        pass  # <br />

    def handle_endtag(self, tag):
        assert self._open.pop()[0] == tag

    def handle_data(self, data):
        inside = [name for _, classes in self._open for name in classes]
        if "sk-toggleable__label" in inside and "sk-estimator-doc-link" not in inside:
            self.labels[-1][1] += data.strip()
        for part in {"param", "value"} & set(inside):
            if {"user-set", "default"} & set(inside):
                self.rows[-1][part] += data.strip()


def nested(estimator):
    """Labels of the blocks inside the outermost one, in order."""
    return [text for depth, text in Blocks(estimator._repr_html_()).labels if depth == 1]


@pytest.fixture(scope="module")
def data():
    return make_bags(n_bags=3, random_state=0)


def test_net_and_selectors_are_nested_blocks():
    clf = NegativePseudoLabelClassifier(
        estimator=HeadClassifier(),
        positive_selector=AdaptiveSelector(),
        negative_selector=NegativeSelector(),
    )
    blocks = Blocks(clf._repr_html_())
    assert blocks.labels[0] == [0, "NegativePseudoLabelClassifier"]
    assert [text for depth, text in blocks.labels if depth == 1] == [
        *("estimator: HeadClassifier", "HeadClassifier"),
        *("positive_selector: AdaptiveSelector", "AdaptiveSelector"),
        *("negative_selector: NegativeSelector", "NegativeSelector"),
    ]


def test_selectors_used_by_default_are_shown():
    assert nested(NegativePseudoLabelClassifier()) == [
        *("positive_selector: AdaptiveSelector", "AdaptiveSelector"),
        *("negative_selector: NegativeSelector", "NegativeSelector"),
    ]


def test_selector_that_is_off_has_no_block():
    clf = NegativePseudoLabelClassifier(
        positive_selector=ThresholdSelector(threshold=0.8), negative_selector=None
    )
    blocks = Blocks(clf._repr_html_())
    assert nested(clf) == ["positive_selector: ThresholdSelector", "ThresholdSelector"]
    assert blocks.parameters("ThresholdSelector") == ({"threshold": "0.8"}, {"threshold"})


def test_without_net_and_selectors_there_is_one_block():
    clf = NegativePseudoLabelClassifier(positive_selector=None, negative_selector=None)
    assert Blocks(clf._repr_html_()).labels == [[0, "NegativePseudoLabelClassifier"]]


@pytest.mark.filterwarnings("ignore:The pseudo labels are harmful")  # after so few epochs
def test_fitted_classifier_shows_the_net_that_was_trained(data):
    clf = NegativePseudoLabelClassifier(max_epochs=1, random_state=0)
    clf.fit(data.X_labeled, data.y, data.bags)
    html = clf._repr_html_()
    assert nested(clf)[:2] == ["estimator: HeadClassifier", "HeadClassifier"]
    assert "<span>Fitted</span>" in html
    assert "LinearHead(" in html and "in_features=16, out_features=4" in html


def test_own_parameters_of_the_classifier():
    clf = NegativePseudoLabelClassifier(learning_rate=0.01)
    values, is_set = Blocks(clf._repr_html_()).parameters("NegativePseudoLabelClassifier")
    assert values["learning_rate"] == "0.01" and values["negative_memory"] == "3"
    assert is_set == {"learning_rate"}


@pytest.mark.parametrize("net", [HeadClassifier, MobileNetV2Classifier])
def test_net_marks_only_what_was_set(net):
    values, is_set = Blocks(net()._repr_html_()).parameters(net.__name__)
    assert is_set == set() and values["dropout"] == "0.2" and values["batch_size"] == "64"
    values, is_set = Blocks(net(batch_size=8, lr=0.5)._repr_html_()).parameters(net.__name__)
    assert is_set == {"batch_size", "lr"} and values["lr"] == "0.5"


def test_net_leaves_out_bookkeeping():
    values, _ = Blocks(HeadClassifier()._repr_html_()).parameters("HeadClassifier")
    assert not [name for name in values if name.startswith(("_", "callbacks__"))]


def test_page_is_the_same_every_time():
    """But for the numbers by which scikit-learn tells several pages apart: no address of a new object."""

    def page():
        clf = NegativePseudoLabelClassifier(estimator=HeadClassifier(), max_epochs=7)
        html = clf._repr_html_()
        shown = html[html.index('<div class="sk-container"') :]
        return re.sub(r"sk-(container|estimator)-id-\d+", "", shown)

    assert page() == page()


def test_inside_pipeline_and_search():
    clf = NegativePseudoLabelClassifier(estimator=HeadClassifier())
    for outer in (make_pipeline(StandardScaler(), clf), GridSearchCV(clf, {"patience": [5, 10]})):
        texts = [text for _, text in Blocks(outer._repr_html_()).labels]
        for name in ("HeadClassifier", "AdaptiveSelector", "NegativeSelector"):
            assert name in texts


def test_values_are_escaped():
    clf = NegativePseudoLabelClassifier(
        positive_selector=ThresholdSelector("<script>alert(1)</script>")
    )
    clf.random_state = "<script>alert(2)</script>"
    assert not re.search(r"<script>alert", clf._repr_html_())


def test_class_names_of_a_fitted_classifier_are_escaped(data):
    y = np.array(["<script>alert(1)</script>", "b", "c", "d"])[data.y]
    clf = NegativePseudoLabelClassifier(max_epochs=1, random_state=0).fit(data.X_labeled, y)
    assert "<script>alert" not in clf._repr_html_()
