"""
Exact and rough proportions
===========================

Shares such as "70% acinar" are not measured but estimated by eye, in steps of ten. How much of the
gain remains if the recorded shares are rounded, or have an error of several points? And which
slides have a wrong record?
"""

# %%
# The slides stay the same; only their records change. Shares are exact, rounded to 10 or 20 points,
# or estimated with an error of 10 or 20 points (one standard deviation) and then rounded.
# "Proposed" assumes that records are exact, "robust" estimates their error.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from proportion_ssl import (
    Bags,
    NegativePseudoLabelClassifier,
    RobustProportionClassifier,
    mean_iou_score,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.proportions import class_proportions

N_REPEATS, N_BAGS = 3, 40
proposed = NegativePseudoLabelClassifier(max_epochs=25, random_state=0)
robust = RobustProportionClassifier(random_state=0)


def record(true, step, noise, rng):
    """Shares as a person writes them down; classes that are absent stay absent."""
    shares = np.clip(true + noise * rng.normal(size=true.shape) * (true > 0), 1e-6, None)
    shares = np.round(shares / step) * step if step else shares
    shares = np.where(shares.sum(axis=1, keepdims=True) > 0, shares, true)
    return shares / shares.sum(axis=1, keepdims=True)


rows = []
for seed in range(N_REPEATS):
    data = make_bags(n_bags=N_BAGS, bag_size=30, class_separation=1.2, random_state=seed)
    names = data.bags.names[data.bags.index]
    true = class_proportions(data.y_bags, data.bags.index, n_bags=N_BAGS, n_classes=4)
    rng = np.random.default_rng(seed)
    recorded = {
        "exact": true,
        "steps of 10%": record(true, 0.1, 0.0, rng),
        "steps of 20%": record(true, 0.2, 0.0, rng),
        "error of 10 points,\nsteps of 10%": record(true, 0.1, 0.1, rng),
        "error of 20 points,\nsteps of 10%": record(true, 0.1, 0.2, rng),
    }
    supervised = NegativePseudoLabelClassifier(random_state=0).fit(data.X_labeled, data.y)
    score = mean_iou_score(data.y_test, supervised.predict(data.X_test))
    rows += [
        {"recorded": "nothing", "system": s, "mean IoU": score} for s in ("proposed", "robust")
    ]
    for name, proportions in recorded.items():
        bags = Bags(data.bags.X, names, proportions)
        for system, model in (("proposed", proposed), ("robust", robust)):
            model.fit(data.X_labeled, data.y, bags)
            score = mean_iou_score(data.y_test, model.predict(data.X_test))
            rows.append({"recorded": name, "system": system, "mean IoU": score})

# %%
# Mean and standard deviation over repetitions, each with new slides. Repetitions differ more than
# kinds of records, so compare how each system changes from left to right.
table = pd.DataFrame(rows)
groups = table.groupby(["system", "recorded"], sort=False)["mean IoU"]
summary = groups.agg(["mean", "std"]).round(3).unstack("system")
print(summary.rename(index=lambda name: name.replace("\n", " ")).to_string())

figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
for offset, system in ((-0.06, "proposed"), (0.06, "robust")):
    means, spread = summary["mean"][system], summary["std"][system]
    ax.errorbar(
        np.arange(len(means)) + offset, means, yerr=spread, marker="o", capsize=3, label=system
    )
ax.set_xticks(range(len(summary)), summary.index, fontsize=8)
ax.set_xlabel("what is recorded about the slides")
ax.set_ylabel("mean IoU on test slides")
ax.legend()

# %%
# Exchanged records
# -----------------
# Four slides now have the record of another slide. Their bags are near the top of the list of the
# robust classifier, which excluded those marked as doubtful: read these slides again.
exchanged = [3, 11, 19, 30]
proportions = true.copy()
proportions[exchanged] = true[np.roll(exchanged, 1)]
robust.fit(data.X_labeled, data.y, Bags(data.bags.X, names, proportions))
print("exchanged:", data.bags.names[exchanged].tolist())
print(robust.bag_reliability_.head(8).round(2).to_string())
plt.show()
