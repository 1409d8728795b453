"""What mkdocs cannot do by itself: reference pages from the code, and formulas without JavaScript.

* commands.md is the help of every command, as `eqm COMMAND --help` prints it.
* api/ has a page for each public package, with the names that its `__init__.pyi` exports.
* benchmarks/ and experiments/ are taken into the site, as they lie beside docs/ in the repository.
* Formulas become MathML, which browsers show without a script.
"""

import ast
import contextlib
import html
import io
import os
import re
from pathlib import Path

from latex2mathml.converter import convert
from mkdocs.structure.files import File

ROOT = Path(__file__).parents[2]
SOURCE = ROOT / "src"
BESIDE = ("benchmarks/results", "examples", "experiments")


def on_config(config):
    """Lists the pages of api/ in the navigation, where it says `Python`."""
    for section in (entry["Reference"] for entry in config.nav if "Reference" in entry):
        for entry in section:
            if "Python" in entry:
                entry["Python"] = list(api())
    return config


def on_files(files, config):
    for path in [path for folder in BESIDE for path in sorted((ROOT / folder).rglob("*"))]:
        if path.suffix in (".md", ".png", ".gif", ".sh", ".py", ".ipynb"):
            name = path.relative_to(ROOT).as_posix()
            files.append(File.generated(config, name, abs_src_path=str(path)))
    pages = {"commands.md": commands(), **api()}
    for name, text in pages.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown, page, config, files):
    """In the repository, benchmarks/ lies beside docs/; in the site, inside."""
    depth = page.file.src_uri.count("/")
    outside = re.compile(r"(\]\()" + r"\.\./" * (depth + 1) + r"(benchmarks|examples|experiments)/")
    markdown = outside.sub(r"\1" + "../" * depth + r"\2/", markdown)
    return re.sub(r"\]\((?:\.\./)+README\.md(#[^)]*)?\)", "](index.md)", markdown)


def on_page_content(content, page, config, files):
    found = r'<(?P<tag>span|div) class="arithmatex">\\[(\[](?P<formula>.*?)\\[)\]]</(?P=tag)>'
    return re.sub(found, _mathml, content, flags=re.DOTALL)


def _mathml(match):
    display = "inline" if match["tag"] == "span" else "block"
    return convert(html.unescape(match["formula"]).strip(), display=display)


def commands():
    """One section for each command, with what its --help prints."""
    from eqm.registry import names

    overview = command_help()
    sections = [
        f"# Commands\n\nEach section is what `eqm COMMAND --help` prints.\n\n{_block(overview)}"
    ]
    sections += [f"## eqm {name}\n\n{_block(command_help(name))}" for name in names("command")]
    recipe = command_help("train", "digits")
    sections.append(
        f"## eqm train digits\n\nThe other recipes take the same options.\n\n{_block(recipe)}"
    )
    return "\n\n".join(sections) + "\n"


def command_help(*command):
    """What `eqm COMMAND --help` prints on a terminal of 90 columns."""
    from eqm.cli.main import main

    before, os.environ["COLUMNS"] = os.environ.get("COLUMNS"), "90"
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            main([*command, "--help"])
    finally:
        if before is None:
            del os.environ["COLUMNS"]
        else:
            os.environ["COLUMNS"] = before
    if not printed.getvalue().strip():
        raise RuntimeError(f"eqm {' '.join(command)} --help printed nothing")
    return printed.getvalue()


def _block(text):
    return "```text\n" + "\n".join(line.rstrip() for line in text.strip().splitlines()) + "\n```"


def api():
    """A page for `eqm` and one for each package in it that has public names."""
    stubs = sorted(SOURCE.glob("eqm/*/__init__.pyi"))
    packages = ["eqm", *(f"eqm.{stub.parent.name}" for stub in stubs)]
    top, pages, rows = exported("eqm"), {}, []
    for package in packages:
        names = exported(package)
        own = {
            name: home
            for name, home in names.items()
            if package == "eqm" or home not in top.values()
        }
        also = [name for name, home in names.items() if home in top.values()]
        text = f"# {package}\n\n"
        if package != "eqm" and also:
            links = ", ".join(f"[`{name}`][{names[name]}]" for name in also)
            text += f"On the page of [eqm](eqm.md): {links}.\n\n"
        for name, home in own.items():
            text += f"::: {home}\n    options:\n      heading: {package}.{name}\n\n"
        page = f"{package.removeprefix('eqm.')}.md"
        pages[f"api/{page}"] = text
        rows.append(f"| [`{package}`]({page}) | {_first_line(package)} |")
    index = "# Python reference\n\nPublic names, package by package.\n\n| package | |\n|---|---|\n"
    return {"api/index.md": index + "\n".join(rows) + "\n", **pages}


def exported(package):
    """The public names of a package, each with the place where it is defined."""
    stub = SOURCE / Path(*package.split(".")) / "__init__.pyi"
    names = {}
    for node in ast.parse(stub.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module:  # else a package of its own
            module = f"{package}.{node.module}"
            for alias in node.names:
                names[alias.asname or alias.name] = _home(module, alias.name)
    return names


def _home(module, name):
    if (SOURCE / Path(*module.split(".")) / "__init__.pyi").exists():
        return exported(module).get(name, f"{module}.{name}")
    return f"{module}.{name}"


def _first_line(package):
    folder = SOURCE / Path(*package.split("."))
    text = ast.get_docstring(ast.parse((folder / "__init__.py").read_text(encoding="utf-8")))
    return (text or "").splitlines()[0]
