"""The photographs that `eqm detect fit`, `run` and `eval` are given, of any size."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from eqm.cli.images import files_of, names_apart, picked, rows_of
from eqm.cli.options import AS_FOUND, Reading

if TYPE_CHECKING:
    import numpy as np

    from eqm.data import DataConfig
    from eqm.data.picture_files import PictureFiles
    from eqm.inspection.photographs import Photographs


def open_photographs(
    paths: Sequence[str],
    *,
    reading: Reading = AS_FOUND,
    span: Sequence[float] = (),
    split: str = "",
    broken: Literal["skip", "fail"] = "skip",
) -> Photographs:
    """The photographs at `paths`: files, folders, archives, patterns, arrays or data sets by name.

    Only headers are read. `span` are black and white of grey pictures of more than 8 bits where `reading` names
    none, `split` is the part of a data set where it names none. Raises ValueError where there are none."""
    from eqm.data import DataConfig
    from eqm.data.open_source import applicable, opens_arrays
    from eqm.inspection.photographs import Photographs

    names: list[str] = []
    decoders: list[Callable[[], np.ndarray]] = []
    headers: dict[int, tuple[int, int, int]] = {}
    unreadable: dict[int, str] = {}
    threads = 1
    for path in _unfolded(paths):
        where, wanted = picked(path)
        usual = DataConfig(where, labels=False, range=tuple(span))
        config = reading.applied(replace(usual, split=split) if split else usual)
        config = applicable(config)
        threads = config.threads
        if opens_arrays(config):
            named, more, shape = _of_arrays(config, wanted)
            headers |= {len(names) + k: shape for k in range(len(named))}
        else:
            files = files_of(config)
            rows = rows_of(where, wanted, len(files.names)).tolist()
            named, more = [files.names[row] for row in rows], _of_files(files, rows, config)
            found, failed = _headers(files, rows, config)
            headers |= {len(names) + k: shape for k, shape in found.items()}
            unreadable |= {len(names) + k: why for k, why in failed.items()}
            if named != [where]:
                named = [f"{where.rstrip('/')}/{name}" for name in named]
        names += named
        decoders += more
    return Photographs(names_apart(names), decoders, headers, threads, unreadable, broken)


def _unfolded(paths: Sequence[str]) -> Iterator[str]:
    """The paths, with the pictures in place of a pattern such as `parts/*.png`."""
    from eqm.data.decoding import is_picture
    from eqm.data.patterns import expanded

    for path in map(str, paths):
        if set(path) & set("*?[{") and is_picture(path) and not Path(path).exists():
            yield from map(str, expanded(path))
        else:
            yield path


def _of_files(
    files: PictureFiles, rows: Sequence[int], config: DataConfig
) -> list[Callable[[], np.ndarray]]:
    return [partial(_decoded, files, row, config.range) for row in rows]


def _decoded(files: PictureFiles, row: int, span: Sequence[float]) -> np.ndarray:
    from eqm.data.decoding import decode, header

    with files.open(row) as file:
        channels = header(file, span).channels
    with files.open(row) as file:
        return decode(file, 1 if channels == 1 else 3, 0, span)


def _headers(
    files: PictureFiles, rows: Sequence[int], config: DataConfig
) -> tuple[dict[int, tuple[int, int, int]], dict[int, str]]:
    """Channels, height and width of the pictures, and why others cannot be read, by their place in `rows`."""
    from eqm.data.pictures import look, remarks
    from eqm.data.source import say

    found, broken = look(files, config, rows)
    say([*files.notes, *remarks(files, found, config.range)])
    places = {row: k for k, row in enumerate(rows)}
    shapes = {
        places[row]: (1 if head.channels == 1 else 3, head.height, head.width)
        for row, head in found.items()
    }
    return shapes, {places[row]: why for row, why in broken.items()}


def _of_arrays(
    config: DataConfig, wanted: tuple[int, int] | None
) -> tuple[list[str], list[Callable[[], np.ndarray]], tuple[int, int, int]]:
    from eqm.data.open_source import open_source

    source = open_source(config, small=True)
    if len(source.shape) != 3 or source.shape[0] not in (1, 3, 4):
        raise ValueError(
            f"{config.path} must hold pictures of 1, 3 or 4 channels; it holds samples of shape "
            f"{tuple(source.shape)}: give pictures"
        )
    rows = rows_of(config.path, wanted, len(source)).tolist()
    channels, height, width = source.shape
    decoders: list[Callable[[], np.ndarray]] = [partial(_element, source, row) for row in rows]
    shape = (1 if channels == 1 else 3, height, width)
    return [f"{config.path}:{row}" for row in rows], decoders, shape


def _element(source: Any, row: int) -> np.ndarray:
    import torch

    from eqm.randomness import SampleRandom

    one = torch.tensor([row])
    image = source.batch(one, SampleRandom(0, one))[0]
    pixels: np.ndarray = ((image[:3] + 1) * 127.5).numpy()
    return pixels
