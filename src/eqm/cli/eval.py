"""`eqm eval`: how good samples are, every number with its protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress
    from torch import Tensor

    from eqm.data import Source
    from eqm.evaluation import Batch, Samples


def eval_(
    samples: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SAMPLES")],
    reference: str | None = None,
    compare: str | None = None,
    features: tuple[str, ...] = (),
    metrics: tuple[str, ...] = (),
    training: str | None = None,
    output: tuple[Path, ...] = (),
    save_reference: Path | None = None,
    count: int | None = None,
    seed: int = 0,
    rule: str | None = None,
    step_size: float | None = None,
    momentum: float | None = None,
    path_length: float | None = None,
    gradient_ratio: float | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
    vae: str | None = None,
    size: int = 0,
    channels: int = 0,
    max_rows: int = 50_000,
    batch_size: int = 256,
    device: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
) -> None:
    """Measure samples against real images: Frechet and kernel distances, precision, recall and more.

    Images are drawn or read a batch at a time, and none is written. Under torchrun the processes
    share the work: `torchrun --nproc-per-node 8 -m eqm.cli.main eval ...`.

    Args:
        samples: A trained model (folder, name, or name on the hub) to draw from; or a folder of pictures,
            an .npz of images (`arr_0`, uint8, as ADM has them), a data set by name.
        reference: What to compare with: a data set by name, a folder, an .npz of images or of `mu` and
            `sigma`; by default the data set that the model was trained on.
        compare: Other samples, to be told the difference to, sample by sample.
        features: What sees the images: inception:PATH, dinov2:FOLDER, clip:FOLDER, lite0, pca:N, pixels,
            classifier:NAME; by default what suits them.
        metrics: Which to measure; by default all that can be.
        training: The images that were trained on, to look for copies of; by default those of the
            model, `none` for none.
        output: Files for the result, .json or .md, and of a comparison .png for a plot.
        save_reference: Keep the statistics of the reference in this .safetensors, to be a --reference.
        count: How many samples to draw, 1000 by default, or to take of those there are.
        seed: Of the noise, subsets and resampling.
        rule: How to move; this and what follows for models, where they are as stored by default.
        step_size: Size of a step.
        momentum: How far the look-ahead looks.
        path_length: Stop a sample after this path.
        gradient_ratio: Stop a sample earlier once its gradient is this much of its first one.
        guidance: Classifier-free guidance scale; 1 is none.
        guidance_interval: Guide a sample only while the path it has covered is between these two.
        vae: What decodes the latents of a model of latents.
        size: Crop and resize pictures of files to squares of this side; 0 takes them as they are.
        channels: Turn pictures of files into 1 (grey) or 3 (colour) channels; 0 takes them as they are.
        keep: The most rows of features kept of each set, for all but the distances of moments.
        batch_size: Images at a time.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
        precision: Of the network that is drawn from; auto is bfloat16 on CUDA, else that of its weights.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eqm.data import DataConfig
    from eqm.evaluation import (
        Settings,
        Statistics,
        evaluate_each,
        open_reference,
        open_samples,
        require_suffix,
        save_statistics,
        suitable_features,
        write,
    )
    from eqm.evaluation import compare as difference
    from eqm.features import open_features
    from eqm.files import make_folder
    from eqm.train import distributed

    for path in output:
        require_suffix(path, plot=compare is not None)
    if save_reference is not None and (
        save_reference.suffix != ".safetensors" or len(features) > 1
    ):
        raise ValueError("--save-reference keeps one kind of features in a .safetensors")
    for path in (*output, *filter(None, [save_reference])):
        if path.is_dir():
            raise ValueError(f"output must be a file; {path} is a folder: choose another name")
        make_folder(path.parent)
    settings = Settings(metrics=metrics, max_rows=max_rows, batch_size=batch_size, seed=seed)
    place = distributed.join(device)
    config = DataConfig(size=size, channels=channels)
    console = Console(stderr=True, quiet=not distributed.is_main())
    try:
        several = [
            open_samples(
                name,
                count=count,
                seed=seed,
                sampling={
                    "rule": rule,
                    "step_size": step_size,
                    "momentum": momentum,
                    "path_length": path_length,
                    "gradient_ratio": gradient_ratio,
                    "guidance": guidance,
                    "guidance_interval": guidance_interval,
                },
                vae=vae,
                precision=precision,
                device=place,
                config=config,
            )
            for name in (samples, compare)
            if name is not None
        ]
        against, learnt = open_reference(reference, several[0], training=training, config=config)
        if not features:
            name, why = suitable_features(several[0], against)
            said = f"features: {name} ({why}); --features takes others"
            console.print(said, highlight=False, soft_wrap=True)
            features = (name,)
        eyes = [
            open_features(
                name,
                device=place,
                reference=None if isinstance(against, Statistics) else _pictures(against),
            )
            for name in features
        ]
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            reports = evaluate_each(
                *(several, against, eyes),
                training=learnt,
                settings=settings,
                track=lambda images: _shown(images, bar),
            )
        found = reports[0] if len(reports) == 1 else difference(*reports, seed=seed)
        if distributed.is_main():
            Console().print(found)
            for path in output:
                write(found, path)
            if save_reference is not None:
                save_statistics(save_reference, reports[0].reference[0])
    finally:
        distributed.leave()


def _pictures(source: Source) -> Iterator[Tensor]:
    """All that a source holds, on every process: what is fitted to them must be the same on each."""
    from torch import arange

    from eqm.randomness import SampleRandom

    return (source.batch(rows, SampleRandom(0, rows)) for rows in arange(len(source)).split(256))


def _shown(samples: Samples, bar: Progress) -> Samples:
    """The same, and a bar that tells how many have come."""

    def batches(size: int) -> Iterator[Batch]:
        task = bar.add_task(samples.sample_set.name, total=len(samples))
        for batch in samples.batches(size):
            yield batch
            bar.advance(task, len(batch.numbers))

    return replace(samples, batches=batches)
