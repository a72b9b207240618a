"""Systems that a run compares, by name."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class System:
    """A classifier, and whether it is trained on the recorded proportions.

    Parameters
    ----------
    classifier : estimator
        Its ``fit`` has the signature of the classifiers of this package.
    records : bool, default=True
        If False, only outlined slides are used.
    """

    classifier: Any
    records: bool = True


def standard_systems(random_state: int | None = None) -> dict[str, System]:
    """The supervised, published and robust systems.

    Parameters
    ----------
    random_state : int, optional

    Returns
    -------
    systems : dict of str to System
        "supervised": the first step of the published method, trained on outlines only; "published":
        :class:`~proportion_ssl.NegativePseudoLabelClassifier`; "robust":
        :class:`~proportion_ssl.RobustProportionClassifier`.
    """
    from proportion_ssl.estimators import NegativePseudoLabelClassifier, RobustProportionClassifier

    published = NegativePseudoLabelClassifier(random_state=random_state)
    return {
        "supervised": System(published, records=False),
        "published": System(published),
        "robust": System(RobustProportionClassifier(random_state=random_state)),
    }
