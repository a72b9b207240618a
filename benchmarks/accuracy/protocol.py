"""How a system is tuned, fitted and tested on one fold of a study."""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from joblib import Memory
from sklearn.frozen import FrozenEstimator
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


class Fit(NamedTuple):
    """A fitted system, and what the fit took."""

    model: Any
    steps: int
    seconds: float


def fitted(draw, model, labeled, bags) -> Fit:
    """Fit a system; ``draw`` says on which part of which fold."""
    CountingHead.n_steps = 0
    start = time.perf_counter()
    X, y, *groups = labeled
    model.fit(X, y, bags, groups=groups[0] if groups else None)
    return Fit(model, CountingHead.n_steps, time.perf_counter() - start)


def fits_of(task: Task, folder: Path | None) -> Callable[..., Fit]:
    """Function that fits a system, or reads the fit if the folder has it.

    A grid's best setting is part of the next grid, and systems that ignore records are fitted once for all
    kinds of them. The data follow from ``draw`` and are not compared.
    """
    ignores = not EVERY[task.system].uses_records and task.regime != "no shift"
    task = task._replace(regime="any") if ignores else task
    kept = Memory(folder and folder / "fits", verbose=0).cache(fitted, ignore=["labeled", "bags"])
    return lambda part, model, labeled, bags: kept((*task, part), model, labeled, bags)


def seeded(model, seed, setting):
    """The system with a setting; some draw nothing and take no seed."""
    seeds = {"random_state": seed} if "random_state" in model.get_params() else {}
    return model.set_params(**seeds, **setting)


def choose(system, training, labeled, bags, y_bags, seed, fit):
    """Setting whose predicted proportions of left-out bags are nearest to the recorded ones.

    Grids are searched one after the other, each with the best of those before. Neither records nor labels
    of the bags that choose are in training. ``fit`` is a function of :func:`fits_of`. Returns the setting,
    the errors of all and the seconds of their fits.
    """
    order = np.random.default_rng([seed, 4]).permutation(bags.names)
    n_out = max(1, round(LEFT_OUT * len(order)))
    left_out, kept = order[:n_out], order[n_out:]
    if system.uses_labels_of_bags:
        labeled = with_bags(labeled, bags, y_bags, kept)
    chosen, tried, seconds = {}, [], 0.0
    for grid in system.grids:
        errors = []
        settings = [resolved(setting, labeled[0].shape[1]) for setting in grid]
        for setting in settings:
            model = system.make({**training, "max_epochs": TRIAL_EPOCHS})
            model = seeded(model, seed, {**chosen, **setting})
            found = fit("without left-out bags", model, labeled, bags.select(kept))
            seconds += found.seconds
            counter = ClassifyAndCount(FrozenEstimator(found.model))
            counter.fit(kept, labeled=labeled, bags=bags)
            errors.append(-counter.score(left_out))
        tried.append([round(error, 4) for error in errors])
        chosen |= settings[int(np.argmin(errors))]
    return chosen, tried, seconds


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


def run(task: Task, folder: Path | None = None) -> tuple[dict, dict]:
    """One row of the table; labels of the test patches, without and with the records of their slides.

    Fits are kept in ``folder``, if given.
    """
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
    labeled, fit = tuple(labeled), fits_of(task, folder)
    with warnings.catch_warnings():
        # some folds have few bags for their classes; the row says whether the fit fell back
        warnings.simplefilter("ignore", UserWarning)
        chosen, errors, seconds = choose(system, training, labeled, bags, y_bags, task.seed, fit)
        model = seeded(system.make(training), task.seed, chosen)
        if system.uses_labels_of_bags:
            labeled = with_bags(labeled, bags, y_bags, bags.names)
        final = fit("all", model, labeled, bags)
    model = final.model
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
        "steps": final.steps,
        "fell back": bool(getattr(model, "fell_back_", False)),
        "seconds of choice": seconds,
        "seconds of fit": final.seconds,
    }
    if task.regime == "wrong" and hasattr(model, "bag_reliability_"):
        true = study.proportions.loc[recorded.index]
        wrong = (true - recorded).abs().to_numpy().max(axis=1) > 1e-9
        distance = model.bag_reliability_["distance"].loc[recorded.index]
        row["AUC of doubtful records"] = roc_auc_score(wrong, distance)
    return row, predicted
