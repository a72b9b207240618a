"""Log of the pseudo label of each instance in each round, and of the rule that gave it."""

import numpy as np
import pandas as pd

#: Rules that give a label, in the order of the codes stored in a log.
RULES = ("withdrawn", "positive", "negative", "remembered")
SIGNS = np.array([0, 1, -1, -1], dtype=np.int8)  # of these rules


class LabelLog:
    """Pseudo labels of all rounds, stored as changes, so that any round can be replayed.

    Parameters
    ----------
    bag_index : ndarray of int, shape (n_instances,)
        Bag of each instance.
    bag_names : ndarray of shape (n_bags,)
    classes : ndarray of shape (n_classes,)

    Notes
    -----
    Only labels that changed in a round are stored, so memory grows with the number of changes, not with the
    number of rounds times instances.

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
        """Create a log from stored changes.

        Parameters
        ----------
        bag_index, bag_names, classes : ndarray
            As in the class.
        changes : list of tuple (cells, rules)
            As in :attr:`changes`.

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
        """Changes of each round: flat positions (instance * n_classes + class) and indices of ``RULES``."""
        return self._changes

    @property
    def n_rounds(self) -> int:
        """Number of recorded rounds."""
        return len(self._changes)

    @property
    def signed_labels(self) -> np.ndarray:
        """Labels of the last round, int8 of shape (n_instances, n_classes)."""
        return _read_only(SIGNS[self._rules])

    @property
    def label_rounds(self) -> np.ndarray:
        """Round since which each label has been unchanged; 0 without a label; int32."""
        since = np.zeros(self._rules.size, dtype=np.int32)
        signs = np.zeros(self._rules.size, dtype=np.int8)
        for now, (cells, rules) in enumerate(self._changes, start=1):
            new = SIGNS[rules]
            since[cells] = np.where(new == signs[cells], since[cells], now * (new != 0))
            signs[cells] = new
        return _read_only(since.reshape(self._rules.shape))

    def record(self, labels: np.ndarray, *, remembered: np.ndarray | None = None) -> None:
        """Add the labels of a round.

        Parameters
        ----------
        labels : ndarray of shape (n_instances, n_classes)
            Labels used for training in this round. Soft labels in [0, 1] count as positive above 0.5.
        remembered : ndarray of bool, shape (n_instances, n_classes), optional
            True where a negative label was kept from an earlier round and not given again. Default: nowhere.
        """
        rules = np.where(labels > 0.5, 1, np.where(labels < 0, 2, 0)).astype(np.int8)
        if remembered is not None:
            rules[(rules == 2) & remembered] = 3
        cells = np.flatnonzero(rules.ravel() != self._rules.ravel())
        self._changes.append((cells, rules.ravel()[cells]))
        self._rules = rules

    def replay(self, n_rounds: int | None = None) -> np.ndarray:
        """Labels after a given round.

        Parameters
        ----------
        n_rounds : int, optional
            0 (before the first round) to the number of recorded rounds. Default: the last.

        Returns
        -------
        signed : ndarray of int8, shape (n_instances, n_classes)

        Raises
        ------
        ValueError
            If the round was not recorded.
        """
        n_rounds = self.n_rounds if n_rounds is None else n_rounds
        if not 0 <= n_rounds <= self.n_rounds:
            raise ValueError(f"n_rounds must be between 0 and {self.n_rounds}; got {n_rounds}.")
        return SIGNS[self._rules_after(n_rounds)]

    def _rules_after(self, n_rounds):
        """Index in ``RULES`` of the rule that gave each label, shape (n_instances, n_classes)."""
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
            -1, or 0 if the label was withdrawn) and ``rule`` ("positive", "negative", "remembered" or
            "withdrawn"). A label is valid until the next row of its instance and class.
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


class LoggedLabels:
    """Mixin for classifiers with a ``label_log_``; the other attributes are computed from it.

    Attributes
    ----------
    label_log_ : LabelLog
    signed_labels_ : ndarray of int8, shape (n_bag_instances, n_classes)
        Labels of the last round.
    label_rounds_ : ndarray of int32, shape (n_bag_instances, n_classes)
        Round since which each label has been unchanged; 0 without a label.
    bag_index_, bag_names_ : ndarray
    """

    label_log_: LabelLog

    @property
    def signed_labels_(self) -> np.ndarray:
        """Labels of the last round, shape (n_bag_instances, n_classes)."""
        return self.label_log_.signed_labels

    @property
    def label_rounds_(self) -> np.ndarray:
        """Round since which each label has been unchanged, shape (n_bag_instances, n_classes)."""
        return self.label_log_.label_rounds

    @property
    def bag_index_(self) -> np.ndarray:
        """Bag of each instance, as an index into ``bag_names_``; shape (n_bag_instances,)."""
        return self.label_log_.bag_index

    @property
    def bag_names_(self) -> np.ndarray:
        """Names of the bags, shape (n_bags,)."""
        return self.label_log_.bag_names


def _read_only(array):
    """Return the array as read-only, so that changes of computed values raise an error."""
    array.flags.writeable = False
    return array
