"""The guide: pictures on every page, and code that runs."""

import re
import sys
import textwrap
from pathlib import Path

import h5py
import numpy as np
import pandas as pd
import pytest

from proportion_ssl import Bags, RobustProportionClassifier, load_cohort
from proportion_ssl.datasets import make_bags
from proportion_ssl.slides import FeatureSequence

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
GUIDE = DOCS / "guide"
PAGES = sorted(path.relative_to(GUIDE).as_posix() for path in GUIDE.rglob("*.rst"))
GALLERY = {path.stem for path in (ROOT / "examples").glob("*/plot_*.py")}
HEAVIEST = 100_000  # bytes of a picture, so that a page loads fast


def pictures(text):
    """(target, options) of every picture of a page."""
    return re.findall(r"^ *\.\. (?:figure|image):: (\S+)\n((?: +:.*\n)*)", text, re.MULTILINE)


def code(text):
    """Blocks of Python of a page."""
    found = re.findall(
        r"^( *)\.\. code-block:: python\n\n((?:\1 +.*\n|\n)+)", text, flags=re.MULTILINE
    )
    return [textwrap.dedent(block) for _, block in found]


def literal(text, before):
    """The literal block that follows a line with the given end."""
    return textwrap.dedent(re.search(rf"{re.escape(before)}\n\n((?: +.*\n|\n)+)", text)[1])


@pytest.mark.parametrize("page", PAGES)
def test_every_page_has_a_picture_with_words_for_it(page):
    found = pictures((GUIDE / page).read_text(encoding="utf-8"))
    assert found
    for target, options in found:
        alt = re.search(r":alt: (.+)", options)
        assert alt and len(alt[1]) > 20, f"{target}: say in :alt: what it shows"
        example = re.fullmatch(r"/auto_examples/\w+/images/sphx_glr_(\w+)_\d{3}\.png", target)
        assert example is None or example[1] in GALLERY
        if target.startswith("/_static/"):
            assert (DOCS / target[1:]).stat().st_size < HEAVIEST


@pytest.mark.slow
def test_every_drawn_picture_is_shown_and_light(tmp_path, monkeypatch):
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(DOCS))
    import pictures as drawn

    sys.modules.pop("pictures")
    files = drawn.draw(tmp_path)
    shown = {
        Path(target).name
        for page in PAGES
        for target, _ in pictures((GUIDE / page).read_text(encoding="utf-8"))
        if target.startswith("/_pictures/")
    }
    assert {file.name for file in files} == shown
    assert max(file.stat().st_size for file in files) < HEAVIEST


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_readme_prints_what_it_says(seed, tmp_path, monkeypatch, capsys):
    """Pairs of scores: those of the code as it stands, then those of two more cohorts in brackets."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    block, said = re.search(r"```python\n(.*?)```\n\nprints (.+?)\.\n", text, re.DOTALL).groups()
    numbers = [float(number) for number in re.findall(r"0?\.\d+", said)]
    code = block.replace("random_state=0", f"random_state={seed}")
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "README.md", "exec"), {})
    printed = [float(number) for number in capsys.readouterr().out.split()]
    assert printed == numbers[2 * seed : 2 * seed + 2]


@pytest.mark.slow
def test_landing_page_prints_what_it_says(capsys):
    (block,) = code((DOCS / "index.rst").read_text(encoding="utf-8"))
    said = re.search(r"# (0\.\d\d); without data.bags (0\.\d\d)", block).groups()
    exec(compile(block, "index.rst", "exec"), {})
    exec(compile(block.replace(", data.bags", ""), "index.rst", "exec"), {})
    printed = [f"{float(value):.2f}" for value in capsys.readouterr().out.split()]
    assert printed == list(said)


@pytest.mark.slow
def test_doubtful_labels_of_the_guide(capsys):
    """The page makes five labels wrong; all five are listed."""
    (block,) = code((GUIDE / "choosing.rst").read_text(encoding="utf-8"))
    names = {}
    exec(compile(block, "choosing.rst", "exec"), names)
    assert set(names["doubtful"].index) >= set(range(5))
    assert capsys.readouterr().out.count("->") == len(names["doubtful"])


def write_manifest(folder, text):
    """A manifest, and empty files for the slides and outlines that it names."""
    manifest = folder / "cohort.csv"
    manifest.write_text(text)
    for name in re.findall(r"(?:slides|outlines)/[\w.]+", text):
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).touch()
    return manifest


def test_manifest_of_the_guide(tmp_path):
    """The table is read, and the lines below it run."""
    text = (GUIDE / "own_slides.rst").read_text(encoding="utf-8")
    manifest = write_manifest(
        tmp_path, literal(text, "saved by a spreadsheet program as CSV (UTF-8)::")
    )
    lines = literal(text, "each with its line and slide::").replace('"cohort.csv"', "manifest")
    names = {"manifest": manifest}
    exec(compile(lines, "own_slides.rst", "exec"), names)
    cohort = names["cohort"]
    assert cohort.labeled == ["a"] and cohort.bags == ["b", "e"] and cohort.test == ["c", "d"]
    assert cohort.lower.loc["P2"].tolist() == pytest.approx([0.7, 0.15, 0])
    assert cohort.upper.loc["P2"].tolist() == pytest.approx([0.8, 0.25, 0.05])


def test_predominant_classes_of_the_guide(tmp_path):
    text = (GUIDE / "own_slides.rst").read_text(encoding="utf-8")
    manifest = write_manifest(tmp_path, literal(text, "columns for the classes are not needed::"))
    assert list(load_cohort(manifest).classes) == ["acinar", "lepidic", "solid"]


@pytest.mark.slow
def test_fit_from_files_of_the_guide(tmp_path):
    text = (GUIDE / "scaling.rst").read_text(encoding="utf-8")
    lines = literal(text, "whose slides are the bags::")
    data = make_bags(random_state=0)
    classes = np.array(["acinar", "lepidic", "papillary", "solid"])
    stems = [f"slide_{number:02d}" for number in range(data.bags.n_bags)]
    for number, stem in enumerate(stems):
        with h5py.File(tmp_path / f"{stem}.h5", "w") as file:
            file["features"] = data.bags.X[data.bags.index == number]
    names = {
        "folder": tmp_path,
        "records": pd.DataFrame(data.bags.proportions, index=stems, columns=classes),
        "X_labeled": data.X_labeled,
        "y": classes[data.y],
        "slides": data.groups,
        "Bags": Bags,
        "RobustProportionClassifier": RobustProportionClassifier,
        "FeatureSequence": FeatureSequence,
    }
    exec(compile(lines, "scaling.rst", "exec"), names)
    assert not names["model"].fell_back_
