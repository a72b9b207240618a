"""
Exact and rough proportions
===========================

Nobody measures "70% acinar"; it is estimated by eye, in steps of ten. How much of the gain survives
when the recorded shares are rounded, or off by several points?
"""

# %%
# The same slides every time; only what is recorded about them changes. Shares are measured exactly,
# rounded to 5, 10 and 20 points, or estimated with an error of 10 points (one standard deviation)
# and then rounded.
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd

from proportion_ssl import Bags, NegativePseudoLabelClassifier, class_proportions, mean_iou_score
from proportion_ssl.datasets import make_bags

N_REPEATS = 3
rows = []
for seed in range(N_REPEATS):
    data = make_bags(n_bags=40, bag_size=30, class_separation=0.8, random_state=seed)
    true = class_proportions(data.y_bags, data.bags.index, n_bags=40, n_classes=4)
    rng = np.random.default_rng(seed)

    def record(step, noise=0.0, true=true, rng=rng):
        """Shares as a person writes them down; classes that are absent stay absent."""
        shares = np.clip(true + noise * rng.normal(size=true.shape) * (true > 0), 1e-6, None)
        shares = np.round(shares / step) * step if step else shares
        shares = np.where(shares.sum(axis=1, keepdims=True) > 0, shares, true)
        return shares / shares.sum(axis=1, keepdims=True)

    recorded = {
        "no proportions": None,
        "exact": record(0),
        "steps of 5%": record(0.05),
        "steps of 10%": record(0.10),
        "steps of 20%": record(0.20),
        "error of 10 points,\nsteps of 10%": record(0.10, noise=0.10),
        "error of 20 points,\nsteps of 10%": record(0.10, noise=0.20),
    }
    for name, proportions in recorded.items():
        bags = (
            None
            if proportions is None
            else Bags(data.bags.X, data.bags.names[data.bags.index], proportions)
        )
        model = NegativePseudoLabelClassifier(max_epochs=25 if bags else 100, random_state=0)
        model.fit(data.X_labeled, data.y, bags)
        score = mean_iou_score(data.y_test, model.predict(data.X_test))
        off = np.nan if proportions is None else np.abs(proportions - true).sum(axis=1).mean()
        rows.append({"recorded": name, "seed": seed, "mean IoU": score, "off by": off})

# %%
# "off by" is the mean sum of absolute differences between recorded and true shares of a slide. Each
# line of the picture is one repetition with new slides: the differences between repetitions are
# larger than those between ways of recording, so it is the slopes that count.
table = pd.DataFrame(rows)
summary = (
    table.groupby("recorded", sort=False)[["mean IoU", "off by"]].agg(["mean", "std"]).round(3)
)
print(summary.rename(index=lambda name: name.replace("\n", " ")).to_string())

wide = table.pivot(index="recorded", columns="seed", values="mean IoU").loc[list(recorded)]
figure, ax = plt.subplots(figsize=(9, 3.8), layout="constrained")
ax.plot(range(len(wide)), wide, color="0.7", marker="o", markersize=3, linewidth=1)
ax.plot(range(len(wide)), wide.mean(axis=1), "ko-", label="mean")
ax.set_xticks(range(len(wide)), wide.index, fontsize=8)
ax.set_ylabel("mean IoU on test slides")
ax.legend()
plt.show()
