"""Tables of the page on heads and label rules, for readers, from the runs of `heads_and_rules.py`."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

#: Draws of the roles in the tables; more of LC25000 are only in words.
N_DRAWS = 3
SET_NAMES = {"lc25000": "LC25000", "chula_rbc": "Chula RBC-12", "her2st_expression": "HER2ST"}
#: Sets where every label adds enough for a share of it to mean something.
RECOVERING = ("lc25000", "chula_rbc")
RULE_NAMES = {
    "none": "labeled alone",
    "ceiling": "every label",
    "preset": "RobustProportionClassifier",
    "threshold": "fixed threshold",
    "adaptive": "adaptive",
    "published": "published (adaptive and negative)",
    "assignment": "assignment",
    "soft assignment": "soft assignment",
    "EM": "EM",
}
HEAD_NAMES = ("net", "discriminant", "logistic")
SHOWN_REGIMES = ("exact", "rough", "wrong")


def rules_of(runs: pd.DataFrame) -> pd.DataFrame:
    """Rules and heads of one set: mean and standard deviation over the draws, and the mean with records."""
    rows = []
    for rule, name in RULE_NAMES.items():
        for head in HEAD_NAMES:
            of_system = runs[(runs["rule"] == rule) & (runs["head"] == head)]
            if of_system.empty:
                continue
            row = {"rule": name, "head": head}
            for regime in SHOWN_REGIMES:
                here = of_system[of_system["regime"] == regime]
                row[regime] = _draws(here) if len(here) else ""
            rows.append(row)
    return pd.DataFrame(rows)


def preset_of(summary: pd.DataFrame, compared: pd.DataFrame) -> pd.DataFrame:
    """The preset by set and kind of record, beside two references with the net."""
    rows = []
    for (name, regime, system), row in compared.iterrows():
        if system != "discriminant preset":
            continue
        of_preset = summary.loc[(name, regime, "discriminant", "preset")]
        shown = {"set": SET_NAMES[name], "records": regime}
        shown["mIoU"] = f"{score(row['mIoU'])} [{score(row['low'])}, {score(row['high'])}]"
        for label, reference in (("labeled alone", "net none"), ("published", "net published")):
            columns = [f"{part} to {reference}" for part in ("difference", "low", "high")]
            value, low, high = map(signed, row.get(columns, pd.Series(np.nan, columns)))
            shown[f"to {label}"] = f"{value} [{low}, {high}]" if value else ""
            shown[f"p ({label})"] = p_value(row.get(f"p_adjusted to {reference}", np.nan))
        recovered = of_preset["recovered"] if name in RECOVERING else np.nan
        shown["recovered"] = "" if np.isnan(recovered) else f"{recovered:.2f}"
        rows.append(shown | {"ECE": score(of_preset["ECE"])})
    return pd.DataFrame(rows)


def falling_back_of(runs: pd.DataFrame) -> pd.DataFrame:
    """How many fits fell back, mean and lowest gain, by set, rule and kind of record."""
    rows = []
    for (name, rule), of_rule in runs.groupby(["set", "rule"], sort=False):
        row = {"set": SET_NAMES[name], "rule": RULE_NAMES[rule].split(" (")[0]}
        for kind, here in of_rule.groupby("records", sort=False):
            gains = f"{signed(here['gain'].mean())}, {signed(here['gain'].min())}"
            row[kind] = f"{here['fell back'].sum()}: {gains}"
        rows.append(row)
    return pd.DataFrame(rows)


def large_bags_of(runs: pd.DataFrame, per_thousand: pd.Series) -> pd.DataFrame:
    """Scores, seconds and memory by the size of the bags; ``per_thousand`` by set and system."""
    rows = []
    for (name, system), of_system in runs.groupby(["set", "system"], sort=False):
        row = {"set": SET_NAMES[name], "system": system}
        for size, here in of_system.groupby("size"):
            star = r" \*" if here["fell_back"].any() else ""
            row["as it is" if size == 0 else f"{size:,}"] = f"{score(here['mIoU'].mean())}{star}"
        composed = of_system[of_system["size"] > 0].groupby("size")[["seconds", "GB"]].mean()
        if len(composed):
            row["seconds"] = ", ".join(map("{:.0f}".format, composed["seconds"]))
            row["per 1,000"] = f"{per_thousand[name, system]:.2f}"
            row["GB"] = ", ".join(map("{:.1f}".format, composed["GB"]))
        rows.append(row)
    return pd.DataFrame(rows)


def calibration_of(errors: pd.DataFrame) -> pd.DataFrame:
    """Mean errors, ways in rows and sets in columns."""
    return errors.map(score).rename(columns=SET_NAMES).rename_axis("temperature").reset_index()


def write(runs: pd.DataFrame, summary: pd.DataFrame, compared: pd.DataFrame, folder: Path) -> None:
    """All tables, as CSV; arguments are of the first draws alone."""
    for name, of_set in runs.groupby("set", sort=False):
        rules_of(of_set).to_csv(folder / f"rules-{name}.csv", index=False)
    preset_of(summary, compared).to_csv(folder / "preset.csv", index=False)


def score(value: float) -> str:
    """With three digits and no zero before the point; nothing if unknown."""
    return "" if np.isnan(value) else f"{value:.3f}".removeprefix("0")


def signed(value: float) -> str:
    """A difference with its sign; nothing if unknown."""
    return "" if np.isnan(value) else f"{value:+.3f}".replace("0.", ".", 1)


def p_value(value: float) -> str:
    """With three digits."""
    if np.isnan(value):
        return ""
    if value < 5e-4:
        return "< .001"
    return "1" if value > 0.9995 else f"{value:.3f}".removeprefix("0")


def _draws(rows):
    mean, spread = rows["mIoU"].mean(), rows["mIoU"].std()
    star = r" \*" if rows["fell_back"].any() else ""
    return f"{score(mean)} +- {score(spread)} ({score(rows['mIoU with record'].mean())}){star}"
