"""NLNL: negative learning for noisy labels, and a list of doubtful labels."""

from collections import deque
from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import pandas as pd
from sklearn.base import clone
from sklearn.utils import column_or_1d
from skorch import NeuralNet

from proportion_ssl._sklearn import Interval
from proportion_ssl._warnings import warn
from proportion_ssl.estimators._with_net import TrainedNetClassifier
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_epochs, training_rows

#: Number of epochs over which predictions are averaged to assess a label.
N_JUDGED = 10


class NegativeDataset(SignedDataset):
    """Dataset that gives each labeled instance a new random negative label each time it is read.

    Parameters
    ----------
    X, signed, rows
        As in :class:`~proportion_ssl.nets.signed_dataset.SignedDataset`, with positive labels.
    random_state : numpy.random.RandomState
    """

    def __init__(self, X: Any, signed: Any, rows: Any, random_state: np.random.RandomState):
        super().__init__(X, signed, rows)
        self.random_state = random_state

    def gather(self, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Instances (n, ...) and signed labels (n, n_classes) with one -1 per row."""
        X, signed = super().gather(positions)
        return X, complementary_labels(signed, self.random_state)


def complementary_labels(signed: np.ndarray, random_state: np.random.RandomState) -> np.ndarray:
    """Draw a random class other than the label of each instance, as a negative label.

    Parameters
    ----------
    signed : ndarray of shape (n_instances, n_classes)
        One positive label per row.
    random_state : numpy.random.RandomState

    Returns
    -------
    negative : ndarray of int8, shape (n_instances, n_classes)
        One -1 per row.

    Examples
    --------
    >>> complementary_labels(np.array([[1, 0], [0, 1]]), np.random.RandomState(0))
    array([[ 0, -1],
           [-1,  0]], dtype=int8)
    """
    n_instances, n_classes = signed.shape
    steps = random_state.randint(1, n_classes, size=n_instances)
    negative = np.zeros((n_instances, n_classes), dtype=np.int8)
    negative[np.arange(n_instances), (signed.argmax(axis=1) + steps) % n_classes] = -1
    return negative


def believed_labels(probabilities: np.ndarray, codes: np.ndarray, smallest: float) -> np.ndarray:
    """Return which labels have a probability above a limit.

    Parameters
    ----------
    probabilities : ndarray of shape (n_instances, n_classes)
    codes : ndarray of int, shape (n_instances,)
        Class indices of the labels.
    smallest : float

    Returns
    -------
    believed : ndarray of bool, shape (n_instances,)

    Examples
    --------
    >>> believed_labels(np.array([[0.8, 0.2], [0.8, 0.2]]), np.array([0, 1]), 0.5)
    array([ True, False])
    """
    return probabilities[np.arange(len(codes)), codes] > smallest


class NLNLClassifier(TrainedNetClassifier):
    """Negative learning for noisy labels (NLNL): labels with a low predicted probability are not used.

    Training on the labeled patches has three phases. NL: negative labels of random other classes, which are
    rarely wrong even if labels are. SelNL: the same, without patches whose label has a probability at or
    below chance. SelPL: positive labels of the patches whose label is probable. Bags are checked but not
    used.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    threshold : float in [0, 1], default=0.5
        Smallest probability of a label in SelPL.
    max_epochs : int, default=20
        Number of epochs of each phase; with many more, a net also fits wrong labels.
    learning_rate, batch_size, oversample, classes, random_state
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The trained net.
    label_probabilities_ : ndarray of shape (n_labeled, n_classes)
        Predictions for the labeled patches, averaged over the last ten epochs of SelNL.
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        Settings of the authors: a threshold of 0.5 and 720 epochs in each phase.

    Notes
    -----
    The loss of a negative label is ``-log(1 - p)``, computed from logits, so p need not be bounded. Labels
    are assessed by predictions without dropout; the authors average the predictions of the training steps.
    Their last step, a new net that also learns from the predicted labels of doubtful patches, is omitted.

    References
    ----------
    .. [1] Kim, Yim, Yun, Kim. "NLNL: Negative Learning for Noisy Labels". ICCV 2019.

    See Also
    --------
    doubtful_labels : List of labels with a low predicted probability.
    """

    #: Parameters of the base class without effect: every epoch uses all labeled patches for training.
    patience, validation_fraction = 1, 0.0

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TrainedNetClassifier._parameter_constraints,
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {"threshold": 0.5, "max_epochs": 720}

    _kept = TrainedNetClassifier._kept.extended(
        left_out={"label_probabilities_": "of patches that only the fit has seen"}
    )

    def __init__(
        self,
        estimator: NeuralNet | None = None,
        *,
        threshold: float = 0.5,
        max_epochs: int = 20,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        oversample: bool = True,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.threshold = threshold
        self.max_epochs = max_epochs
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.classes = classes
        self.random_state = random_state

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        signed = np.eye(len(self.classes_), dtype=np.int8)[codes]
        every, last = np.arange(len(codes)), deque[np.ndarray](maxlen=N_JUDGED)
        self._initialize(net, X, every)
        for phase in ("NL", "SelNL", "SelPL"):
            for _ in range(self.max_epochs):
                believed = np.ones(len(codes), dtype=bool)
                if phase != "NL":
                    chance = self.threshold if phase == "SelPL" else 1 / len(self.classes_)
                    believed = believed_labels(np.mean(last, axis=0), codes, chance)
                if not believed.any():
                    break  # no labels left to learn from, also in later epochs
                kept = signed * believed[:, np.newaxis]
                rows = training_rows(kept, random_state, balance=self.oversample)
                data = SignedDataset(X, signed, rows)
                if phase != "SelPL":
                    data = NegativeDataset(X, signed, rows, random_state)
                train_epochs(net, data, None, 1)
                last.append(net.predict_proba(SignedDataset(X)))
            if phase == "SelNL":
                self.label_probabilities_ = np.mean(last, axis=0)


def doubtful_labels(X: Any, y: Any, *, estimator: NLNLClassifier | None = None) -> pd.DataFrame:
    """List labeled patches with a low predicted probability of their label, such as mislabeled ones.

    Parameters
    ----------
    X : array-like of shape (n_labeled, n_features) or (n_labeled, height, width, 3)
        Features, or uint8 images.
    y : array-like of shape (n_labeled,)
        Labels.
    estimator : NLNLClassifier, default=None
        Classifier to fit; labels with a probability below its ``threshold`` are doubtful. Default:
        ``NLNLClassifier(random_state=0)``.

    Returns
    -------
    doubtful : DataFrame
        One row per doubtful label, least probable first; the index is the row of X. Columns: ``label``,
        ``probability`` of the label, ``suggested`` (most probable class) and ``suggested_probability``.

    Warns
    -----
    UserWarning
        When more than half of the labels are listed: the net has then hardly learned the classes, and the
        list says nothing about single labels.

    Notes
    -----
    The filter of Kim et al. (see :class:`NLNLClassifier`): labels below ``threshold`` when training changes
    from negative to positive labels. Review the list; do not correct labels automatically, because rare
    kinds of patches are listed too.

    Examples
    --------
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=2, n_features=8, class_separation=3.0, slide_shift=0.0, random_state=0)
    >>> y = data.y.copy()
    >>> y[5] = (y[5] + 1) % 4
    >>> doubtful_labels(data.X_labeled, y).index[:1].tolist()
    [5]
    """
    model = NLNLClassifier(random_state=0) if estimator is None else clone(estimator)
    model.fit(X, y)
    probabilities, given = model.label_probabilities_, column_or_1d(y)
    rows = np.arange(len(given))
    of_label = probabilities[rows, np.searchsorted(model.classes_, given)]
    table = pd.DataFrame(
        {
            "label": given,
            "probability": of_label,
            "suggested": model.classes_[probabilities.argmax(axis=1)],
            "suggested_probability": probabilities.max(axis=1),
        }
    )
    doubtful = table[table["probability"] <= model.threshold]
    if 2 * len(doubtful) > len(table):
        warn(
            f"{len(doubtful)} of {len(table)} labels ({len(doubtful) / len(table):.0%}) are listed as "
            "doubtful. The net has hardly learned the classes, so the list says nothing about single labels. "
            "Raise max_epochs, lower threshold, or label more patches.",
        )
    return doubtful.sort_values("probability", kind="stable")
