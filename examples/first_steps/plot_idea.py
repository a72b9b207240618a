"""
The idea in two dimensions
==========================

A pathologist outlined three slides. For the other slides only a line in the report is known: "60%
of this, 40% of that". How much does that line help?

Each slide has its own stain, which here shifts all of its points. A classifier that was trained on
the outlined slides alone places its decision boundaries where *their* points lie. In another slide,
the proportions of its predictions then differ from the recorded ones, and the difference shows the
direction of the error.
"""

# %%
# Three classes in two dimensions; the patches of each slide share an offset. The figure shows the
# outlined slides on the left, and test slides with their true classes in the middle and on the
# right.
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import ListedColormap

from proportion_ssl import Bags, NegativePseudoLabelClassifier, mean_iou_score
from proportion_ssl.proportions import class_proportions, sum_absolute_error
from proportion_ssl.pseudo_labels import negative_selectivity, positive_selectivity

COLORS = ListedColormap(["#0072b2", "#e69f00", "#009e73"])  # told apart by color-blind readers too
CENTERS = np.array([[0.0, 0.0], [3.4, 0.0], [1.7, 3.0]])
rng = np.random.default_rng(3)


def draw_slides(n_slides, n_patches, drift):
    """Points, classes and slide of each point; `drift` moves all slides one way."""
    shares = rng.dirichlet([0.8] * 3, n_slides)
    classes = np.concatenate([rng.choice(3, n_patches, p=share) for share in shares])
    slides = np.repeat(np.arange(n_slides), n_patches)
    offsets = np.array(drift) + rng.normal(0, 0.35, (n_slides, 2))
    points = CENTERS[classes] + offsets[slides] + rng.normal(0, 0.8, (len(slides), 2))
    return points.astype(np.float32), classes, slides


X, y, _ = draw_slides(3, 40, drift=(0, 0))
X_bags, y_bags, bag_ids = draw_slides(12, 60, drift=(1.1, 0.7))
X_test, y_test, _ = draw_slides(12, 60, drift=(1.1, 0.7))
recorded = class_proportions(y_bags, bag_ids, n_bags=12, n_classes=3)
bags = Bags(X_bags, bag_ids, recorded)

# %%
# Two fits of the same estimator: without bags, and with them.
settings = {"learning_rate": 0.03, "max_epochs": 50, "random_state": 0}
supervised = NegativePseudoLabelClassifier(**settings).fit(X, y)
proposed = NegativePseudoLabelClassifier(**settings).fit(X, y, bags)

figure, axes = plt.subplots(1, 3, figsize=(11, 3.8), layout="constrained", sharex=True, sharey=True)
low, high = X_test.min(axis=0) - 0.5, X_test.max(axis=0) + 0.5
across, up = np.meshgrid(np.linspace(low[0], high[0], 200), np.linspace(low[1], high[1], 200))
plane = np.column_stack([across.ravel(), up.ravel()]).astype(np.float32)
shown = [
    ("3 outlined slides", X, y, supervised),
    (
        f"other slides, supervised: mIoU {mean_iou_score(y_test, supervised.predict(X_test)):.2f}",
        *(X_test, y_test, supervised),
    ),
    (
        f"other slides, with proportions: mIoU {mean_iou_score(y_test, proposed.predict(X_test)):.2f}",
        *(X_test, y_test, proposed),
    ),
]
for ax, (title, points, classes, model) in zip(axes, shown, strict=True):
    regions = model.predict(plane).reshape(across.shape)
    ax.contourf(across, up, regions, levels=[-0.5, 0.5, 1.5, 2.5], colors=COLORS.colors, alpha=0.2)
    ax.scatter(*points.T, c=classes, cmap=COLORS, s=9, linewidths=0)
    ax.set_title(title, fontsize=10)
    ax.set_xticks([], [])
    ax.set_yticks([], [])

# %%
# One round, in the bag with the largest error of the supervised fit. The sum absolute error (SAE)
# is the distance between predicted and recorded shares. With a larger SAE there are fewer positive
# and more negative pseudo labels. Confident patches get the label "is this class". Uncertain
# patches of a class that is predicted too often get the label "is not this class".
predicted = class_proportions(supervised.predict(X_bags), bag_ids, n_bags=12, n_classes=3)
error = sum_absolute_error(recorded, predicted)
worst = int(error.argmax())
print("class                  0     1     2")
for name, values in (
    ("recorded", recorded),
    ("predicted", predicted),
    ("positive selectivity", positive_selectivity(recorded, predicted)),
    ("negative selectivity", negative_selectivity(recorded, predicted)),
):
    print(f"{name:20}", "  ".join(f"{value:.2f}" for value in values[worst]))
print(f"SAE of this bag: {error[worst]:.2f}; mean of all bags: {error.mean():.2f}")

# %%
# Over the rounds, predicted shares approach the recorded ones, and more patches get a label.
rounds = proposed.history_[1:]
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3), layout="constrained")
left.plot([r["sum_absolute_error"] for r in rounds], color="black")
left.set(xlabel="round", ylabel="SAE, mean of the bags", ylim=(0, None))
right.plot([sum(r["n_positive"]) for r in rounds], label="positive labels", color=COLORS.colors[0])
right.plot([sum(r["n_negative"]) for r in rounds], label="negative labels", color=COLORS.colors[1])
right.set(xlabel="round", ylabel=f"labels ({len(X_bags)} patches)", ylim=(0, None))
right.legend()
plt.show()
