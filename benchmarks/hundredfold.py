"""Quality and time of every way to draw guided samples, from the paper's loop to one evaluation.

    eqm distill fashion-mnist --precision bfloat16 --output runs/folded
    eqm distill fashion-mnist --evaluations 4 --precision bfloat16 --output runs/four
    python benchmarks/hundredfold.py --students runs/folded runs/four

The first way is the loop of the official sampler: 250 steps in float32, both halves of a doubled batch moved,
no inference mode. All ways take the same network and the same noise. The distance is the Frechet distance
to test pictures in features of a classifier of real pictures: the mean over seeds, and their range. Times
are medians of one batch. All ways alternate in each round. Students are also compared with their teacher in
denoising and detection, where nothing should get worse.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from statistics import mean, median

import matplotlib.pyplot as plt
import torch
import tyro
from quality import diversity, whole
from timing import interleaved, record
from torch import Tensor

import eqm
from eqm.data import Images
from eqm.features import accuracy, embed, train_classifier
from eqm.metrics import Moments, auroc, frechet_distance, psnr
from eqm.models import Network, for_inference
from eqm.sampling import Sampling
from eqm.tasks import EqmDetector, denoise, generate

STEPS = 250
"""Of the paper's descent."""


def main(
    model: str = "fashion-mnist",
    students: tuple[str, ...] = (),
    train: str = "fashion-mnist",
    test: str = "fashion-mnist-test",
    count: int = 500,
    seeds: int = 3,
    batch: int = 64,
    rounds: int = 3,
    epochs: int = 6,
    seed: int = 1_000_000,
    threads: int = 1,
    compile: bool = False,
    plot: Path | None = None,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/hundredfold-NAME.md.

    Args:
        model: Name or folder of the teacher.
        students: Folders that `eqm distill` wrote.
        train: Training data of the teacher and of the classifier.
        test: Reference data.
        count: Samples of each way and seed.
        seeds: Sets of samples of each way.
        batch: Samples of one timed draw.
        rounds: Timed draws of each way.
        epochs: Training epochs of the classifier.
        seed: Seed of the noise.
        threads: CPU threads.
        compile: Also measure compiled networks.
        plot: Write quality against time to this file.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        count, seeds, batch, rounds, epochs = 16, 1, 4, 1, 1
    torch.set_num_threads(threads)
    teacher = eqm.from_pretrained(model)
    seen, real = whole(train), whole(test)
    classifier = train_classifier(
        seen.data, seen.classes, num_classes=seen.num_classes, epochs=epochs, batch_size=128
    )
    reference = Moments.of(embed(classifier, real.data))
    labels = torch.arange(count) % seen.num_classes
    stored = Sampling.of(teacher.metadata)
    careful = replace(stored, multistep_coefficients=())
    paper = careful.but(step_size=careful.path_length / STEPS, rule="nesterov-lookahead")
    fast = for_inference(teacher, precision="bfloat16")
    ways: dict[str, Callable[[int, int], Tensor]] = {
        f"official loop, {STEPS} steps": lambda n, k: official_loop(teacher, labels[:n], paper, k),
        f"`{careful.rule}`, {careful.max_steps} steps": drawn(teacher, labels, careful),
    }
    if rows := len(stored.multistep_coefficients):
        ways[f"fitted, {rows} steps"] = drawn(teacher, labels, stored)
        ways[f"fitted, {rows} steps, bfloat16"] = drawn(fast, labels, stored)
    opened = {folder: eqm.from_pretrained(folder) for folder in students}
    for folder, student in opened.items():
        settings = Sampling.of(student.metadata)
        steps = len(settings.multistep_coefficients) or settings.max_steps
        name = f"{Path(folder).name}: student, {steps} evaluations"
        ways[name] = drawn(student, labels, settings)
        light = for_inference(student, precision="bfloat16")
        ways[f"{name}, bfloat16"] = drawn(light, labels, settings)
        if compile:
            light = for_inference(student, precision="bfloat16", compile=True)
            ways[f"{name}, bfloat16, compiled"] = drawn(light, labels, settings, batch)
    called = Path(model).name
    with record(f"hundredfold-{called}", f"Quality against time: {called}", keep=not quick):
        print(
            f"{called}, guidance {stored.guidance:g}, {count} samples a way and seed. Frechet distance to "
            f"{len(real)} test pictures in {reference.mean.numel()} features: mean and range over {seeds} "
            f"seeds. Time of {batch} samples, {rounds} rounds.\n"
        )
        times = interleaved(
            {name: (lambda way=way: way(batch, seed)) for name, way in ways.items()},
            rounds,
            torch.device("cpu"),
        )
        base = times[next(iter(ways))]
        print("| | distance | range | accuracy | diversity | time, 1 / |\n" + "|---" * 6 + "|")
        points = []
        for name, way in ways.items():
            distances, right, spread = [], 0.0, 0.0
            for number in range(seeds):
                pictures = way(count, seed + number * count).float().clamp(-1, 1)
                features = embed(classifier, pictures)
                distances.append(frechet_distance(Moments.of(features), reference))
                right += accuracy(classifier, pictures, labels) / seeds
                spread += diversity(features, labels) / seeds
            speed = median(a / b for a, b in zip(base, times[name], strict=True))
            points.append((speed, mean(distances), name))
            print(
                f"| {name} | {mean(distances):.3f} | {min(distances):.3f} .. {max(distances):.3f} | {right:.3f} | "
                f"{spread:.2f} | {speed:.1f} |",
                flush=True,
            )
        if opened:
            others({model: teacher, **opened}, seen, real, min(count, 500))
        if plot is not None:
            draw(points, plot)


def drawn(
    model: eqm.Field, labels: Tensor, sampling: Sampling, size: int = 256
) -> Callable[[int, int], Tensor]:
    """A function that draws so many samples, with a seed."""
    return lambda n, k: generate(model, labels[:n], seed=k, sampling=sampling, batch_size=size).x


def official_loop(network: Network, labels: Tensor, sampling: Sampling, seed: int) -> Tensor:
    """The samples of the loop in the official sampler: guidance by a doubled batch, both halves of which move
    with the guided gradient."""
    noise = generate(  # the same noise as the other ways
        lambda x, labels: torch.zeros_like(x),
        count=len(labels),
        seed=seed,
        sampling=replace(sampling, guidance=1.0),
        shape=network.config.shape,
    ).x
    x, momentum = torch.cat([noise, noise]), torch.zeros_like(torch.cat([noise, noise]))
    every = torch.cat([labels, torch.full_like(labels, network.config.num_classes)])
    with torch.no_grad():
        for _ in range(sampling.max_steps):
            ahead = x - sampling.step_size * sampling.momentum * momentum
            labelled, unlabelled = network(ahead, every).chunk(2)
            half = unlabelled + sampling.guidance * (labelled - unlabelled)
            gradient = torch.cat([half, half])
            x = x - sampling.step_size * (gradient + sampling.momentum * momentum)
            momentum = gradient
    return x.chunk(2)[0]


def others(models: dict[str, Network], seen: Images, real: Images, count: int) -> None:
    """Prints how well each model denoises without labels, and detects pictures with a flipped half."""
    generator = torch.Generator().manual_seed(0)
    clean = real.data[:count]
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=generator)
    odd = torch.cat(
        [clean[..., : clean.shape[-1] // 2], clean.flip(0)[..., clean.shape[-1] // 2 :]], -1
    )
    known = seen.data[torch.randperm(len(seen), generator=generator)[: 2 * count]]
    print(
        "\nWhat should not change:\n\n| | denoising, PSNR | halves of two pictures, AUROC |\n|---|---|---|"
    )
    for name, model in models.items():
        ratio = psnr(denoise(model, noisy, sigma=0.5).x.clamp(-1, 1), clean).mean()
        detector = EqmDetector(model).fit(known)
        area = auroc(detector.score_samples(clean), detector.score_samples(odd))
        print(f"| {Path(name).name} | {ratio:.2f} | {area:.3f} |", flush=True)


def draw(points: list[tuple[float, float, str]], path: Path) -> None:
    """Draws distance against speed."""
    figure, axes = plt.subplots(figsize=(8, 4.5), layout="constrained")
    for speed, distance, name in points:
        axes.plot(speed, distance, "o")
        axes.annotate(
            name, (speed, distance), xytext=(4, 4), textcoords="offset points", fontsize=7
        )
    axes.set(
        xscale="log",
        xlabel="times as fast as the official loop",
        ylabel="Frechet distance",
        ylim=(0, None),
    )
    figure.savefig(path)
    plt.close(figure)


if __name__ == "__main__":
    tyro.cli(main)
