"""Documentation, docstrings, comments and messages are spelled right, the American way."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDERS = ("proportion_ssl", "tests", "docs", "examples", "benchmarks", ".ci")
SUFFIXES = {".py", ".pyi", ".rst", ".md", ".html", ".css", ".js", ".cfg", ".toml", ".cff"}
MADE = {"_build", "generated", "auto_examples"}  # folders under docs that a build writes

# parts of words, so that names are read too; brackets keep the patterns from matching themselves
STEMS = (
    "binar|categor|central|discret|general|initial|local|maxim|minim|normal|optim|organ|parametri?"
    "|penal|quant|random|real|recogn|regular|serial|special|standard|summar|synchron|util|vector|visual"
)
BRITISH = re.compile(
    r"labe[l]l(?:ed(?!by)|ing)|mode[l]l(?:ed|ing)|cance[l]l(?:ed|ing)"
    r"|c[o]lour|tum[o]ur|behavi[o]ur|neighb[o]ur|fav[o]ur|hon[o]ur"
    r"|(?:cent[r]e[sd]?|met[r]es?|fib[r]es?|program[m]es?|spel[t]|analy[s]e[dr]?)(?![a-z])"
    r"|(?<![a-z])gr[e]y|art[e]fact|h[a]emato|judg[e]ment|catal[o]gue|lear[n]t|whil[s]t|amon[g]st"
    rf"|(?:{STEMS})i[s](?:e|ed|es|er|ers|ing|ation|ations)(?![a-z])",
    re.IGNORECASE,
)
FOREIGN_NAMES = re.compile("OffsetFromSlideCent[r]e")


def british(text):
    """``(line number, word)`` of every British spelling in a text."""
    lines = FOREIGN_NAMES.sub("", text).splitlines()
    return [(i, found[0]) for i, line in enumerate(lines, 1) for found in BRITISH.finditer(line)]


def written_files():
    files = [path for path in ROOT.iterdir() if path.is_file()]
    for folder in FOLDERS:
        files += [path for path in (ROOT / folder).rglob("*") if not MADE & set(path.parts)]
    return sorted(path for path in files if path.suffix in SUFFIXES or path.name == "Makefile")


def test_american_spelling():
    files = written_files()
    assert len(files) > 200
    found = [
        f"{path.relative_to(ROOT)}:{line}: {word}"
        for path in files
        for line, word in british(path.read_text(encoding="utf-8"))
    ]
    assert not found, "British spelling:\n" + "\n".join(found)


@pytest.mark.parametrize(
    ("start", "word"),
    [
        ("un", "label" + "led"),
        ("", "Colo" + "ur"),
        ("re", "normali" + "sed"),
        ("n_", "cent" + "res"),
        ("", "GR" + "EY"),
    ],
)
def test_british_words_are_found(start, word):
    assert british(f"a line\nthe {start}{word} patches") == [(2, word)]


def test_other_words_are_not():
    words = "labelledby LabelLog SignedLabelLoss parameters otherwise analyses precise optimistic metric"
    assert british(words) == []


def test_codespell():
    """Settings are in pyproject.toml; so is the short list of words that are no mistakes."""
    pytest.importorskip(
        "codespell_lib", reason="codespell is not installed: spelling is not checked"
    )
    files = [str(path) for path in written_files()]
    done = subprocess.run(
        [sys.executable, "-m", "codespell_lib", *files], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
