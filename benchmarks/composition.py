"""Compositions of two classes, and paths between pictures, judged by a classifier of real pictures.

    python benchmarks/composition.py --model FOLDER

For pairs of classes: how often the classifier's two most probable classes are the pair. Compared are one
class alone, the mean of the two fields (the paper's composition), and `a + b` around the field without
label, plain and balanced, at several guidance scales. Then the time that one forward pass for all labels
saves. Then paths between pictures of different classes, beside plain blends: how uneven their steps are
in the classifier's features, how far the images are from the nearest training picture, and how confident
the classifier is.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from pathlib import Path

import torch
import tyro
from timing import record, table
from torch import Tensor

import eqm
from eqm.data import DataConfig, open_source
from eqm.features import Classifier, train_classifier
from eqm.models import Network
from eqm.pictures import grid
from eqm.randomness import SampleRandom
from eqm.sampling import Sampling, starting_noise
from eqm.tasks import Composition, compose, generate, interpolate


def main(
    model: str,
    data: str = "digits",
    pairs: int = 45,
    count: int = 10,
    ways: int = 20,
    training: int = 12_000,
    epochs: int = 8,
    guidances: tuple[float, ...] = (1.0, 1.5, 2.0),
    sheet: Path | None = None,
    seed: int = 1_000_000,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/.

    Args:
        model: Name or folder of a trained model of ten classes.
        data: Its training data; the classifier does not see a fifth of it, used for the paths.
        pairs: Number of pairs of classes, spread evenly over all pairs.
        count: Samples per pair.
        ways: Number of paths between pictures.
        training: The most training pictures of the classifier.
        epochs: Training epochs of the classifier.
        guidances: Guidance scales.
        sheet: Write a picture of the first samples of every pair to this file, one row per pair.
        seed: Seed of the noise.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        pairs, count, ways, training, epochs, guidances = 2, 2, 2, 200, 1, guidances[:1]
    torch.set_num_threads(threads)
    network = eqm.from_pretrained(model)
    network.requires_grad_(False)
    source = open_source(DataConfig(data))
    order = torch.randperm(len(source), generator=torch.Generator().manual_seed(0))
    seen, held = order[len(order) // 5 :][:training], order[: len(order) // 5]
    labels = source.labels
    assert labels is not None
    pictures = source.batch(seen, SampleRandom(0, seen))
    judge = train_classifier(pictures, labels[seen], num_classes=source.num_classes, epochs=epochs)
    every = list(combinations(range(network.config.num_classes), 2))
    chosen = every[:: max(1, len(every) // pairs)][:pairs]
    with record(
        f"composition-{data}", f"Compositions and paths between pictures: {data}", keep=not quick
    ):
        best = composed(network, judge, chosen, count, guidances, seed)
        passes(network)
        between(
            network, judge, pictures, source.batch(held, SampleRandom(0, held)), labels[held], ways
        )
    if sheet is not None:
        grid(best, columns=count, scale=2).save(sheet)


def composed(
    network: Network,
    judge: Classifier,
    pairs: list[tuple[int, int]],
    count: int,
    guidances: tuple[float, ...],
    seed: int,
) -> Tensor:
    """Prints the table of compositions; returns the samples of the middle guidance."""
    sampling = Sampling.of(network.metadata)

    def alone(a: int, b: int) -> Tensor:
        labels = [a, b] * count
        return generate(network, labels[:count], seed=seed, sampling=sampling).x

    def mean(a: int, b: int) -> Tensor:
        plain = sampling.but(guidance=1.0)
        return compose(network, f"0.5*{a} + 0.5*{b}", count=count, seed=seed, sampling=plain).x

    def around(guidance: float, balance: bool) -> Callable[[int, int], Tensor]:
        guided = sampling.but(guidance=guidance)
        return lambda a, b: (
            compose(
                network, f"{a} + {b}", count=count, seed=seed, sampling=guided, balance=balance
            ).x
        )

    rows = {"one label alone": alone, "mean of the two fields, no guidance": mean}
    for guidance in guidances:
        rows[f"`a + b`, guidance {guidance:g}"] = around(guidance, False)
    for guidance in guidances:
        rows[f"`a + b`, guidance {guidance:g}, balanced"] = around(guidance, True)
    print(
        f"{len(pairs)} pairs of classes, {count} samples each: the fraction whose two most probable classes "
        "are the pair, and the mean probability of the less probable class of the pair.\n"
    )
    print("| | both in the top two | less probable |\n|---|---|---|")
    kept = torch.empty(0)
    for name, draw in rows.items():
        images = torch.cat([draw(a, b) for a, b in pairs])
        wanted = torch.tensor(pairs).repeat_interleave(count, dim=0)
        both, less = judged(judge, images, wanted)
        print(f"| {name} | {both:.3f} | {less:.3f} |", flush=True)
        if name == f"`a + b`, guidance {guidances[len(guidances) // 2]:g}":
            kept = images
    print()
    return kept


def judged(judge: Classifier, images: Tensor, pairs: Tensor) -> tuple[float, float]:
    """The fraction of images whose two most probable classes are their pair (N, 2), in any order,
    and the mean probability of the less probable class of the pair."""
    with torch.no_grad():
        probabilities = judge(images).softmax(1)
    top = probabilities.topk(2).indices.sort(dim=1).values
    less = probabilities.gather(1, pairs).min(dim=1).values
    return (top == pairs.sort(dim=1).values).all(1).float().mean().item(), less.mean().item()


def passes(network: Network) -> None:
    """Prints the time of one forward pass for three labels, beside three passes."""
    x = starting_noise(network.config.shape, seeds=range(16))
    none = network.config.num_classes
    sum_ = Composition.of(network, "0 + 1", sampling=Sampling())
    parts = [eqm.condition(network, label) for label in (0, 1, none)]
    for size in (1, 16):
        start = x[:size]
        table(
            f"`0 + 1`, batch size {size}",
            {
                "one pass per label": lambda start=start: [part(start, None) for part in parts],  # type: ignore[misc]
                "one pass": lambda start=start: sum_(start),  # type: ignore[misc]
            },
            20,
            torch.device("cpu"),
        )


def between(
    network: Network, judge: Classifier, seen: Tensor, held: Tensor, labels: Tensor, ways: int
) -> None:
    """Prints the table of paths between pictures of different classes."""
    pairs = [(k, k + 1) for k in range(len(held) - 1) if labels[k] != labels[k + 1]][:ways]
    with torch.no_grad():
        known = judge.features(seen)
        near = torch.cdist(judge.features(held[: 2 * ways]), known).min(1).values.mean().item()
    print(
        f"{len(pairs)} paths of 9 images between two pictures of different classes that the classifier has "
        "not seen. In its features: the largest step divided by the mean step, and the distance of the 7 new "
        f"images to the nearest training picture ({near:.2f} for unseen pictures). Last, its highest "
        "probability.\n"
    )
    print("| | largest step / mean | nearest picture | highest probability |\n|---|---|---|---|")

    def blend(a: int, b: int) -> Tensor:
        return torch.stack([torch.lerp(held[a], held[b], t) for t in torch.linspace(0, 1, 9)])

    rows: dict[str, Callable[[int, int], Tensor]] = {"plain blend": blend}
    for strength in (0.3, 0.5, 0.7):
        for known_labels in (False, True):
            rows[f"noise {strength:g}{', labels' * known_labels}"] = (
                lambda a, b, s=strength, k=known_labels: (
                    interpolate(  # type: ignore[misc]
                        network, held[a], held[b], pair(a, b) if k else None, strength=s
                    ).x
                )
            )
    rows["energy landscape"] = lambda a, b: (
        interpolate(network, held[a], held[b], through="landscape").x
    )
    rows["energy landscape, labels"] = lambda a, b: (
        interpolate(network, held[a], held[b], pair(a, b), through="landscape").x
    )

    def pair(a: int, b: int) -> tuple[int, int]:
        return int(labels[a]), int(labels[b])

    for name, way in rows.items():
        found = []
        for a, b in pairs:
            with torch.no_grad():
                images = way(a, b)
                features, confidence = judge.features(images), judge(images).softmax(1).amax(1)
            steps = (features[1:] - features[:-1]).norm(dim=1)
            nearest = torch.cdist(features[1:-1], known).min(1).values.mean()
            found.append(
                torch.stack([steps.max() / steps.mean(), nearest, confidence[1:-1].mean()])
            )
        uneven, off, certain = torch.stack(found).mean(0).tolist()
        print(f"| {name} | {uneven:.2f} | {off:.2f} | {certain:.2f} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
