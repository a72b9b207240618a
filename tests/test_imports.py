"""Layers: what each module may import, read from the source without importing anything.

To add a module, give it (or its folder) a row in ``ROWS``; the most specific row counts. The
standard library is always allowed. Imports inside functions count like those at the top.
"""

import ast
import configparser
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = "proportion_ssl"


class Row(NamedTuple):
    """Allowed imports, each with all that lies below it."""

    own: tuple[str, ...] = ()  # modules of this package
    others: tuple[str, ...] = ()  # installed packages


NUMERICS = (
    *("proportions", "intervals", "selectivity", "picking"),
    *("prices", "moves", "assignment", "uncertain_counts", "discriminant"),
)
DATA = ("bags", "selection", "metrics", "datasets")
RUNTIME = ("images", "engine", "exported")  # predicting without torch
NETS = (*RUNTIME, "losses", "nets", "embedding")
LEARNING = (
    *NUMERICS,
    *DATA,
    *NETS,
    "complementary",
    "audit",
    "identifiability",
    "quantification",
    "base",
    "classifier",
    "robust",
    "baselines",
    "persistence",
    "proposals",
    "_version",
)

#: What both sides of the border between learning and slides may use.
NEUTRAL = ("_atomic",)

ARRAYS = ("numpy", "scipy")
TORCH = ("torch", "torchvision", "skorch", "timm")

ROWS = {
    # 1: numerics, readable next to the paper
    **dict.fromkeys(NUMERICS, Row(NUMERICS, ARRAYS)),
    "metrics._segmentation": Row(NUMERICS, (*ARRAYS, "sklearn.metrics.confusion_matrix")),
    "slides.grid": Row(("slides.grid",), ARRAYS),
    "slides.mosaic": Row(("slides.grid", "slides.mosaic"), ARRAYS),
    "losses": Row(("losses",), ("torch",)),
    "complementary": Row(("complementary", "losses"), ("torch",)),
    "_version": Row(),
    "_atomic": Row(),
    # 2: what users hand over and get back, in the terms of scikit-learn
    "bags": Row(("bags", *NUMERICS), (*ARRAYS, "sklearn", "pandas")),
    "audit": Row((), (*ARRAYS, "pandas")),
    "identifiability": Row((), (*ARRAYS, "pandas")),
    "quantification": Row(("bags", *NUMERICS), (*ARRAYS, "sklearn")),
    "selection": Row(("selection", "bags", *NUMERICS), (*ARRAYS, "sklearn")),
    "metrics": Row(("metrics", *NUMERICS), (*ARRAYS, "sklearn")),
    "metrics._plots": Row(("metrics", *NUMERICS), (*ARRAYS, "sklearn", "matplotlib")),
    "datasets": Row(
        ("datasets", "bags", *NUMERICS),
        (
            *(*ARRAYS, "sklearn", "pandas", "joblib", "tqdm"),
            *("tifffile", "imagecodecs", "PIL", "shapely"),
        ),
    ),
    # 2: slides, which know nothing of learning
    "slides": Row(
        ("slides", *NEUTRAL),
        (
            *ARRAYS,
            *("large_image", "large_image_source_*", "openslide", "tifffile", "imagecodecs"),
            *("simplejpeg", "PIL", "shapely", "h5py", "defusedxml", "cachetools"),
            *("sklearn", "pandas"),  # stain normalisers are transformers, summaries are tables
        ),
    ),
    "slides.cohort": Row(("slides",), ("sklearn.utils.parallel", "tqdm")),
    "slides.embed": Row(("slides",), ("numpy", "tqdm")),
    # 3: networks
    "images": Row((), ("numpy", "sklearn", "tqdm")),
    "engine": Row((), ("numpy", "joblib", "openvino")),
    "exported": Row((*RUNTIME, "_atomic", "_version"), ("numpy", "sklearn", "joblib")),
    "nets": Row(NETS, (*ARRAYS, *TORCH, "sklearn", "openvino")),
    "nets.streams": Row(("nets.data",), ("numpy", "torch")),
    "embedding": Row(NETS, (*ARRAYS, *TORCH, "sklearn")),
    # 4: the estimators
    "base": Row(("bags", *NUMERICS, *NETS), (*ARRAYS, *TORCH, "sklearn")),
    "classifier": Row(LEARNING, (*ARRAYS, *TORCH, "sklearn", "joblib", "pandas", "tqdm")),
    "baselines": Row(LEARNING, (*ARRAYS, *TORCH, "sklearn", "joblib", "pandas", "tqdm")),
    "robust": Row(LEARNING, (*ARRAYS, "pandas", "sklearn")),
    "persistence": Row(
        (*LEARNING, *NEUTRAL), (*ARRAYS, *TORCH, "sklearn", "pandas", "safetensors")
    ),
    "proposals": Row((*NETS, "proposals"), ("numpy", "sklearn")),
    # proportion_ssl/__init__.py and its stub, whose names are imported when they are used
    "": Row((*LEARNING, "reporting", "displays"), ("lazy_loader",)),
    # 5: pictures and the report
    "displays": Row(("displays", *NUMERICS, "slides.colors"), ("numpy", "sklearn", "matplotlib")),
    "reporting": Row(
        ("_report", "_version", "intervals", "proportions", "slides.colors", *NEUTRAL),
        ("numpy", "pandas", "jinja2"),
    ),
    "_report": Row(("_report",), ("numpy", "pandas")),
    "_report.pictures": Row((), ("numpy", "PIL")),
}


class Import(NamedTuple):
    name: str  # dotted, absolute; "*" stands for what is not known before running
    line: int
    at_top: bool  # runs when the module is imported


def below(name: str, prefixes: tuple[str, ...]) -> bool:
    """Whether a dotted name is one of the prefixes or lies below one."""
    return any(name == prefix or name.startswith(f"{prefix}.") for prefix in prefixes)


def find_imports(source: str, module: str, is_package: bool = False) -> list[Import]:
    """Everything that the source of ``module`` (dotted, without the package) imports."""
    full_name = f"{PACKAGE}.{module}".rstrip(".")
    found = []

    def visit(node, at_top):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            parts = full_name.split(".") + ["__init__"] * is_package
            base = parts[: -node.level] if node.level else []
            base = ".".join(base + ([node.module] if node.module else []))
            names = [f"{base}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in (
            "import_module",
            "__import__",
        ):
            names = [_known_start(node.args[0]) if node.args else "*"]
        else:
            names = []
        found.extend(Import(name, node.lineno, at_top) for name in names)
        inside = isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        for child in ast.iter_child_nodes(node):
            visit(child, at_top and not inside)

    visit(ast.parse(source), True)
    return found


def _known_start(argument: ast.expr) -> str:
    if isinstance(argument, ast.JoinedStr) and argument.values:
        first = argument.values[0]
        return f"{first.value}*" if isinstance(first, ast.Constant) else "*"
    return str(argument.value) if isinstance(argument, ast.Constant) else "*"


def row_of(module: str) -> Row:
    fitting = [key for key in ROWS if module == key or (key and below(module, (key,)))]
    if not fitting:
        raise LookupError(
            f"{PACKAGE}.{module} fits no row of the table in {__file__}: give it a row"
        )
    return ROWS[max(fitting, key=len)]


def forbidden(module: str, source: str, is_package: bool = False) -> list[str]:
    """Imports of ``module`` that its row does not allow, as "line: name"."""
    row = row_of(module)
    allowed = tuple(f"{PACKAGE}.{name}" for name in row.own) + row.others
    return [
        f"{line}: {name}"
        for name, line, _ in find_imports(source, module, is_package)
        if name.split(".")[0] not in sys.stdlib_module_names and not below(name, allowed)
    ]


def crossings(module: str, source: str, is_package: bool = False) -> list[str]:
    """Imports of learning by a module of slides, or of slides by one of learning."""
    own = [name for name in (i.name for i in find_imports(source, module, is_package))]
    own = [name.removeprefix(f"{PACKAGE}.") for name in own if below(name, (PACKAGE,))]
    if below(module, ("slides",)):
        return [name for name in own if not below(name, ("slides", *NEUTRAL))]
    if below(module, LEARNING) or module == "":
        pictures = () if module == "" else ("_report", "reporting")
        return [name for name in own if below(name, ("slides", *pictures))]
    return []


def _modules() -> list[tuple[str, Path]]:
    paths = sorted([*(ROOT / PACKAGE).rglob("*.py"), *(ROOT / PACKAGE).rglob("*.pyi")])
    named = [
        (".".join(path.relative_to(ROOT / PACKAGE).with_suffix("").parts), path) for path in paths
    ]
    return [(re.sub(r"\.?__init__$", "", name), path) for name, path in named]


MODULES = _modules()
every_module = pytest.mark.parametrize(
    ("module", "path"), MODULES, ids=[module or "__init__" for module, _ in MODULES]
)


# --- the package --------------------------------------------------------------------------------


def test_modules_are_found():
    names = [module for module, _ in MODULES]
    assert {"", "proportions", "losses", "metrics", "metrics._segmentation"} <= set(names)


@every_module
def test_module_imports_what_its_row_allows(module, path):
    wrong = forbidden(module, path.read_text(encoding="utf-8"), path.stem == "__init__")
    assert not wrong, f"{path.name} may import {row_of(module)} but imports {wrong}"


@every_module
def test_slides_and_learning_do_not_import_each_other(module, path):
    assert crossings(module, path.read_text(encoding="utf-8"), path.stem == "__init__") == []


def test_imported_packages_are_declared():
    """What is imported at the top must come with an ordinary installation."""
    setup = configparser.ConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    required = _distributions(setup["options"]["install_requires"])
    extras = set()
    for section in setup["options.extras_require"]:
        extras |= _distributions(setup["options.extras_require"][section])
    owners = packages_distributions()
    undeclared = {}
    for module, path in MODULES:
        for name, line, at_top in find_imports(
            path.read_text(encoding="utf-8"), module, path.stem == "__init__"
        ):
            package = name.split(".")[0]
            if package in sys.stdlib_module_names or package == PACKAGE or "*" in package:
                continue
            owner = {_normal(owner) for owner in owners.get(package, [package])}
            if not owner & (required if at_top else required | extras):
                undeclared.setdefault(package, []).append(f"{module}:{line}")
    assert not undeclared, "declare in setup.cfg, or import an optional package in its function"


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


def _distributions(requirements: str) -> set[str]:
    return {_normal(re.match(r"[\w.-]+", line)[0]) for line in requirements.split("\n") if line}


# --- the checker itself -------------------------------------------------------------------------

BAD = [
    ("proportions", "import torch", "torch"),
    ("proportions", "import numpy as np, sklearn", "sklearn"),
    ("proportions", "import numpyro", "numpyro"),
    ("picking", "from proportion_ssl.bags import Bags", "proportion_ssl.bags.Bags"),
    ("picking", "from .bags import Bags", "proportion_ssl.bags.Bags"),
    ("picking", "from . import selection", "proportion_ssl.selection"),
    ("picking", "from proportion_ssl import Bags", "proportion_ssl.Bags"),
    ("picking", "import proportion_ssl", "proportion_ssl"),
    ("losses", "import numpy", "numpy"),
    ("losses", "from proportion_ssl import proportions", "proportion_ssl.proportions"),
    ("metrics._segmentation", "from sklearn.metrics import f1_score", "sklearn.metrics.f1_score"),
    ("metrics._segmentation", "import pandas", "pandas"),
    ("metrics._segmentation", "from ..bags import Bags", "proportion_ssl.bags.Bags"),
    ("metrics._segmentation", "from . import _scorers", "proportion_ssl.metrics._scorers"),
    ("metrics._scorers", "import matplotlib.pyplot", "matplotlib.pyplot"),
    ("slides.grid", "import shapely", "shapely"),
    (
        "slides.mosaic",
        "from proportion_ssl.slides.reader import Slide",
        "proportion_ssl.slides.reader.Slide",
    ),
    ("slides.reader", "from proportion_ssl.proportions import x", "proportion_ssl.proportions.x"),
    ("slides.reader", "import torch.nn", "torch.nn"),
    ("nets.mobilenet", "from proportion_ssl.classifier import x", "proportion_ssl.classifier.x"),
    ("classifier", "from proportion_ssl.slides import grid", "proportion_ssl.slides.grid"),
    ("datasets.tissue.glands", "import torch", "torch"),
    ("reporting", "from proportion_ssl import classifier", "proportion_ssl.classifier"),
    ("_atomic", "import numpy", "numpy"),
    ("proportions", "def f():\n    import torch", "torch"),
    ("proportions", "class A:\n    def f(self):\n        from torch import nn", "torch.nn"),
    ("proportions", "async def f():\n    if x:\n        import torch", "torch"),
    ("proportions", "try:\n    import torch\nexcept ImportError:\n    torch = None", "torch"),
    ("proportions", "if TYPE_CHECKING:\n    import torch", "torch"),
    ("proportions", "import importlib\nimportlib.import_module('torch.nn')", "torch.nn"),
    ("proportions", "torch = lambda: __import__('torch')", "torch"),
    ("proportions", "import_module(name)", "*"),
    ("slides.reader", "import_module(f'{name}')", "*"),
    ("slides.reader", "import_module(f'torch{name}')", "torch*"),
]

GOOD = [
    ("proportions", "import json\nfrom __future__ import annotations\nimport collections.abc"),
    ("proportions", "import numpy as np\nfrom numpy.typing import ArrayLike\nimport scipy.special"),
    ("selectivity", "from proportion_ssl.proportions import sum_absolute_error"),
    ("selectivity", "from .proportions import sum_absolute_error\nfrom . import picking"),
    ("metrics._segmentation", "from sklearn.metrics import confusion_matrix"),
    ("metrics._segmentation", "from ..proportions import sum_absolute_error"),
    ("metrics._plots", "def plot():\n    import matplotlib.pyplot as plt"),
    ("slides.reader", "from .grid import patch_grid\nimport large_image"),
    ("slides.reader", "import_module(f'large_image_source_{name}')"),
    ("classifier", "import torch\nfrom proportion_ssl import bags, losses, nets"),
    ("baselines.mixup", "from proportion_ssl.classifier import x"),
    ("reporting", "from proportion_ssl.slides.colors import class_colors"),
    ("slides.export", "from proportion_ssl._atomic import replacing"),
    ("proportions", "'''import torch'''\n# import torch\ntext = 'import torch'"),
]


@pytest.mark.parametrize(("module", "source", "name"), BAD)
def test_checker_finds_a_forbidden_import(module, source, name):
    assert [wrong.split(": ")[1] for wrong in forbidden(module, source)] == [name]


@pytest.mark.parametrize(("module", "source"), GOOD)
def test_checker_accepts_an_allowed_import(module, source):
    assert forbidden(module, source) == []


def test_checker_resolves_imports_of_packages():
    assert forbidden("metrics", "from ._scorers import x\nfrom . import _segmentation", True) == []
    assert forbidden("metrics", "from ..nets import x", True) == ["1: proportion_ssl.nets.x"]
    assert forbidden("", "from .bags import Bags\nfrom ._version import __version__", True) == []
    assert forbidden("", "from . import slides", True) == ["1: proportion_ssl.slides"]


@pytest.mark.parametrize("module", ["utils", "proportions_more", "slides2.grid", "_metrics"])
def test_module_without_a_row_is_refused(module):
    with pytest.raises(LookupError, match="give it a row"):
        row_of(module)


def test_most_specific_row_counts():
    assert row_of("slides.grid") is ROWS["slides.grid"]
    assert row_of("slides.grid_of_tiles") is ROWS["slides"]
    assert row_of("metrics") is ROWS["metrics"]
    assert row_of("") is ROWS[""]


def test_rows_name_modules_that_have_rows():
    for row in ROWS.values():
        for name in row.own:
            row_of(name)


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("slides.reader", "from proportion_ssl.losses import x", ["losses.x"]),
        ("slides", "def f():\n    from .. import metrics", ["metrics"]),
        ("slides.reader", "from . import grid\nimport numpy", []),
        ("nets.mobilenet", "from ..slides.grid import patch_grid", ["slides.grid.patch_grid"]),
        ("metrics._segmentation", "from proportion_ssl import slides", ["slides"]),
        ("", "from proportion_ssl.slides import open_slide", ["slides.open_slide"]),
        ("classifier", "from proportion_ssl import reporting, bags", ["reporting"]),
        ("slides.export", "from proportion_ssl._atomic import replacing", []),
        ("reporting", "from proportion_ssl import slides, metrics", []),
    ],
)
def test_checker_finds_imports_across_the_border(module, source, expected):
    assert crossings(module, source, is_package=module in ("", "slides")) == expected


def test_checker_knows_imports_that_run_at_once():
    source = (
        "import a\nif x:\n    import b\nclass C:\n    import c\n    def f(self):\n        import d"
    )
    assert [(i.name, i.at_top) for i in find_imports(source, "bags")] == [
        ("a", True),
        ("b", True),
        ("c", True),
        ("d", False),
    ]
