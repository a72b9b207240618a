"""scikit-learn's estimator checks under ids that are short and the same in every process."""

import pytest
from sklearn.utils.estimator_checks import estimator_checks_generator


def parametrize_with_checks(estimators):
    """As scikit-learn's decorator; a case is called "Estimator-check"."""
    cases = [
        (estimator, check)
        for one in estimators
        for estimator, check in estimator_checks_generator(one, mark="xfail")
    ]
    return pytest.mark.parametrize(
        ("estimator", "check"), cases, ids=[_name(*case) for case in cases]
    )


def _name(estimator, check):
    function = getattr(check, "func", check)
    settings = getattr(check, "keywords", {})
    shown = "".join(f",{key}={value}" for key, value in settings.items() if key != "name")
    return f"{type(estimator).__name__}-{function.__name__}{shown}"
