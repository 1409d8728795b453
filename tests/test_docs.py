"""Every ```python block of README.md and docs/ runs.

The blocks of a page run in order, in one namespace and in an empty working directory. A block
under the line `<!-- not run: reason -->` is left out.
"""

import re
import textwrap
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PAGES = [page for page in [ROOT / "README.md", *sorted(ROOT.glob("docs/**/*.md"))] if page.exists()]

FENCE = re.compile(r"\s*(?P<ticks>`{3,}|~{3,})\s*(?P<language>\w*)")
NOT_RUN = re.compile(r"\s*<!-- not run: .+ -->\s*")


def python_blocks(text: str) -> list[tuple[int, str]]:
    """The blocks that run, each with the number of lines above its code."""
    blocks = []
    code: list[str] = []
    fence = language = above = ""  # above: the last line outside a block that is not blank
    for number, line in enumerate(text.splitlines(), start=1):
        match = FENCE.match(line)
        if fence:
            if line.strip() and set(line.strip()) == {fence[0]} and line.strip() >= fence:
                if language == "python" and not NOT_RUN.fullmatch(above):
                    blocks.append((number - len(code) - 1, textwrap.dedent("\n".join(code)) + "\n"))
                fence = above = ""
            else:
                code.append(line)
        elif match:
            fence, language, code = match["ticks"], match["language"], []
        elif line.strip():
            above = line
    return blocks


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_examples_of_a_page_run(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    for above, code in python_blocks(page.read_text(encoding="utf-8")):
        # The blank lines make a traceback name the line of the page.
        exec(compile("\n" * above + code, page, "exec"), namespace)


def test_blocks_are_found_with_their_lines_and_skipped_on_request():
    page = """\
        text
        ```python
        a = 1
        ```

        <!-- not run: needs a GPU -->

        ```python
        b = 2
        ```
        ```bash
        ls
        ```
        - a list
          ````python title="nested"
          c = '''
          ```
          '''
          ````
        """
    blocks = python_blocks(textwrap.dedent(page))
    assert blocks == [(2, "a = 1\n"), (15, "c = '''\n```\n'''\n")]
