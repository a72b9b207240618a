"""The documentation's figures are those of the stored results, and these are of this version."""

import json
import re
import sys
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


def test_every_table_and_picture_is_shown():
    shown = set()
    for page in PAGES:
        shown |= set(re.findall(r"(?::file:|image::) (\S+)", page.read_text()))
    kept = {file.name for file in BENCHMARKS.iterdir()} - {page.name for page in PAGES}
    assert shown == kept - {"results.csv", "sources.csv", "made_with.json"}


def test_systems_of_the_stored_results_are_those_of_the_benchmark(results, tables):
    systems = {(p.name, p.set, p.regime): set(p.systems) for p in tables.PARTS["docs"]}
    for key, table in results.groupby(["part", "set", "regime"]):
        assert set(table["system"]) == systems[key]


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
    mean_map = "Alternating mean map"
    rough = f"{lc.loc[('rough', mean_map), 'mIoU']:.3f}".lstrip("0")
    assert f"reached {shown['exact'][mean_map]} with exact records, {rough} with rough ones" in text
    row = lc.loc[("exact", "Robust")]
    ends = [f"{row[name]:.3f}".replace("0.", ".") for name in ("to Proposed", "from", "up to")]
    assert f"(+{ends[0]} [{ends[1]}, {ends[2]}])" in text


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
