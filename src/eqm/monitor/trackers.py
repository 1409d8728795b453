"""Experiment trackers: tensorboard, wandb and trackio. All work offline."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from eqm.train.config import TrainConfig


class Tracker:
    """A receiver of the numbers of a run; these methods do nothing.

    If a tracker raises, the error is reported and training goes on.
    """

    def start(self, images: int) -> None:
        """The run continues from here; numbers of later positions are void."""

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Receives the numbers of one position. Positions rise until the next `start`."""

    def picture(self, name: str, path: Path, images: int) -> None:
        """Receives a PNG file, after `log` for the same position."""

    def finish(self) -> None:
        """The run ends. Called once, even if it never started."""


def open_tracker(name: str, folder: Path | str, config: TrainConfig) -> Tracker:
    """The tracker of that name for a run in `folder`; it writes nothing before it starts.

    Raises ValueError for an unknown name, and if its package is not installed.
    """
    if name not in TRACKERS:
        raise ValueError(f"the tracker must be one of {', '.join(TRACKERS)}; got {name!r}")
    module, make = TRACKERS[name]
    try:
        found = import_module(module)
    except ImportError as error:
        raise ValueError(
            f"the tracker {name} needs a package that is missing ({error}): pip install 'eqm[{name}]'"
        ) from error
    return make(found, Path(folder), config)


class Tensorboard(Tracker):
    """Event files in the run's folder; `tensorboard --logdir runs` shows them, without TensorFlow."""

    def __init__(self, module: Any, folder: Path, config: TrainConfig) -> None:
        self.module, self.folder, self.config = module, folder / "tensorboard", config
        self.writer: Any = None

    def start(self, images: int) -> None:
        """Continues from here; later positions in the files are hidden."""
        self.finish()
        self.writer = self.module.SummaryWriter(str(self.folder), purge_step=images + 1)
        settings = json.dumps(self.config.flat(), indent=2)
        self.writer.add_text("settings", f"```\n{settings}\n```", images + 1)

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Writes the numbers at once."""
        for name, value in numbers.items():
            self.writer.add_scalar(name, value, images)
        self.writer.flush()

    def picture(self, name: str, path: Path, images: int) -> None:
        """Logs the picture."""
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


class Trackio(Tracker):
    """Trackio, on this machine; `trackio show` opens it.

    A resumed run becomes a new run in the same group. Plot the numbers against `images`.
    """

    def __init__(self, module: Any, folder: Path, config: TrainConfig) -> None:
        self.module, self.folder, self.config = module, folder, config
        self.run: Any = None

    def open(self) -> Any:
        """A new run."""
        return self.module.init(project="eqm", group=self.config.name, config=self.config.flat())

    def start(self, images: int) -> None:
        """Continues from here in a new run; the lines of the old run stay."""
        self.finish()
        self.run = self.open()

    def log(self, numbers: Mapping[str, float], images: int) -> None:
        """Logs the numbers."""
        self.run.log({"images": images, **numbers})

    def picture(self, name: str, path: Path, images: int) -> None:
        """Logs the picture."""
        picture = self.module.Image(str(path), caption=f"{images:,} images")
        self.run.log({"images": images, name: picture})

    def finish(self) -> None:
        """Ends the run."""
        if self.run is not None:
            self.run.finish()
            self.run = None


class Wandb(Trackio):
    """Weights & Biases, which has the same functions as Trackio.

    Without a key and without WANDB_MODE it is offline: `wandb sync` uploads the run later.
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


TRACKERS: dict[str, tuple[str, Any]] = {
    "tensorboard": ("torch.utils.tensorboard", Tensorboard),
    "wandb": ("wandb", Wandb),
    "trackio": ("trackio", Trackio),
}
"""The package that each tracker needs, and its class."""
