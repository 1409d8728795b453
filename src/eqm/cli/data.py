"""`eqm data check`: what a data set holds; `eqm data download`: a data set that is fetched once."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Literal

import tyro

from eqm.cli import options
from eqm.registry import register


@register("command", "data")
def data(
    action: Annotated[
        tyro.conf.Positional[Literal["check", "download"]], tyro.conf.arg(metavar="check|download")
    ],
    path: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="PATH")],
    reading: options.ClassReadingOptions = options.AS_FOUND_WITH_CLASSES,
) -> None:
    """Check a data set, or download one.

    `check` reads all of a data set and prints what it holds. The exit status is 2 if no model can be trained
    on the data. `download emoji` fetches 8,157 emoji with captions, 30 MB of npm packages, to ~/.cache/eqm, or
    to $EQM_DATA; it needs eqm[data].

    Example: `eqm data check photos`

    Args:
        action: The word check or download.
        path: For check a folder, an archive, an array file or a data set by name, whatever --data.path takes;
            for download the word emoji.
    """
    if action == "download":
        return _download(path)
    from eqm.cli.messages import one_line
    from eqm.cli.output import show_settings
    from eqm.data import DataConfig, check
    from eqm.files import printable

    report = check(reading.applied(DataConfig(path)))
    shown = {
        "name": report.name,
        "readable": f"{report.images:,}",
        "broken": f"{len(report.broken):,}",
        "sizes": _counted({"x".join(map(str, side)) or "-": n for side, n in report.sizes.items()}),
        "channels": _counted(report.channels),
        "bits": _counted(report.bits),
        "classes": f"{len(report.classes):,}" if report.classes else "none",
        "fingerprint": report.fingerprint,
    }
    if report.others:
        shown["ignored"] = (
            f"{len(report.others):,} other files, such as {printable(report.others[0])}"
        )
    show_settings(shown)
    for sentence in report.notes:
        print(f"note: {one_line(sentence)}")
    for name, count in report.classes.items():
        print(f"class {printable(name)}: {count:,}")
    for name, reason in report.broken.items():
        print(f"broken {printable(name)}: {one_line(reason)}")
    for sentence in report.advice:
        print(one_line(sentence))
    if report.faults:
        raise ValueError(f"{path} cannot be trained on: {'; '.join(report.faults)}")


def _download(name: str) -> None:
    from eqm.data.emoji import emoji_folder
    from eqm.data.emoji_download import download_emoji

    if name != "emoji":
        raise ValueError(f"download takes the word emoji; got {name!r}")
    download_emoji(emoji_folder())


def _counted(counts: Mapping[object, int] | Mapping[str, int] | Mapping[int, int]) -> str:
    """The eight most common values with their counts, such as `64x64 (12), 32x32 (3)`."""
    common = sorted(counts.items(), key=lambda item: -item[1])
    text = ", ".join(f"{value} ({count:,})" for value, count in common[:8])
    return text + (f" and {len(common) - 8:,} more" if len(common) > 8 else "")
