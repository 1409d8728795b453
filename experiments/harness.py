"""The shared part of the experiments: it trains the variants of a recipe, samples and measures them.

An experiment names its variants, measures them with `distances` or with its own functions, which `each`
runs in several processes, and passes its claims to `verdict.conclude`. Trained variants are shared.
"""

from __future__ import annotations

import json
import math
import re
import shlex
import shutil
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, Literal, NamedTuple, TypeVar

import torch
import tyro
from torch import Tensor

from eqm.corruption import Decay
from eqm.data import DataConfig, Source, open_source, split
from eqm.data.source import digest
from eqm.descent import EvenGamma, GradientDescent, NesterovLookahead, Rule, descend, integrate
from eqm.energy import Energy
from eqm.features import Classifier, embed
from eqm.files import replacing
from eqm.metrics import Moments, frechet_distance
from eqm.models import Network, from_pretrained
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.sampling import Sampling, starting_noise
from eqm.train import TrainConfig, train

T = TypeVar("T")
K = TypeVar("K", bound=Hashable)
Model = Network | Energy
Settings = Mapping[str, Any]
"""Changes of a recipe, by their names on the command line; `init_from` holds the changes of the variant to
start from, with the same seed."""

EQM: Settings = {}
"""EqM as in the paper: decay truncated at .8, multiplier 4."""
ONE: Settings = {"objective.scale": 1.0}
"""EqM with multiplier 1."""
CONSTANT: Settings = {"objective.decay": "constant", "objective.scale": 1.0}
"""Flow matching without noise conditioning: a constant decay."""
FLOW: Settings = {**CONSTANT, "model.noise_conditioning": True}
"""Noise-conditioned flow matching: the baseline."""
DOT: Settings = {"objective.energy": "dot"}
"""EqM as the gradient of an explicit energy."""


class Scale(NamedTuple):
    """A data set and the size of the measurement."""

    recipe: TrainConfig
    test: str
    """The data that samples are compared with."""
    count: int
    """Number of samples, and of real images for the floor; the other real images are the reference."""
    nfe: int
    """Evaluations of the field a sample."""


def changed(config: Any, changes: Settings) -> Any:
    """The dataclass with settings replaced by their dotted names; ValueError for an unknown name."""
    now: dict[str, Any] = {}
    for name, value in changes.items():
        head, _, rest = name.partition(".")
        if not hasattr(config, head):
            raise ValueError(f"{type(config).__name__} has no setting {head}")
        now[head] = changed(now.get(head, getattr(config, head)), {rest: value}) if rest else value
    return replace(config, **now)


SCALES = {
    "digits": Scale(replace(RECIPES["digits"], images=30_000), "digits", 898, 30),
    "fashion-mnist": Scale(
        changed(
            RECIPES["fashion-mnist"],
            {
                "objective.scale": 4.0,  # the paper's
                "optimizer.name": "adamw",
                "optimizer.learning_rate": 2e-3,
                "model.positions": False,
                "model.width": 32,
                "sampling": Sampling(guidance=1.5),
                "images": 40_000,
                "compile": "off",
            },
        ),
        *("fashion-mnist-test", 600, 30),
    ),
}
IMAGENET = "imagenet256-b-2"
"""The recipe for the paper's comparisons."""


@dataclass(frozen=True)
class Bench:
    """The options of every experiment."""

    scale: Literal["digits", "fashion-mnist", "imagenet"] = "digits"
    """The data; imagenet only prints the commands with the published settings."""
    seeds: int = 3
    """Training runs of each variant."""
    images: int = 0
    """Training images of a run; 0 takes the default of the scale."""
    output: Path = Path(__file__).parent / "results"
    """Folder for tables and plots."""
    models: Path = Path("runs/experiments")
    """Folder of trained variants, shared by the experiments."""
    processes: int = 2
    """Processes that train and sample in parallel, with one thread each."""
    nfe: int = 0
    """Evaluations of the field a sample; 0 takes the default of the scale."""
    eqm: str = ""
    """Folder or name of a model to use for EqM instead of training one a seed; then seeds change the
    noise only."""
    flow: str = ""
    """Folder of a model to take for noise-conditioned flow matching, as above."""

    @property
    def at(self) -> Scale:
        """The scale with the options applied."""
        scale = SCALES[self.scale]
        recipe = replace(scale.recipe, images=self.images or scale.recipe.images)
        return scale._replace(recipe=recipe, nfe=self.nfe or scale.nfe)

    def config(self, changes: Settings, seed: int) -> TrainConfig:
        """The recipe with some settings changed."""
        fixed = {
            "seed": seed,
            "name": "experiment",
            "threads": 1,
            "eval_every": 0,
            "keep_checkpoints": 1,
        }
        if start := changes.get("init_from"):
            changes = {**changes, "init_from": str(self.folder(start, seed))}
        return changed(self.at.recipe, {**fixed, **changes})

    def folder(self, changes: Settings, seed: int) -> Path:
        """The folder of a variant, named by a digest of its settings that are not defaults, so that a
        new setting does not change the name."""
        usual = TrainConfig().flat()
        flat = self.config(changes, seed).flat()
        special = {name: value for name, value in flat.items() if usual.get(name) != value}
        return self.models / f"{self.scale}-{digest(*sorted(special.items()))}"

    @property
    def floor(self) -> float:
        """The distance of real images."""
        return judge(self).floor

    @property
    def how(self) -> str:
        """The protocol with the NFE, in words."""
        return f"{self.protocol} NFE {self.at.nfe}."

    @property
    def protocol(self) -> str:
        """The protocol, in words."""
        scale = self.at
        return (
            f"{self.basis} Metric: Frechet distance of {scale.count} samples to {scale.test} in classifier "
            f"features, no guidance; real images have {self.floor:.3f}."
        )

    @property
    def basis(self) -> str:
        """The data, the seeds and the training, in words."""
        recipe = self.at.recipe
        given = " and ".join(name for name in (self.eqm, self.flow) if name)
        seeds = (
            f"{self.seeds} seeds of noise, for {given}."
            if given
            else f"{self.seeds} seeds; {recipe.images:,} training images a run unless a row says otherwise."
        )
        return f"{recipe.data.path}: {seeds} Cells are mean ± standard deviation over the seeds."


# Training and sampling


def model(bench: Bench, changes: Settings, seed: int) -> Model:
    """The trained variant; it is trained first if it does not exist."""
    if given := _given(bench, changes):
        return from_pretrained(given)
    config, folder = bench.config(changes, seed), bench.folder(changes, seed)
    if not (folder / "trained").exists():
        if start := changes.get("init_from"):
            model(bench, start, seed)
        for _ in train(config, parts(bench)[0], folder):
            pass
        shutil.rmtree(folder / "checkpoints")
        (folder / "trained").touch()
    return from_pretrained(folder)


def _given(bench: Bench, changes: Settings) -> str:
    """The model to use for a variant instead of training one, or an empty string."""
    return bench.eqm if changes == EQM else bench.flow if changes == FLOW else ""


@cache
def parts(bench: Bench) -> tuple[Source, Source]:
    """The training data of the variants, and validation images."""
    data = bench.at.recipe.data
    every = open_source(data)
    if data.val_fraction:
        return split(every, data.val_fraction)
    return every, open_source(DataConfig(bench.at.test))


def starts(bench: Bench, seed: int, count: int = 0) -> tuple[Tensor, Tensor]:
    """Noise (B, ...) for a seed, and labels (B,): those of `count` real images, or of all of them."""
    labels = judge(bench).labels[: count or None]
    first = 10_000 * seed
    noise = starting_noise(bench.at.recipe.model.shape, seeds=range(first, first + len(labels)))
    return noise, labels


class Sampler(NamedTuple):
    """A rule and its path; the NFE is that of the scale."""

    rule: Literal["even-gamma", "gradient-descent", "nesterov-lookahead"]
    left: float
    """Fraction of the noise that is left at the end of an ideal path of this length."""

    def __str__(self) -> str:
        return f"{self.rule} to {self.left:g}" if self.left else self.rule


SAMPLERS = (
    Sampler("even-gamma", 0.0),
    *(Sampler("gradient-descent", left) for left in (0.03, 0.01, 1e-3, 1e-4, 1e-5)),
    *(Sampler("nesterov-lookahead", left) for left in (0.03, 0.01, 1e-3, 1e-4, 1e-5)),
)
"""The candidates for a field without noise conditioning. On the ideal path d gamma / d s is c(gamma), so the
path length until the fraction `left` of the noise is left is the integral of 1 / c: this makes step sizes fair
to every decay and multiplier. A noise-conditioned field takes steps that are even in gamma."""


def path_length(decay: Decay, left: float) -> float:
    """The length s of the ideal path from noise to gamma = 1 - left, the integral of d gamma / c.

    >>> from eqm.corruption import TruncatedDecay
    >>> round(path_length(TruncatedDecay(), 0.2), 4)
    0.2
    """
    log = torch.linspace(0, -math.log(left), 10_001, dtype=torch.float64)  # of 1 / (1 - gamma)
    noise = (-log).exp()
    return torch.trapezoid(noise / decay(1 - noise), log).item()


def rule_of(sampler: Sampler, decay: Decay, steps: int) -> Rule:
    """The rule that covers the path in `steps` steps."""
    if sampler.rule == "even-gamma":
        return GradientDescent(EvenGamma(decay, steps))
    size = path_length(decay, sampler.left) / steps
    nesterov = sampler.rule == "nesterov-lookahead"
    return NesterovLookahead(size, 0.3) if nesterov else GradientDescent(size)


def samples(
    field: Model, noise: Tensor, labels: Tensor, decay: Decay, sampler: Sampler, steps: int
) -> Tensor:
    """The samples that noise (B, ...) becomes after `steps` steps, clipped to the range of images."""
    ends = []
    for x, some in zip(noise.split(250), labels.split(250), strict=True):
        if field.config.noise_conditioning:
            end = integrate(field, x, some, steps=steps, decay=decay)
        else:
            end = descend(field, x, some, rule=rule_of(sampler, decay, steps), max_steps=steps)
        ends.append(end.x)
    return torch.cat(ends).clamp(-1, 1)


# Judging


@dataclass(frozen=True, eq=False)
class Judge:
    """The real images and features that samples are compared with."""

    classifier: Classifier
    images: Tensor
    """Real images that are not in the reference, (N, C, H, W)."""
    labels: Tensor
    """Their classes (N,), used for the samples too."""
    reference: Moments
    """Moments of the features of all other real images."""
    floor: float
    """The distance of `images`."""

    def distance(self, images: Tensor) -> float:
        """The Frechet distance of images to the reference."""
        return frechet_distance(Moments.of(embed(self.classifier, images)), self.reference)


@cache
def judge(bench: Bench) -> Judge:
    """The judge of a scale; the classifier comes with the package."""
    scale = bench.at
    classifier = Classifier.load(scale.recipe.data.path)
    real = open_source(DataConfig(scale.test))
    others, own = split(real, scale.count / len(real))
    images, labels = everything(own)
    reference = Moments.of(embed(classifier, everything(others)[0]))
    floor = frechet_distance(Moments.of(embed(classifier, images)), reference)
    return Judge(classifier, images, labels, reference, floor)


def everything(source: Source) -> tuple[Tensor, Tensor]:
    """All images of a data set and their labels."""
    rows = torch.arange(len(source))
    assert source.labels is not None
    return source.batch(rows, SampleRandom(0, rows)), source.labels


def measured(
    bench: Bench, changes: Settings, seed: int, sampler: Sampler, *, tuning: bool = False
) -> float:
    """The distance of the samples of a trained variant, stored beside its weights.

    Noise depends on the seed only, so variants are paired; `tuning` uses other noise and half as many
    samples."""
    scale, real = bench.at, judge(bench)
    first = 10_000 * seed + 1_000_000 * tuning
    labels = real.labels[:: 2 if tuning else 1]
    given = _given(bench, changes)
    protocol = digest(first, len(labels), real.reference.mean, sampler, scale.nfe, given)
    file = bench.folder(changes, seed) / f"distance-{protocol}.json"
    if not file.exists():
        field = model(bench, changes, seed)
        decay = bench.config(changes, seed).objective.make_decay()
        noise = starting_noise(field.config.shape, seeds=range(first, first + len(labels)))
        drawn = samples(field, noise, labels, decay, sampler, scale.nfe)
        with replacing(file) as temporary:
            temporary.write_text(json.dumps(real.distance(drawn)))
    return json.loads(file.read_text())


def tuned(bench: Bench, changes: Settings) -> Sampler:
    """The best of `SAMPLERS` for a variant, chosen on its first run with other noise."""
    if bench.config(changes, 0).model.noise_conditioning:
        return SAMPLERS[0]
    return min(SAMPLERS, key=lambda sampler: measured(bench, changes, 0, sampler, tuning=True))


def distances(
    bench: Bench, variants: Mapping[str, Settings]
) -> tuple[dict[str, tuple[float, ...]], dict[str, Sampler]]:
    """The distances of each variant, one a seed, and its sampler."""
    prepare(bench, *variants.values())
    samplers = each(bench, tuned, [(changes,) for changes in variants.values()])
    found = dict(zip(variants, samplers, strict=True))
    jobs = [(variants[n], seed, found[n]) for n in variants for seed in range(bench.seeds)]
    every = iter(each(bench, measured, jobs))
    return {n: tuple(next(every) for _ in range(bench.seeds)) for n in variants}, found


# Running


def prepare(bench: Bench, *variants: Settings) -> None:
    """Returns nothing; trains missing variants, before several processes need the same one."""
    each(bench, model, [(changes, seed) for seed in range(bench.seeds) for changes in variants])


def seedwise(
    bench: Bench, function: Callable[..., T], cells: Sequence[K]
) -> dict[K, tuple[T, ...]]:
    """`function(bench, seed, cell)` for every cell and seed: by cell, one result a seed."""
    jobs = [(seed, cell) for cell in cells for seed in range(bench.seeds)]
    every = iter(each(bench, function, jobs))
    return {cell: tuple(next(every) for _ in range(bench.seeds)) for cell in cells}


def each(bench: Bench, function: Callable[..., T], jobs: Iterable[tuple[Any, ...]]) -> list[T]:
    """`function(bench, *job)` for every job, in processes with one thread each; other processes must be
    able to import the function."""
    if bench.processes == 1:
        return [function(bench, *job) for job in jobs]
    futures = [_pool(bench.processes).submit(function, bench, *job) for job in jobs]
    return [future.result() for future in futures]


@cache
def _pool(processes: int) -> ProcessPoolExecutor:
    return ProcessPoolExecutor(processes, get_context("spawn"), torch.set_num_threads, (1,))


def command(changes: Settings, recipe: str = IMAGENET) -> str:
    """The `eqm train` command for a variant of a recipe."""
    words = ["eqm", "train", recipe]
    for name, value in changes.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            head, _, last = flag.rpartition(".")
            words.append(f"--{flag}" if value else f"--{head}.no-{last}")
        else:
            parts = value if isinstance(value, Sequence) and not isinstance(value, str) else [value]
            words += [f"--{flag}", *map(str, parts)]
    return shlex.join(words)


def run(
    experiment: Callable[[Bench], str],
    published: Mapping[str, str] | Mapping[str, Settings],
    then: Sequence[str] = ("eqm sample {folder} --count 50000 --output {folder}/samples.npz",),
) -> None:
    """Returns nothing; runs an experiment with the options of the command line and prints its report.

    `published` has the paper's variants, as settings or as training commands, and `then` the commands
    after training. At the scale imagenet these are printed and nothing runs."""
    bench = tyro.cli(Bench, description=experiment.__globals__["__doc__"])
    if bench.scale == "imagenet":
        for name, variant in published.items():
            training = variant if isinstance(variant, str) else command(variant)
            folder = f"runs/imagenet/{'-'.join(re.findall('[a-zA-Z0-9.]+', name))}"
            print(f"# {name}\n{training} --data.path LATENTS --output {folder}")
            sampling = "" if isinstance(variant, str) else _sampling(variant)
            lines = [line.format(folder=folder) for line in then]
            lines = [line + sampling * line.startswith("eqm sample") for line in lines]
            print(*lines, "", sep="\n")
        return
    torch.set_num_threads(1)
    print(experiment(bench))


def _sampling(changes: Settings) -> str:
    """The sampling options for another decay: 249 steps that leave as much noise as the published ones."""
    recipe = RECIPES[IMAGENET]
    usual, here = (c.objective.make_decay() for c in (recipe, changed(recipe, changes)))
    if usual == here:
        return ""
    path, steps = recipe.sampling.path_length, recipe.sampling.max_steps
    left = 0.2 * math.exp(-20 * (path - 0.2))  # fraction of noise, with the default decay
    whole = path_length(here, left)
    return f" --path-length {whole:.4g} --step-size {whole / steps:.4g}"
