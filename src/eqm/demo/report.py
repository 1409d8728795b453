"""The report of the demo: one HTML page without other files, and JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from html import escape
from pathlib import Path

from eqm.files import replacing


@dataclass(frozen=True)
class Fact:
    """A number, and how it was measured."""

    name: str
    value: float
    how: str
    form: str = ".3f"
    """Format specification of the printed value."""


@dataclass(frozen=True)
class Section:
    """One use of the model: text, a picture in the folder of the report, and numbers."""

    title: str
    text: str
    picture: str
    facts: tuple[Fact, ...]
    verdict: str = ""
    """One sentence that compares with flow matching, if the section does."""


def write_report(
    folder: Path,
    sections: Sequence[Section],
    *,
    intro: str,
    circumstances: Sequence[tuple[str, str]],
) -> None:
    """Returns nothing; writes report.html, with every picture inside, and metrics.json to `folder`."""
    with replacing(folder / "metrics.json") as path:
        facts = {s.title: [asdict(fact) for fact in s.facts] for s in sections}
        path.write_text(
            json.dumps({"circumstances": dict(circumstances), "facts": facts}, indent=2)
        )
    body = "\n".join(_section(folder, section) for section in sections)
    terms = "\n".join(
        f"<dt>{escape(name)}</dt><dd>{escape(value)}</dd>" for name, value in circumstances
    )
    verdicts = "".join(f"<li>{escape(s.verdict)}</li>" for s in sections if s.verdict)
    page = PAGE.format(style=STYLE, intro=escape(intro), verdicts=verdicts, body=body, terms=terms)
    with replacing(folder / "report.html") as path:
        path.write_text(page, encoding="utf-8")


def _section(folder: Path, section: Section) -> str:
    kind = Path(section.picture).suffix.removeprefix(".")
    data = base64.b64encode((folder / section.picture).read_bytes()).decode()
    rows = "\n".join(
        f"<tr><td>{escape(fact.name)}</td><td class=value>{fact.value:{fact.form}}</td>"
        f"<td class=how>{escape(fact.how)}</td></tr>"
        for fact in section.facts
    )
    few = " open" if len(section.facts) <= FEW else ""
    return (
        f"<section><h2>{escape(section.title)}</h2><p>{escape(section.text)}</p>"
        f"<p class=verdict>{escape(section.verdict)}</p>"
        f'<img src="data:image/{kind};base64,{data}" alt="{escape(section.title)}">'
        f"<details{few}><summary>{len(section.facts)} numbers, and how each was measured</summary>"
        f"<table><tr><th>Measured<th>Value<th>How</tr>{rows}</table></details></section>"
    )


FEW = 9
"""Longer tables start folded."""

STYLE = """
:root { --ink: #1c2330; --soft: #667085; --line: #e4e7ec; --accent: #2f5fd0; --paper: #ffffff; }
* { box-sizing: border-box; }
body { margin: 0; background: #f5f6f8; color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 60rem; margin: 0 auto; padding: 3rem 1.25rem 4rem; }
h1 { font-size: 2.1rem; line-height: 1.15; margin: 0 0 .6rem; letter-spacing: -.02em; }
h2 { font-size: 1.25rem; margin: 0 0 .4rem; letter-spacing: -.01em; }
p { margin: 0 0 1rem; max-width: 46rem; }
.intro { color: var(--soft); font-size: 1.08rem; margin-bottom: 2rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 14px;
          padding: 1.5rem 1.6rem; margin: 0 0 1.4rem; }
img { display: block; max-width: 100%; height: auto; margin: .4rem auto 1.2rem; image-rendering: auto; }
table { width: 100%; border-collapse: collapse; font-size: .9rem; }
th { text-align: left; color: var(--soft); font-weight: 600; padding: .3rem .6rem .3rem 0; }
td { border-top: 1px solid var(--line); padding: .45rem .6rem .45rem 0; vertical-align: top; }
td:first-child { width: 34%; }
summary { color: var(--soft); font-size: .9rem; cursor: pointer; margin-bottom: .4rem; }
.value { font-variant-numeric: tabular-nums; font-weight: 650; color: var(--accent); white-space: nowrap; }
.how { color: var(--soft); }
.verdict { font-weight: 600; }
ul { padding-left: 1.2rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; font-size: .9rem; }
dt { color: var(--soft); } dd { margin: 0; }
@media (max-width: 40rem) { td:first-child { width: auto; } section { padding: 1.1rem; } }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>One field, many uses</title>
<style>{style}</style>
</head>
<body><main>
<h1>One field, many uses</h1>
<p class="intro">{intro}</p>
<section><h2>Beside flow matching</h2><ul>{verdicts}</ul></section>
{body}
<section><h2>How this was made</h2><dl>{terms}</dl></section>
</main></body>
</html>
"""
