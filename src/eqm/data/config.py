"""The settings of a data set; imports no torch."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, Literal

from msgspec import Meta

from eqm.schema import Finite, Fraction, check_fields, convert

LAYOUTS = ("HW", "CHW", "HNW", "CHNW", "CLN", "CN", "HNTW", "CHNTW")
"""The axes of pictures, signals, points, and videos or volumes, each sorted by letter."""


@dataclass(frozen=True)
class DataConfig:
    """What to train on."""

    path: str = "digits"
    """A registered data set such as `digits`, `mnist-5k`, `fashion-mnist`, `openmoji-32`, `elpv` or
    `moons`; a folder, zip or tar of pictures; an .npz, .npy, IDX or parquet file; a folder that
    `datasets` saved; or `hf:OWNER/NAME` on the Hugging Face hub."""
    split: str = "train"
    """The part to read where data are divided into folders or files such as train, test and val; `all` reads
    everything, and takes no folder for a part."""
    val_fraction: Fraction = 0.2
    """Fraction of each class kept for validation; training never sees it."""
    size: Annotated[int, Meta(ge=-1, le=2**16)] = 0
    """Side of the square to crop and resize pictures to; 0 keeps their size, -1 chooses one that
    suits them (recipe `folder` only)."""
    channels: int = 0
    """Channels to convert pictures to: 1 (grey), 3 (colour, on white) or 4 (colour and opacity); 0
    keeps theirs, -1 chooses grey or colour (recipe `folder` only)."""
    length: Annotated[int, Meta(ge=0, le=2**24)] = 0
    """Samples of each sound: longer ones are cut at their end, shorter ones end in silence. 0 keeps their
    length, if all have the same. For time series: steps in a window."""
    sound: Literal["waveform", "log-mel"] = "waveform"
    """What a model of sounds learns: the samples of the waveform, or the logarithm of the loudness in 64 bands of
    frequency for each 16 ms or so, from which `eqm sample` makes sound again."""
    stride: Annotated[int, Meta(ge=1, le=2**24)] = 1
    """Steps from one window of a time series to the next."""
    time: str = ""
    """The column of times in a table of time series. Without it, each row is one step after the row before."""
    columns: tuple[str, ...] = ()
    """The columns of a table that are the channels of a time series; default: all of numbers."""
    series: str = ""
    """The column that names the series of each row, where a table holds several."""
    layout: str = ""
    """Order of the axes of an array, by the letters N (pictures), H, W and C, such as NHWC, NCHW, HWN or HW;
    NCL for signals, NC for points, NCTHW for videos and volumes (T: frames or slices). By default it is
    found, and refused if it is not certain."""
    range: tuple[Finite, ...] = ()
    """The values of black and white in an array, or in grey pictures of more than 8 bits, such as 0 4095 for
    12 bits that are stored as 16. By default those of the data of the model, where one is used, or those of the file's
    type; refused if they are not certain."""
    features: str = ""
    """Learn the feature maps of a frozen network in place of pixels: lite0, lite0:SIDE or dinov2:FOLDER. Such a
    model detects anomalies; it cannot make pictures. They are computed once, so nothing is mirrored."""
    standardise: bool = False
    """Give each column of points the mean 0 and the standard deviation 1; both are stored with the weights."""
    flip: bool = False
    """Mirror half of the pictures left to right, at random each time."""
    labels: bool = True
    """Use the classes, if there are any."""
    labels_from: str = ""
    """Where the classes are, if they may be in several places: `folders`, `names` (the name without its number,
    as cat in cat_12.png), a file such as labels.csv or labels.csv:COLUMN, an ending such as cls or json:KEY
    (files beside each picture), or the column of a table."""
    captions: str = ""
    """Where the sentences of pictures are, to train a model that takes prompts: `auto` finds them; an ending
    such as txt or json:KEY (files beside each picture), a table such as metadata.csv:COLUMN, or the column of a
    table. Empty: they are not read. The classes are not read then, unless data.classes asks for some."""
    classes: tuple[str, ...] = ()
    """Use only these classes, by name or number; default: all."""
    broken: Literal["skip", "fail"] = "skip"
    """What to do with a picture that cannot be read: `skip` warns and takes the next of its class;
    `fail` ends the run."""
    outside: bool = False
    """Read files outside the data set too, where a table or a link in it leads to them."""
    workers: Annotated[int, Meta(ge=0, le=1024)] = 0
    """Threads that decode pictures; 0 means one for each processor core, at most 16."""
    cache_mb: Annotated[int, Meta(ge=0, le=2**30)] = 1024
    """MiB of memory for decoded 8-bit pictures, used if all of them fit; 0 decodes each time."""

    def __post_init__(self) -> None:
        check_fields(self, prefix="data.")
        if self.channels not in (-1, 0, 1, 3, 4):
            raise ValueError(
                f"data.channels must be 1, 3, 4, 0 (keep) or -1 (choose); got {self.channels}"
            )
        if self.captions and (not self.labels or self.labels_from):
            raise ValueError(
                "data.captions takes the place of classes: leave data.labels and data.labels_from out"
            )
        if self.layout and "".join(sorted(self.layout.upper())) not in LAYOUTS:
            raise ValueError(
                "data.layout must name each axis once: HW, with N or C or both, NCL, NC, or NTHW with or without C, "
                "in any order; "
                f"got {self.layout!r}"
            )
        black_white = len(self.range) == 2 and self.range[0] != self.range[1]
        if self.range and not black_white:
            raise ValueError(
                f"data.range must be two different numbers, black and white; got {self.range}"
            )

    @property
    def threads(self) -> int:
        """Threads that decode pictures."""
        return self.workers or min(os.cpu_count() or 1, 16)

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> DataConfig | None:
        """The data that a model was trained on, not mirrored; None where its metadata do not say.

        A model cannot allow reading outside the data set."""
        training = metadata.get("training") or {}
        stored = {each.name: training.get(f"data.{each.name}") for each in fields(cls)}
        known = {name: value for name, value in stored.items() if value is not None}
        if "path" not in known:
            return None
        known |= {"flip": False, "outside": False, "features": ""}
        config: DataConfig = convert(known, cls, "the model's metadata: ")
        return config
