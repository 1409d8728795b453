"""`eqm tune`: the best sampling settings of a model, found by trying and stored with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from eqm.cli import options
from eqm.registry import register

if TYPE_CHECKING:
    from torch import Tensor

    from eqm.data import Source
    from eqm.tasks.tuning import Features


@register("command", "tune")
def tune(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    data: Annotated[
        str | None, tyro.conf.arg(help_behavior_hint="(default: the training data)")
    ] = None,
    samples: options.Number = 512,
    nfe: options.Number = 20,
    tolerance: float = 0.03,
    keep_rule: bool = False,
    references: options.Number = 5000,
    features: str = "auto",
    precision: options.Precision = "auto",
    batch_size: options.BatchSize = 256,
    seed: options.AnySeed = 0,
    device: options.Device = "auto",
    dry_run: bool = False,
    reading: options.ClassReadingOptions = options.AS_FOUND_WITH_CLASSES,
) -> None:
    """Find the best sampling settings of a model and store them with it.

    Example: `eqm tune runs/mine --nfe 10`

    It tries rules, step sizes, path lengths and stops, and measures how close the samples are to the
    data. Of settings that are equally close, the cheapest wins. The old settings are kept in config.json.
    Nothing changes if no settings are better.

    Args:
        model: Folder of a trained model.
        data: Real data to compare with, as for `eqm train --data.path`.
        samples: Samples drawn for each trial; the first round draws a quarter of them.
        nfe: Largest number of function evaluations (NFE) for a sample.
        tolerance: Distances that differ by less than this share count as equal.
        keep_rule: Keep the rule and its settings, and only fit a few steps from noise. This is quick.
        references: Largest number of real data to compare with.
        features: Features of the distance: `random`, two random convolutions, or a name as for
            `eqm eval --features`. auto takes the classifier of the data if one comes with eqm.
        seed: Seed of the noise and of the choice of real data.
        dry_run: Only print what would be stored.
    """
    from dataclasses import asdict, replace
    from functools import partial

    import torch

    from eqm.checks import check_count
    from eqm.data import DataConfig, open_source
    from eqm.devices import pick_device
    from eqm.files import printable
    from eqm.models import for_inference, from_pretrained
    from eqm.models.pretrained import store_metadata
    from eqm.randomness import SampleRandom
    from eqm.registry import names
    from eqm.sampling import Sampling
    from eqm.sampling.start import check_seeds
    from eqm.tasks import tune as tune_model

    check_count(references=references)
    check_seeds([seed])
    if not model.is_dir():
        raise ValueError(f"eqm tune needs the folder of a model, to store settings in; got {model}")
    network = from_pretrained(model, device=pick_device(device))
    config = DataConfig.of(network.metadata)
    if data:
        config = replace(config or DataConfig(), path=data)
    if config is None:
        raise ValueError("the training data of the model are not known: give --data")
    if not data and config.path not in names("source"):
        raise ValueError(
            f"the model names the data {printable(config.path)}, which is not opened unasked: give --data with "
            "that path, or other data"
        )
    source = open_source(reading.applied(config))
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(seed))
    rows = order[:references]
    pictures = source.batch(rows, SampleRandom(seed, rows))
    seen_by, eyes = _eyes(features, source, pictures, network.metadata)
    print(f"features: {seen_by}")
    found = tune_model(
        for_inference(network, precision=precision),
        pictures,
        None if source.labels is None else source.labels[rows],
        samples=samples,
        nfe=nfe,
        tolerance=tolerance,
        keep_rule=keep_rule,
        seed=seed,
        batch_size=batch_size,
        features=eyes,
        on_trial=partial(print, flush=True),
    )
    print(f"\n{found}")
    if dry_run or not found.improved:
        return
    stored = asdict(Sampling.of(network.metadata))
    record = {
        "before": [*(network.metadata.get("tuning") or {}).get("before", []), stored],
        "reference": f"{len(rows)} of {source.name} ({source.fingerprint})",
        "samples": samples,
        "features": seen_by,
        "distance": found.after.distance,
        "distance_before": found.before.distance,
        "nfe": found.after.nfe,
        "nfe_before": found.before.nfe,
    }
    store_metadata(model, {"sampling": asdict(found.sampling), "tuning": record})
    print(
        f"stored in {model}; the old settings are in its config.json under metadata.tuning.before"
    )


def _eyes(
    name: str, source: Source, pictures: Tensor, metadata: dict[str, Any]
) -> tuple[str, Features | None]:
    """The name of the features, and the function that computes them; None for random features."""
    from eqm.evaluation import suitable_features
    from eqm.features import open_features

    latents = len(source.shape) != 3 or (metadata.get("data") or {}).get("encoder")
    if name == "auto":
        name = "random" if latents else suitable_features(source)[0]
        name = name if name.startswith("classifier:") else "random"
    if name == "random":
        return name, None
    if latents:
        raise ValueError(f"features {name} need pictures; this model makes latents: take random")
    eyes = open_features(name, reference=[pictures])
    return eyes.name, lambda images: eyes(images.clamp(-1, 1)).vector
