"""scikit-learn's estimator checks under ids that are short and the same in every process."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator


def parametrize_with_checks(estimators, expected_failed_checks=lambda estimator: {}):
    """As scikit-learn's decorator; a case is called "Estimator-check"."""
    cases = [
        _named(case)
        for one in estimators
        for case in estimator_checks_generator(
            one, expected_failed_checks=expected_failed_checks(one), mark="xfail"
        )
    ]
    return pytest.mark.parametrize(("estimator", "check"), cases)


def _named(case):
    """A pair of estimator and check, or one that is marked as a failure, with its id."""
    values, marks = (case.values, case.marks) if hasattr(case, "marks") else (case, ())
    return pytest.param(*values, marks=marks, id=_name(*values))


def _name(estimator, check):
    function = getattr(check, "func", check)
    settings = getattr(check, "keywords", {})
    shown = "".join(f",{key}={value}" for key, value in settings.items() if key != "name")
    return f"{type(estimator).__name__}-{function.__name__}{shown}"
