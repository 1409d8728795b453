"""README.md and docs/ tell the truth: their code runs, their commands can be parsed, their links lead somewhere.

The ```python blocks of a page run in order, in one namespace and an empty working directory; so do
the `eqm` commands of a ```sh block under the line `<!-- run -->`. `<!-- not run: reason -->` leaves
a block out, and the block `python title="NAME"` is only written to that file.
"""

import functools
import importlib.util
import pkgutil
import re
import shlex
import textwrap
from pathlib import Path

import pytest

from eqm import registry
from eqm.cli import main as cli
from eqm.registry import lookup, names

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted(ROOT.glob("docs/**/*.md"))]
SCRIPTS = [*ROOT.glob("benchmarks/*.py"), *ROOT.glob("experiments/*.py")]

FENCE = re.compile(r'\s*(?P<ticks>`{3,}|~{3,})\s*(?P<language>\w*)( title="(?P<file>.+)")?')
COMMENT = re.compile(r"\s*<!-- (.+) -->\s*")
OPTION = re.compile(r"(?<![\w-])--[a-z][\w.-]*")
OTHERS = {"--nproc-per-node", "--nnodes", "--directory"}  # options of torchrun and python


def blocks(text: str) -> list[tuple[str, str, int, str]]:
    """Each block's language, what to do with it, the number of lines above its code, and the code.

    What to do is the comment above it, or "file: NAME" of a block with a title.
    """
    found = []
    code: list[str] = []
    fence = language = file = above = ""  # above: the last line outside a block that is not blank
    for number, line in enumerate(text.splitlines(), start=1):
        match = FENCE.match(line)
        if fence:
            if line.strip() and set(line.strip()) == {fence[0]} and line.strip() >= fence:
                comment = COMMENT.fullmatch(above)
                todo = f"file: {file}" if file else comment[1] if comment else ""
                source = textwrap.dedent("\n".join(code)) + "\n"
                found.append((language, todo, number - len(code) - 1, source))
                fence = above = ""
            else:
                code.append(line)
        elif match:
            fence, language, file, code = match["ticks"], match["language"], match["file"], []
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
    modules = [k for k in range(1, len(words)) if words[k - 1] == "-m"]
    return next((words[k + 1 :] for k in modules if words[k] == "eqm"), None)


def every(pages=PAGES):
    return pytest.mark.parametrize(
        "page", pages, ids=lambda page: page.relative_to(ROOT).as_posix()
    )


@every()
def test_examples_of_a_page_run(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    own_registry(monkeypatch)
    namespace = {"__name__": "__main__"}
    for language, todo, above, code in blocks(page.read_text(encoding="utf-8")):
        if todo.startswith("file: "):
            Path(todo.removeprefix("file: ")).write_text(code, encoding="utf-8")
        elif language == "python" and not todo.startswith("not run: "):
            # The blank lines make a traceback name the line of the page.
            exec(compile("\n" * above + code, page, "exec"), namespace)
        elif language == "sh" and todo == "run":
            for words in commands(code):
                with monkeypatch.context() as process:
                    own_registry(process)
                    assert cli.main(arguments_of_eqm(words)) == 0, capsys.readouterr().err


def own_registry(monkeypatch):
    """What is registered from here on is gone at the end."""
    for kind in registry.HOMES:
        names(kind)
        monkeypatch.setitem(registry._REGISTERED, kind, dict(registry._REGISTERED[kind]))


@every()
def test_commands_of_a_page_can_be_parsed(page, monkeypatch):
    for name in names("command"):
        parsed_only = functools.wraps(lookup("command", name))(lambda *_, **__: None)
        monkeypatch.setitem(registry._REGISTERED["command"], name, parsed_only)
    for language, todo, _, code in blocks(page.read_text(encoding="utf-8")):
        for words in commands(code) if language == "sh" and todo != "run" else ():
            if (arguments := arguments_of_eqm(words)) is not None:
                assert cli.main(arguments) == 0, words
            elif words[0] == "python":
                assert words[1] == "-m" or (ROOT / words[1]).exists(), words


@every()
def test_options_named_on_a_page_exist(page):
    prose = re.sub(r"(?ms)^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"))
    codes = re.findall(r"`([^`\n]+)`", prose)
    named = {flag for code in codes for flag in OPTION.findall(code)}
    assert named <= options(), named - options()


@every()
def test_python_names_on_a_page_exist(page):
    prose = re.sub(r"(?ms)^\s*```.*?^\s*```", "", page.read_text(encoding="utf-8"))
    for code in re.findall(r"`([^`\n]+)`", prose):
        for name in re.findall(r"(?<![\w/.])eqm(?:\.[A-Za-z_]\w*)+", code):
            if name not in ("eqm.KIND", "eqm.json"):  # a pattern, a file
                pkgutil.resolve_name(name)


@functools.cache
def options() -> set[str]:
    """Every option of eqm and of the scripts of the repository."""
    help_of = load("hooks").command_help
    texts = [help_of(), *map(help_of, names("command")), help_of("train", "digits")]
    found = {flag for text in texts for flag in OPTION.findall(text)}
    for script in SCRIPTS:  # their options are parameters of a function
        parameters = re.findall(r"\b([a-z]\w*): ", script.read_text(encoding="utf-8"))
        found |= {"--" + name.replace("_", "-") for name in parameters}
    return found | OTHERS


@every([ROOT / "README.md", ROOT / "CONTRIBUTING.md"])  # mkdocs checks those of docs/
def test_links_of_a_page_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    links = [
        link
        for link in re.findall(r"\]\(([^)\s]+)\)", text)
        if "://" not in link and link[0] != "#"
    ]
    assert links
    for link in links:
        path, _, anchor = link.partition("#")
        target = page.parent / path
        assert target.exists(), link
        if anchor:
            headings = re.findall(r"(?m)^#+ (.+)$", target.read_text(encoding="utf-8"))
            assert anchor in [
                re.sub(r"[^\w -]", "", h).lower().replace(" ", "-") for h in headings
            ], link


def test_blocks_are_found_with_their_lines_and_comments():
    page = """\
        text
        ```python
        a = 1
        ```

        <!-- not run: needs a GPU -->

        ```python
        b = 2
        ```
        ```sh
        eqm sample 'a b' \\
          --count 3  # comment
        ```
        - a list
          ````python title="nested.py"
          c = '''
          ```
          '''
          ````
        """
    found = blocks(textwrap.dedent(page))
    assert [block[:3] for block in found] == [
        ("python", "", 2),
        ("python", "not run: needs a GPU", 8),
        ("sh", "", 11),
        ("python", "file: nested.py", 16),
    ]
    assert found[3][3] == "c = '''\n```\n'''\n"
    assert commands(found[2][3]) == [["eqm", "sample", "a b", "--count", "3"]]


@pytest.mark.parametrize(
    ("name", "text", "asks"),
    [
        ("a.html", '<script src="https://cdn.example/x.js"></script>', "https://cdn.example/x.js"),
        ("a.html", "<link href='//fonts.example/f.css' rel='stylesheet'>", "//fonts.example/f.css"),
        ("a.html", '<img srcset="a.png 1x, https://i.example/b.png 2x">', "https://i.example/b.png 2x"),
        ("a.html", '<p style="background: url(http://i.example/c.png)">', "http://i.example/c.png"),
        ("a.html", "<script>fetch('https://api.example/v1')</script>", "https://api.example/v1"),
        ("a.css", '@import "https://fonts.example/f.css";', "https://fonts.example/f.css"),
        ("a.js", "s.src=`//cdn.example/m.js`", "//cdn.example/m.js"),
        ("a.html", '<a href="https://arxiv.org">paper</a> <img src="../b.png"> <link rel="next" href="b.html">', None),
        ("a.css", "/* https://licence.example */ a { background: url(data:image/svg+xml;base64,AA==) }", None),
        ("a.js", "/* https://licence.example */ n='http://www.w3.org/2000/svg'; // http://x.example", None),
    ],
)  # fmt: skip
def test_the_site_is_checked_for_requests_to_other_hosts(tmp_path, name, text, asks):
    (tmp_path / name).write_text(text, encoding="utf-8")
    found = [address for _, address in load("offline").requests(tmp_path)]
    assert found == ([asks] if asks else [])


def test_what_a_script_asks_for_only_on_some_pages_counts_on_those(tmp_path):
    (tmp_path / "a.js").write_text('load("https://unpkg.com/mermaid@11")', encoding="utf-8")
    (tmp_path / "a.html").write_text("<p>no diagram</p>", encoding="utf-8")
    assert not list(load("offline").requests(tmp_path))
    (tmp_path / "b.html").write_text('<pre class="mermaid">a --> b</pre>', encoding="utf-8")
    assert [name for name, _ in load("offline").requests(tmp_path)] == [Path("a.js")]


def load(name: str):
    """A module of docs/tools."""
    pytest.importorskip("latex2mathml" if name == "hooks" else "html")
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "tools" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
