"""`eqm detect fit | run | eval` for tables: odd rows, and which of their columns are odd."""

from __future__ import annotations

import csv
import heapq
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.files import is_of_kind, printable
from eqm.registry import register
from eqm.schema import Seed

if TYPE_CHECKING:
    import numpy as np

    from eqm.data.tables import Table
    from eqm.tasks import EqmOutlierDetector
    from eqm.tasks.encoding import Encoding

SHOWN = 20
"""Rows that are printed, most anomalous first; --output writes all."""
LABELS = (
    *("y", "label", "labels", "target", "class", "anomaly", "anomalous", "is_anomaly", "outlier"),
    *("is_outlier", "fraud", "is_fraud", "defect", "attack"),
)
"""Names of columns that may say which rows are anomalous."""
IDS = ("id", "index", "idx", "row", "rowid", "row_id", "uuid", "key", "unnamed: 0", "column 1")
"""Names of columns that may only number the rows."""
ODD = 4.0
"""A column is named as odd from this attribution on: twice as far off as usual."""

Folder = Annotated[
    Positional[Path], arg(metavar="FOLDER", help="A folder that `eqm detect fit TABLE` wrote.")
]
TablePath = Annotated[Positional[Path], arg(metavar="TABLE", help="A .csv, .tsv or .parquet file.")]
Columns = Annotated[tuple[str, ...], arg(metavar="COLUMN ...")]


def is_table(path: str) -> bool:
    """Whether `path` names a table, and not one with pictures in its cells."""
    from eqm.data.tables import ENDINGS, has_pictures

    return path.lower().endswith(ENDINGS) and not has_pictures(Path(path))


def is_of_table(folder: str) -> bool:
    """Whether `eqm detect fit` wrote a folder from a table."""
    return is_of_kind(Path(folder), "eqm-outliers")


@register("command", "detect-fit-table")
def fit_table(
    table: TablePath,
    output: Path,
    label: str | None = None,
    ignore: Columns = (),
    keep: Columns = (),
    fpr: float = 0.05,
    contamination: float = 0.0,
    steps: Annotated[options.Number | None, arg(help_behavior_hint="(default: chosen)")] = None,
    seed: Seed = 0,
) -> int:
    """Make a detector of odd rows from a table.

    Example: `eqm detect fit machines.csv --output runs/machines`

    Rows should be normal, most of them. Columns of numbers and columns of up to 50 different words are learnt. Of more
    than 10,000 rows a random choice is learnt. Missing numbers are taken as usual ones. A column that looks like a
    label or like the number of a row must be named in --label, --ignore or --keep.

    Args:
        output: Folder for the detector, new or empty, or of such a detector.
        label: Column of 0 (normal) and 1 (anomalous). Rows with 1 are not learnt.
        ignore: Columns to leave out.
        keep: Columns to learn, although they look like a label or the number of a row.
        fpr: False-alarm rate: the share of normal rows that may be called anomalous.
        contamination: Share of anomalies among the rows, such as 0.1, where they are not known to be normal.
        steps: Training steps of each of three networks.
        seed: Seed of the choice of rows, of the weights and of the noise.
    """
    import numpy as np

    from eqm.files import check_folder
    from eqm.tasks import EqmOutlierDetector
    from eqm.tasks.calibration import FEWEST
    from eqm.tasks.encoding import Encoding
    from eqm.tasks.experts import STEPS

    check_folder(output, "eqm-outliers")
    opened = _opened(table)
    named = [*([label] if label is not None else []), *ignore, *keep]
    for name in named:
        if name not in opened.names:
            raise ValueError(
                f"{table} has no column {printable(name)!r}: its columns are {_listed(opened.names)}"
            )
    if len(set(named)) < len(named):
        raise ValueError("a column is named twice in --label, --ignore and --keep: name it once")
    kinds = opened.kinds()
    text = [name for name, kind in kinds.items() if kind == "text"]
    rows, columns, anomalous = _sample(opened, text, label, seed)
    _check_columns(columns, {*named}, opened)
    if len(columns[opened.names[0]]) < FEWEST:
        raise ValueError(
            f"{table} must have at least {FEWEST} normal rows; got {rows - anomalous}: add some"
        )
    encoding = Encoding.of(columns, label=label, ignored=ignore)
    learnt = encoding.rows(columns)
    detector = EqmOutlierDetector(
        fpr=fpr, contamination=contamination or None, steps=steps or STEPS, random_state=seed
    ).fit(learnt)
    detector.save(output)
    encoding.save(output)
    copies = len(learnt) - len(np.unique(learnt, axis=0))
    if anomalous:
        print(f"{anomalous:,} of {rows:,} rows are labelled anomalous and were left out")
    print(f"learnt {len(learnt):,} of {rows:,} rows, {len(encoding.columns)} columns: {output}")
    if words := encoding.words:
        print(f"columns of words, one category each: {_listed(words)}")
    if copies:
        print(
            f"{copies:,} learnt rows are copies: the rate of false alarms holds for different rows"
        )
    if len(learnt) < learnt.shape[1]:
        print(
            f"there are fewer rows ({len(learnt):,}) than columns ({learnt.shape[1]:,}): more rows give better scores"
        )
    print(f"next: eqm detect run {output} TABLE --output scores.csv")
    return 0


@register("command", "detect-run-table")
def run_table(
    folder: Folder,
    table: TablePath,
    output: Path | None = None,
    fpr: Annotated[float | None, arg(help_behavior_hint="(default: that of the detector)")] = None,
) -> int:
    """Find the odd rows of a table, and their odd columns.

    Example: `eqm detect run runs/machines new.csv --output scores.csv`

    Rows are read and scored in parts, so that large tables need little memory.

    Args:
        output: A .csv with row number, score, p-value, verdict and odd columns of every row.
        fpr: False-alarm rate: the share of normal rows that may be called anomalous.
    """
    from eqm.cli.output import check_output
    from eqm.files import replacing
    from eqm.tasks.calibration import check_rate

    if output is not None:
        check_output(output, (".csv",))
    if fpr is not None:
        check_rate(fpr)
    detector, encoding = _loaded(folder)
    opened = _opened(table)
    encoding.check(opened.names, table)
    found = _scored(detector, encoding, opened, fpr)
    if output is None:
        count, anomalous, worst = _kept(found)
    else:
        with replacing(output) as path, path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.writer(file)
            writer.writerow(("row", "score", "p_value", "anomalous", "odd_columns"))
            count, anomalous, worst = _kept(found, writer)
    print("     row   score  p-value  odd columns, times as far off as usual")
    for score, row, p_value, flag, odd in worst:
        print(f"{-row:8,}  {score:6.2f}  {p_value:7.4f}  {'anomalous  ' * flag}{printable(odd)}")
    if count > SHOWN:
        more = "" if output else ": --output FILE.csv writes all"
        print(f"     ... and {count - SHOWN:,} more{more}")
    if fpr is None and detector.contamination is not None:
        rate = f"the share {detector.contamination:g} of the learnt rows"
    else:
        rate = f"a false-alarm rate of {detector.fpr if fpr is None else fpr:g}"
    print(f"{anomalous:,} of {count:,} rows are anomalous, at {rate}")
    if output is not None:
        print(f"every row: {output}")
    return 0


@register("command", "detect-eval-table")
def eval_table(
    folder: Folder,
    table: TablePath,
    label: Annotated[str | None, arg(help_behavior_hint="(default: as told to fit)")] = None,
    output: Path | None = None,
    fpr: Annotated[float | None, arg(help_behavior_hint="(default: that of the detector)")] = None,
) -> int:
    """Measure a detector on a table with known anomalies.

    Example: `eqm detect eval runs/machines test.csv --label broken`

    Args:
        label: Column of 0 (normal) and 1 (anomalous).
        output: A .json with all numbers.
        fpr: False-alarm rate: the share of normal rows that may be called anomalous.
    """
    import numpy as np
    import torch
    from scipy.stats import binomtest

    from eqm.cli.output import check_output, show_settings
    from eqm.files import replacing
    from eqm.metrics import auroc, average_precision, bootstrap
    from eqm.tasks.calibration import check_rate

    if output is not None:
        check_output(output, (".json",))
    if fpr is not None:
        check_rate(fpr)
    detector, encoding = _loaded(folder)
    opened = _opened(table)
    label = encoding.label if label is None else label
    if label is None or label not in opened.names:
        raise ValueError(
            f"{table} must have a column of 0 (normal) and 1 (anomalous): name it with --label; its columns "
            f"are {_listed(opened.names)}"
        )
    encoding.check([name for name in opened.names if name != label], table)
    scores, flags, odd = [], list[Any](), list[Any]()
    for number, chunk in _chunks(opened, encoding.words):
        odd.append(_truth(chunk[label], label, number))
        rows = encoding.rows(chunk, number)
        scores.append(-detector.score_samples(rows))
        flags.append(_verdicts(detector, rows, scores[-1], fpr))
    score, flag, truth = (np.concatenate(each) for each in (scores, flags, odd))
    if truth.all() or not truth.any():
        raise ValueError(
            f"column {printable(label)!r} must have both 0 and 1: give normal and anomalous rows"
        )
    normal, anomalous = torch.from_numpy(score[~truth]), torch.from_numpy(score[truth])
    area = bootstrap(auroc, normal, anomalous, resamples=200)
    alarms, caught = int(flag[~truth].sum()), int(flag[truth].sum())
    low, high = binomtest(alarms, len(normal)).proportion_ci(method="exact")
    numbers = {
        "rows": len(score),
        "anomalous": len(anomalous),
        "auroc": list(area),
        "average_precision": float(average_precision(normal, anomalous)),
        "false_alarms": alarms,
        "false_alarm_rate": [float(low), alarms / len(normal), float(high)],
        "found": caught,
    }
    show_settings(
        {
            "rows": f"{len(score):,}, of which {len(anomalous):,} are anomalous",
            "AUROC": f"{area.value:.3f} [{area.low:.3f}, {area.high:.3f}]",
            "average precision": f"{numbers['average_precision']:.3f}",
            "false alarms": f"{alarms:,} of {len(normal):,} normal rows, {alarms / len(normal):.1%}; the true rate "
            f"lies in {low:.1%} to {high:.1%} (95 %)",
            "found": f"{caught:,} of {len(anomalous):,} anomalies",
        }
    )
    if output is not None:
        with replacing(output) as path:
            path.write_text(json.dumps(numbers, indent=2) + "\n", encoding="utf-8")
        print(f"all numbers: {output}")
    return 0


def _opened(path: Path) -> Table:
    from eqm.data.tables import read_table

    table = read_table(path)
    for note in table.notes:
        print(note)
    return table


def _loaded(folder: Path) -> tuple[EqmOutlierDetector, Encoding]:
    from eqm.tasks import EqmOutlierDetector
    from eqm.tasks.encoding import Encoding

    return EqmOutlierDetector.load(folder), Encoding.load(folder)


def _chunks(table: Table, text: Sequence[str]) -> Iterator[tuple[int, dict[str, np.ndarray]]]:
    """Parts of a table, each with the number of its first row. Raises ValueError for one without rows."""
    first = 1
    for chunk in table.chunks(text=text):
        yield first, chunk
        first += len(chunk[table.names[0]])
    if first == 1:
        raise ValueError(f"{table.path} has no rows: give a table with some")


def _sample(
    table: Table, text: Sequence[str], label: str | None, seed: int
) -> tuple[int, dict[str, np.ndarray], int]:
    """The number of rows; the columns of a random choice of the normal ones, as many as are learnt; and the
    number of anomalous ones."""
    import numpy as np

    from eqm.tasks.tables import LEARNT

    random = np.random.default_rng(seed)
    count = anomalous = 0
    keys, kept = np.zeros(0), dict[str, np.ndarray]()
    for number, chunk in _chunks(table, text):
        length = len(chunk[table.names[0]])
        count += length
        usable = np.ones(length, dtype=bool)
        if label is not None:
            usable = ~_truth(chunk[label], label, number)
            anomalous += int((~usable).sum())
        drawn = np.where(usable, random.random(length), np.inf)
        keys = np.concatenate([keys, drawn])
        order = np.sort(np.argsort(keys, kind="stable")[:LEARNT])
        order = order[keys[order] < np.inf]
        keys = keys[order]
        kept = {
            name: (np.concatenate([kept[name], values]) if kept else values)[order]
            for name, values in chunk.items()
        }
    return count, kept, anomalous


def _truth(values: np.ndarray, label: str, first: int) -> np.ndarray:
    """Which rows are anomalous. Raises ValueError for other values than 0 and 1."""
    import numpy as np

    numbers = values if values.dtype != object else np.full(len(values), np.nan)
    wrong = ~np.isin(numbers, [0, 1])
    if wrong.any():
        place = int(wrong.argmax())
        raise ValueError(
            f"column {printable(label)!r} must hold 0 (normal) and 1 (anomalous); row {first + place:,} has "
            f"{printable(values[place])}: replace it"
        )
    return numbers == 1


def _check_columns(columns: dict[str, np.ndarray], named: set[str], table: Table) -> None:
    """Raises ValueError for a column that is not `named` and looks like a label or the number of a row."""
    import numpy as np

    for name, values in columns.items():
        if name in named or not len(values):
            continue
        lower, shown = name.lower(), printable(name)
        different = len(set(values.tolist()))
        if lower in LABELS and different <= 2:
            raise ValueError(
                f"column {shown!r} of {table.path} looks like a label: choose --label {shown} to learn the rows "
                f"with 0 only, --ignore {shown}, or --keep {shown} if it is a measurement"
            )
        steps = np.diff(values) if values.dtype != object else np.zeros(0)
        counts = len(steps) > 2 and bool((steps >= 1).all() and (steps % 1 == 0).all())
        unlike = different == len(values) > 3
        if counts or (unlike and (lower in IDS or lower.endswith("_id") or values.dtype == object)):
            what = (
                "the number or the name of a row"
                if values.dtype == object
                else "the number of a row"
            )
            raise ValueError(
                f"column {shown!r} of {table.path} looks like {what}: choose --ignore {shown}, or --keep {shown} "
                "if it is a measurement"
            )


def _verdicts(
    detector: EqmOutlierDetector, rows: np.ndarray, scores: np.ndarray, fpr: float | None
) -> np.ndarray:
    if fpr is None:
        return scores > -detector.offset_
    return detector.p_values(rows) <= fpr


Row = tuple[float, int, float, bool, str]
"""Score, minus the number of the row, p-value, verdict and odd columns."""


def _scored(
    detector: EqmOutlierDetector, encoding: Encoding, table: Table, fpr: float | None
) -> Iterator[Row]:
    names = [column.name for column in encoding.columns]
    for first, chunk in _chunks(table, encoding.words):
        rows = encoding.rows(chunk, first)
        scores = -detector.score_samples(rows)
        p_values = detector.detector_.p_values_of(_tensor(scores)).numpy()
        flags = scores > -detector.offset_ if fpr is None else p_values <= fpr
        shares = encoding.by_column(detector.attributions(rows[flags])) if flags.any() else None
        anomalous = iter(() if shares is None else shares)
        for k, (score, p_value, flag) in enumerate(zip(scores, p_values, flags, strict=True)):
            odd = _odd(names, next(anomalous)) if flag else ""
            yield float(score), -(first + k), float(p_value), bool(flag), odd


def _tensor(values: np.ndarray) -> Any:
    import torch

    return torch.from_numpy(values)


def _odd(names: Sequence[str], shares: np.ndarray) -> str:
    """The three columns that are most odd, most odd first, and how many times as far off as usual they are."""
    order = shares.argsort()[::-1][:3]
    return ", ".join(f"{names[k]} ({shares[k] ** 0.5:.1f})" for k in order if shares[k] >= ODD)


def _kept(found: Iterator[Row], writer: Any = None) -> tuple[int, int, list[Row]]:
    """The number of rows, of anomalous ones, and the SHOWN most anomalous; `writer` writes all."""
    count = anomalous = 0
    worst: list[Row] = []
    for each in found:
        score, row, p_value, flag, odd = each
        count, anomalous = count + 1, anomalous + flag
        if writer is not None:
            writer.writerow((-row, f"{score:.4f}", f"{p_value:.6g}", flag, odd))
        if len(worst) < SHOWN:
            heapq.heappush(worst, each)
        else:
            heapq.heappushpop(worst, each)
    return count, anomalous, sorted(worst, reverse=True)


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(printable(name) for name in names[:10])
    return f"{shown} and {len(names) - 10} more" if len(names) > 10 else shown
