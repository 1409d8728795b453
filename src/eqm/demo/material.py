"""What the demonstration works with: two trained models, a classifier to judge, the digits."""

from __future__ import annotations

import multiprocessing
from dataclasses import dataclass, replace
from pathlib import Path

from torch import Tensor

from eqm.data import Images, digits
from eqm.descent import Solution
from eqm.energy import Energy
from eqm.features import Classifier, accuracy, embed, train_classifier
from eqm.metrics import Moments
from eqm.models import Network, from_pretrained
from eqm.monitor import run
from eqm.recipes import RECIPES
from eqm.sampling import Sampling
from eqm.tasks import generate
from eqm.train import TrainConfig, train


@dataclass(frozen=True)
class Material:
    """All that the sections of the report need."""

    folder: Path
    seed: int
    """Of the training, and of the noise of the first sample."""
    model: Network | Energy
    """The landscape: a field trained by equilibrium matching."""
    baseline: Network | Energy
    """The same network trained by flow matching on as many images, told the noise level."""
    seen: Images
    """The digits both were trained on."""
    val_data: Images
    """The digits they were not."""
    halves: tuple[Images, Images]
    """All digits in two halves of equal classes: what a Frechet distance is compared with."""
    samples: Solution
    """Samples of the model, with the labels of the first half."""
    classifier: Classifier
    classifier_accuracy: float
    """Of the classifier on the held-out digits."""

    @property
    def sampling(self) -> Sampling:
        """How the model is sampled."""
        return Sampling.of(self.model.metadata)

    def recognised(self, images: Tensor, labels: Tensor) -> float:
        """Share of the images that the classifier takes for their label."""
        return accuracy(self.classifier, images, labels)

    def moments(self, images: Tensor) -> Moments:
        """Moments of the classifier's features."""
        return Moments.of(embed(self.classifier, images))


def prepare(folder: Path, *, images: int, seed: int) -> Material:
    """All that the demonstration needs, trained or picked up from `folder`.

    The baseline trains in a second process."""
    ours, flow = (
        replace(RECIPES[name], images=images, seed=seed) for name in ("digits", "digits-flow")
    )
    seen, val_data = digits().split(ours.data.val_fraction)
    baseline = multiprocessing.get_context("spawn").Process(
        target=train_quietly, args=(flow, folder / "baseline"), daemon=True
    )
    baseline.start()
    try:
        run(train(ours, seen, folder / "model"), total=images, folder=folder / "model")
        classifier = train_classifier(seen.data, seen.classes, num_classes=seen.num_classes)
        baseline.join()
    finally:
        baseline.terminate()  # it saves what it has
        baseline.join()
    if baseline.exitcode:
        raise OSError(f"training the baseline failed (exit status {baseline.exitcode}): see above")

    model = from_pretrained(folder / "model")
    halves = digits().split(0.5)
    return Material(
        folder=folder,
        seed=seed,
        model=model,
        baseline=from_pretrained(folder / "baseline"),
        seen=seen,
        val_data=val_data,
        halves=halves,
        samples=generate(model, halves[0].classes, seed=seed),
        classifier=classifier,
        classifier_accuracy=accuracy(classifier, val_data.data, val_data.classes),
    )


def train_quietly(config: TrainConfig, folder: Path) -> None:
    """Trains on the digits without a word; a second process runs it."""
    try:
        for _ in train(config, digits().split(config.data.val_fraction)[0], folder):
            pass
    except KeyboardInterrupt:
        pass  # the run was saved; the first process tells
