"""One process of several that train: `python worker.py FOLDER RUNS`, as torchrun would start it.

RUNS is the repr of [(name, config), ...]; what goes wrong with a run is written to NAME.error.
"""

import sys
from pathlib import Path

import torch

from eqm.data import digits
from eqm.data.config import DataConfig
from eqm.models import MLPConfig, TransformerConfig, UNetConfig
from eqm.objective import EquilibriumMatching
from eqm.sampling.settings import Sampling
from eqm.train import ObjectiveConfig, OptimizerConfig, TrainConfig, distributed, keep_best, train

NAMES = (
    *(DataConfig, MLPConfig, ObjectiveConfig, OptimizerConfig),
    *(Sampling, TrainConfig, TransformerConfig, UNetConfig),
)


def main(folder: Path, runs: str) -> None:
    torch.set_num_threads(1)
    images = digits()[torch.arange(0, 1797, 9)]
    for name, config in eval(runs, {kind.__name__: kind for kind in NAMES}):
        if name == "scarce" and distributed.rank() == 1:
            run_out_of_memory(most=2)
        try:
            for step in train(config, images, folder / name):
                value = step.loss.item()
            keep_best(step.state, value)
        except ValueError as error:
            (folder / f"{name}.{distributed.rank()}.error").write_text(str(error))
    distributed.leave()
    # A thread of gloo that outlives the group can abort the process at exit.
    threads = [path.read_text() for path in Path("/proc/self/task").glob("*/comm")]
    if name == "odd":
        assert not [thread for thread in threads if "gloo" in thread], threads


def run_out_of_memory(most: int) -> None:
    at = EquilibriumMatching.loss_at

    def scarce(self, field, data, *rest, **draws):
        if len(data) > most:
            raise torch.OutOfMemoryError("out of memory")
        return at(self, field, data, *rest, **draws)

    EquilibriumMatching.loss_at = scarce


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
