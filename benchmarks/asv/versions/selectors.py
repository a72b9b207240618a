"""Selectors on bags of 1,000 instances, with exact proportions and with intervals."""

import numpy as np

from proportion_ssl import AdaptiveSelector, NegativeSelector, ThresholdSelector

SELECTORS = {cls.__name__: cls for cls in (AdaptiveSelector, NegativeSelector, ThresholdSelector)}


class Selectors:
    params = ([10**4, 10**5, 10**6], list(SELECTORS), ["exact", "intervals"])
    param_names = ("n_instances", "selector", "proportions")

    def setup(self, n_instances, selector, proportions):
        rng = np.random.default_rng(0)
        n_bags = n_instances // 1000
        self.probabilities = rng.dirichlet(np.ones(6), n_instances).astype(np.float32)
        self.bag_ids = np.repeat(np.arange(n_bags), 1000)
        self.recorded = rng.dirichlet(np.ones(6), n_bags)
        if proportions == "intervals":
            ends = [self.recorded - 0.05, self.recorded + 0.05]
            self.recorded = np.clip(np.stack(ends), 0, 1)

    def time_transform(self, n_instances, selector, proportions):
        SELECTORS[selector]().transform(
            self.probabilities, bag_ids=self.bag_ids, bag_proportions=self.recorded
        )

    def peakmem_transform(self, n_instances, selector, proportions):
        self.time_transform(n_instances, selector, proportions)
