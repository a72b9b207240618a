"""Type hints: mypy finds no error in the package, and a user's mypy sees its types."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

USE = """
from proportion_ssl import Bags, NegativePseudoLabelClassifier

bags = Bags([], rounding_step="ten per cent")
n_bags: str = bags.n_bags
NegativePseudoLabelClassifier(max_epoch=3)
"""


def mypy(*arguments):
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


@pytest.mark.slow
def test_package():
    """As ``python -m mypy`` says, with the settings of pyproject.toml."""
    result = mypy()
    assert result.returncode == 0, result.stdout + result.stderr


def test_what_a_user_sees(tmp_path):
    """Wrong uses are found: the package is marked as typed, and its hints say something."""
    (tmp_path / "use.py").write_text(USE)
    result = mypy(str(tmp_path / "use.py"))
    errors = [line.split("use.py:")[1] for line in result.stdout.splitlines() if "error" in line]
    assert len(errors) == 3, result.stdout + result.stderr
    assert errors[0].startswith("4: ") and "arg-type" in errors[0]
    assert errors[1].startswith("5: ") and "assignment" in errors[1]
    assert errors[2].startswith("6: ") and "call-arg" in errors[2]
