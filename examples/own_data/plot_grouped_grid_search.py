"""
The paper's ablation as a grid search over slides
=================================================

Which parts of negative pseudo labeling help? Each part is a parameter of the estimator, and
``None`` switches it off, so that a grid over these parameters is the ablation table. Folds consist
of whole slides, because patches of one slide resemble each other. The bags pass through the same
scaler as the labeled patches.
"""

# %%
# Ten outlined slides and forty with proportions only. Every slide has its own offset, like a stain.
import matplotlib.pyplot as plt
import pandas as pd
import sklearn
from sklearn.model_selection import GridSearchCV, GroupKFold
from sklearn.pipeline import Pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import (
    AdaptiveSelector,
    NegativePseudoLabelClassifier,
    NegativeSelector,
    ThresholdSelector,
    mean_iou_score,
)
from proportion_ssl.datasets import make_bags
from proportion_ssl.metrics import mean_iou_scorer

sklearn.set_config(enable_metadata_routing=True)
data = make_bags(n_labeled_slides=10, bag_size=30, class_separation=0.6, random_state=0)

# %%
# ``transform_input`` names further inputs that the steps before the classifier transform like
# ``X``. These must be a tuple of arrays: ``bags.flat`` is one, and ``bag_proportions=bags`` assigns
# its instances to bags.
pipeline = Pipeline(
    [
        ("scale", StandardScaler()),
        (
            "model",  # which asks for the slides of the labeled patches
            NegativePseudoLabelClassifier(max_epochs=20, random_state=0).set_fit_request(
                groups=True
            ),
        ),
    ],
    transform_input=["X_bags"],
)
positive = {
    "model__positive_selector": [ThresholdSelector(), AdaptiveSelector()],
    "model__learning_rate": [0.003, 0.01],
}
grid = [
    {**positive, "model__negative_selector": [None]},
    {
        **positive,
        "model__negative_selector": [NegativeSelector()],
        "model__multi_negative": [False, True],
    },
]
search = GridSearchCV(pipeline, grid, scoring=mean_iou_scorer, cv=GroupKFold(5), n_jobs=2)
search.fit(
    data.X_labeled,
    data.y,
    groups=data.groups,
    X_bags=data.bags.flat,
    bag_proportions=data.bags,
)

# %%
# Mean IoU over the five folds, with the best learning rate of each setting. The spread over folds
# is large: with ten slides only large differences can be seen.
results = pd.DataFrame(search.cv_results_)
parts = pd.DataFrame(
    {
        "positive": results["param_model__positive_selector"].map(lambda s: type(s).__name__),
        "negative": results["param_model__negative_selector"].map(
            lambda s: "none" if s is None else type(s).__name__
        ),
        "multi": results["param_model__multi_negative"].fillna(False).astype(bool),
        "mean IoU": results["mean_test_score"],
        "sd over folds": results["std_test_score"],
    }
)
best = parts.loc[parts.groupby(["positive", "negative", "multi"])["mean IoU"].idxmax()]
print(best.sort_values("mean IoU").round(3).to_string(index=False))

names = best["positive"] + "\n" + best["negative"] + best["multi"].map({True: ", multi", False: ""})
figure, axes = plt.subplots(figsize=(8, 3.2), layout="constrained")
axes.barh(names, best["mean IoU"], xerr=best["sd over folds"], color="tab:blue", alpha=0.7)
axes.set_xlabel("mean IoU on left-out slides (mean and sd over 5 folds)")

# %%
# The best setting and the supervised fit on test slides, which were not used above.
supervised = NegativePseudoLabelClassifier(random_state=0).fit(data.X_labeled, data.y)
for name, model in (("supervised", supervised), ("best of the grid", search)):
    print(f"{name}: {mean_iou_score(data.y_test, model.predict(data.X_test)):.3f}")
plt.show()
