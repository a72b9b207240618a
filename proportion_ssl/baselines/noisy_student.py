"""Noisy Student: in each round, a teacher labels the bags and a new student is trained under noise."""

from numbers import Integral, Real
from typing import Any, ClassVar

import numpy as np
import torch
from skorch import NeuralNet

from proportion_ssl._sklearn import Interval
from proportion_ssl.baselines._views import strong_view
from proportion_ssl.estimators._with_net import TrainedNetClassifier, weighted_labels
from proportion_ssl.nets.content_order import content_order
from proportion_ssl.nets.signed_dataset import SignedDataset
from proportion_ssl.nets.training import train_until_settled, training_rows


class NoisyDataset(SignedDataset):
    """Dataset that adds new noise to instances each time they are read.

    Parameters
    ----------
    X, signed, rows
        As in :class:`~proportion_ssl.nets.signed_dataset.SignedDataset`.
    scale : torch.Tensor of shape (n_features,)
        Unit of the noise on features.
    noise, drop : float
        See :func:`~proportion_ssl.baselines._views.strong_view`.
    """

    def __init__(
        self, X: Any, signed: Any, rows: Any, scale: torch.Tensor, noise: float, drop: float
    ):
        super().__init__(X, signed, rows)
        self.scale, self.noise, self.drop = scale, noise, drop

    def __getitems__(self, positions: Any) -> Any:
        """Batch of noisy instances (n, ...) and signed labels (n, n_classes)."""
        X, signed = super().__getitems__(positions)
        return strong_view(X, self.scale, self.noise, self.drop), signed


def teacher_labels(probabilities: np.ndarray, threshold: float, soft: bool) -> np.ndarray:
    """Pseudo labels of all instances whose largest probability reaches a threshold.

    Parameters
    ----------
    probabilities : ndarray of shape (n_instances, n_classes)
    threshold : float
        Smallest probability of a label.
    soft : bool
        True: labels are the probabilities; False: labels are the most probable class.

    Returns
    -------
    labels : ndarray of float32, shape (n_instances, n_classes)
        0 for instances without a label.

    Examples
    --------
    >>> teacher_labels(np.array([[0.75, 0.25], [0.5, 0.5]]), 0.6, True)
    array([[0.75, 0.25],
           [0.  , 0.  ]], dtype=float32)
    """
    n_classes = probabilities.shape[1]
    labels = probabilities if soft else np.eye(n_classes)[probabilities.argmax(axis=1)]
    kept = probabilities.max(axis=1, keepdims=True) >= threshold
    return (labels * kept).astype(np.float32)


class NoisyStudentClassifier(TrainedNetClassifier):
    """Noisy Student: students trained under noise on pseudo labels that a teacher gives without noise.

    The first teacher is trained on the labeled patches. In each round, the teacher labels the patches of the
    bags, patches with low confidence are left out, and classes are balanced. A new net is trained under noise
    on these and the labeled patches and becomes the next teacher. Proportions are not used.

    Parameters
    ----------
    estimator : skorch.NeuralNet, default=None
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    n_rounds : int, default=3
        Number of students.
    threshold : float in [0, 1], default=0.3
        Smallest confidence of a pseudo label.
    soft : bool, default=True
        Whether pseudo labels are the probabilities of the teacher, or its most probable class.
    noise : float, default=0.3
        Standard deviation of the noise on features, relative to that of the features of the labeled patches.
        Images are mirrored and changed by RandAugment instead.
    drop : float in [0, 1), default=0.5
        Probability of dropping a feature for the student, in addition to the dropout of the net.
    max_epochs, patience, validation_fraction, learning_rate, batch_size, oversample, classes, random_state
        As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`; ``max_epochs`` and ``patience`` apply
        to each net. ``oversample`` also balances the pseudo labels.

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : skorch.NeuralNet
        The last student.
    history_ : list of dict
        For each round ``n_labels``, the number of pseudo-labeled patches, and ``n_epochs``.
    n_features_in_ : int
    SOURCE_SETTINGS : dict
        Settings of the authors: three rounds, soft labels with a confidence of at least 0.3, dropout 0.5.

    Notes
    -----
    The paper also uses stochastic depth, which does not apply to a head, and a larger student in each round.
    It keeps the same number of most confident labels of each class; here rarer classes are repeated instead.
    Pseudo labels have the weight of their bag.

    References
    ----------
    .. [1] Xie, Luong, Hovy, Le. "Self-training with Noisy Student improves ImageNet classification". CVPR
       2020.
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **TrainedNetClassifier._parameter_constraints,
        "n_rounds": [Interval(Integral, 1, None, closed="left")],
        "threshold": [Interval(Real, 0, 1, closed="both")],
        "soft": ["boolean"],
        "noise": [Interval(Real, 0, None, closed="left")],
        "drop": [Interval(Real, 0, 1, closed="left")],
    }

    SOURCE_SETTINGS: ClassVar[dict[str, Any]] = {
        "n_rounds": 3,
        "threshold": 0.3,
        "soft": True,
        "drop": 0.5,
    }

    _kept = TrainedNetClassifier._kept.extended(always={"history_": (list,)})

    def __init__(
        self,
        estimator: NeuralNet | None = None,
        *,
        n_rounds: int = 3,
        threshold: float = 0.3,
        soft: bool = True,
        noise: float = 0.3,
        drop: float = 0.5,
        max_epochs: int = 100,
        patience: int = 10,
        validation_fraction: float = 0.25,
        learning_rate: float | None = None,
        batch_size: int | None = None,
        oversample: bool = True,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.n_rounds = n_rounds
        self.threshold = threshold
        self.soft = soft
        self.noise = noise
        self.drop = drop
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.batch_size = batch_size
        self.oversample = oversample
        self.classes = classes
        self.random_state = random_state

    def _fit_net(self, net, X, codes, bags, groups, random_state):
        signed, validation = self._split_labeled(X, codes, groups, random_state)
        train = np.flatnonzero(signed.any(axis=1))
        ends = {"max_epochs": self.max_epochs, "patience": self.patience}
        rows = training_rows(signed, random_state, balance=self.oversample)
        self._initialize(net, X, train)
        train_until_settled(net, SignedDataset(X, signed, rows), validation, **ends)
        self.history_: list[dict] = []
        if bags is None:
            return
        scale = _scale(X, train)
        for _ in range(self.n_rounds):
            probabilities = net.predict_proba(SignedDataset(bags.X))
            labels = weighted_labels(teacher_labels(probabilities, self.threshold, self.soft), bags)
            every = np.concatenate([signed.astype(np.float32), labels])
            order = np.concatenate([np.arange(len(X)), len(X) + content_order(bags.X, bags.index)])
            rows = training_rows(every, random_state, balance=self.oversample, order=order)
            data = NoisyDataset([X, bags.X], every, rows, scale, self.noise, self.drop)
            self._initialize(net, X, train)
            train_until_settled(net, data, validation, **ends)
            self.history_.append(
                {"n_labels": int(labels.any(axis=1).sum()), "n_epochs": len(net.history)}
            )


def _scale(X, rows):
    """Standard deviations of features over the labeled training patches; 1 for images."""
    if len(X.shape) != 2:
        return torch.ones(())
    return torch.as_tensor(np.asarray(X[rows]).std(axis=0))
