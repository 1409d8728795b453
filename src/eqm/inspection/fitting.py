"""From photographs of good parts to a calibrated detector in a folder, with a report."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from eqm.files import make_folder, printable, replacing
from eqm.inspection.judging import REPORT, Reading, frame_of, judged
from eqm.inspection.overlays import overlay
from eqm.inspection.photographs import Frame, Parts, Photographs, parts_of
from eqm.inspection.rates import RATES, Promise, promises
from eqm.inspection.report import Contents, Example, page, percent
from eqm.tasks import EqmDetector, train_detector

USUAL = 0.05
"""The false-alarm rate where none is asked for."""
FEWEST = 10
"""Good parts at least."""
SHOWN = 6
"""The best and the worst good parts in the report, so many each."""


def fit_parts(
    photographs: Photographs,
    folder: Path,
    *,
    name: str,
    features: str = "auto",
    size: int | None = None,
    fpr: float | None = None,
    steps: int | None = None,
    seed: int = 0,
    span: Sequence[float] = (),
    say: Callable[[str], None] = print,
) -> list[Promise]:
    """What a detector promises that is trained on photographs of good parts, at several false-alarm rates.

    Writes the detector, parts.json and report.html into `folder`. `name` stands in the title of the report, `say`
    is told what happens. Raises ValueError for fewer than FEWEST photographs that can be read and differ, and
    for a rate that so many cannot promise."""
    began = time.monotonic()
    frame = frame_of(photographs.shapes, size)
    parts = parts_of(photographs, frame)
    facts = _facts(photographs, parts, frame)
    for fact in facts:
        say(fact)
    rate, sentence = possible_rate(fpr, len(parts.numbers))
    make_folder(folder)
    say(f"read in {_since(began)}; training now")
    started = time.monotonic()
    detector = train_detector(
        parts.batches,
        features=features,
        size=size,
        fpr=rate,
        seed=seed,
        steps=steps,
        progress=_progress(say),
    )
    assert detector.calibration is not None  # it was trained
    scores = detector.calibration.scores
    facts.append(
        f"{len(scores):,} of {len(parts.numbers):,} good parts are held out for the calibration; {sentence}"
    )
    say(f"trained in {_since(started)}; {facts[-1]}")
    found = promises(scores, sorted({*RATES, detector.fpr}, reverse=True))
    best, worst = _examples(photographs, parts, frame, detector)
    reading = Reading(frame.channels, frame.height, frame.width, detector.fpr, tuple(span))
    report = Contents(
        title=f"Detector of {name}",
        summary=facts,
        scores=scores,
        promises=found,
        chosen=detector.fpr,
        worst=worst,
        best=best,
        limits=limits(len(parts.numbers), len(scores), photographs.shapes, frame, parts.copies),
        commands=(
            f"eqm detect run {folder} PICTURES --output found   # scores, overlays and masks of new parts",
            f"eqm detect eval {folder} DATA                     # if you have parts with known defects",
        ),
        settings={
            "detector": "; ".join(detector.notes),
            "photographs are read at": f"{frame.width}x{frame.height} pixels, "
            + ("grey" if frame.channels == 1 else "colour"),
            "false-alarm rate": percent(detector.fpr),
            "threshold of the map": f"{detector.map_threshold(detector.fpr):.4g}",
            "seed": str(seed),
            "time": _since(began),
        },
    )
    detector.save(folder)
    reading.save(folder)
    with replacing(folder / REPORT) as path:
        path.write_text(page(report), encoding="utf-8")
    return found


def possible_rate(asked: float | None, count: int) -> tuple[float, str]:
    """The false-alarm rate that N good parts can promise, of which at most half are held out, and a sentence.

    It is the rate `asked` for; by default 5 %, or the lowest possible one in whole percents, where N is too small.
    Raises ValueError for fewer than FEWEST parts, and where the rate that was asked for is not possible."""
    if count < FEWEST:
        raise ValueError(
            f"a detector needs at least {FEWEST} different photographs of good parts, better 200; got {count}: "
            "take more"
        )
    rate = USUAL if asked is None else asked
    needed = 2 * (math.ceil(round(min(1 / rate, 1e18), 9)) - 1)
    if needed <= count:
        return rate, f"the false-alarm rate is {percent(rate)}"
    lowest = math.ceil(100 / (count // 2 + 1)) / 100
    if asked is not None:
        raise ValueError(
            f"a false-alarm rate of {percent(rate)} needs {needed:,} good parts; got {count:,}, which can promise "
            f"{percent(lowest)}: give more parts, or --fpr {lowest:g}"
        )
    return lowest, (
        f"the false-alarm rate is {percent(lowest)}, as {percent(rate)} would need {needed:,} good parts"
    )


def limits(
    count: int,
    held_out: int,
    shapes: Sequence[tuple[int, int, int]],
    frame: Frame,
    copies: dict[int, int],
) -> list[str]:
    """Sentences on what a detector of `count` good parts cannot know."""
    height, width = (max(shape[k] for shape in shapes) for k in (1, 2))
    shrunk = max(height / frame.height, width / frame.width)
    found = [
        "It has never seen a defect, so how many defects it finds is not known. Measure it with `eqm detect eval` on "
        "parts with known defects.",
        f"It has seen {count:,} good parts. What is good but rare among them will be called anomalous.",
        f"{held_out:,} parts were held out, so no rate below 1 in {held_out + 1:,} can be promised, and the true rate "
        "is as uncertain as the table says.",
        "It knows this camera, light, background and position alone. If one of them changes, the rates no longer hold: "
        "fit again.",
        "Parts that follow each other may share a fault of the process or the camera. Then false alarms come together, "
        "and the rate holds only in the long run.",
    ]
    if copies:
        found.append(
            f"{len(copies):,} photographs were exact copies of others and were left out. Several photographs of one "
            "part are copies as well, and cannot be counted. They make the rates look more certain than they are."
        )
    else:
        found.append(
            "No photograph is an exact copy of another. Several photographs of one part cannot be counted. They make "
            "the rates look more certain than they are."
        )
    if shrunk > 1:
        found.append(
            f"Photographs of up to {width}x{height} pixels are read at {frame.width}x{frame.height}. A defect of fewer "
            f"than {math.ceil(shrunk)} pixels may vanish."
        )
    return found


def _facts(photographs: Photographs, parts: Parts, frame: Frame) -> list[str]:
    sizes = {shape[1:] for shape in photographs.shapes}
    least, most = min(sizes, key=lambda s: s[0] * s[1]), max(sizes, key=lambda s: s[0] * s[1])
    sides = (
        f"{most[1]}x{most[0]}"
        if len(sizes) == 1
        else f"{least[1]}x{least[0]} to {most[1]}x{most[0]}"
    )
    facts = [f"{len(photographs):,} photographs of good parts, {sides} pixels"]
    if sizes != {(frame.height, frame.width)}:
        facts.append(
            f"each is brought to {frame.width}x{frame.height} pixels, whole: stretched or shrunk, not cropped"
        )
    if parts.copies:
        examples = [printable(photographs.names[k]) for k in next(iter(parts.copies.items()))]
        facts.append(
            f"{len(parts.copies):,} of them are copies of others, such as {examples[0]} of {examples[1]}: each "
            "is used once"
        )
    if photographs.unreadable:
        facts.append(f"{len(photographs.unreadable):,} of them cannot be read and are left out")
    return facts


def _examples(
    photographs: Photographs, parts: Parts, frame: Frame, detector: EqmDetector
) -> tuple[list[Example], list[Example]]:
    """The held-out parts that score lowest, the lowest first, and highest, the highest first."""
    assert detector.held_out is not None
    numbers = [parts.numbers[row] for row in detector.held_out.tolist()]  # by score
    half = min(SHOWN, (len(numbers) + 1) // 2)
    chosen = numbers[:half], numbers[half:][-SHOWN:][::-1]
    threshold = detector.map_threshold(detector.fpr)
    found = {
        one.number: Example(
            printable(photographs.names[one.number]),
            one.score,
            one.p_value,
            overlay(one.photograph, one.heat, threshold),
            float((one.heat > threshold).float().mean()),
        )
        for one in judged(detector, frame, photographs, [*chosen[0], *chosen[1]])
    }
    best, worst = ([found[number] for number in some if number in found] for some in chosen)
    return best, worst


def _progress(say: Callable[[str], None]) -> Callable[[int, int], None]:
    """A function of the steps done and of all, which tells `say` about once in ten seconds how long it takes."""
    started = said = 0.0

    def report(done: int, steps: int) -> None:
        nonlocal started, said
        now = time.monotonic()
        if done == 1:
            started = said = now
        elif now - said >= 10 and done < steps:
            said = now
            left = (now - started) / (done - 1) * (steps - done)
            say(f"step {done:,} of {steps:,}, about {left:.0f} s left")

    return report


def _since(start: float) -> str:
    seconds = time.monotonic() - start
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
