"""Every public name is documented and annotated, and everything public is in ``__all__``."""

import ast
import functools
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from pathlib import Path

import pytest

import proportion_ssl

ROOT = Path(__file__).parents[2]
PUBLIC = [
    "proportion_ssl",
    *(
        f"proportion_ssl.{module.name}"
        for module in pkgutil.iter_modules(proportion_ssl.__path__)
        if module.ispkg and not module.name.startswith("_")
    ),
]


def names_of(module):
    """Names in ``__all__``, without the version and the packages below, which have pages of their own."""
    module = importlib.import_module(module)
    names = set(module.__all__) - {"__version__"}
    return sorted(name for name in names if not inspect.ismodule(getattr(module, name)))


def public_names():
    return [(module, name) for module in PUBLIC for name in names_of(module)]


def functions_of(thing):
    """A function, or the public methods and properties that a class defines itself."""
    if inspect.isfunction(thing):
        return {thing.__name__: thing}
    if not inspect.isclass(thing):
        return {}
    found = {}
    for name, member in vars(thing).items():
        if name.startswith("_") and name != "__init__":
            continue
        if isinstance(member, property | functools.cached_property):
            member = getattr(member, "fget", None) or member.func
        member = getattr(member, "__func__", member)
        if inspect.isfunction(member) and member.__module__.startswith("proportion_ssl"):
            found[f"{thing.__name__}.{name}"] = member
    return found


every_name = pytest.mark.parametrize(("module", "name"), public_names())


def test_packages_are_found():
    assert {"proportion_ssl", "proportion_ssl.slides", "proportion_ssl.metrics"} <= set(PUBLIC)


@pytest.mark.parametrize("module", PUBLIC)
def test_all_is_sorted_and_complete(module):
    module = importlib.import_module(module)
    names = module.__all__
    assert names in (sorted(names), sorted(names, key=_like_ruff)) and len(set(names)) == len(names)
    shown = {
        name
        for name, value in vars(module).items()
        if not name.startswith("_")
        and not inspect.ismodule(value)
        and getattr(value, "__module__", "").startswith("proportion_ssl")
    }
    assert shown <= set(names), "imported by the package but not in its __all__"


def _like_ruff(name):
    """Constants, classes, functions; each by alphabet."""
    kind = 0 if name.isupper() else 1 if name[0].isupper() else 2
    return kind, name


@every_name
def test_docstring(module, name):
    thing = getattr(importlib.import_module(module), name)
    if not (inspect.isfunction(thing) or inspect.isclass(thing)):
        return  # a constant or a scorer; its module or page says what it is
    doc = inspect.getdoc(thing)
    assert doc and len(doc.splitlines()[0]) <= 110 and doc.splitlines()[0].endswith(".")
    if inspect.isfunction(thing):
        sections = re.findall(r"^(\w[\w ]+)\n-{4,}$", doc, re.MULTILINE)
        assert "Parameters" in sections
        parameters = inspect.signature(thing).parameters
        described = doc.split("Parameters\n", 1)[1]
        missing = [p for p in parameters if not re.search(rf"\b{p}\b", described)]
        assert not missing, f"parameters without description: {missing}"
        returns = inspect.signature(thing).return_annotation
        assert {"Returns", "Yields"} & set(sections) or returns in (None, "None")
    for full, function in functions_of(thing).items():
        method = full.split(".")[-1]
        if inspect.isclass(thing) and method != "__init__":
            own = inspect.getdoc(getattr(thing, method))
            assert own or function.__doc__, f"{full} has no docstring"


@every_name
def test_annotations(module, name):
    thing = getattr(importlib.import_module(module), name)
    for full, function in functions_of(thing).items():
        signature = inspect.signature(function)
        missing = [
            p.name
            for p in signature.parameters.values()
            if p.annotation is inspect.Parameter.empty and p.name not in ("self", "cls")
        ]
        if signature.return_annotation is inspect.Signature.empty and not full.endswith("__init__"):
            missing.append("return")
        assert not missing, f"{full}: no annotation of {', '.join(missing)}"


@pytest.mark.parametrize("module", PUBLIC)
def test_api_pages_list_every_name(module):
    """The reference has each name once, and no name that is not there."""
    listed = []
    for page in sorted((ROOT / "docs/api").glob("*.rst")):
        text = page.read_text(encoding="utf-8")
        if re.search(rf"^\.\. currentmodule:: {module}$", text, re.MULTILINE):
            listed += re.findall(r"^   (\w+)$", text, re.MULTILINE)
    names = set(names_of(module))
    if module != "proportion_ssl":  # what is also a name of the package itself is listed there
        names -= set(proportion_ssl.__all__)
    assert sorted(listed) == sorted(names)


def test_the_stub_lists_what_the_package_has():
    tree = ast.parse((ROOT / "proportion_ssl/__init__.pyi").read_text(encoding="utf-8"))
    (listed,) = [ast.literal_eval(node.value) for node in tree.body if isinstance(node, ast.Assign)]
    assert listed == sorted(listed, key=_like_ruff)
    assert sorted(listed) == sorted([*names_of("proportion_ssl"), "__version__"])


@pytest.mark.slow
def test_the_package_and_slides_are_imported_without_torch():
    code = "import sys, proportion_ssl, proportion_ssl.slides; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_package_says_that_it_is_typed():
    assert (ROOT / "proportion_ssl/py.typed").exists()
