"""Warnings that concern the whole cohort come once, not with every fold."""

import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import pytest

from proportion_ssl import RobustProportionClassifier
from proportion_ssl.proportions import IdentifiabilityWarning
from proportion_ssl.proportions.identifiability import told_once, warn_if_not_identifiable
from proportion_ssl.segmenter import System


@pytest.fixture(scope="module")
def alike(fitted, manifest, features):
    """A cohort whose bags all have the same record."""
    from dataclasses import replace

    data = fitted.read_cohort(manifest, features=features)
    cohort, tables = data.cohort, {}
    for name in ("proportions", "lower", "upper"):
        tables[name] = getattr(cohort, name).copy()
        tables[name].loc[cohort.bag_cases] = [0.5, 0.5]
    return replace(data, cohort=replace(cohort, **tables))


def count(call):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        call()
    return sum(issubclass(one.category, IdentifiabilityWarning) for one in caught)


def test_cross_validation_and_calibration(new, alike):
    quick = RobustProportionClassifier(random_state=0)
    segmenter = new(proposer=None).set_params(classifier=quick)
    assert count(lambda: segmenter.fit_features(alike)) == 1
    assert count(lambda: segmenter.calibrate_features(alike, 3)) == 0
    assert count(lambda: segmenter.cross_validate_features(alike, 3)) == 1
    alone = {"alone": System(quick, records=False)}
    assert count(lambda: segmenter.cross_validate_features(alike, 3, systems=alone)) == 0


def test_each_thread_is_told_for_itself():
    """Filters of warnings are common to all threads: one that restores them would change those of others."""
    proportions = [[0.5, 0.5]] * 3
    inside, outside = threading.Event(), threading.Event()

    def silent():
        with told_once():
            inside.set()
            assert outside.wait(10)
            warn_if_not_identifiable(proportions)  # warnings are errors

    with ThreadPoolExecutor(1) as threads:
        result = threads.submit(silent)
        assert inside.wait(10)
        with pytest.warns(IdentifiabilityWarning):
            warn_if_not_identifiable(proportions)
        outside.set()
        result.result()
    with pytest.warns(IdentifiabilityWarning):
        warn_if_not_identifiable(proportions)
