"""The report of a detector of parts: one HTML page that asks no other host for anything."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape

from PIL import Image
from torch import Tensor

from eqm.inspection.histogram import histogram
from eqm.inspection.rates import Promise

SIDE = 360
"""The longer side of pictures in the report at most."""


@dataclass(frozen=True)
class Example:
    """A held-out good part in the report."""

    name: str
    score: float
    p_value: float
    overlay: Image.Image
    share: float
    """The share of its pixels above the threshold of the map, 0..1."""

    @property
    def alt(self) -> str:
        """What the picture shows, in words."""
        if not self.share:
            return f"{self.name}, a good part in grey: no pixel is above the threshold of the map"
        return (
            f"{self.name}, a good part in grey: {percent(self.share)} of its pixels are above the threshold of the "
            "map, in yellow to red with a line around them"
        )


@dataclass(frozen=True)
class Contents:
    """What a report says."""

    title: str
    summary: Sequence[str]
    """Sentences."""
    scores: Tensor
    """Of the held-out good parts, sorted, (N,)."""
    promises: Sequence[Promise]
    chosen: float
    """The false-alarm rate that `eqm detect run` uses."""
    worst: Sequence[Example]
    best: Sequence[Example]
    limits: Sequence[str]
    """What the detector cannot know."""
    commands: Sequence[str]
    settings: Mapping[str, str]


def page(report: Contents) -> str:
    """The report as HTML."""
    lines = {p.rate: p.threshold for p in report.promises if p.threshold is not None}
    terms = "".join(f"<dt>{escape(k)}</dt><dd>{escape(v)}</dd>" for k, v in report.settings.items())
    commands = escape("\n".join(report.commands))
    sections = [
        ("Held-out scores", histogram(report.scores, lines, report.chosen) + HISTOGRAM),
        ("Thresholds", _table(report.promises, report.chosen, len(report.scores))),
        ("The worst good parts", WORST + _gallery(report.worst)),
        ("The best good parts", _gallery(report.best)),
        ("What it cannot know", _list(report.limits)),
        ("What to do next", f"<pre>{commands}</pre>"),
        ("Settings", f"<dl>{terms}</dl>"),
    ]
    body = "\n".join(f"<section><h2>{name}</h2>{text}</section>" for name, text in sections)
    title, summary = escape(report.title), _list(report.summary)
    return PAGE.format(style=STYLE, title=title, summary=summary, body=body)


def percent(share: float) -> str:
    """A share as a percentage with two or three digits, such as `0.54 %`."""
    return f"{100 * share:.3g} %" if share >= 1e-5 or not share else "less than 0.001 %"


def _list(sentences: Sequence[str]) -> str:
    """Sentences as a list; what stands in backticks is code."""
    items = (re.sub("`(.+?)`", r"<code>\1</code>", escape(sentence)) for sentence in sentences)
    return f"<ul>{''.join(f'<li>{item}</li>' for item in items)}</ul>"


def _table(promises: Sequence[Promise], chosen: float, count: int) -> str:
    rows = []
    for one in promises:
        mark = " class=chosen" if one.rate == chosen else ""
        rate = f"<tr{mark}><td>{percent(one.rate)}{' (used)' if mark else ''}</td>"
        if one.threshold is None:
            rows.append(
                f"{rate}<td colspan=2>not possible: needs {one.needed:,} held-out good parts, "
                f"{count:,} are there</td></tr>"
            )
        else:
            rows.append(
                f"{rate}<td>{one.threshold:.4g}</td>"
                f"<td>{percent(one.low)} to {percent(one.high)}</td></tr>"
            )
    return (
        "<p>A part that scores above the threshold is called anomalous. A rate is kept on average over many such "
        "calibrations. The last column is where the true rate of this one lies, with a probability of 95 %, for "
        "new good parts like these.</p>"
        "<table><thead><tr><th scope=col>False-alarm rate<th scope=col>Threshold<th scope=col>True rate</tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _gallery(examples: Sequence[Example]) -> str:
    return f"<div class=gallery>{''.join(map(_figure, examples))}</div>"


def _figure(one: Example) -> str:
    return (
        f'<figure><img src="{_address(one.overlay)}" alt="{escape(one.alt)}">'
        f"<figcaption>{escape(one.name)}<br>score {one.score:.4g}, p-value {one.p_value:.3g}</figcaption></figure>"
    )


def _address(picture: Image.Image) -> str:
    """A picture as the address of an image inside a page."""
    small, file = picture.copy(), io.BytesIO()
    small.thumbnail((SIDE, SIDE))
    small.save(file, format="png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


HISTOGRAM = "<p>Parts to the right are less like the others. A line is the threshold at its false-alarm rate.</p>"
WORST = (
    "<p>They were held out, and score highest. Look at them first: a part with a defect among them raises the "
    "threshold, and then defects like it are missed. Remove it and fit again.</p>"
    "<p>Grey is as good parts are there. Yellow to red is farther from them. The scale starts at 1, the mean of good "
    "parts at that place. The line goes around what is above the threshold of the map.</p>"
)

STYLE = """
:root { color-scheme: light dark; --ink: #1c2330; --soft: #5a6478; --line: #e0e4ea; --accent: #2f5fd0;
        --bar: #7c9be6; --paper: #ffffff; --ground: #f5f6f8; --mark: #c2410c; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e8ebf1; --soft: #a4adbd; --line: #343b49; --accent: #8fb0ff; --bar: #5f82d6;
          --paper: #1d222c; --ground: #14171e; --mark: #ff9d66; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--ground); color: var(--ink);
       font: 16px/1.55 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif; }
main { max-width: 62rem; margin: 0 auto; padding: 2.5rem 1.25rem 4rem; }
h1 { font-size: 1.9rem; line-height: 1.2; margin: 0 0 .6rem; overflow-wrap: anywhere; }
h2 { font-size: 1.25rem; margin: 0 0 .5rem; }
p { margin: 0 0 1rem; max-width: 46rem; }
ul { margin: 0 0 .4rem; padding-left: 1.2rem; max-width: 48rem; }
section { background: var(--paper); border: 1px solid var(--line); border-radius: 14px;
          padding: 1.4rem 1.5rem; margin: 1.4rem 0 0; }
table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
th { text-align: left; color: var(--soft); font-weight: 600; padding: .3rem .6rem .3rem 0; }
td { border-top: 1px solid var(--line); padding: .4rem .6rem .4rem 0; }
.chosen { color: var(--accent); font-weight: 650; }
.gallery { display: grid; grid-template-columns: repeat(auto-fill, minmax(15rem, 1fr)); gap: 1rem; }
figure { margin: 0; }
img { display: block; max-width: 100%; height: auto; }
figcaption { color: var(--soft); font-size: .88rem; margin-top: .3rem; overflow-wrap: anywhere; }
pre { overflow-x: auto; margin: 0; font-size: .9rem; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .25rem 1.2rem; margin: 0; font-size: .92rem; }
dt { color: var(--soft); } dd { margin: 0; overflow-wrap: anywhere; }
svg { display: block; width: 100%; height: auto; margin-bottom: .6rem; }
svg text { fill: var(--soft); font-size: 12px; } svg .bar { fill: var(--bar); }
svg .axis { stroke: var(--line); } svg .line { stroke: var(--mark); stroke-dasharray: 4 3; }
svg .line.used { stroke-dasharray: none; stroke-width: 2; } svg .rate { fill: var(--mark); }
"""

PAGE = """<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{title}</title>
<style>{style}</style>
</head>
<body><main>
<h1>{title}</h1>
{summary}
{body}
</main></body>
</html>
"""
