"""`eqm tune`: the settings with which a trained model samples best, stored with it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import tyro

if TYPE_CHECKING:
    from torch import Tensor

    from eqm.data import Source
    from eqm.tasks.tuning import Features


def tune(
    model: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="MODEL")],
    data: str | None = None,
    samples: int = 512,
    nfe: int = 20,
    tolerance: float = 0.03,
    keep_rule: bool = False,
    references: int = 5000,
    features: str = "auto",
    precision: Literal["auto", "float32", "bfloat16"] = "auto",
    batch_size: int = 256,
    seed: int = 0,
    device: str = "auto",
    dry_run: bool = False,
) -> None:
    """Try rules, step sizes, momenta, path lengths, gradient ratios and fitted steps, and store the best.

    Best are the settings whose samples come nearest to the data, and of those that are as near, the
    cheapest. The settings before stay on record in config.json; where nothing is better, nothing is
    changed.

    Args:
        model: Folder of a trained model.
        data: The data to come near to, as for `eqm train --data.path`; by default what the model was
            trained on.
        samples: How many samples to judge settings by; the first round takes a quarter of them.
        evaluations: The most evaluations of the model a sample may take.
        tolerance: Distances that differ by less than this share count as equal.
        keep_rule: Leave the rule and its settings as they are, and only fit steps from noise: quick.
        references: The most of the data to compare with.
        features: What sees the images: `random`, two convolutions that have learned nothing, or a name
            as for `eqm eval --features`; auto takes the classifier of the data, where one comes with eqm.
        precision: Of the network; auto is bfloat16 on CUDA, else that of its weights.
        batch_size: Images at a time.
        seed: Of the noise, and of the choice of the data.
        device: cpu, cuda, mps, ...; auto takes the fastest there is.
        dry_run: Only print what would be stored.
    """
    from dataclasses import asdict, fields, replace
    from functools import partial

    import torch

    from eqm.data import DataConfig, open_source
    from eqm.descent.checks import check_count
    from eqm.devices import pick_device
    from eqm.models import for_inference, from_pretrained
    from eqm.models.pretrained import store_metadata
    from eqm.randomness import SampleRandom
    from eqm.sampling import Sampling
    from eqm.sampling.start import check_seeds
    from eqm.tasks import tune as tune_model

    check_count(references=references)
    check_seeds([seed])
    if not model.is_dir():
        raise ValueError(f"eqm tune needs the folder of a model, to store settings in; got {model}")
    network = from_pretrained(model, device=pick_device(device))
    training = network.metadata.get("training") or {}
    stored = {part.name: training.get(f"data.{part.name}") for part in fields(DataConfig)}
    known = {name: value for name, value in stored.items() if value is not None}
    if not (data or "path" in known):
        raise ValueError("the model does not say what it was trained on: give --data")
    settings = DataConfig(**known | {"classes": tuple(known.get("classes", ())), "flip": False})
    source = open_source(replace(settings, path=data) if data else settings)
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
        follow=partial(print, flush=True),
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
    print(f"stored in {model}; the settings before are kept there under metadata.tuning.before")


def _eyes(
    name: str, source: Source, pictures: Tensor, metadata: dict[str, Any]
) -> tuple[str, Features | None]:
    """The name of the features that are meant, and what they make of samples; None is random ones."""
    from eqm.evaluation import suitable_features
    from eqm.features import open_features

    latents = len(source.shape) != 3 or (metadata.get("data") or {}).get("encoder")
    if name == "auto":
        name = "random" if latents else suitable_features(source)[0]
        name = name if name.startswith("classifier:") else "random"
    if name == "random":
        return name, None
    if latents:
        raise ValueError(f"features {name} see pictures, and this model makes none: take random")
    eyes = open_features(name, reference=[pictures])
    return eyes.name, lambda images: eyes(images.clamp(-1, 1)).vector
