"""How a system is tuned, fitted and tested on one fold of a study."""

from __future__ import annotations

import json
import time
import warnings
from typing import NamedTuple

import numpy as np
from sklearn.metrics import roc_auc_score
from sklearn.preprocessing import StandardScaler
from study import Source, load_study
from systems import EVERY, PROTOCOLS, CountingHead, PerFeature

from proportion_ssl import Bags, ClassifyAndCount

LEFT_OUT = 0.25  # share of the bags that choose the settings
TRIAL_EPOCHS = 30  # of the fits that choose; those that are tested have all


class Task(NamedTuple):
    """One fit and what it is tested on."""

    source: Source
    regime: str
    protocol: str
    n_folds: int
    seed: int
    fold: int
    system: str


def seeded(model, seed, setting):
    """The system with a setting; some draw nothing and take no seed."""
    seeds = {"random_state": seed} if "random_state" in model.get_params() else {}
    return model.set_params(**seeds, **setting)


def choose(system, training, labeled, bags, y_bags, seed):
    """Setting whose predicted proportions of left-out bags are nearest to the recorded ones.

    Grids are searched one after the other, each with the best of those before. Neither records nor labels
    of the bags that choose are in training.
    """
    order = np.random.default_rng([seed, 4]).permutation(bags.names)
    n_out = max(1, round(LEFT_OUT * len(order)))
    left_out, kept = order[:n_out], order[n_out:]
    if system.uses_labels_of_bags:
        labeled = with_bags(labeled, bags, y_bags, kept)
    chosen, tried = {}, []
    for grid in system.grids:
        errors = []
        settings = [resolved(setting, labeled[0].shape[1]) for setting in grid]
        for setting in settings:
            model = system.make({**training, "max_epochs": TRIAL_EPOCHS})
            model = seeded(model, seed, {**chosen, **setting})
            counter = ClassifyAndCount(model).fit(kept, labeled=labeled, bags=bags)
            errors.append(-counter.score(left_out))
        tried.append([round(error, 4) for error in errors])
        chosen |= settings[int(np.argmin(errors))]
    return chosen, tried


def resolved(setting, n_features):
    """A setting with what depends on the number of features."""
    return {
        name: float(value) / n_features if isinstance(value, PerFeature) else value
        for name, value in setting.items()
    }


def with_bags(labeled, bags, y_bags, names):
    """Labeled patches and those of the named bags, with their labels."""
    here = np.isin(bags.names[bags.index], names)
    X, y, *_ = labeled
    return np.concatenate([X, bags.X[here]]), np.concatenate([y, y_bags[here]])


def run(task: Task) -> tuple[dict, dict]:
    """One row of the table; labels of the test patches, without and with the records of their slides."""
    shifted = task.regime != "no shift"
    study = load_study(task.source, stain_shift=shifted)
    system, training = EVERY[task.system], PROTOCOLS[task.protocol]
    roles = list(study.folds(task.seed, task.n_folds))[task.fold]
    is_labeled, is_bag, is_test = map(study.rows, (roles.labeled, roles.bags, roles.test))
    # nets standardize by the labeled patches; for systems without a net the scale matters
    scaler = StandardScaler().fit(study.features[is_labeled | is_bag])
    features = scaler.transform(study.features)
    rng = np.random.default_rng([task.seed, task.fold, 2])
    recorded = study.recorded(roles.bags, task.regime, rng)
    bags = Bags(features[is_bag], study.slides[is_bag], recorded)
    y_bags = study.labels[is_bag]
    labeled = [features[is_labeled], study.labels[is_labeled]]
    if system.uses_slides:
        labeled.append(study.slides[is_labeled])
    start = time.perf_counter()
    with warnings.catch_warnings():
        # some folds have few bags for their classes; the row says whether the fit fell back
        warnings.simplefilter("ignore", UserWarning)
        chosen, errors = choose(system, training, tuple(labeled), bags, y_bags, task.seed)
        chosen_after = time.perf_counter()
        CountingHead.n_steps = 0
        model = seeded(system.make(training), task.seed, chosen)
        if system.uses_labels_of_bags:
            labeled = with_bags(labeled, bags, y_bags, bags.names)
        X, y, *groups = labeled
        model.fit(X, y, bags, groups=groups[0] if groups else None)
    fitted_after = time.perf_counter()
    predicted = {"alone": model.predict(features[is_test])}
    has_records = np.isin(roles.test, study.proportions.index).all()
    if has_records and hasattr(model, "predict_proba"):
        rng = np.random.default_rng([task.seed, task.fold, 5])
        known = study.recorded(roles.test, task.regime, rng)
        predicted["with record"] = model.predict(
            features[is_test], bag_ids=study.slides[is_test], bag_proportions=known
        )
    row = {
        "set": task.source.name,
        "cohort": task.source.cohort_seed,
        "regime": task.regime,
        "protocol": task.protocol,
        "seed": task.seed,
        "fold": task.fold,
        "system": task.system,
        "setting": str(chosen),
        "errors of left-out bags": json.dumps(errors),
        "steps": CountingHead.n_steps,
        "fell back": bool(getattr(model, "fell_back_", False)),
        "seconds of choice": chosen_after - start,
        "seconds of fit": fitted_after - chosen_after,
    }
    if task.regime == "wrong" and hasattr(model, "bag_reliability_"):
        true = study.proportions.loc[recorded.index]
        wrong = (true - recorded).abs().to_numpy().max(axis=1) > 1e-9
        distance = model.bag_reliability_["distance"].loc[recorded.index]
        row["AUC of doubtful records"] = roc_auc_score(wrong, distance)
    return row, predicted
