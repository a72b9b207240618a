"""
Evaluation with intervals, calibration and agreement
====================================================

Scores with confidence intervals over slides, calibration on left-out slides, and intervals of
predicted proportions. The slides are synthetic.
"""

# %%
# Four labeled slides, 40 bags, and 20 test slides. A linear classifier is trained on the labeled
# slides alone.
import matplotlib.pyplot as plt
import numpy as np
from sklearn.linear_model import LogisticRegression

from proportion_ssl.datasets import make_bags
from proportion_ssl.displays import BlandAltmanDisplay, ReliabilityDisplay, RiskCoverageDisplay
from proportion_ssl.evaluation import (
    apply_temperature,
    bootstrap_scores,
    conformal_errors,
    conformal_intervals,
    entropy_uncertainty,
    fit_temperature_to_records,
    proportion_agreement,
    slide_confusions,
)

data = make_bags(n_bags=40, n_test_slides=20, class_separation=0.7, random_state=2)
classifier = LogisticRegression(max_iter=1000).fit(data.X_labeled, data.y)
probabilities = classifier.predict_proba(data.X_test)
predicted = probabilities.argmax(axis=1)

# %%
# Slides are resampled, not patches: an interval over patches would be far too narrow.
confusions, slides = slide_confusions(data.y_test, predicted, data.groups_test)
by_slide = bootstrap_scores(confusions)
by_patch = bootstrap_scores(slide_confusions(data.y_test, predicted, np.arange(len(predicted)))[0])
print(f"mIoU {by_slide.score:.2f}, 95% interval {by_slide.low:.2f} to {by_slide.high:.2f}")
print(f"over patches, wrongly: {by_patch.low:.2f} to {by_patch.high:.2f}")

# %%
# The classifier is overconfident on new slides. The bags were not used for training, so a
# temperature can be fitted to their records. A temperature fitted to the training patches would
# make the classifier even more confident.
bags = data.bags
temperature = fit_temperature_to_records(
    classifier.predict_proba(bags.X), bags.index, bags.lower, bags.upper
)
calibrated = apply_temperature(probabilities, temperature)
print(f"temperature {temperature:.1f}")

# %%
# Intervals of the predicted proportions of new slides follow from the errors on the bags: nine of
# ten intervals contain the true share.
truth, shares = (
    confusions.sum(axis=axis) / confusions.sum(axis=(1, 2), keepdims=True)[:, 0] for axis in (2, 1)
)
errors = conformal_errors(
    bags.proportions_of(classifier.predict(bags.X), range(4)), bags.lower, bags.upper
)
low, high = conformal_intervals(shares, errors)
print(
    f"{((low <= truth) & (truth <= high)).mean():.0%} inside, mean width {(high - low).mean():.2f}"
)
print(proportion_agreement(truth, shares)[["bias", "limit_low", "limit_high", "ICC"]].round(2))

# %%
# Differences between proportions by class, calibration before and after, and the error rate when
# uncertain patches are left to a pathologist.
figure = plt.figure(figsize=(11, 7), layout="constrained")
upper, lower = figure.subfigures(2, 1, height_ratios=(1, 1.3))
BlandAltmanDisplay.from_predictions(truth, shares, ax=upper.subplots(1, 4))
axes = lower.subplot_mosaic("ace;bde", height_ratios=(2, 1), width_ratios=(1, 1, 1))
ReliabilityDisplay.from_predictions(data.y_test, probabilities, ax=[axes["a"], axes["b"]])
ReliabilityDisplay.from_predictions(data.y_test, calibrated, ax=[axes["c"], axes["d"]])
RiskCoverageDisplay.from_predictions(
    predicted == data.y_test, entropy_uncertainty(calibrated), name="entropy", ax=axes["e"]
)
plt.show()
