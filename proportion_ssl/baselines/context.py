"""Spatial context as a second stage after any patch classifier: a small U-Net on the slide grid."""

import copy
import math
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import logit
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._checks import check_ids
from proportion_ssl._kept import Array
from proportion_ssl._sklearn import HasMethods, Interval, Options
from proportion_ssl.baselines._bag_batches import BagBatch
from proportion_ssl.baselines._context_net import ContextNet, moved
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.estimators._base import BagClassifier, ProbabilisticBagClassifier
from proportion_ssl.estimators.robust_proportion import RobustProportionClassifier
from proportion_ssl.nets.classifiers import one_thread
from proportion_ssl.nets.random_numbers import seeded
from proportion_ssl.nets.training import split_validation
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.identifiability import told_once

#: Number of labeled patches in a step; whole slides are added until it is reached.
N_LABELED = 256
#: Minimum number of steps in an epoch; few bags or slides are used several times.
N_STEPS = 20
#: Number of patches without neighbors for which maps are computed at once.
N_SINGLE = 1024
#: Lower limits of the probabilities of the first stage, for the logits of the map and the U-Net input.
SMALLEST = 1e-3

#: With this many patches, a common step of their cells this large indicates pixel coordinates.
FEWEST_ON_LATTICE, SMALLEST_PATCH = 10, 16


class ContextClassifier(MetaEstimatorMixin, ProbabilisticBagClassifier):
    """Refine the map of any patch classifier with a U-Net that uses the neighboring patches.

    The class probabilities of the patches from a first-stage classifier, or their features, are placed on
    the grid of the slide, and a small U-Net computes the final map. The U-Net is trained with the
    cross-entropy of labeled patches on outlined slides and the proportion loss of the maps of bags.

    Parameters
    ----------
    estimator : classifier, default=None
        First stage, with ``fit`` and ``predict_proba`` as in the classifiers of this package.
        Default: :class:`~proportion_ssl.RobustProportionClassifier`.
    inputs : {"probabilities", "features"}, default="probabilities"
        Input of the U-Net. "probabilities": one map per class with the log odds of the class in the first
        stage. The same U-Net maps each of them to one output, so it learns the spatial arrangement of
        patches from all classes together, and few outlined slides are enough. "features": standardized
        features, mapped to one output per class. The U-Net then also learns which classes are adjacent, and
        patterns larger than a patch, but needs more slides.
    weight : float, default=1.0
        Weight of the proportion loss of a bag relative to the cross-entropy of the labeled patches.
    width : int, default=16
        Number of channels of the U-Net.
    depth : int, default=2
        Number of downsampling steps by a factor of two.
    kernel_size : int, default=3
        Odd. With 1, and ``depth=0``, patches are processed independently.
    n_folds : int, default=5
        Number of folds in which outlined slides and bags are held out of the first stage.
    max_epochs : int, default=100
        Maximum number of passes over the bags, or over the outlined slides without bags. Passes are combined
        into epochs of at least 20 steps.
    patience : int, default=10
        Training stops after this many epochs without a smaller validation loss.
    validation_fraction : float in [0, 1), default=0.25
        Fraction of the outlined slides held out for early stopping (of the labeled patches with a single
        slide or without ``groups``). The net of the epoch with the smallest validation loss is kept; this
        may be the unchanged map of the first stage. 0: train for all epochs.
    learning_rate : float, default=1e-3
        Learning rate of AdamW.
    weight_decay : float, default=0.01
        Weight decay of AdamW.
    classes : array-like, default=None
        See :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : classifier
        First stage, fitted on all outlined slides and bags.
    record_deviation_ : float
        Standard deviation of the records from the first stage, if it has one; used in predictions with
        records.
    net_ : torch.nn.Module
        Second stage.
    history_ : list of dict
        Mean losses of each epoch: "labeled_loss", with bags "bag_loss", with validation "valid_loss". The
        first entry belongs to the map of the first stage, before training.
    n_features_in_ : int

    Notes
    -----
    The two stages follow Takahama et al. [1]_, who train a segmentation network on features of patches
    (``inputs="features"``) from outlines only; the proportion loss of the map is added here. The paper
    also fine-tunes the first stage through the second; here it is fixed. The logits of the map are the
    log-probabilities of the first stage plus the output of the U-Net. This output is 0 initially, so
    training starts from the map of the first stage.

    A first stage is more confident on its training patches and bags than on new ones. The U-Net is
    therefore trained on out-of-fold predictions: in each fold, some of the outlined slides and bags are held
    out of the first stage (some of the labeled patches with a single outlined slide or without ``groups``).

    Maps are randomly mirrored, rotated and shifted in each step. Empty cells have no effect. Classes have
    equal weight in the cross-entropy, regardless of their number of patches. Patches of a class without
    labeled patches outside their fold are ignored.

    References
    ----------
    .. [1] Takahama, Kurose, Mukuta, Abe, Fukayama, Yoshizawa, Kitagawa, Harada. "Multi-Stage Pathological
       Image Classification Using Semantic Segmentation". ICCV 2019.

    Examples
    --------
    >>> import numpy as np
    >>> from proportion_ssl.datasets import make_bags
    >>> data = make_bags(n_bags=6, bag_size=20, random_state=0)
    >>> row_of_patches = np.stack([np.zeros(20, dtype=int), np.arange(20)], axis=1)
    >>> clf = ContextClassifier(max_epochs=2, random_state=0)
    >>> bag_cells = [row_of_patches] * 6
    >>> cells = np.stack([np.zeros(len(data.y), dtype=int), np.arange(len(data.y))], axis=1)
    >>> clf = clf.fit(
    ...     data.X_labeled, data.y, data.bags, groups=data.groups, cells=cells, bag_cells=bag_cells
    ... )
    >>> bag = data.bags.X[data.bags.index == 0]
    >>> clf.predict(bag, cells=row_of_patches).shape
    (20,)
    """

    _parameter_constraints = {  # noqa: RUF012 - scikit-learn's protocol
        **ProbabilisticBagClassifier._parameter_constraints,
        "estimator": [HasMethods(["fit", "predict_proba"]), None],
        "inputs": [Options(str, {"probabilities", "features"})],
        "weight": [Interval(Real, 0, None, closed="left")],
        "width": [Interval(Integral, 1, None, closed="left")],
        "depth": [Interval(Integral, 0, None, closed="left")],
        "kernel_size": [Interval(Integral, 1, None, closed="left")],
        "n_folds": [Interval(Integral, 2, None, closed="left")],
        "max_epochs": [Interval(Integral, 1, None, closed="left")],
        "patience": [Interval(Integral, 1, None, closed="left")],
        "validation_fraction": [Interval(Real, 0, 1, closed="left")],
        "learning_rate": [Interval(Real, 0, None, closed="neither")],
        "weight_decay": [Interval(Real, 0, None, closed="left")],
    }

    _kept = ProbabilisticBagClassifier._kept.extended(
        always={"history_": (list,)},
        sometimes={"record_deviation_": (float,), "instance_weight_": (float,)},
        arrays={
            "center_": Array("float64", ("features",), always=False),
            "scale_": Array("float64", ("features",), always=False),
        },
        within={"estimator_": (BagClassifier,)},
        modules={"net_": "_new_net"},
    )

    def __init__(
        self,
        estimator: Any = None,
        *,
        inputs: str = "probabilities",
        weight: float = 1.0,
        width: int = 16,
        depth: int = 2,
        kernel_size: int = 3,
        n_folds: int = 5,
        max_epochs: int = 100,
        patience: int = 10,
        validation_fraction: float = 0.25,
        learning_rate: float = 1e-3,
        weight_decay: float = 0.01,
        classes: Any = None,
        random_state: Any = None,
    ):
        self.estimator = estimator
        self.inputs = inputs
        self.weight = weight
        self.width = width
        self.depth = depth
        self.kernel_size = kernel_size
        self.n_folds = n_folds
        self.max_epochs = max_epochs
        self.patience = patience
        self.validation_fraction = validation_fraction
        self.learning_rate = learning_rate
        self.weight_decay = weight_decay
        self.classes = classes
        self.random_state = random_state

    def fit(
        self,
        X_labeled: Any,
        y: Any,
        X_bags: Any = None,
        bag_proportions: Any = None,
        *,
        groups: Any = None,
        cells: Any = None,
        bag_cells: Any = None,
    ) -> "ContextClassifier":
        """Train both stages on outlined slides and on bags.

        Parameters
        ----------
        X_labeled, y, X_bags, bag_proportions
            As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`. Each bag is one slide.
        groups : array-like of shape (n_labeled,), optional
            Slide of each labeled patch. Default with ``cells``: all are of one slide.
        cells : array-like of int, shape (n_labeled, 2), optional
            Row and column of each labeled patch in the grid of its slide, as in ``PatchGrid.cells``.
            Default: no patch has neighbors.
        bag_cells : array-like of int, shape (n_instances, 2), or sequence of n_bags arrays, optional
            Row and column of all bag instances: in the order of ``Bags.X``, or one array per bag as in
            ``X_bags``. Required with ``cells`` and bags.

        Returns
        -------
        self : ContextClassifier

        Raises
        ------
        ValueError, TypeError
            If the inputs are inconsistent, for example two patches of a slide in one cell.
        """
        self._cells = cells, bag_cells
        try:
            super().fit(X_labeled, y, X_bags, bag_proportions, groups=groups)
        finally:
            del self._cells
        return self

    def predict_proba(
        self,
        X: Any,
        *,
        bag_ids: Any = None,
        bag_proportions: Any = None,
        groups: Any = None,
        cells: Any = None,
    ) -> np.ndarray:
        """Predict class probabilities of patches, optionally given the recorded proportions of their bags.

        Parameters
        ----------
        X, bag_ids, bag_proportions
            As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
        groups : array-like of shape (n_instances,), optional
            Slide of each patch. Default with ``cells``: all are of one slide.
        cells : array-like of int, shape (n_instances, 2), optional
            Row and column of each patch in the grid of its slide. Pass all patches of a slide together;
            missing patches are treated as empty. Default: no patch has neighbors.

        Returns
        -------
        probabilities : ndarray of float32, shape (n_instances, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.

        Raises
        ------
        ValueError
            If X, slides and cells are inconsistent.
        """
        check_is_fitted(self)
        X = self._check_instances(X)
        slide, cells = slides_of(X.shape[0], groups, cells, "X")
        p = self._first_stage(self.estimator_, X)
        values = self._values(X, p)
        logits = np.empty(p.shape, dtype=np.float32)
        with torch.no_grad(), one_thread():
            for rows in parts_of(slide, N_SINGLE):
                logits[rows] = self._logits(values[rows], p[rows], slide[rows], cells[rows])
        probabilities = torch.as_tensor(logits).softmax(dim=1).numpy()
        return self._given_records(probabilities, bag_ids, bag_proportions)

    def predict_log_proba(
        self,
        X: Any,
        *,
        bag_ids: Any = None,
        bag_proportions: Any = None,
        groups: Any = None,
        cells: Any = None,
    ) -> np.ndarray:
        """Predict logarithms of the class probabilities.

        Parameters
        ----------
        X, bag_ids, bag_proportions, groups, cells
            As in :meth:`predict_proba`.

        Returns
        -------
        log_probabilities : ndarray of float, shape (n_instances, n_classes)
        """
        with np.errstate(divide="ignore"):
            return np.log(
                self.predict_proba(
                    X,
                    bag_ids=bag_ids,
                    bag_proportions=bag_proportions,
                    groups=groups,
                    cells=cells,
                )
            )

    def predict(
        self,
        X: Any,
        *,
        bag_ids: Any = None,
        bag_proportions: Any = None,
        groups: Any = None,
        cells: Any = None,
    ) -> np.ndarray:
        """Predict the most probable class of each patch.

        Parameters
        ----------
        X, bag_ids, bag_proportions, groups, cells
            As in :meth:`predict_proba`.

        Returns
        -------
        labels : ndarray of shape (n_instances,)
        """
        probabilities = self.predict_proba(
            X, bag_ids=bag_ids, bag_proportions=bag_proportions, groups=groups, cells=cells
        )
        return self.classes_[probabilities.argmax(axis=1)]

    def _fit(self, X, codes, bags, groups, random_state):
        if self.kernel_size % 2 == 0:
            raise ValueError(f"kernel_size is {self.kernel_size}; give an odd number.")
        if self.inputs == "features" and self.is_images_:
            raise ValueError(
                'inputs="features" needs features, but X_labeled holds images; embed the patches first.'
            )
        cells, bag_cells = self._cells
        slide, cells = slides_of(len(codes), groups, cells, "labeled patches")
        bag_slide = None
        if bags is not None:
            bag_slide, bag_cells = slides_of_bags(bags, bag_cells)
            if (self._cells[0] is None) != (self._cells[1] is None):
                raise ValueError("Give both cells and bag_cells, or neither.")
        elif bag_cells is not None:
            raise ValueError("bag_cells is given without X_bags; give both or neither.")
        seed = random_state.randint(np.iinfo(np.int32).max)
        p, p_bags, is_known = self._unseen(X, codes, bags, groups, random_state, seed)
        self.estimator_ = self._fit_first_stage(X, codes, bags, groups, seed)
        for name in ("record_deviation_", "instance_weight_"):
            if hasattr(self.estimator_, name):
                setattr(self, name, getattr(self.estimator_, name))
        if self.inputs == "features":
            instances = np.asarray(X) if bags is None else np.concatenate([X, np.asarray(bags.X)])
            scale = instances.std(axis=0, dtype=np.float64)
            self.center_ = instances.mean(axis=0, dtype=np.float64)
            self.scale_ = np.where(scale > 0, scale, 1.0)
        labeled = _Maps(self._values(X, p), p, slide, cells)
        in_bags = None
        if bags is not None:
            in_bags = _Maps(self._values(bags.X, p_bags), p_bags, bag_slide, bag_cells)
        with seeded(seed, local=True), one_thread():
            self.net_ = self._new_net()
            weights = is_known / np.bincount(codes)[codes]
            weights[self._is_validation(codes, groups, random_state)] *= -1
            self._train(labeled, codes, weights, in_bags, bags, random_state)

    def _new_net(self):
        """Net of the second stage before training."""
        by_class = self.inputs == "probabilities"
        return ContextNet(
            *((1, 1) if by_class else (self.n_features_in_, len(self.classes_))),
            width=self.width,
            depth=self.depth,
            kernel_size=self.kernel_size,
        )

    def _train(self, labeled, codes, weights, in_bags, bags, random_state):
        """Train the net; labeled patches have positive weights for training, negative for validation."""
        optimizer = torch.optim.AdamW(
            self.net_.parameters(), lr=self.learning_rate, weight_decay=self.weight_decay
        )
        codes, weights = torch.as_tensor(codes), torch.as_tensor(weights, dtype=torch.float32)
        slides = [np.unique(labeled.slide[sign * weights > 0]) for sign in (1, -1)]
        proportions = MeanProportionLoss()
        batches = _endless(labeled.slide, slides[0], random_state)
        n_parts = len(list(parts_of(labeled.slide, N_LABELED, slides[0])))
        steps = [None] * n_parts if bags is None else list(range(bags.n_bags))
        steps *= math.ceil(N_STEPS / max(len(steps), 1))
        best, best_loss, n_worse = None, np.inf, 0
        self.history_ = []
        for epoch in range(self.max_epochs + 1):
            losses: list[dict] = []
            # epoch 0 evaluates the map of the first stage
            for place in random_state.permutation(len(steps)) if epoch else ():
                bag = steps[place]
                rows = next(batches)
                logits = self._moved_logits(labeled, rows, random_state)
                loss = _mean_loss(logits, codes[rows], weights[rows])
                losses.append({"labeled_loss": loss.item()})
                if bag is not None:
                    rows = np.flatnonzero(bags.index == bag)
                    logits = self._moved_logits(in_bags, rows, random_state)
                    of_bag = proportions.of_logits(logits, _record(bags, bag, len(rows)))
                    losses[-1]["bag_loss"] = of_bag.item()
                    loss = loss + self.weight * of_bag
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            names = losses[0] if losses else {}
            found = {name: float(np.mean([each[name] for each in losses])) for name in names}
            if len(slides[1]):
                found["valid_loss"] = self._validation_loss(labeled, slides[1], codes, weights)
                if found["valid_loss"] < best_loss:
                    best, best_loss, n_worse = copy.deepcopy(self.net_), found["valid_loss"], 0
                else:
                    n_worse += 1
            self.history_.append(found)
            if n_worse >= self.patience:
                break
        self.net_ = self.net_ if best is None else best

    def _validation_loss(self, labeled, slides, codes, weights):
        """Mean loss of the labeled validation patches."""
        with torch.no_grad():
            rows = np.concatenate(list(parts_of(labeled.slide, N_LABELED, slides)))
            logits = self._logits(
                labeled.values[rows], labeled.p[rows], labeled.slide[rows], labeled.cells[rows]
            )
            return _mean_loss(logits, codes[rows], -weights[rows]).item()

    def _is_validation(self, codes, groups, random_state):
        """Labeled patches used for validation: those of whole slides if there are several."""
        slides = np.empty(0) if groups is None else np.unique(groups)
        if self.validation_fraction > 0 and len(slides) > 1:
            n_slides = min(max(1, round(self.validation_fraction * len(slides))), len(slides) - 1)
            return np.isin(groups, random_state.permutation(slides)[:n_slides])
        _, rows = split_validation(codes, self.validation_fraction, random_state)
        return np.isin(np.arange(len(codes)), rows)

    def _moved_logits(self, maps, rows, random_state):
        """Logits of some patches with their slides mirrored, rotated and shifted."""
        slide, cells = maps.slide[rows], maps.cells[rows].copy()
        if maps.has_neighbors:
            for one in np.unique(slide):
                cells[slide == one] = moved(cells[slide == one], self.depth, random_state)
        return self._logits(maps.values[rows], maps.p[rows], slide, cells)

    def _logits(self, values, p, slide, cells):
        """Logits of the map: logits of the first stage plus the output of the net."""
        _, slide = np.unique(slide, return_inverse=True)
        values, slide, cells = (torch.as_tensor(part) for part in (values, slide, cells))
        n_maps = values.shape[1] if self.inputs == "probabilities" else 1
        if n_maps > 1:  # one map per class
            values = values.reshape(-1, 1)
            slide = (slide.unsqueeze(1) * n_maps + torch.arange(n_maps)).flatten()
            cells = cells.repeat_interleave(n_maps, dim=0)
        output = self.net_(values, slide, cells).reshape(p.shape)
        return torch.as_tensor(np.log(np.maximum(p, SMALLEST))) + output

    def _values(self, X, p):
        """Input of the net for each patch."""
        if self.inputs == "probabilities":
            return logit(np.clip(p, SMALLEST, 1 - SMALLEST))
        return ((np.asarray(X) - self.center_) / self.scale_).astype(np.float32)

    def _fit_first_stage(self, X, codes, bags, groups, seed):
        estimator = (
            RobustProportionClassifier() if self.estimator is None else clone(self.estimator)
        )
        own = estimator.get_params(deep=False)
        if "classes" in own:
            estimator.set_params(classes=self.classes_)
        if "random_state" in own and own["random_state"] is None:
            estimator.set_params(random_state=seed)
        more = {} if groups is None else {"groups": groups}
        return estimator.fit(X, self.classes_[codes], bags, **more)

    def _first_stage(self, estimator, X):
        """Probabilities of the first stage with a column for every class, float32."""
        p = np.zeros((X.shape[0], len(self.classes_)), dtype=np.float32)
        p[:, np.searchsorted(self.classes_, estimator.classes_)] = estimator.predict_proba(X)
        return p

    def _unseen(self, X, codes, bags, groups, random_state, seed):
        """Probabilities of all patches from first stages trained without their slide and bag.

        Also returns whether the first stage was trained on labels of the class of each labeled patch.
        """
        n_slides = len(codes) if groups is None else len(np.unique(groups))
        if n_slides > 1 and groups is not None:
            folds = GroupKFold(min(self.n_folds, n_slides)).split(X, codes, groups)
        else:
            n_folds = min(self.n_folds, len(codes))
            folds = KFold(n_folds, shuffle=True, random_state=seed).split(codes)
        folds = list(folds)
        p = np.empty((len(codes), len(self.classes_)), dtype=np.float32)
        is_known = np.zeros(len(codes), dtype=bool)
        p_bags: Any = None
        fold_of_bag: Any = None
        if bags is not None:
            p_bags = np.empty((bags.n_instances, len(self.classes_)), dtype=np.float32)
            fold_of_bag = random_state.permutation(np.arange(bags.n_bags) % len(folds))
        for fold, (train, test) in enumerate(folds):
            rest = None
            if bags is not None:
                kept: Any = fold_of_bag != fold
                rest = bags.select(bags.names[kept]) if kept.any() else None
            of_train = None if groups is None else np.asarray(groups)[train]
            with told_once():
                estimator = self._fit_first_stage(X[train], codes[train], rest, of_train, seed)
            p[test] = self._first_stage(estimator, X[test])
            is_known[test] = np.isin(codes[test], codes[train])
            if bags is not None:
                out = ~kept[bags.index]
                if out.any():
                    p_bags[out] = self._first_stage(estimator, bags.X[np.flatnonzero(out)])
        return p, p_bags, is_known


class _Maps:
    """Patches of slides as inputs of the net."""

    def __init__(self, values, p, slide, cells):
        self.values, self.p, self.slide, self.cells = values, p, slide, cells
        self.has_neighbors = len(np.unique(slide)) < len(slide)


def slides_of(n_patches: int, groups: Any, cells: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Slide number and cell of each patch; without cells, each patch is a separate slide.

    Parameters
    ----------
    n_patches : int
    groups : array-like of shape (n_patches,) or None
    cells : array-like of int, shape (n_patches, 2), or None
    what : str
        Name of the data, for messages.

    Returns
    -------
    slide : ndarray of int, shape (n_patches,)
    cells : ndarray of int64, shape (n_patches, 2)

    Raises
    ------
    ValueError
        If lengths differ, cells are not whole numbers, two patches of a slide are in one cell, or the cells
        look like pixel coordinates: at least ten patches on multiples of 16 or more.
    """
    if cells is None:
        return np.arange(n_patches), np.zeros((n_patches, 2), dtype=np.int64)
    cells = np.asarray(cells)
    if cells.shape != (n_patches, 2) or cells.dtype.kind not in "iu":
        raise ValueError(
            f"cells of {what} has shape {cells.shape} and type {cells.dtype}; give row and column of each "
            f"of the {n_patches} patches as whole numbers, shape ({n_patches}, 2)."
        )
    cells = cells.astype(np.int64)
    names = np.zeros(n_patches, dtype=int)
    if groups is not None:
        names = check_ids(groups, n_patches, f"groups of {what}", "patches")
    names, slide = np.unique(names, return_inverse=True)
    corners = np.full((len(names), 2), np.iinfo(np.int64).max)
    np.minimum.at(corners, slide, cells)
    step = np.gcd.reduce((cells - corners[slide]).ravel()) if n_patches else 0
    if n_patches >= FEWEST_ON_LATTICE and step >= SMALLEST_PATCH:
        raise ValueError(
            f"cells of {what} are all multiples of {step} apart, like pixel coordinates; divide them by "
            "the distance between neighboring patches, so that these are in adjacent rows and columns."
        )
    _, first, n_there = np.unique(
        np.column_stack([slide, cells]), axis=0, return_index=True, return_counts=True
    )
    if n_there.max() > 1:
        at = first[n_there.argmax()]
        raise ValueError(
            f"{what}: slide {names.tolist()[slide[at]]!r} has {n_there.max()} patches in row {cells[at, 0]}, "
            f"column {cells[at, 1]}; give the slide of each patch as groups, and one patch per cell."
        )
    return slide, cells


def slides_of_bags(bags: Bags, bag_cells: Any) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`slides_of`, for all bag instances; cells may be one array per bag."""
    if bag_cells is None:
        return slides_of(bags.n_instances, None, None, "bags")
    is_sequence = isinstance(bag_cells, list | tuple) and np.ndim(bag_cells[0]) == 2
    if is_sequence:
        if [len(part) for part in bag_cells] != bags.sizes.tolist():
            raise ValueError(
                f"bag_cells holds {len(bag_cells)} arrays; give one per bag, with a row for each of its "
                f"instances ({bags.n_bags} bags of {bags.sizes.tolist()[:5]}... instances)."
            )
        flat = np.empty((bags.n_instances, 2), dtype=np.asarray(bag_cells[0]).dtype)
        for bag, part in enumerate(bag_cells):
            flat[bags.index == bag] = part
        bag_cells = flat
    return slides_of(bags.n_instances, bags.names[bags.index], bag_cells, "bags")


def parts_of(slide: np.ndarray, n_patches: int, order: Any = None) -> Iterator[np.ndarray]:
    """Iterate over the rows of whole slides, in parts of at least a given number of patches.

    Parameters
    ----------
    slide : ndarray of int, shape (n,)
    n_patches : int
    order : ndarray of int, optional
        Order of the slides. Default: by number.

    Yields
    ------
    rows : ndarray of int

    Examples
    --------
    >>> [rows.tolist() for rows in parts_of(np.array([0, 1, 1, 2, 0]), 3)]
    [[0, 4, 1, 2], [3]]
    """
    by_slide = np.argsort(slide, kind="stable")
    members = np.split(by_slide, np.flatnonzero(np.diff(slide[by_slide])) + 1)
    taken: list[np.ndarray] = []
    for one in range(len(members)) if order is None else order:
        taken.append(members[one])
        if sum(map(len, taken)) >= n_patches:
            yield np.concatenate(taken)
            taken = []
    if taken:
        yield np.concatenate(taken)


def _endless(slide, chosen, random_state):
    """Endlessly yield rows of the chosen slides for each step, each slide once per pass."""
    while len(chosen):
        yield from parts_of(slide, N_LABELED, random_state.permutation(chosen))
    while True:
        yield np.empty(0, dtype=np.int64)


def _mean_loss(logits, codes, weights):
    """Cross-entropy of the patches with positive weight; 0 if there are none."""
    weights = weights.clamp(min=0)
    each = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
    return (each * weights).sum() / weights.sum().clamp(min=1e-12)


def _record(bags: Bags, bag: int, n_patches: int) -> BagBatch:
    """Record of one bag, for the proportion loss of its map."""
    nothing = torch.empty(0)
    return BagBatch(
        X=nothing,
        bag=torch.zeros(n_patches, dtype=torch.int64),
        lower=torch.as_tensor(bags.lower[[bag]]),
        upper=torch.as_tensor(bags.upper[[bag]]),
        weights=torch.as_tensor(bags.weights[[bag]], dtype=torch.float32),
        labeled=nothing,
        scale=nothing,
        record=None if bags.record is None else bags.record[[bag]],
    )
