"""Scores pictures on all machines of a Ray cluster. A machine that leaves loses no picture: its batch runs again.

Without a cluster (RAY_ADDRESS) it uses this machine alone."""

import os

os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers

import ray
import torch
from ray.util import ActorPool
from torch.utils.data import DataLoader

from eqm.data import DataConfig, as_dataset, open_source
from eqm.tasks import EqmDetector

WORKERS = 2


@ray.remote(num_cpus=1, max_restarts=-1, max_task_retries=-1)
class Scorer:
    def __init__(self) -> None:
        self.detector = EqmDetector.load("fashion-mnist")

    def p_values(self, batch):
        return self.detector.p_values(torch.from_numpy(batch)).numpy()


def main() -> None:
    ray.init(include_dashboard=False, log_to_driver=False)
    dataset = as_dataset(open_source(DataConfig("fashion-mnist-test"), small=True))
    batches = (images.numpy() for images, _ in DataLoader(dataset, batch_size=50))
    pool = ActorPool([Scorer.remote() for _ in range(WORKERS)])
    found = []
    for _, batch in zip(range(8), batches, strict=False):
        while not pool.has_free():  # a worker has one batch at a time
            found.append(pool.get_next())
        pool.submit(lambda worker, images: worker.p_values.remote(images), batch)
    while pool.has_next():
        found.append(pool.get_next())
    p_values = torch.cat([torch.from_numpy(each) for each in found])
    print(f"{int((p_values <= 0.05).sum())} of {len(p_values)} pictures are anomalous")
    ray.shutdown()


if __name__ == "__main__":
    main()
