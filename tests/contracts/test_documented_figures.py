"""The documentation's figures are those of the stored results, and these are of this version."""

import json
import re
import sys
from itertools import product
from pathlib import Path

import pandas as pd
import pytest

from proportion_ssl import __version__

ROOT = Path(__file__).parents[2]
BENCHMARKS = ROOT / "docs" / "benchmarks"
MODULES = [file.stem for file in (ROOT / "benchmarks" / "accuracy").glob("*.py")]
PAGES = sorted(BENCHMARKS.glob("*.rst"))


@pytest.fixture
def results():
    return pd.read_csv(BENCHMARKS / "results.csv")


@pytest.fixture
def tables(monkeypatch):
    """The module that writes tables."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks" / "accuracy"))
    import all_tables

    yield all_tables
    for name in MODULES:
        sys.modules.pop(name, None)


def test_results_are_of_this_version():
    assert json.loads((BENCHMARKS / "made_with.json").read_text())["proportion_ssl"] == __version__


def test_tables_are_written_from_the_stored_results(results, tables, tmp_path):
    tables.write(results, tmp_path)
    tables.write_sources(pd.read_csv(BENCHMARKS / "sources.csv", index_col="system"), tmp_path)
    written = sorted(file.name for file in tmp_path.glob("*.csv"))
    n_tables = results.groupby(["part", "set", "regime"]).ngroups
    assert len(written) == n_tables + 3  # and best.csv, systems.csv, as_in_source.csv
    for name in written:
        assert (tmp_path / name).read_text() == (BENCHMARKS / name).read_text(), name


@pytest.fixture
def rules(tables):
    """The module that compares heads and rules, its tables, and the stored runs of the first draws."""
    import heads_and_rules
    import rules_tables

    runs = pd.read_csv(heads_and_rules.RUNS)
    return heads_and_rules, rules_tables, runs[runs["seed"] < rules_tables.N_DRAWS]


@pytest.mark.parametrize("name", ["lc25000", "chula_rbc", "her2st_expression"])
def test_tables_of_rules_are_written_from_the_stored_runs(rules, name):
    _, module, runs = rules
    written = module.rules_of(runs[runs["set"] == name]).to_csv(index=False)
    assert written == (BENCHMARKS / f"rules-{name}.csv").read_text()


def test_table_of_the_preset_is_written_from_the_stored_runs(rules):
    """Here of the set with the fewest groups to resample; scores and shares of all."""
    module, tables_of, runs = rules
    summary = module.summarize(runs)
    shown = pd.read_csv(BENCHMARKS / "preset.csv", dtype=str, keep_default_na=False)
    for name, label in tables_of.SET_NAMES.items():
        of_set = shown[shown["set"] == label].set_index("records")
        assert len(of_set) == 4
        for regime, row in of_set.iterrows():
            found = summary.loc[(name, regime, "discriminant", "preset")]
            assert row["mIoU"].split()[0] == tables_of.score(found["mIoU"])
            assert row["ECE"] == tables_of.score(found["ECE"])
            if row["recovered"]:
                assert row["recovered"] == f"{found['recovered']:.2f}"
    few = runs[runs["set"] == "her2st_expression"]
    written = tables_of.preset_of(summary, module.compare(few)).to_dict("records")
    assert written == shown[shown["set"] == "HER2ST"].to_dict("records")


def test_page_quotes_the_many_draws(rules):
    """Means of 27 draws of the composed cohorts, and lowest gains of one draw."""
    module, tables_of, _ = rules
    runs = pd.read_csv(module.RUNS)
    lc = runs[runs["set"] == "lc25000"]
    counts = lc.groupby(["head", "rule", "regime"])["seed"].transform("nunique")
    summary = module.summarize(lc[counts == 27]).sort_index()
    text = " ".join((BENCHMARKS / "heads_and_rules.rst").read_text().split())
    found = re.search(
        r"on 27 draws .+ exact records: the preset (\S+) .+?, the published rule with the net (\S+) .+?, the "
        r"net on labeled patches alone (\S+) .+?, and with every label (\S+) .+? lowest gain of a draw over "
        r"the net alone is \+(\S+) for the preset and \+(\S+) for the published rule\. With rough records "
        r"the preset reaches (\S+) ",
        text,
    )
    exact = summary.loc[("lc25000", "exact")]
    preset, published = exact.loc[("discriminant", "preset")], exact.loc[("net", "published")]
    expected = [preset["mIoU"], published["mIoU"]]
    expected += [exact.loc[("net", rule), "mIoU"] for rule in ("none", "ceiling")]
    expected += [preset["lowest gain"], published["lowest gain"]]
    expected.append(summary.loc[("lc25000", "rough", "discriminant", "preset"), "mIoU"])
    assert list(found.groups()) == [tables_of.score(value) for value in expected]


def test_every_table_and_picture_is_shown():
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"(?::file:|image::) (\S+)", page.read_text()))
    kept = {file.name for file in BENCHMARKS.iterdir()} - {page.name for page in PAGES}
    assert shown == kept - {"results.csv", "sources.csv", "made_with.json"}


def test_systems_of_the_stored_results_are_those_of_the_benchmark(results, tables):
    systems = {(p.name, p.set, p.regime): set(p.systems) for p in tables.PARTS}
    tested = {
        key: set(of_key["system"]) for key, of_key in results.groupby(["part", "set", "regime"])
    }
    assert tested == systems


def test_readme_quotes_the_stored_results(results, tables):
    """Rows of README's table, | words | .12 [.10, .14] | ..., of the records that its header begins with."""
    lines = (ROOT / "README.md").read_text().splitlines()
    header = next(i for i, line in enumerate(lines) if line.startswith("| mean IoU"))
    regimes = [cell.split()[0] for cell in lines[header].strip("|").split("|")[1:]]
    of_set = results[(results["part"] == "quick") & (results["set"] == "lc25000_evaluation")]
    n_rows = 0
    for line in lines[header + 2 :]:
        if not line.startswith("|"):
            break
        words, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        system = re.search(r"\*(.+)\*", words).group(1)
        for regime, cell in zip(regimes, cells, strict=True):
            rows = of_set[of_set["regime"] == regime].set_index("system")
            shown = tables.formatted(rows.dropna(axis=1, how="all"))["mIoU [95%]"]
            assert cell == shown[system], (system, regime)
        n_rows += 1
    assert 3 <= n_rows <= 5


def test_readme_quotes_the_stored_results_in_words(results, tables):
    """Scores with records, and those of the systems below the table."""
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    quick = results[results["part"] == "quick"].set_index(["set", "regime", "system"])
    of_part = quick.sort_index()
    lc = of_part.loc["lc25000_evaluation"]

    found = re.search(
        r"robust classifier rose from (\S+) to (\S+) with exact records, and from (\S+) to (\S+) when .+? "
        r"that of the published method from (\S+) to (\S+) and from (\S+) to (\.\d\d)",
        text,
    )
    assert list(found.groups()) == [
        f"{lc.loc[(regime, system), column]:.2f}".lstrip("0")
        for system in ("Robust", "Proposed")
        for regime in ("exact", "wrong")
        for column in ("mIoU", "mIoU with record")
    ]
    shown = {
        regime: tables.formatted(lc.loc[regime].dropna(axis=1, how="all"))["mIoU [95%]"]
        for regime in ("exact", "rough")
    }
    head = "Proposed, discriminant head"
    assert f"reached {shown['exact'][head]} and {shown['rough'][head]}, but" in text
    chula = of_part.loc["chula_rbc", "exact"]["mIoU"]
    found = re.search(
        r"\(Chula RBC-12\) (\.\d\d), where the robust classifier reached (\.\d\d)", text
    )
    expected = [f"{chula[name]:.2f}".lstrip("0") for name in (head, "Robust")]
    assert list(found.groups()) == expected
    of_all = results.set_index(["part", "set", "regime", "system"])["mIoU"]
    quoted = [
        f"{of_all['all', 'chula_rbc', regime, name]:.2f}".replace("0.", ".")
        for regime, name in product(("exact", "wrong"), ("Proportion loss", "Robust"))
    ]
    assert (
        f"nets with a proportion loss {quoted[0]} (with a fifth of the records exchanged: " in text
    )
    assert f"exchanged: {quoted[3]} and {quoted[2]})" in text
    mean_map = "Alternating mean map"
    rough = f"{lc.loc[('rough', mean_map), 'mIoU']:.3f}".lstrip("0")
    assert f"reached {shown['exact'][mean_map]} with exact records, {rough} with rough ones" in text
    row = lc.loc[("exact", "Robust")]
    ends = [f"{row[name]:.3f}".replace("0.", ".") for name in ("to Proposed", "from", "up to")]
    assert f"(+{ends[0]} [{ends[1]}, {ends[2]}])" in text


def test_figures_of_the_development_half_and_of_large_bags(results):
    of_all = results[results["part"] == "all"].set_index(["set", "regime", "system"]).sort_index()
    shown = of_all["mIoU"].map(lambda value: f"{value:.3f}".lstrip("0"))["lc25000_development"]
    pairs = {
        regime: (shown[regime, "Robust"], shown[regime, "Proposed"])
        for regime in ("exact", "rough")
    }
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert "reached {} with exact records, the published method {},".format(*pairs["exact"]) in text
    assert "but with rough ones {} and {}.".format(*pairs["rough"]) in text
    guide = (ROOT / "docs" / "guide" / "choosing.rst").read_text(encoding="utf-8")
    assert "({} and {}, not significant)".format(*pairs["rough"]) in guide
    limits = " ".join((ROOT / "docs" / "guide" / "limits.rst").read_text(encoding="utf-8").split())
    assert "was {}, that of the published method {} (".format(*pairs["rough"]) in limits
    places = {}
    for name in ("lc25000_development", "synthetic_large_bags"):
        for regime in ("exact", "rough"):
            ranks = of_all.loc[name, regime]["mIoU"].drop("Ceiling").rank(ascending=False)
            places[name, regime] = ranks[["Robust", "Proposed"]].astype(int).tolist()
    assert list(places.values()) == [[1, 18], [10, 5], [1, 6], [1, 5]]
    for name in ("lc25000_development", "synthetic_large_bags"):
        better = of_all.loc[name].query("p < .05 and `to Proposed` > 0").drop("Ceiling", level=1)
        expected = [] if name == "lc25000_development" else [("rough", "Robust")]
        assert better.index.tolist() == expected
    pages = (BENCHMARKS / "all_systems.rst").read_text(encoding="utf-8")
    robust = of_all.loc[(slice(None), slice(None), "Robust"), "mIoU"].droplevel("system")
    for half, words in (
        ("development", "cost it {} here"),
        ("evaluation", "and {} on the evaluation"),
    ):
        loss = robust[f"lc25000_{half}", "exact"] - robust[f"lc25000_{half}", "rough"]
        assert words.format(f"{loss:.3f}".lstrip("0")) in pages


def test_places_among_all_systems_on_chula(results):
    pages = " ".join((BENCHMARKS / "all_systems.rst").read_text(encoding="utf-8").split())
    of_all = results[(results["part"] == "all") & (results["set"] == "chula_rbc")]
    places, behind = {}, []
    for regime, table in of_all.groupby("regime"):
        scores = table.set_index("system")["mIoU"].drop("Ceiling")
        places[regime] = scores.rank(ascending=False)[["Robust", "Proposed"]].astype(int).tolist()
        behind.append(f"{scores.max() - scores['Robust']:.3f}".lstrip("0"))
        assert len(scores) == 38
    assert places == {"exact": [10, 15], "rounded": [11, 13], "rough": [10, 15], "wrong": [1, 10]}
    assert behind == [".009", ".009", ".014", ".000"]
    assert "is 10th, 11th and 10th of 38 here, by .009, .014 and .009 behind the first one" in pages
    assert "the published net is 15th, 13th and 15th." in pages
    wrong = of_all[of_all["regime"] == "wrong"].set_index("system").drop("Ceiling")
    assert wrong[(wrong["p"] < 0.05) & (wrong["to Proposed"] > 0)].index.tolist() == ["Robust"]
    shown = wrong[["mIoU", "to Proposed", "p"]].map(lambda value: f"{value:.3f}".lstrip("0"))
    score, difference, p = shown.loc["Robust"]
    assert f"loses least ({score})" in pages
    assert f"(by {difference}, p {p}), which is 10th" in pages
    assert "(p {} and {})".format(*shown.loc[["Adaptive", "Pseudo labeling"], "p"]) in pages


def test_landing_page_quotes_the_stored_results(results):
    """Supervised, robust with exact and with rough records, and every patch labeled, to two digits."""
    text = " ".join((ROOT / "docs" / "index.rst").read_text().split())
    found = re.search(
        r"mean IoU rises from (\.\d\d) to (\.\d\d) with exact .* to (\.\d\d) with .* reaches (\.\d\d)",
        text,
    )
    of_set = results[(results["part"] == "quick") & (results["set"] == "lc25000_evaluation")]
    scores = of_set.set_index(["regime", "system"])["mIoU"]
    quoted = (
        ("exact", "Supervised"),
        ("exact", "Robust"),
        ("rough", "Robust"),
        ("exact", "Ceiling"),
    )
    assert list(found.groups()) == [f"{scores[row]:.2f}".lstrip("0") for row in quoted]
