"""Second stage on any classifier of patches: a small U-Net on the grid of the slide."""

import copy
import math
import warnings
from collections.abc import Iterator
from numbers import Integral, Real
from typing import Any

import numpy as np
import torch
from scipy.special import logit
from sklearn.base import MetaEstimatorMixin, clone
from sklearn.model_selection import GroupKFold, KFold
from sklearn.utils.validation import check_is_fitted

from proportion_ssl._sklearn import HasMethods, Interval, Options
from proportion_ssl.baselines._bag_batches import BagBatch
from proportion_ssl.baselines._context_net import ContextNet, moved
from proportion_ssl.baselines.proportion_loss import MeanProportionLoss
from proportion_ssl.estimators._base import ProbabilisticBagClassifier
from proportion_ssl.estimators.robust_proportion import RobustProportionClassifier
from proportion_ssl.nets.classifiers import one_thread
from proportion_ssl.nets.random_numbers import seeded
from proportion_ssl.nets.training import split_validation
from proportion_ssl.proportions.bags import Bags
from proportion_ssl.proportions.identifiability import IdentifiabilityWarning

#: Labeled patches of a step: whole slides are taken until there are so many.
N_LABELED = 256
#: Fewest steps of an epoch; bags and slides are taken several times where there are few.
N_STEPS = 20
#: Patches without neighbors, of which maps are made at once.
N_SINGLE = 1024
#: Smallest probability of the first stage that the map starts from, and that the U-Net sees.
SMALLEST = 1e-3

#: From so many patches on, a common step of their cells that is so large is no chance: these are pixels.
FEWEST_ON_LATTICE, SMALLEST_PATCH = 10, 16


class ContextClassifier(MetaEstimatorMixin, ProbabilisticBagClassifier):
    """Patches in the context of their slide: a U-Net on the map of any classifier of patches.

    The probabilities that a classifier gives to each patch, or the features of the patches, are laid on the
    grid of the slide, and a small U-Net turns them into the final map. It is trained on outlined slides by
    the cross-entropy of their labeled patches, and on bags by the proportion loss of their maps.

    Parameters
    ----------
    estimator : classifier, default=None
        First stage, with the ``fit`` and ``predict_proba`` of this package's classifiers.
        Default: :class:`~proportion_ssl.RobustProportionClassifier`.
    inputs : {"probabilities", "features"}, default="probabilities"
        What the U-Net sees of each patch. Probabilities: one map per class, of the log odds of this class in
        the first stage, which the same U-Net turns into one output. It then learns how patches of a class lie
        together, from all classes alike, for which few outlined slides suffice. Features: standardized, to
        one output per class; it also learns which classes lie next to each other, and patterns that single
        patches do not show, but needs more slides.
    weight : float, default=1.0
        Weight of the proportion loss of a bag beside the cross-entropy of the labeled patches.
    width : int, default=16
        Channels of the U-Net.
    depth : int, default=2
        How many times it halves the map.
    kernel_size : int, default=3
        Odd. With 1, and ``depth=0``, patches do not see each other.
    n_folds : int, default=5
        Folds in which outlined slides and bags are left out of the first stage.
    max_epochs : int, default=100
        Most passes over the bags, or over the outlined slides where there are none; several passes count as
        one where they take less than 20 steps.
    patience : int, default=10
        Training ends after so many epochs without a smaller loss of the validation patches.
    validation_fraction : float in [0, 1), default=0.25
        Share of the outlined slides that decides when training ends (with a single one, or without
        ``groups``, of the labeled patches). The net of the epoch with the smallest loss is kept, be it the
        map of the first stage as it is. 0: all epochs.
    learning_rate : float, default=1e-3
        Of AdamW.
    weight_decay : float, default=0.01
    classes : array-like, default=None
        See :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
    random_state : int, RandomState instance or None

    Attributes
    ----------
    classes_ : ndarray of shape (n_classes,)
    estimator_ : classifier
        First stage, fitted on all outlined slides and bags.
    record_deviation_ : float
        That of the first stage, if it has one; for records at prediction.
    net_ : torch.nn.Module
        Second stage.
    history_ : list of dict
        Mean losses of each epoch: "labeled_loss", with bags "bag_loss", with validation "valid_loss". The
        first entry is the map of the first stage, before training.
    n_features_in_ : int

    Notes
    -----
    The two stages of Takahama et al. [1]_, who train a segmentation network on features of patches
    (``inputs="features"``), and on outlines alone; the proportion loss of the map is added here. The paper
    trains the first stage further through the second; here it stays as it is. The logits of the map are the
    logarithms of the probabilities of the first stage plus the output of the U-Net, which starts at 0:
    training starts from the map of the first stage.

    A first stage is surer of patches and bags that it has been fitted on than of new ones. The U-Net is
    therefore trained on what first stages predict for slides and bags that they have not seen: in each fold a
    part of the outlined slides and a part of the bags is left out (with a single outlined slide, or without
    ``groups``, a part of the labeled patches).

    Each time a slide is taken, its map is mirrored, turned and shifted at random. Empty cells have
    no effect, and classes weigh the same in the cross-entropy whatever their number of patches. Patches of
    a class that no labeled patch outside their fold shows do not count.

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
            Slide of each labeled patch. Default, where there are cells: all are of one slide.
        cells : array-like of int, shape (n_labeled, 2), optional
            Row and column of each labeled patch in the grid of its slide, as ``PatchGrid.cells``. Default:
            no patch has neighbors.
        bag_cells : array-like of int, shape (n_instances, 2), or sequence of n_bags arrays, optional
            The same of all instances in the bags: in the order of ``Bags.X``, or one array per bag as in
            ``X_bags``. Needed where there are cells and bags.

        Returns
        -------
        self : ContextClassifier

        Raises
        ------
        ValueError, TypeError
            When the input does not fit together, such as two patches of a slide in one cell.
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
        """Class probabilities of the patches of slides, given the recorded proportions if there are any.

        Parameters
        ----------
        X, bag_ids, bag_proportions
            As in :class:`~proportion_ssl.NegativePseudoLabelClassifier`.
        groups : array-like of shape (n_instances,), optional
            Slide of each patch. Default, where there are cells: all are of one slide.
        cells : array-like of int, shape (n_instances, 2), optional
            Row and column of each patch in the grid of its slide. Give all patches of a slide at once: a
            patch that is missing is taken as empty. Default: no patch has neighbors.

        Returns
        -------
        probabilities : ndarray of float32, shape (n_instances, n_classes)
            Columns in the order of ``classes_``; rows sum to 1.

        Raises
        ------
        ValueError
            When X, slides and cells do not fit together.
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
        """Logarithms of the class probabilities.

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
        """Most probable class of each patch.

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
            raise ValueError('inputs="features" needs features of patches; X_labeled holds images.')
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
            by_class = self.inputs == "probabilities"
            self.net_ = ContextNet(
                *((1, 1) if by_class else (labeled.values.shape[1], len(self.classes_))),
                width=self.width,
                depth=self.depth,
                kernel_size=self.kernel_size,
            )
            weights = is_known / np.bincount(codes)[codes]
            weights[self._is_validation(codes, groups, random_state)] *= -1
            self._train(labeled, codes, weights, in_bags, bags, random_state)

    def _train(self, labeled, codes, weights, in_bags, bags, random_state):
        """Train the net; weights of labeled patches: positive trains, negative validates."""
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
            # the map of the first stage is the first to be judged
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
        """Mean loss of the labeled patches that validate."""
        with torch.no_grad():
            rows = np.concatenate(list(parts_of(labeled.slide, N_LABELED, slides)))
            logits = self._logits(
                labeled.values[rows], labeled.p[rows], labeled.slide[rows], labeled.cells[rows]
            )
            return _mean_loss(logits, codes[rows], -weights[rows]).item()

    def _is_validation(self, codes, groups, random_state):
        """Which labeled patches decide when training ends: those of whole slides if there are several."""
        slides = np.empty(0) if groups is None else np.unique(groups)
        if self.validation_fraction > 0 and len(slides) > 1:
            n_slides = min(max(1, round(self.validation_fraction * len(slides))), len(slides) - 1)
            return np.isin(groups, random_state.permutation(slides)[:n_slides])
        _, rows = split_validation(codes, self.validation_fraction, random_state)
        return np.isin(np.arange(len(codes)), rows)

    def _moved_logits(self, maps, rows, random_state):
        """Logits of some patches, their slides mirrored, turned and shifted."""
        slide, cells = maps.slide[rows], maps.cells[rows].copy()
        if maps.has_neighbors:
            for one in np.unique(slide):
                cells[slide == one] = moved(cells[slide == one], self.depth, random_state)
        return self._logits(maps.values[rows], maps.p[rows], slide, cells)

    def _logits(self, values, p, slide, cells):
        """Logits of the map: those of the first stage and the output of the net."""
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
        """What the net sees of each patch."""
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
        """Probabilities of all patches by first stages that have seen neither their slide nor their bag.

        And whether the first stage has seen labels of the class of each labeled patch.
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
            with (
                warnings.catch_warnings()
            ):  # the fit to all bags warns of what they cannot tell apart
                warnings.simplefilter("ignore", IdentifiabilityWarning)
                estimator = self._fit_first_stage(X[train], codes[train], rest, of_train, seed)
            p[test] = self._first_stage(estimator, X[test])
            is_known[test] = np.isin(codes[test], codes[train])
            if bags is not None:
                out = ~kept[bags.index]
                if out.any():
                    p_bags[out] = self._first_stage(estimator, bags.X[np.flatnonzero(out)])
        return p, p_bags, is_known


class _Maps:
    """Patches of slides as the net takes them."""

    def __init__(self, values, p, slide, cells):
        self.values, self.p, self.slide, self.cells = values, p, slide, cells
        self.has_neighbors = len(np.unique(slide)) < len(slide)


def slides_of(n_patches: int, groups: Any, cells: Any, what: str) -> tuple[np.ndarray, np.ndarray]:
    """Number of the slide of each patch, and its cell; without cells each patch is a slide.

    Parameters
    ----------
    n_patches : int
    groups : array-like of shape (n_patches,) or None
    cells : array-like of int, shape (n_patches, 2), or None
    what : str
        For messages.

    Returns
    -------
    slide : ndarray of int, shape (n_patches,)
    cells : ndarray of int64, shape (n_patches, 2)

    Raises
    ------
    ValueError
        When lengths differ, cells are no whole numbers, two patches of a slide are in one cell, or ten
        patches or more lie on multiples of 16 or more, as coordinates in pixels do.
    """
    if cells is None:
        return np.arange(n_patches), np.zeros((n_patches, 2), dtype=np.int64)
    cells = np.asarray(cells)
    if cells.shape != (n_patches, 2) or cells.dtype.kind not in "iu":
        raise ValueError(
            f"cells of {what} has shape {cells.shape} and type {cells.dtype}; give row and column of each "
            f"of the {n_patches} patches as whole numbers, shape ({n_patches}, 2)."
        )
    names = np.zeros(n_patches, dtype=int) if groups is None else np.asarray(groups)
    if len(names) != n_patches:
        raise ValueError(f"groups of {what} has {len(names)} entries for {n_patches} patches.")
    names, slide = np.unique(names, return_inverse=True)
    corners = np.full((len(names), 2), np.iinfo(np.int64).max)
    np.minimum.at(corners, slide, cells)
    step = np.gcd.reduce((cells - corners[slide]).ravel()) if n_patches else 0
    if n_patches >= FEWEST_ON_LATTICE and step >= SMALLEST_PATCH:
        raise ValueError(
            f"cells of {what} are all multiples of {step} apart, like coordinates in pixels; divide them by "
            "the distance of neighboring patches, so that these are in neighboring rows and columns."
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
    return slide, cells.astype(np.int64)


def slides_of_bags(bags: Bags, bag_cells: Any) -> tuple[np.ndarray, np.ndarray]:
    """As :func:`slides_of`, of all instances in bags; cells may be one array per bag."""
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
    """Rows of whole slides, so many at a time that they have at least so many patches.

    Parameters
    ----------
    slide : ndarray of int, shape (n,)
    n_patches : int
    order : ndarray of int, optional
        Slides in this order. Default: by number.

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
    """Rows of the chosen slides for one step after the other, each slide once in a pass."""
    while len(chosen):
        yield from parts_of(slide, N_LABELED, random_state.permutation(chosen))
    while True:
        yield np.empty(0, dtype=np.int64)


def _mean_loss(logits, codes, weights):
    """Cross-entropy of the patches of positive weight; 0 where there are none."""
    weights = weights.clamp(min=0)
    each = torch.nn.functional.cross_entropy(logits, codes, reduction="none")
    return (each * weights).sum() / weights.sum().clamp(min=1e-12)


def _record(bags: Bags, bag: int, n_patches: int) -> BagBatch:
    """What is recorded of one bag, for the proportion loss of its map."""
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
