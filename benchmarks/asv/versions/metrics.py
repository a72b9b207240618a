"""Segmentation scores on square label maps of six classes and an ignored one."""

import numpy as np

from proportion_ssl.metrics import SegmentationConfusion, mean_iou_score, proportion_error


class LabelMaps:
    params = ([10**4, 10**6, 10**7], ["uint8", "int64"])
    param_names = ("n_pixels", "kind")

    def setup(self, n_pixels, kind):
        rng = np.random.default_rng(0)
        side = round(n_pixels**0.5)
        self.truth = rng.integers(0, 7, (side, side), dtype=np.uint8).astype(kind)
        self.predicted = rng.integers(0, 6, (side, side), dtype=np.uint8).astype(kind)
        self.bags = np.repeat(np.arange(side) // 100, side).reshape(side, side)

    def time_confusion(self, n_pixels, kind):
        SegmentationConfusion(range(6), 6).update(self.truth, self.predicted)

    def time_mean_iou(self, n_pixels, kind):
        mean_iou_score(self.truth, self.predicted, labels=range(6), ignore_label=6)

    def time_proportion_error(self, n_pixels, kind):
        options = {"labels": range(6), "ignore_label": 6, "bag_ids": self.bags}
        proportion_error(self.truth, self.predicted, **options)

    def peakmem_confusion(self, n_pixels, kind):
        self.time_confusion(n_pixels, kind)
