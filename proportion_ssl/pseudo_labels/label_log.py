"""Which pseudo label each instance had in each round, and which rule gave it."""

import numpy as np
import pandas as pd

#: What gave a label, in the order of the codes that a log stores.
RULES = ("withdrawn", "positive", "negative", "remembered")
SIGNS = np.array([0, 1, -1, -1], dtype=np.int8)  # of these rules


class LabelLog:
    """Audit trail of pseudo labels: every change, so that any round can be replayed.

    Parameters
    ----------
    bag_index : ndarray of int, shape (n_instances,)
        Bag of each instance.
    bag_names : ndarray of shape (n_bags,)
    classes : ndarray of shape (n_classes,)

    Attributes
    ----------
    n_rounds : int
        Rounds recorded.

    Notes
    -----
    Only labels that changed in a round are stored: memory grows with the number of changes, not with
    rounds times instances.

    Examples
    --------
    >>> import numpy as np
    >>> log = LabelLog(np.zeros(2, dtype=int), np.array(["slide 1"]), np.array(["acinar", "solid"]))
    >>> log.record(np.array([[1, 0], [0, -1]]), remembered=np.zeros((2, 2), dtype=bool))
    >>> log.record(np.array([[1, 0], [0, -1]]), remembered=np.array([[False, False], [False, True]]))
    >>> log.to_frame()[["round", "instance", "class", "sign", "rule"]].values.tolist()
    [[1, 0, 'acinar', 1, 'positive'], [1, 1, 'solid', -1, 'negative'], [2, 1, 'solid', -1, 'remembered']]
    """

    def __init__(self, bag_index: np.ndarray, bag_names: np.ndarray, classes: np.ndarray):
        self.bag_index, self.bag_names, self.classes = bag_index, bag_names, classes
        self._rules = np.zeros((len(bag_index), len(classes)), dtype=np.int8)
        self._changes: list[tuple[np.ndarray, np.ndarray]] = []

    @classmethod
    def from_changes(
        cls, bag_index: np.ndarray, bag_names: np.ndarray, classes: np.ndarray, changes: list
    ) -> "LabelLog":
        """The log that has these changes.

        Parameters
        ----------
        bag_index, bag_names, classes : ndarray
            As of the class.
        changes : list of tuple (cells, rules)
            As of :attr:`changes`.

        Returns
        -------
        log : LabelLog
        """
        log = cls(bag_index, bag_names, classes)
        log._changes = list(changes)
        log._rules = log._rules_after(len(log._changes))
        return log

    @property
    def changes(self) -> list:
        """Changes of each round: flat positions (instance * n_classes + class) and what is in ``RULES``."""
        return self._changes

    @property
    def n_rounds(self) -> int:
        """Rounds recorded so far."""
        return len(self._changes)

    def record(self, signed: np.ndarray, *, remembered: np.ndarray) -> None:
        """Add the labels of a round.

        Parameters
        ----------
        signed : ndarray of shape (n_instances, n_classes)
            Labels that the round trained on.
        remembered : ndarray of bool, shape (n_instances, n_classes)
            Where a negative label stands from an earlier round and was not given again.
        """
        rules = np.where(signed > 0, 1, np.where(signed < 0, np.where(remembered, 3, 2), 0))
        rules = rules.astype(np.int8)
        cells = np.flatnonzero(rules.ravel() != self._rules.ravel())
        self._changes.append((cells, rules.ravel()[cells]))
        self._rules = rules

    def replay(self, n_rounds: int | None = None) -> np.ndarray:
        """Labels as they stood in a round.

        Parameters
        ----------
        n_rounds : int, optional
            1 to ``n_rounds``; 0: before the first. Default: the last.

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)

        Raises
        ------
        ValueError
            When that round was not recorded.
        """
        n_rounds = self.n_rounds if n_rounds is None else n_rounds
        if not 0 <= n_rounds <= self.n_rounds:
            raise ValueError(f"Rounds 0 to {self.n_rounds} were recorded; got {n_rounds}.")
        return SIGNS[self._rules_after(n_rounds)]

    def _rules_after(self, n_rounds):
        """Position in ``RULES`` of what gave each label, shape (n_instances, n_classes)."""
        rules = np.zeros(self._rules.size, dtype=np.int8)
        for cells, values in self._changes[:n_rounds]:
            rules[cells] = values
        return rules.reshape(self._rules.shape)

    def to_frame(self) -> pd.DataFrame:
        """All changes as a tidy table, one row per change.

        Returns
        -------
        frame : DataFrame
            Columns ``round``, ``bag``, ``instance`` (row among all bag instances), ``class``, ``sign`` (+1,
            -1, 0 where the label was taken back) and ``rule`` ("positive", "negative", "remembered" or
            "withdrawn"); a label stands until the next row of its instance and class.
        """
        n_changes = [len(cells) for cells, _ in self._changes]
        cells = np.concatenate([c for c, _ in self._changes] or [np.empty(0, dtype=np.int64)])
        rules = np.concatenate([r for _, r in self._changes] or [np.empty(0, dtype=np.int8)])
        instances, classes = np.divmod(cells, len(self.classes))
        return pd.DataFrame(
            {
                "round": np.repeat(np.arange(1, self.n_rounds + 1), n_changes),
                "bag": self.bag_names[self.bag_index[instances]],
                "instance": instances,
                "class": self.classes[classes],
                "sign": SIGNS[rules],
                "rule": np.array(RULES)[rules],
            }
        )


class LabelTrail:
    """Mixin of a classifier whose pseudo labels can be looked at afterwards.

    Attributes
    ----------
    signed_labels_ : ndarray of int8, shape (n_bag_instances, n_classes)
        Labels of the last round.
    label_rounds_ : ndarray of int32, shape (n_bag_instances, n_classes)
        The round since which each has stood without a break; 0: no label.
    label_log_ : LabelLog
    bag_index_, bag_names_ : ndarray
    """

    def _start_labels(self, bag_index: np.ndarray, bag_names: np.ndarray, classes: np.ndarray):
        """No labels yet."""
        self.bag_index_, self.bag_names_ = bag_index, bag_names
        self.signed_labels_ = np.zeros((len(bag_index), len(classes)), dtype=np.int8)
        self.label_rounds_ = np.zeros(self.signed_labels_.shape, dtype=np.int32)
        self.label_log_ = LabelLog(bag_index, bag_names, classes)

    def _record_labels(self, labels: np.ndarray, *, remembered: np.ndarray):
        """Add the labels of a round; of soft labels those above one half."""
        signed = (labels > 0.5).astype(np.int8) - (labels < 0)
        stands = (signed != 0) & (signed == self.signed_labels_)
        now = self.label_log_.n_rounds + 1
        self.label_rounds_ = np.where(stands, self.label_rounds_, now * (signed != 0)).astype(
            np.int32
        )
        self.signed_labels_ = signed
        self.label_log_.record(signed, remembered=remembered)
