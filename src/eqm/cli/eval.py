"""`eqm eval`: how good samples are, each number with its protocol."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.cli.options import STORED
from eqm.files import printable
from eqm.registry import register

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.progress import Progress
    from torch import Tensor

    from eqm.data import Source
    from eqm.evaluation import Batch, Samples


@register("command", "eval")
def eval_(
    samples: Annotated[Positional[str], arg(metavar="SAMPLES")],
    reference: Annotated[
        str | None, arg(help_behavior_hint="(default: the training data of the model)")
    ] = None,
    compare: str | None = None,
    features: Annotated[
        tuple[str, ...],
        arg(metavar="NAME ...", help_behavior_hint="(default: what suits the images)"),
    ] = (),
    metrics: Annotated[
        tuple[str, ...], arg(metavar="NAME ...", help_behavior_hint="(default: all that apply)")
    ] = (),
    training: Annotated[
        str | None, arg(help_behavior_hint="(default: the training data of the model)")
    ] = None,
    output: Annotated[tuple[Path, ...], arg(metavar="FILE ...")] = (),
    save_reference: Path | None = None,
    count: Annotated[
        options.Number | None, arg(help_behavior_hint="(default: 1000 of a model, else all)")
    ] = None,
    seed: options.AnySeed = 0,
    size: int = 0,
    channels: int = 0,
    max_rows: options.Number = 50_000,
    broken: options.Broken = "skip",
    vae: options.Vae = None,
    batch_size: options.BatchSize = 256,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
    sampling: options.SamplingOptions = STORED,
    reading: options.ClassReadingOptions = options.AS_FOUND_WITH_CLASSES,
) -> int:
    """Measure how close samples are to real images, or to real sounds, series, videos or points.

    Example: `eqm eval fashion-mnist --reference fashion-mnist-test --count 5000`

    Under torchrun the processes share the work: `torchrun --nproc-per-node 8 -m eqm eval ...`.

    Args:
        samples: A model to draw from (folder or name), a folder of pictures, an .npz of images (`arr_0`,
            uint8), or a data set by name.
        reference: Real images to compare with: a data set by name, a folder, or an .npz of images or of `mu`
            and `sigma`.
        compare: Other samples. The report then shows the difference.
        features: Networks that see the images: inception:PATH, dinov2:FOLDER, clip:FOLDER, lite0, pca:N,
            pixels, classifier:NAME. Samples that are no pictures take values, pca:N, or a function of your own,
            MODULE:FUNCTION, from samples (B, ...) to a tensor (B, ...).
        metrics: Metrics to compute.
        training: Training images, to look for copies of them; `none` looks for none.
        output: Files for the result: .json, .md, and .png for a plot of a comparison.
        save_reference: Store the statistics of the reference in this .safetensors, for a later --reference.
        count: Number of samples.
        seed: Seed of the noise, the subsets and the resampling.
        size: Crop and resize picture files to squares of this side; 0 leaves them as they are.
        channels: Convert picture files to 1 (grey) or 3 (colour) channels; 0 leaves them as they are.
        max_rows: Largest number of images whose features are kept; the Frechet distance uses all.
    """
    from rich.console import Console
    from rich.progress import Progress

    from eqm.cli.output import check_apart, check_output
    from eqm.data import DataConfig
    from eqm.evaluation import (
        Settings,
        Statistics,
        evaluate_each,
        open_reference,
        open_samples,
        open_statistics,
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
        raise ValueError("--save-reference takes a .safetensors file and one kind of --features")
    for path in (*output, *filter(None, [save_reference])):
        check_output(path, (path.suffix,))
        make_folder(path.parent)
    if save_reference is not None and save_reference.exists():
        try:
            open_statistics(save_reference)
        except ValueError as error:
            raise ValueError(
                f"save_reference must not replace what is no reference; {error}: choose another name"
            ) from error
    settings = Settings(metrics=metrics, max_rows=max_rows, batch_size=batch_size, seed=seed)
    where = distributed.join(device)
    config = reading.applied(DataConfig(size=size, channels=channels, broken=broken))
    console = Console(stderr=True, quiet=not distributed.is_main())
    try:
        sample_sets = [
            open_samples(
                name,
                count=count,
                seed=seed,
                sampling=dict(sampling.changes),
                vae=vae,
                precision=precision,
                device=where,
                config=config,
                reference=reference,
            )
            for name in (samples, compare)
            if name is not None
        ]
        real, trained_on = open_reference(
            reference, sample_sets[0], training=training, config=config
        )
        own = DataConfig.of(getattr(sample_sets[0], "metadata", {}))
        read = [own.path] if own is not None and reference is None else []
        for path in output:
            check_apart(path, read)
        if not features:
            name, why = suitable_features(sample_sets[0], real)
            message = f"features: {name} ({why}); choose others by --features"
            console.print(message, markup=False, highlight=False, soft_wrap=True)
            features = (name,)
        networks = [
            open_features(
                name,
                device=where,
                reference=None if isinstance(real, Statistics) else _pictures(real),
            )
            for name in features
        ]
        with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
            reports = evaluate_each(
                *(sample_sets, real, networks),
                training=trained_on,
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
    left_out = any("unreadable" in one.sample_set.settings for one in sample_sets)
    return 1 if left_out or getattr(real, "broken", None) else 0


def _pictures(source: Source) -> Iterator[Tensor]:
    """All images of a source, on every process: features fitted to them must be the same on each."""
    from torch import arange

    from eqm.evaluation.samples import measured
    from eqm.randomness import SampleRandom

    return (
        measured(source, rows, SampleRandom(0, rows)) for rows in arange(len(source)).split(256)
    )


def _shown(samples: Samples, bar: Progress) -> Samples:
    """The same samples, with a progress bar."""

    def batches(size: int) -> Iterator[Batch]:
        from rich.markup import escape

        task = bar.add_task(escape(printable(samples.sample_set.name)), total=len(samples))
        for batch in samples.batches(size):
            yield batch
            bar.advance(task, len(batch.numbers))

    return replace(samples, batches=batches)
