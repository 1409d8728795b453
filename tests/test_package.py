"""The package is light to import, its core is small, and it has few dependencies."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import eqm

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "eqm"
# The core: fields, objectives and descent with the paper's two rules. Other rules, continuous batching
# and the sampler of noise-conditioned models are not part of it.
CORE = [
    "field.py",
    "corruption.py",
    "objective.py",
    "energy.py",
    "optimal.py",
    "descent/driver.py",
    "descent/stopping.py",
    "descent/rules/rule.py",
    "descent/rules/first_order.py",
]
CODE_FOLDERS = ["src", "tests", "examples", "experiments", "benchmarks", "docs"]

# These packages are heavy, or import heavy ones; eqm has its own networks and metrics.
UNWANTED = {
    "torchvision",
    "timm",
    "torch_fidelity",
    "cleanfid",
    "pytorch_fid",
    "lpips",
    "torchcfm",
}


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_importing_eqm_adds_little_to_importing_torch():
    code = """
import time
import torch
start = time.perf_counter()
import eqm
eqm.descend
print(time.perf_counter() - start)
"""
    assert min(float(run_python(code)) for _ in range(3)) < 0.3  # seconds


def test_help_appears_without_importing_torch():
    code = """
import sys
from eqm.cli.main import main
sys.argv = ["eqm", "--help"]
try:
    status = main()
except SystemExit as stop:
    status = stop.code
assert not status, f"eqm --help ended with {status!r}"
assert "torch" not in sys.modules, "eqm --help imported torch"
"""
    assert "eqm" in run_python(code)


@pytest.mark.parametrize("name", eqm.__all__)
def test_public_name_resolves(name):
    assert hasattr(eqm, name)


def imported_packages(path: Path) -> set[str]:
    """The top-level names of all that a file imports, by statement or by function."""
    modules = []
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        match node:
            case ast.Import(names):
                modules += [alias.name for alias in names]
            case ast.ImportFrom(module=str(module), level=0):
                modules.append(module)
            case ast.Call(
                func=ast.Name(id=function) | ast.Attribute(attr=function),
                args=[ast.Constant(value=str(module)), *_],
            ) if function in {"import_module", "__import__", "importorskip"}:
                modules.append(module)
    return {module.partition(".")[0] for module in modules}


def test_no_file_imports_an_unwanted_package():
    found = {
        path.relative_to(ROOT).as_posix(): unwanted
        for folder in CODE_FOLDERS
        for path in (ROOT / folder).rglob("*.py")
        if (unwanted := imported_packages(path) & UNWANTED)
    }
    assert not found


def lines_of_code(text: str) -> int:
    """How many lines are not blank, comment or docstring."""
    layout = {
        tokenize.COMMENT,
        tokenize.NL,
        tokenize.NEWLINE,
        tokenize.INDENT,
        tokenize.DEDENT,
        tokenize.ENDMARKER,
    }
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in layout:
            lines.update(range(token.start[0], token.end[0] + 1))
    documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node) is not None:
            docstring = node.body[0]
            lines.difference_update(range(docstring.lineno, docstring.end_lineno + 1))
    return len(lines)


def test_core_is_at_most_600_lines_of_code():
    counts = {}
    for pattern in CORE:
        paths = sorted(SOURCE.glob(pattern))
        assert paths, f"no file is called src/eqm/{pattern}"
        for path in paths:
            name = path.relative_to(SOURCE).as_posix()
            counts[name] = lines_of_code(path.read_text(encoding="utf-8"))
    assert sum(counts.values()) <= 600, counts


def test_lines_of_code_leave_out_blanks_comments_and_docstrings():
    text = '''\
"""A module
of two lines."""

import math  # counted


# not counted
def area(radius):
    """Not counted."""
    text = """counted
    twice"""
    return math.pi * radius**2, text
'''
    assert lines_of_code(text) == 5
