"""Layers: what each module may import, read from the source without importing anything.

To add a module, give it (or its folder) a row in ``ROWS``; the most specific row counts. The
standard library is always allowed. Imports inside functions count like those at the top.
"""

import ast
import configparser
import graphlib
import re
import sys
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parents[2]
PACKAGE = "proportion_ssl"


class Row(NamedTuple):
    """Allowed imports, each with all that lies below it."""

    own: tuple[str, ...] = ()  # modules of this package
    others: tuple[str, ...] = ()  # installed packages


ARRAYS = ("numpy", "scipy")
TORCH = ("torch", "torchvision", "skorch", "timm")

#: What any module may use.
NEUTRAL = (
    "_atomic",
    "_checks",
    "_fitting",
    "_kept",
    "_moved",
    "_sklearn",
    "_version",
    "_warnings",
    "colors",
)

#: Files that hold equations: arrays in, arrays out, readable next to the paper.
EQUATIONS = (
    *("proportions.counts", "proportions.intervals", "proportions.weak_records"),
    *("pseudo_labels.selectivity", "pseudo_labels.picking"),
    *("pseudo_labels.exact_assignment", "pseudo_labels.soft_assignment"),
    *("pseudo_labels._dual", "pseudo_labels._augmenting_paths"),
    "heads._discriminant",
    "heads._temperature",
)

LEARNING = (
    *("proportions", "pseudo_labels", "losses", "metrics", "datasets", "embedding", "nets"),
    *("heads", "estimators", "baselines", "persistence"),
)

ROWS = {
    # neutral: small things that any side may use
    **dict.fromkeys(("_atomic", "_kept", "_version", "_warnings"), Row()),
    "_checks": Row(("_warnings",), ("numpy",)),
    "_fitting": Row((), (*ARRAYS, "sklearn")),
    "_moved": Row((), ("*",)),
    "_sklearn": Row((), ("sklearn", "*")),
    "colors": Row((), ("numpy", "PIL")),
    # equations
    **dict.fromkeys(EQUATIONS, Row((*EQUATIONS, "_checks"), ARRAYS)),
    "losses": Row(("losses",), ("torch",)),
    # what users hand over and get back
    "proportions": Row(("proportions", *NEUTRAL), (*ARRAYS, "sklearn", "pandas")),
    "pseudo_labels": Row(("pseudo_labels", "proportions", *NEUTRAL), (*ARRAYS, "sklearn")),
    "pseudo_labels.label_log": Row((), (*ARRAYS, "pandas")),
    "metrics": Row(("metrics", "proportions", *NEUTRAL), (*ARRAYS, "sklearn")),
    # functions on arrays that judge predictions
    "evaluation": Row(("evaluation", "proportions.intervals", *NEUTRAL), (*ARRAYS, "pandas")),
    "datasets": Row(
        ("datasets", "proportions", *NEUTRAL),
        (
            *(*ARRAYS, "sklearn", "pandas", "joblib", "tqdm"),
            *("tifffile", "imagecodecs", "PIL", "shapely"),
        ),
    ),
    "manifest": Row(("manifest", "proportions.intervals", *NEUTRAL), ("numpy", "pandas")),
    # images to features; the exported network runs without torch
    "embedding": Row(("embedding", *NEUTRAL), (*ARRAYS, *TORCH, "sklearn", "lazy_loader")),
    "embedding._images": Row((), ("numpy", "sklearn", "tqdm")),
    "embedding._openvino": Row((), ("numpy", "joblib", "openvino")),
    "embedding._compile": Row(("embedding", *NEUTRAL), ("numpy", "torch", "openvino")),
    "embedding.exported_embedder": Row(
        ("embedding._images", "embedding._openvino", *NEUTRAL), ("numpy", "sklearn", "joblib")
    ),
    # networks, and the estimators that train them
    "nets": Row(
        ("nets", "embedding", "losses", *NEUTRAL), (*ARRAYS, *TORCH, "sklearn", "threadpoolctl")
    ),
    "heads": Row(("heads", *NEUTRAL), (*ARRAYS, "sklearn")),
    "estimators": Row(
        (
            "estimators",
            "heads",
            "nets",
            "embedding",
            "losses",
            "pseudo_labels",
            "proportions",
            *NEUTRAL,
        ),
        (*ARRAYS, *TORCH, "sklearn", "joblib", "pandas", "tqdm"),
    ),
    "estimators.tumor_proposer": Row(("nets", *NEUTRAL), ("numpy", "sklearn")),
    "estimators.classify_and_count": Row(("proportions", *NEUTRAL), ("numpy", "sklearn")),
    "baselines": Row(
        (
            *("baselines", "estimators", "heads", "nets", "embedding", "losses"),
            *("pseudo_labels", "proportions", *NEUTRAL),
        ),
        (*ARRAYS, *TORCH, "sklearn", "joblib", "pandas", "tqdm"),
    ),
    "persistence": Row(
        (*LEARNING, *NEUTRAL), (*ARRAYS, *TORCH, "sklearn", "pandas", "safetensors", "lazy_loader")
    ),
    "persistence._errors": Row(),
    # slides, which know nothing of learning
    "slides": Row(("slides", *NEUTRAL), (*ARRAYS, "sklearn", "pandas")),
    "slides.grid": Row(("slides.grid", *NEUTRAL), ARRAYS),
    "slides.reading": Row(
        ("slides.grid", "slides.reading", *NEUTRAL),
        (
            *(*ARRAYS, "large_image", "large_image_source_*", "openslide", "tifffile"),
            *("imagecodecs", "simplejpeg", "PIL", "cachetools", "defusedxml"),
        ),
    ),
    "slides.patches": Row(
        ("slides.grid", "slides.reading", "slides.patches", *NEUTRAL), (*ARRAYS, "sklearn")
    ),
    "slides.patches.mask_file": Row((), ("numpy", "PIL")),
    "slides.patches.mosaic": Row(("slides.grid",), ARRAYS),
    "slides.annotations": Row(
        ("slides.grid", "slides.annotations", *NEUTRAL),
        (*ARRAYS, "shapely", "defusedxml", "tifffile", "imagecodecs", "PIL"),
    ),
    "slides.features": Row(
        ("slides.grid", "slides.reading", "slides.patches", "slides.features", *NEUTRAL),
        (*ARRAYS, "h5py", "sklearn", "tqdm"),
    ),
    "slides.features.formats.tensors": Row(("slides.features",), ("numpy", "torch")),
    "slides.maps": Row(
        ("slides.grid", "slides.patches.mosaic", "slides.annotations", "slides.maps", *NEUTRAL),
        (*ARRAYS, "shapely", "tifffile", "imagecodecs", "PIL", "pandas"),
    ),
    # pictures and the report
    "displays": Row(
        ("displays", "evaluation", "proportions", "pseudo_labels.selectivity", *NEUTRAL),
        ("numpy", "sklearn", "matplotlib"),
    ),
    "reporting": Row(
        ("reporting", "evaluation", "proportions", *NEUTRAL), ("numpy", "pandas", "jinja2")
    ),
    "reporting._pictures": Row((), ("numpy", "PIL")),
    # the one place where slides and learning meet, and the command line above it
    "segmenter": Row(
        (
            *LEARNING,
            *NEUTRAL,
            "evaluation",
            "manifest",
            "slides",
            "displays",
            "reporting",
            "segmenter",
        ),
        (*ARRAYS, "sklearn", "pandas", "safetensors", "tqdm"),
    ),
    "__main__": Row(("segmenter", "datasets", "embedding", "slides", *NEUTRAL), ("pandas",)),
    # proportion_ssl/__init__.py and its stub, whose names are imported when they are used
    "": Row(
        (
            *LEARNING,
            *NEUTRAL,
            "evaluation",
            "manifest",
            "slides",
            "reporting",
            "displays",
            "segmenter",
        ),
        ("lazy_loader",),
    ),
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
    if below(module, LEARNING):
        return [name for name in own if below(name, ("slides", "reporting"))]
    return []


def rooms_between(modules: list[tuple[str, Path]]) -> set[tuple[str, str]]:
    """Pairs of folders (importing, imported), files at the top of the package by their own name."""
    arrows = set()
    for module, path in modules:
        if not module:  # names are imported there when they are used
            continue
        for found in find_imports(
            path.read_text(encoding="utf-8"), module, path.stem == "__init__"
        ):
            if below(found.name, (PACKAGE,)):
                room, other = _room(module), _room(found.name.removeprefix(f"{PACKAGE}."))
                if room != other:
                    arrows.add((room, other))
    return arrows


def _room(name: str) -> str:
    """Folder of a module: "slides.reading" of "slides.reading.slide.open_slide"."""
    parts = name.split(".")
    if parts[0] != "slides" or len(parts) == 1:
        return parts[0]
    return ".".join(parts[:2])


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
    assert {"", "proportions.counts", "losses", "metrics", "metrics._segmentation"} <= set(names)


@every_module
def test_module_imports_what_its_row_allows(module, path):
    wrong = forbidden(module, path.read_text(encoding="utf-8"), path.stem == "__init__")
    assert not wrong, f"{path.name} may import {row_of(module)} but imports {wrong}"


@every_module
def test_slides_and_learning_do_not_import_each_other(module, path):
    assert crossings(module, path.read_text(encoding="utf-8"), path.stem == "__init__") == []


@every_module
def test_private_names_of_scikit_learn_have_one_door(module, path):
    found = find_imports(path.read_text(encoding="utf-8"), module, path.stem == "__init__")
    private = [
        name
        for name, _, _ in found
        if below(name, ("sklearn",)) and any(part.startswith("_") for part in name.split("."))
    ]
    assert module == "_sklearn" or not private


def test_no_circle_of_folders():
    """Folders have an order in which each imports only what comes before it."""
    order = graphlib.TopologicalSorter()
    for room, other in rooms_between(MODULES):
        if room != "slides":  # its __init__ gathers the names of the folders below
            order.add(room, other)
    order.prepare()  # raises CycleError


@pytest.mark.slow
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
    ("proportions.counts", "import torch", "torch"),
    ("proportions.counts", "import numpy as np, sklearn", "sklearn"),
    ("proportions.counts", "import numpyro", "numpyro"),
    (
        "pseudo_labels.picking",
        "from proportion_ssl.proportions.bags import Bags",
        "proportion_ssl.proportions.bags.Bags",
    ),
    ("pseudo_labels.picking", "from . import selectors", "proportion_ssl.pseudo_labels.selectors"),
    ("pseudo_labels.picking", "from ..proportions import x", "proportion_ssl.proportions.x"),
    ("pseudo_labels.picking", "from proportion_ssl import Bags", "proportion_ssl.Bags"),
    ("pseudo_labels.picking", "import proportion_ssl", "proportion_ssl"),
    ("losses.signed_labels", "import numpy", "numpy"),
    ("losses", "from proportion_ssl import proportions", "proportion_ssl.proportions"),
    ("metrics._segmentation", "import pandas", "pandas"),
    ("metrics._segmentation", "from ..nets import x", "proportion_ssl.nets.x"),
    ("metrics._scorers", "import matplotlib.pyplot", "matplotlib.pyplot"),
    ("slides.grid", "import shapely", "shapely"),
    (
        "slides.patches.mosaic",
        "from proportion_ssl.slides.reading.slide import Slide",
        "proportion_ssl.slides.reading.slide.Slide",
    ),
    (
        "slides.reading.slide",
        "from proportion_ssl.proportions import x",
        "proportion_ssl.proportions.x",
    ),
    ("slides.reading.slide", "import torch.nn", "torch.nn"),
    ("slides.annotations.read", "from ..reading import x", "proportion_ssl.slides.reading.x"),
    ("nets.classifiers", "from proportion_ssl.estimators import x", "proportion_ssl.estimators.x"),
    ("embedding.mobilenet", "from proportion_ssl.nets import x", "proportion_ssl.nets.x"),
    ("estimators._base", "from proportion_ssl.slides import grid", "proportion_ssl.slides.grid"),
    ("datasets._tissue.cells", "import torch", "torch"),
    ("reporting._report", "from proportion_ssl import estimators", "proportion_ssl.estimators"),
    ("_atomic", "import numpy", "numpy"),
    ("proportions.counts", "def f():\n    import torch", "torch"),
    ("proportions.counts", "class A:\n    def f(self):\n        from torch import nn", "torch.nn"),
    ("proportions.counts", "async def f():\n    if x:\n        import torch", "torch"),
    (
        "proportions.counts",
        "try:\n    import torch\nexcept ImportError:\n    torch = None",
        "torch",
    ),
    ("proportions.counts", "if TYPE_CHECKING:\n    import torch", "torch"),
    ("proportions.counts", "import importlib\nimportlib.import_module('torch.nn')", "torch.nn"),
    ("proportions.counts", "torch = lambda: __import__('torch')", "torch"),
    ("proportions.counts", "import_module(name)", "*"),
    ("slides.reading.slide", "import_module(f'{name}')", "*"),
    ("slides.reading.slide", "import_module(f'torch{name}')", "torch*"),
]

GOOD = [
    (
        "proportions.counts",
        "import json\nfrom __future__ import annotations\nimport collections.abc",
    ),
    (
        "proportions.counts",
        "import numpy as np\nfrom numpy.typing import ArrayLike\nimport scipy.special",
    ),
    (
        "pseudo_labels.selectivity",
        "from proportion_ssl.proportions.counts import sum_absolute_error",
    ),
    ("pseudo_labels.selectivity", "from ..proportions.counts import x\nfrom . import picking"),
    ("metrics._segmentation", "from sklearn.metrics import confusion_matrix"),
    ("metrics._segmentation", "from ..proportions.counts import sum_absolute_error"),
    ("displays._learning", "def plot():\n    import matplotlib.pyplot as plt"),
    ("slides.reading.slide", "from ..grid import patch_grid\nimport large_image"),
    ("slides.reading.slide", "import_module(f'large_image_source_{name}')"),
    ("estimators._base", "import torch\nfrom proportion_ssl import proportions, losses, nets"),
    ("baselines.mixup", "from proportion_ssl.estimators._base import x"),
    ("reporting._report", "from proportion_ssl.colors import class_colors"),
    ("slides.maps.write", "from proportion_ssl._atomic import replacing"),
    ("proportions.counts", "'''import torch'''\n# import torch\ntext = 'import torch'"),
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
    source = "from .proportions import Bags\nfrom ._version import __version__"
    assert forbidden("", source, True) == []
    assert forbidden("", "from . import somewhere", True) == ["1: proportion_ssl.somewhere"]


@pytest.mark.parametrize("module", ["utils", "proportions_more", "slides2.grid", "_metrics"])
def test_module_without_a_row_is_refused(module):
    with pytest.raises(LookupError, match="give it a row"):
        row_of(module)


def test_most_specific_row_counts():
    assert row_of("slides.grid") is ROWS["slides.grid"]
    assert row_of("slides.grid_of_tiles") is ROWS["slides"]
    assert row_of("metrics") is ROWS["metrics"]
    assert row_of("") is ROWS[""]


def test_rows_name_modules_that_exist():
    names = {module for module, _ in MODULES}
    for row in ROWS.values():
        assert set(row.own) <= names


@pytest.mark.parametrize(
    ("module", "source", "expected"),
    [
        ("slides.reading.slide", "from proportion_ssl.losses import x", ["losses.x"]),
        ("slides", "def f():\n    from .. import metrics", ["metrics"]),
        ("slides.reading.slide", "from . import grid\nimport numpy", []),
        ("nets.head", "from ..slides.grid import patch_grid", ["slides.grid.patch_grid"]),
        ("metrics._segmentation", "from proportion_ssl import slides", ["slides"]),
        ("estimators._base", "from proportion_ssl import reporting, bags", ["reporting"]),
        ("slides.maps.write", "from proportion_ssl._atomic import replacing", []),
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
