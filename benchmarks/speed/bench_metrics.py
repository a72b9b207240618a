"""Time and memory of the segmentation scores on label maps.

The class is in the form that asv (airspeed velocity) runs; without asv,
``python benchmarks/speed/bench_metrics.py`` prints the times. The largest map, of 10^8 pixels, is run by
the script only with ``--large``.
"""

import argparse
import time

import numpy as np

from proportion_ssl.metrics import SegmentationConfusion, mean_iou_score, proportion_error

CLASSES = ["lepidic", "acinar", "papillary", "micropapillary", "solid", "non-cancer"]
KINDS = ("uint8", "int64", "str")


class LabelMaps:
    """Square maps of six classes and an ignored one, as integers or as strings."""

    params = ([10**4, 10**6, 10**7], KINDS)
    param_names = ("n_pixels", "kind")

    def setup(self, n_pixels, kind):
        rng = np.random.default_rng(0)
        side = round(n_pixels**0.5)
        truth = rng.integers(0, 7, (side, side), dtype=np.uint8)
        predicted = rng.integers(0, 6, (side, side), dtype=np.uint8)
        if kind == "str":
            names = np.array([*CLASSES, "vague"])
            self.truth, self.predicted = names[truth], names[predicted]
            self.labels, self.ignored = CLASSES, "vague"
        else:
            self.truth, self.predicted = truth.astype(kind), predicted.astype(kind)
            self.labels, self.ignored = range(6), 6
        self.bags = np.repeat(np.arange(side) // 100, side).reshape(side, side)

    def time_confusion(self, n_pixels, kind):
        SegmentationConfusion(self.labels, self.ignored).update(self.truth, self.predicted)

    def time_mean_iou_labels_found(self, n_pixels, kind):
        mean_iou_score(self.truth, self.predicted, ignore_label=self.ignored)

    def time_proportion_error(self, n_pixels, kind):
        options = {"labels": self.labels, "ignore_label": self.ignored, "bag_ids": self.bags}
        proportion_error(self.truth, self.predicted, **options)

    def peakmem_confusion(self, n_pixels, kind):
        self.time_confusion(n_pixels, kind)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--large", action="store_true", help="10^8 pixels, uint8 (1 GB)")
    cases = [(size, kind) for size in LabelMaps.params[0] for kind in KINDS]
    if parser.parse_args().large:
        cases.append((10**8, "uint8"))
    names = [name for name in vars(LabelMaps) if name.startswith("time_")]
    print(f"{'pixels':>10} {'labels':>7}", *(f"{name[5:]:>22}" for name in names))
    for size, kind in cases:
        maps = LabelMaps()
        maps.setup(size, kind)
        seconds = []
        for name in names:
            start = time.perf_counter()
            getattr(maps, name)(size, kind)
            seconds.append(time.perf_counter() - start)
        print(f"{size:>10} {kind:>7}", *(f"{value:>20.4f} s" for value in seconds))


if __name__ == "__main__":
    main()
