"""Trackers that others wrote: tensorboard, wandb, trackio. All work without a network."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from eqm.monitor.callbacks import Tracker
from eqm.train.config import TrainConfig


def open_tracker(name: str, folder: Path | str, config: TrainConfig) -> Tracker:
    """The tracker of that name for a run in `folder`; nothing is written before it starts.

    Raises ValueError for a name that is none, and when its package is not installed.
    """
    if name not in TRACKERS:
        raise ValueError(f"a tracker is one of {', '.join(TRACKERS)}; got {name!r}")
    module, make = TRACKERS[name]
    try:
        found = import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the tracker {name} needs a package that is missing ({error}): pip install 'eqm[{name}]'"
        ) from error
    return make(found, Path(folder), config)


class Tensorboard:
    """Event files in the run's folder: `tensorboard --logdir runs` shows them. No TensorFlow."""

    def __init__(self, module: Any, folder: Path, config: TrainConfig) -> None:
        self.module, self.folder, self.config = module, folder / "tensorboard", config
        self.writer: Any = None

    def start(self, images: int) -> None:
        """Goes on from here; what the files hold of later positions is not shown."""
        self.finish()
        self.writer = self.module.SummaryWriter(str(self.folder), purge_step=images + 1)
        settings = json.dumps(self.config.flat(), indent=2)
        self.writer.add_text("settings", f"```\n{settings}\n```", images + 1)

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Takes the numbers; what looks at the samples is written at once."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, images)
        self.writer.flush()

    def picture(self, name: str, path: Path, images: int) -> None:
        """Takes the picture."""
        import numpy as np
        from PIL import Image

        with Image.open(path) as picture:
            pixels = np.asarray(picture.convert("RGB"))
        self.writer.add_image(name, pixels, images, dataformats="HWC")
        self.writer.flush()

    def finish(self) -> None:
        """Closes the file."""
        if self.writer is not None:
            self.writer.close()
            self.writer = None


class Experiments:
    """What wandb and trackio share: a run with settings, and numbers logged into it.

    A run that goes on becomes a new part of the same group, or of the same name. `images` is logged
    with every line, and is what to plot against.
    """

    def __init__(self, module: Any, folder: Path, config: TrainConfig) -> None:
        self.module, self.folder, self.config = module, folder, config
        self.run: Any = None

    def open(self) -> Any:
        """The run, once begun."""
        raise NotImplementedError

    def start(self, images: int) -> None:
        """Goes on from here, in a part of its own: lines that were written stay in theirs."""
        self.finish()
        self.run = self.open()

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Takes the numbers."""
        self.run.log({"images": images, **numbers})

    def picture(self, name: str, path: Path, images: int) -> None:
        """Takes the picture."""
        picture = self.module.Image(str(path), caption=f"{images:,} images")
        self.run.log({"images": images, name: picture})

    def finish(self) -> None:
        """Ends the part."""
        if self.run is not None:
            self.run.finish()
            self.run = None


class Wandb(Experiments):
    """Weights & Biases, offline unless told otherwise.

    Without a key and without WANDB_MODE the run stays in the folder; `wandb sync` sends it later.
    """

    def open(self) -> Any:
        mode = os.environ.get("WANDB_MODE") or ("online" if self.module.api.api_key else "offline")
        run = self.module.init(
            project="eqm",
            group=self.config.name,
            dir=str(self.folder),
            config=self.config.flat(),
            mode=mode,
        )
        run.define_metric("*", step_metric="images")
        return run


class Trackio(Experiments):
    """Trackio, kept on this machine: `trackio show` opens it."""

    def open(self) -> Any:
        return self.module.init(project="eqm", group=self.config.name, config=self.config.flat())


TRACKERS: dict[str, tuple[str, Any]] = {
    "tensorboard": ("torch.utils.tensorboard", Tensorboard),
    "wandb": ("wandb", Wandb),
    "trackio": ("trackio", Trackio),
}
"""The module that each needs, and what it is here."""
