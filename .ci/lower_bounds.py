"""Print ``name==version`` for the lowest version that setup.cfg allows of every dependency.

The lines are a constraints file for pip. A dependency without a lower bound is an error: its lowest
version would otherwise never be tried.
"""

import configparser
import re
from pathlib import Path

REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?>=([0-9][0-9.]*)(?:,<[0-9.]+)?$")


def lowest(requirements):
    """``{name: version}`` of requirements such as ``dask[distributed]>=2025.1``."""
    found = {}
    for requirement in requirements:
        match = REQUIREMENT.match(requirement)
        if match is None:
            raise SystemExit(f"setup.cfg: {requirement!r} has no lower bound; write name>=version")
        name, version = match.groups()
        if found.setdefault(name, version) != version:
            raise SystemExit(f"setup.cfg: {name} has two lower bounds, {found[name]} and {version}")
    return found


def requirements(path):
    """Every requirement in ``install_requires`` and the extras of a ``setup.cfg``."""
    config = configparser.ConfigParser()
    config.read_string(Path(path).read_text())
    listed = [config["options"]["install_requires"], *config["options.extras_require"].values()]
    return [line.strip() for block in listed for line in block.splitlines() if line.strip()]


if __name__ == "__main__":
    setup = Path(__file__).parents[1] / "setup.cfg"
    print("\n".join(f"{name}=={version}" for name, version in lowest(requirements(setup)).items()))
