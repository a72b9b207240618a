"""Scorers for ``cross_validate(scoring=...)`` and grid searches, built from the functions."""

from sklearn import config_context
from sklearn.metrics import make_scorer

from proportion_ssl.metrics._bag_errors import proportion_error
from proportion_ssl.metrics._segmentation import (
    mean_iou_score,
    overall_pixel_score,
    per_class_score,
)

overall_pixel_scorer = make_scorer(overall_pixel_score)
per_class_scorer = make_scorer(per_class_score)
mean_iou_scorer = make_scorer(mean_iou_score)

# Requests can be set only while metadata routing is enabled; the scorer keeps them afterwards. The name
# "groups" lets one array serve both the splitter, such as GroupKFold, and this scorer.
with config_context(enable_metadata_routing=True):
    proportion_error_scorer = make_scorer(
        proportion_error, greater_is_better=False
    ).set_score_request(bag_ids="groups")
