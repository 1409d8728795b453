"""Trains on plain tensors: two moons in the plane, then draws new points."""

import torch
from sklearn.datasets import make_moons

import eqm
from eqm.models import MLPConfig
from eqm.train import OptimizerConfig, TrainConfig, train


def main() -> None:
    points, labels = make_moons(4_000, noise=0.05, random_state=0)
    x, y = torch.tensor(points, dtype=torch.float32), torch.tensor(labels)
    config = TrainConfig(
        model=MLPConfig(shape=(2,), num_classes=2, width=64),
        optimizer=OptimizerConfig(learning_rate=2e-3),
        images=60_000,
        eval_every=0,
    )
    for progress in train(config, (x, y), "runs/moons"):
        pass
    print(f"{progress.images} points seen, loss {progress.loss:.3f}")
    drawn = eqm.tasks.generate(eqm.from_pretrained("runs/moons"), 1, count=200)
    print(drawn, "mean of the second moon:", drawn.x.mean(0).tolist())


if __name__ == "__main__":
    main()
