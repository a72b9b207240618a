"""NLNL: what patches are not, which labels are believed, and the list of doubtful ones."""

import numpy as np
import pytest
import torch
from numpy.testing import assert_array_equal

from proportion_ssl import NegativePseudoLabelClassifier, load, save
from proportion_ssl.baselines import NLNLClassifier, doubtful_labels
from proportion_ssl.baselines.nlnl import NegativeDataset, complementary_labels
from proportion_ssl.datasets import make_bags
from proportion_ssl.losses.signed_labels import SignedLabelLoss

DATA = make_bags(
    n_bags=2, n_labeled_slides=4, bag_size=50, n_features=32, class_separation=1.2, random_state=0
)


def flipped(share=0.2, seed=0):
    """Labels, a share of them wrong; and which."""
    rng = np.random.default_rng(seed)
    y, wrong = DATA.y.copy(), rng.choice(len(DATA.y), int(share * len(DATA.y)), replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, 4, len(wrong))) % 4
    return y, np.isin(np.arange(len(y)), wrong)


def test_negative_labels_are_each_other_class_alike():
    codes = np.repeat(np.arange(4), 3000)
    negative = complementary_labels(np.eye(4, dtype=np.int8)[codes], np.random.RandomState(0))
    assert_array_equal(negative.sum(axis=1), -1)
    counts = np.stack([(negative[codes == c] == -1).sum(axis=0) for c in range(4)])
    assert_array_equal(np.diag(counts), 0)
    np.testing.assert_allclose(counts[~np.eye(4, dtype=bool)], 1000, atol=120)


def test_negative_labels_are_drawn_anew_and_cost_what_the_paper_says():
    X = np.arange(200, dtype=np.float32).reshape(50, 4)
    data = NegativeDataset(
        X, np.eye(4, dtype=np.int8)[np.zeros(50, int)], None, np.random.RandomState(0)
    )
    (one, first), (other, second) = (data.__getitems__(range(50)) for _ in range(2))
    assert torch.equal(one, other) and not torch.equal(first, second)
    logits = torch.randn(50, 4)
    p = logits.softmax(dim=1)[torch.arange(50), first.argmin(dim=1)]
    torch.testing.assert_close(SignedLabelLoss()(logits, first), -torch.log(1 - p).mean())


def test_flipped_labels_end_below_the_threshold():
    y, is_wrong = flipped()
    clf = NLNLClassifier(random_state=0).fit(DATA.X_labeled, y)
    p = clf.label_probabilities_[np.arange(len(y)), y]
    assert np.mean(p[is_wrong] < 0.5) > 0.8
    assert np.mean(p[~is_wrong] < 0.5) < 0.1
    np.testing.assert_allclose(clf.label_probabilities_.sum(axis=1), 1, rtol=1e-5)


def test_better_than_supervised_where_labels_are_wrong():
    gains = []
    for seed in range(3):
        y, _ = flipped(0.4, seed)
        scores = [
            clf.fit(DATA.X_labeled, y).score(DATA.X_test, DATA.y_test)
            for clf in (
                NLNLClassifier(random_state=seed),
                NegativePseudoLabelClassifier(random_state=seed),
            )
        ]
        gains.append(scores[0] - scores[1])
    assert np.mean(gains) > 0


def test_what_each_phase_trains_on(monkeypatch):
    """NL: all; SelNL: more probable than chance; SelPL: above the threshold, with positive labels."""
    seen = []

    def spy(net, data, validation, n_epochs):
        seen.append((type(data).__name__, set(data.rows.tolist())))
        original(net, data, validation, n_epochs)

    from proportion_ssl.baselines import nlnl

    original = nlnl.train_epochs
    monkeypatch.setattr(nlnl, "train_epochs", spy)
    y, _ = flipped()
    judged = []
    believed_labels = nlnl.believed_labels

    def spy_of_beliefs(probabilities, codes, smallest):
        judged.append((probabilities, smallest))
        return believed_labels(probabilities, codes, smallest)

    monkeypatch.setattr(nlnl, "believed_labels", spy_of_beliefs)
    NLNLClassifier(max_epochs=12, threshold=0.6, random_state=0).fit(DATA.X_labeled, y)
    kinds = [kind for kind, _ in seen]
    assert kinds == ["NegativeDataset"] * 24 + ["SignedDataset"] * 12
    assert [smallest for _, smallest in judged] == [0.25] * 12 + [0.6] * 12
    everything = set(range(len(y)))
    assert all(rows == everything for _, rows in seen[:12])
    for (_, rows), (probabilities, smallest) in zip(seen[12:], judged, strict=True):
        assert rows == set(np.flatnonzero(probabilities[np.arange(len(y)), y] > smallest))


def test_doubtful_labels_list_the_wrong_ones_first():
    y, is_wrong = flipped(0.1)
    names = np.array(["acinar", "lepidic", "papillary", "solid"])
    table = doubtful_labels(DATA.X_labeled, names[y])
    assert table["probability"].is_monotonic_increasing and table["probability"].max() <= 0.5
    assert is_wrong[table.index[:10]].mean() >= 0.9
    assert is_wrong[table.index].sum() > 0.8 * is_wrong.sum()
    found = table[is_wrong[table.index]]
    assert (found["suggested"] == names[DATA.y[found.index]]).mean() > 0.8
    assert_array_equal(table["label"], names[y[table.index]])
    assert (table["suggested_probability"] >= table["probability"]).all()


def test_a_list_of_most_labels_is_a_warning():
    strict = NLNLClassifier(threshold=0.999, random_state=0)
    with pytest.warns(
        UserWarning, match=r"labels \(\d+%\) are listed as doubtful.*has hardly"
    ) as caught:
        table = doubtful_labels(DATA.X_labeled, DATA.y, estimator=strict)
    n = len(DATA.y)
    assert 2 * len(table) > n
    assert f"{len(table)} of {n} labels ({len(table) / n:.0%})" in str(caught[0].message)


def test_no_label_believed_ends_the_training():
    clf = NLNLClassifier(threshold=1.0, max_epochs=2, random_state=0).fit(DATA.X_labeled, DATA.y)
    assert len(clf.estimator_.history) == 4  # no epoch of SelPL


def test_seeds_files_and_bags_that_are_not_used(tmp_path):
    probabilities = []
    for seed, bags in ((0, None), (0, DATA.bags), (1, None)):
        clf = NLNLClassifier(max_epochs=3, random_state=seed).fit(DATA.X_labeled, DATA.y, bags)
        probabilities.append(clf.predict_proba(DATA.X_test))
    assert_array_equal(probabilities[0], probabilities[1])
    assert not np.array_equal(probabilities[0], probabilities[2])
    save(clf, tmp_path / "model.safetensors")
    assert_array_equal(
        load(tmp_path / "model.safetensors").predict_proba(DATA.X_test), probabilities[2]
    )
    with pytest.raises(ValueError, match="labeled instances have shape"):
        clf.fit(DATA.X_labeled[:, :5], DATA.y, DATA.bags)
