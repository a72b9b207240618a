"""Warnings name the line of the user, also beneath pipelines, searches and context managers."""

import subprocess
import sys
import warnings

import numpy as np
import pytest
from sklearn.model_selection import GridSearchCV
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from proportion_ssl import Bags, RobustProportionClassifier
from proportion_ssl._warnings import warn
from proportion_ssl.datasets import make_bags
from proportion_ssl.estimators import HarmfulLabelsWarning
from proportion_ssl.proportions import IdentifiabilityWarning

DATA = make_bags(n_bags=12, bag_size=20, n_features=8, random_state=0)


def same_records():
    """Bags whose records are all alike, which say nothing about the classes."""
    return Bags(DATA.bags.X, DATA.bags.index, np.full((12, 4), 0.25))


def exchanged():
    names = DATA.bags.names
    order = np.random.default_rng(0).permutation(len(names))
    return Bags(DATA.bags.X, DATA.bags.index, np.asarray(DATA.bags.proportions)[order])


def line_of(seen, category):
    (one,) = [w for w in seen if w.category is category]
    assert one.filename == __file__
    return one.lineno


def line_before():
    return sys._getframe(1).f_lineno - 1


def test_a_warning_of_fit_names_the_line_that_called_fit():
    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(IdentifiabilityWarning) as seen:
        model.fit(DATA.X_labeled, DATA.y, same_records())
        line = line_before()
    assert line_of(seen, IdentifiabilityWarning) == line


def test_a_warning_from_the_end_of_fit_names_it_as_well():
    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(HarmfulLabelsWarning) as seen:
        model.fit(DATA.X_labeled, DATA.y, exchanged())
        line = line_before()
    assert model.fell_back_
    assert line_of(seen, HarmfulLabelsWarning) == line


def test_a_warning_beneath_a_pipeline_names_the_line_that_fitted_the_pipeline():
    model = make_pipeline(StandardScaler(), RobustProportionClassifier(random_state=0))
    given = {"robustproportionclassifier__X_bags": same_records()}
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        model.fit(DATA.X_labeled, DATA.y, **given)
        line = line_before()
    assert line_of(seen, IdentifiabilityWarning) == line


def test_the_warnings_of_a_grid_search_name_the_line_of_the_search():
    search = GridSearchCV(RobustProportionClassifier(random_state=0), {"doubt": [0.3, 0.4]}, cv=2)
    with pytest.warns(IdentifiabilityWarning) as seen:
        search.fit(DATA.X_labeled, DATA.y, X_bags=same_records())
        line = line_before()
    assert {(w.filename, w.lineno) for w in seen} == {(__file__, line)}


def test_equal_warnings_of_two_lines_are_both_shown():
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("default")
        for _ in range(3):
            warn("text")
        warn("text")
    assert len(seen) == 2
    assert {w.filename for w in seen} == {__file__}


def test_a_filter_can_make_it_an_error_or_silence_it():
    with warnings.catch_warnings():
        warnings.simplefilter("error", FutureWarning)
        with pytest.raises(FutureWarning, match="text"):
            warn("text", FutureWarning)
        warnings.simplefilter("ignore")
        warn("text")  # silent: warnings are errors in these tests


def test_a_thread_without_a_line_of_the_user_names_the_line_of_the_package():
    from threading import Thread

    model = RobustProportionClassifier(random_state=0)
    with pytest.warns(IdentifiabilityWarning) as seen:
        thread = Thread(target=model.fit, args=(DATA.X_labeled, DATA.y, same_records()))
        thread.start()
        thread.join()
    (one,) = [w for w in seen if w.category is IdentifiabilityWarning]
    assert one.filename.endswith("identifiability.py")


def test_code_without_a_file_or_with_libraries_alone_above_it():
    code = "from proportion_ssl._warnings import warn\nwarn('text of a string')"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "UserWarning: text of a string" in run.stderr
