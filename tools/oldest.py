"""Prints pip constraints with the lowest versions that pyproject.toml allows: `python tools/oldest.py demo ode`.

They are those of the package and of the extras that are named. torch is left out: its lowest version
has no build for the CPU on PyPI, so the Makefile installs that of constraints.txt.
"""

import re
import sys
import tomllib
from pathlib import Path


def lowest(extras):
    project = tomllib.loads(Path("pyproject.toml").read_text(encoding="utf-8"))["project"]
    wanted = project["dependencies"] + [
        r for extra in extras for r in project["optional-dependencies"][extra]
    ]
    for requirement in wanted:
        name, version = re.match(r"([\w.-]+)>=([\w.]+)", requirement).groups()
        if name != "torch":
            yield f"{name}=={version}"


if __name__ == "__main__":
    print("\n".join(lowest(sys.argv[1:])))
