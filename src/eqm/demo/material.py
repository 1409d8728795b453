"""What the sections work with: two trained models, a classifier and the digits."""

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
    """Everything that the sections of the report need."""

    folder: Path
    seed: int
    """Seed of the training and of the noise of the first sample."""
    model: Network | Energy
    """A field trained by equilibrium matching."""
    baseline: Network | Energy
    """The same network, but noise-conditioned, trained by flow matching on as many images."""
    seen: Images
    """The training digits of both."""
    val_data: Images
    """The validation digits."""
    halves: tuple[Images, Images]
    """All digits in two halves with equal classes, for Frechet distances."""
    samples: Solution
    """Samples of the model, with the labels of the first half."""
    classifier: Classifier
    classifier_accuracy: float
    """Accuracy of the classifier on the validation digits."""

    @property
    def sampling(self) -> Sampling:
        """The sampling settings of the model."""
        return Sampling.of(self.model.metadata)

    def recognised(self, images: Tensor, labels: Tensor) -> float:
        """Share of the images that the classifier takes for their label."""
        return accuracy(self.classifier, images, labels)

    def moments(self, images: Tensor) -> Moments:
        """Moments of the classifier's features."""
        return Moments.of(embed(self.classifier, images))


def prepare(folder: Path, *, images: int, seed: int) -> Material:
    """The material, trained or loaded from `folder`; the baseline trains in a second process."""
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
        baseline.terminate()  # it saves its state
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
    """Returns nothing; trains on the digits in a second process and prints nothing."""
    try:
        for _ in train(config, digits().split(config.data.val_fraction)[0], folder):
            pass
    except KeyboardInterrupt:
        pass  # the run is saved; the first process reports
