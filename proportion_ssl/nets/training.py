"""Training of a net on signed labels: validation split, oversampling, early stopping."""

import copy

import numpy as np
from skorch import NeuralNet
from skorch.helper import predefined_split

from proportion_ssl.nets.signed_dataset import SignedDataset


def split_validation(
    y: np.ndarray, fraction: float, random_state: np.random.RandomState, groups=None
) -> tuple[np.ndarray, np.ndarray]:
    """Set a fraction of the labeled instances aside for validation.

    Parameters
    ----------
    y : ndarray of int, shape (n_instances,)
        Class indices.
    fraction : float in [0, 1)
        Share that validates; 0: none.
    random_state : numpy.random.RandomState
    groups : array-like of shape (n_instances,), optional
        Slide of each instance. Given, whole slides are set aside; otherwise random instances of
        each class, as in the paper (neighboring patches of a slide then stand on both sides).

    Returns
    -------
    train, validation : ndarray of int
        Positions. Every class keeps at least one instance to train on.

    Raises
    ------
    ValueError
        When no choice of slides leaves every class in training.

    Examples
    --------
    >>> import numpy as np
    >>> y, slides = np.array([0, 1, 0, 1]), np.array([7, 7, 8, 8])
    >>> train, validation = split_validation(y, 0.5, np.random.RandomState(0), groups=slides)
    >>> len(set(slides[train])), len(set(slides[validation]))
    (1, 1)
    """
    if fraction == 0:
        return np.arange(len(y)), np.empty(0, dtype=np.int64)
    if groups is not None:
        is_validation = _validation_slides(y, fraction, random_state, np.asarray(groups))
    else:
        is_validation = np.zeros(len(y), dtype=bool)
        for label in np.unique(y):
            of_class = random_state.permutation(np.flatnonzero(y == label))
            is_validation[of_class[: int(fraction * len(of_class) + 1e-9)]] = True
    return np.flatnonzero(~is_validation), np.flatnonzero(is_validation)


def _validation_slides(y, fraction, random_state, groups, n_tries=100):
    """Mark the instances of about a fraction of the slides, keeping every class in training."""
    slides = np.unique(groups)
    n_validation = max(1, round(fraction * len(slides)))
    n_classes = len(np.unique(y))
    for _ in range(n_tries if len(slides) > n_validation else 0):
        chosen = random_state.permutation(slides)[:n_validation]
        is_validation = np.isin(groups, chosen)
        if len(np.unique(y[~is_validation])) == n_classes:
            return is_validation
    raise ValueError(
        f"No choice of {n_validation} of the {len(slides)} labeled slides for validation leaves every "
        "class with labeled instances in training. Label more slides, leave groups out (random patches "
        "then validate), or set validation_fraction=0."
    )


def oversample(labels: np.ndarray, random_state: np.random.RandomState) -> np.ndarray:
    """Repeat instances until every class is as frequent as the largest.

    Parameters
    ----------
    labels : ndarray of int, shape (n_instances,)
        Class indices.
    random_state : numpy.random.RandomState

    Returns
    -------
    positions : ndarray of int, shape (n_classes_present * largest count,)
        Every position at least once; within a class, counts differ by at most one.

    Examples
    --------
    >>> import numpy as np
    >>> sorted(oversample(np.array([0, 0, 0, 1]), np.random.RandomState(0)).tolist())
    [0, 1, 2, 3, 3, 3]
    """
    largest = np.bincount(labels).max(initial=0)
    repeated = [
        np.resize(random_state.permutation(np.flatnonzero(labels == label)), largest)
        for label in np.unique(labels)
    ]
    return np.concatenate(repeated) if repeated else np.empty(0, dtype=np.int64)


def training_rows(
    signed: np.ndarray,
    random_state: np.random.RandomState,
    *,
    balance: bool,
    order: np.ndarray | None = None,
) -> np.ndarray:
    """Rows to train on: all with a label, those with a positive one oversampled.

    Parameters
    ----------
    signed : ndarray of shape (n_instances, n_classes)
        Signed labels.
    random_state : numpy.random.RandomState
    balance : bool
        Oversample the positive labels to the largest class. Negative labels name no class to
        belong to and are taken once.
    order : ndarray of int, shape (n_instances,), optional
        All rows, in the order from which they are drawn; see
        :func:`~proportion_ssl.nets.content_order.content_order`. Default: as they are stored.

    Returns
    -------
    rows : ndarray of int
    """
    if order is not None:
        return order[training_rows(signed[order], random_state, balance=balance)]
    has_positive = (signed > 0).any(axis=1)
    positive = np.flatnonzero(has_positive)
    if balance:
        positive = positive[oversample(signed[positive].argmax(axis=1), random_state)]
    negative = np.flatnonzero((signed < 0).any(axis=1) & ~has_positive)
    return np.concatenate([positive, negative])


def train_epochs(
    net: NeuralNet,
    data: SignedDataset,
    validation: SignedDataset | None,
    n_epochs: int,
    *,
    epoch_size: int | None = None,
) -> None:
    """Train an initialized net for some epochs more; losses go to ``net.history``.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialized.
    data : SignedDataset
    validation : SignedDataset or None
    n_epochs : int
    epoch_size : int or None, default=None
        Most instances of an epoch: of more data each takes a new random part. None: all.
    """
    net.train_split = None if validation is None else predefined_split(validation)
    for _ in range(n_epochs):
        net.fit_loop(data.random_part(epoch_size), epochs=1)
    net.train_split = None


def train_until_settled(
    net: NeuralNet,
    data: SignedDataset,
    validation: SignedDataset | None,
    *,
    max_epochs: int,
    patience: int,
    epoch_size: int | None = None,
) -> None:
    """Train with early stopping on the validation loss and keep the best weights.

    Parameters
    ----------
    net : skorch.NeuralNet
        Initialized.
    data : SignedDataset
    validation : SignedDataset or None
        None: train all epochs and keep the last weights.
    max_epochs : int
    patience : int
        Stop after so many epochs in a row without a smaller validation loss.
    epoch_size : int or None, default=None
        As in :func:`train_epochs`.
    """
    if validation is None:
        train_epochs(net, data, None, max_epochs, epoch_size=epoch_size)
        return
    best_loss, best_state, n_without = np.inf, None, 0
    while max_epochs > 0 and n_without < patience:
        train_epochs(net, data, validation, 1, epoch_size=epoch_size)
        max_epochs -= 1
        loss = net.history[-1, "valid_loss"]
        n_without += 1
        if loss < best_loss:
            best_loss, best_state, n_without = loss, copy.deepcopy(net.module_.state_dict()), 0
    if best_state is None:
        raise FloatingPointError(
            f"The validation loss was never a finite number (last: {net.history[-1, 'valid_loss']}); "
            "lower the learning rate, and look for extreme values in X."
        )
    net.module_.load_state_dict(best_state)
