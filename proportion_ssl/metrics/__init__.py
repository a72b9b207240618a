"""Segmentation scores, and scorer objects for cross-validation.

The functions take label vectors or label maps and pool all positions, so a large slide has more weight
than a small one. To average over slides instead, score each slide separately.

Pass the scorers to ``cross_validate(scoring={"mIoU": mean_iou_scorer, ...})``. The first three need no
further arguments; a class that does not occur in a fold is left out of the mean of that fold. For other
settings build your own: ``make_scorer(mean_iou_score, ignore_label="vague")``.

``proportion_error_scorer`` is negative (greater is better) and needs the bag of each instance as
``groups``. scikit-learn passes ``groups`` to scorers only with metadata routing: call
``sklearn.set_config(enable_metadata_routing=True)`` and pass ``params={"groups": slide_ids}``.

Examples
--------
>>> import numpy as np
>>> from sklearn import config_context
>>> from sklearn.linear_model import LogisticRegression
>>> from sklearn.model_selection import GroupKFold, cross_validate
>>> rng = np.random.default_rng(0)
>>> y, slide_ids = rng.integers(0, 2, size=60), np.repeat(np.arange(6), 10)
>>> X = y[:, np.newaxis] + rng.normal(scale=0.1, size=(60, 3))
>>> scoring = {"mIoU": mean_iou_scorer, "proportions": proportion_error_scorer}
>>> with config_context(enable_metadata_routing=True):
...     scores = cross_validate(
...         LogisticRegression(), X, y, cv=GroupKFold(3), scoring=scoring,
...         params={"groups": slide_ids},
...     )
>>> scores["test_mIoU"]
array([1., 1., 1.])
"""

from proportion_ssl.metrics._bag_errors import bag_proportion_error, proportion_error
from proportion_ssl.metrics._scorers import (
    mean_iou_scorer,
    overall_pixel_scorer,
    per_class_scorer,
    proportion_error_scorer,
)
from proportion_ssl.metrics._segmentation import (
    SegmentationConfusion,
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
    segmentation_confusion_matrix,
)

__all__ = [
    "SegmentationConfusion",
    "bag_proportion_error",
    "mean_iou_score",
    "mean_iou_scorer",
    "overall_pixel_score",
    "overall_pixel_scorer",
    "per_class_score",
    "per_class_scorer",
    "proportion_error",
    "proportion_error_scorer",
    "segmentation_confusion_matrix",
]
