"""Likelihood of the counts of a batch of bags."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from bag_batches import PassThrough, batch_of
from convolutions import convolved

from proportion_ssl.baselines import CountLikelihoodClassifier
from proportion_ssl.baselines.count_likelihood import CountLoss
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import PartialRecord


def test_batch_against_convolutions():
    rng = np.random.default_rng(0)
    X, bag = rng.normal(0, 2, (12, 3)), np.repeat([0, 1], [4, 8])
    counts = np.array([[1, 1, 2], [0, 3, 5]])
    lower, upper = counts / [[4], [8]], counts / [[4], [8]]
    lower[1, 1], upper[1, 1] = 0.2, 0.5  # of eight: 2, 3 or 4
    batch = batch_of(torch.tensor(X), bag, lower, upper, weights=[2.0, 0.5])
    p = torch.tensor(X).softmax(dim=1).numpy()
    each = []
    for b in range(2):
        of_classes = [convolved(p[bag == b, c]) for c in range(3)]
        allowed = [[count] for count in counts[b]]
        if b == 1:
            allowed[1] = [2, 3, 4]
        each.append(-sum(np.log(d[k].sum()) for d, k in zip(of_classes, allowed, strict=True)))
    found = CountLoss()(PassThrough(), batch).item()
    assert found == pytest.approx((2 * each[0] + 0.5 * each[1]) / 2, rel=1e-6)


def test_partial_records():
    """The share of the class that is not recorded is as predicted, rounded."""
    X = torch.randn(20, 3, dtype=torch.float64)
    shares = np.array([[0.25, 0.75, 0.0]])
    record = PartialRecord(shares, shares, shares, np.array([[True, True, False]]))
    loss = CountLoss()(PassThrough(), replace(batch_of(X), record=record))
    assert torch.isfinite(loss) and loss > 0


@pytest.mark.slow
def test_a_fit_brings_predicted_and_recorded_proportions_together():
    data = make_bags(20, bag_size=30, n_features=16, class_separation=1.0, random_state=0)
    wrong = []
    for bags in (None, data.bags):
        clf = CountLikelihoodClassifier(max_epochs=30, learning_rate=0.02, random_state=0)
        clf.fit(data.X_labeled, data.y, bags)
        wrong.append((clf.predict(data.bags.X) != data.y_bags).mean())
    assert wrong[1] < 0.7 * wrong[0]
