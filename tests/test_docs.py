"""README.md and docs/ tell the truth: their code runs, their commands can be parsed, their links lead somewhere.

The ```python blocks of a page run in order, in one namespace and an empty working directory; so do the `eqm` commands of a
```sh block under the line `<!-- run -->`. `<!-- not run: reason -->` leaves a block out.
"""

import functools
import inspect
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from eqm.cli import main as cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
SCRIPTS = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/*.py")]

FENCE = re.compile(r"\s*(?P<ticks>`{3,}|~{3,})\s*(?P<language>\w*)")
COMMENT = re.compile(r"\s*<!-- (.+) -->\s*")
OTHERS = {"--nproc-per-node", "--nnodes", "--directory"}  # options of torchrun and python


def blocks(text: str) -> list[tuple[str, str, int, str]]:
    """Each block's language, the comment above it, the number of lines above its code, and the code."""
    found = []
    code: list[str] = []
    fence = language = above = ""  # above: the last line outside a block that is not blank
    for number, line in enumerate(text.splitlines(), start=1):
        match = FENCE.match(line)
        if fence:
            if line.strip() and set(line.strip()) == {fence[0]} and line.strip() >= fence:
                comment = COMMENT.fullmatch(above)
                source = textwrap.dedent("\n".join(code)) + "\n"
                found.append((language, comment[1] if comment else "", number - len(code) - 1, source))
                fence = above = ""
            else:
                code.append(line)
        elif match:
            fence, language, code = match["ticks"], match["language"], []
        elif line.strip():
            above = line
    return found


def commands(code: str) -> list[list[str]]:
    """The command lines of a ```sh block as words."""
    lines = code.replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def arguments_of_eqm(words: list[str]) -> list[str] | None:
    """What a command line passes to eqm; None if it does not call eqm."""
    if words[0] == "eqm":
        return words[1:]
    return words[words.index("eqm.cli.main") + 1 :] if "eqm.cli.main" in words else None


def every(pages=PAGES):
    return pytest.mark.parametrize("page", pages, ids=lambda page: page.relative_to(ROOT).as_posix())


@every()
def test_examples_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for language, comment, above, code in blocks(page.read_text(encoding="utf-8")):
        if language == "python" and not comment.startswith("not run: "):
            # The blank lines make a traceback name the line of the page.
            exec(compile("\n" * above + code, page, "exec"), namespace)
        if language == "sh" and comment == "run":
            for words in commands(code):
                assert cli.main(arguments_of_eqm(words)) == 0, capsys.readouterr().err


@every()
def test_commands_of_a_page_can_be_parsed(page, monkeypatch):
    for name, value in vars(cli).items():
        if inspect.isfunction(value) and value.__module__ not in (cli.__name__, __name__):
            monkeypatch.setattr(cli, name, functools.wraps(value)(lambda *_, **__: None))
    for language, _, _, code in blocks(page.read_text(encoding="utf-8")):
        for words in commands(code) if language == "sh" else ():
            if (arguments := arguments_of_eqm(words)) is not None:
                assert cli.main(arguments) == 0, words
            elif words[0] == "python":
                assert words[1] == "-m" or (ROOT / words[1]).exists(), words
