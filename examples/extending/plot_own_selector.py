"""
A custom selector in 20 lines
=============================

A selector turns the class probabilities of the bags into signed labels: +1 "is of this class", -1
"is not", 0 "unknown". To try another rule for *which* patches to label, write this one function;
the training loop, the losses and cross-validation stay the same.
"""

# %%
# Confidence is the probability of the best class alone. Perhaps the *margin* between the best and
# the second best class is a better criterion. This selector assigns as many positive labels as the
# paper's selector, but to the patches with the largest margin.
import matplotlib.pyplot as plt
import numpy as np

from proportion_ssl import AdaptiveSelector, NegativePseudoLabelClassifier, mean_iou_score
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import class_proportions
from proportion_ssl.pseudo_labels import (
    Selector,
    pick_most_confident,
    positive_selectivity,
    selection_counts,
    sign_labels,
)


class MarginSelector(Selector):
    """Positive labels for the instances whose two best classes are furthest apart."""

    def select(self, probabilities, bag_index, bag_proportions):
        n_classes = probabilities.shape[1]
        sizes = np.bincount(bag_index)
        predicted = probabilities.argmax(axis=1)
        shares = class_proportions(predicted, bag_index, n_bags=len(sizes), n_classes=n_classes)
        counts = selection_counts(positive_selectivity(bag_proportions, shares), sizes)
        second, best = np.sort(probabilities, axis=1)[:, -2:].T
        picked = pick_most_confident(best - second, predicted, bag_index, counts)
        return sign_labels(predicted, picked, n_classes=n_classes, sign=1)


# %%
# ``Selector`` has checked the input before ``select`` sees it: rows of probabilities that sum to 1,
# bags numbered from 0, proportions in [0, 1] of the right shape. A selector can be called without
# training:
probabilities = [[0.50, 0.48, 0.02], [0.48, 0.26, 0.26], [0.10, 0.80, 0.10], [0.20, 0.60, 0.20]]
for selector in (AdaptiveSelector(), MarginSelector()):
    signed = selector.transform(probabilities, bag_proportions=[[0.4, 0.6, 0.0]])
    print(f"{type(selector).__name__:17}", signed.tolist())

# %%
# Both selectors in training. Compare not only the score, but also how many of the labels are
# correct.
rows = {"AdaptiveSelector": [], "MarginSelector": []}
for seed in range(4):
    data = make_bags(n_bags=30, bag_size=30, class_separation=0.7, random_state=seed)
    for selector in (AdaptiveSelector(), MarginSelector()):
        model = NegativePseudoLabelClassifier(
            positive_selector=selector, max_epochs=25, random_state=0
        ).fit(data.X_labeled, data.y, data.bags)
        labeled = (model.signed_labels_ > 0).any(axis=1)
        right = model.signed_labels_.argmax(axis=1)[labeled] == data.y_bags[labeled]
        score = mean_iou_score(data.y_test, model.predict(data.X_test))
        rows[type(selector).__name__].append((score, right.mean(), labeled.mean()))

figure, axes = plt.subplots(1, 3, figsize=(9, 2.8), layout="constrained")
titles = (
    "mean IoU on test slides",
    "correct positive labels",
    "patches with a positive label",
)
for column, (ax, title) in enumerate(zip(axes, titles, strict=True)):
    values = np.array([[row[column] for row in rows[name]] for name in rows])
    ax.plot([0, 1], values, color="0.6", marker="o", markersize=4)
    ax.plot([0, 1], values.mean(axis=1), "k_", markersize=30, markeredgewidth=2)
    ax.set_xticks([0, 1], ["confidence", "margin"])
    ax.set_xlim(-0.5, 1.5)
    ax.set_title(title, fontsize=10)
for name, values in rows.items():
    print(f"{name:17} mean IoU {np.mean(values, axis=0)[0]:.3f}")
plt.show()
