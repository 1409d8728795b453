"""Gaps in series and their ends, filled by EqM, a Gaussian process, linear interpolation and a seasonal naive.

    eqm train series --output runs/series
    python benchmarks/imputation.py --model runs/series

Windows come from the part for validation, which is later than all that is learnt. A fifth of each window is
hidden: one gap inside of it (imputation), or its end (forecasting). The CRPS is that of samples, and that of a
single value is its absolute error (Gneiting and Raftery 2007); it is in the units of the data. The Gaussian process
has a Matern kernel with noise, fitted to windows that EqM learns from. The seasonal naive takes the value of a day
before, or, as `14 days`, those of up to fourteen days as samples.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
import tyro
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from timing import record
from torch import Tensor

import eqm
from eqm.data import DataConfig, open_source
from eqm.data.series import Windows
from eqm.data.values import in_own_units
from eqm.drawings import banded
from eqm.metrics import bootstrap
from eqm.pictures import grid
from eqm.randomness import SampleRandom
from eqm.tasks import Inpaint, restore

DAY = 86_400
"""The season, in seconds."""
Method = Callable[[Tensor, Tensor, Tensor], Tensor]
"""From windows (B, 1, L), which steps are known (L,), and the numbers of the windows: samples (B, K, L)."""


def main(
    model: str = "runs/series",
    count: int = 200,
    samples: int = 32,
    steps: int = 50,
    sheet: Path | None = None,
    seed: int = 0,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/imputation.md.

    Args:
        model: Folder of a model of one channel, trained on a data set with a name or a table.
        count: Number of windows, evenly spread over the part for validation.
        samples: Samples of each window.
        steps: Evaluations of EqM for a sample.
        sheet: Write a picture of some windows, with the bands of the samples of EqM, to this file.
        seed: Seed of the gaps and the noise.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        count, samples, steps = 3, 4, 4
    torch.set_num_threads(threads)
    torch.set_grad_enabled(False)
    network = eqm.from_pretrained(model)
    config = DataConfig.of(network.metadata)
    assert config is not None
    source = open_source(config)
    assert isinstance(source, Windows)
    learnt, later = source.divided(config.val_fraction)
    rows = torch.linspace(0, len(later) - 1, count).round().long()
    truth = later.batch(rows, SampleRandom(0, rows))
    length = truth.shape[-1]
    hidden = round(length / 5)
    process = fitted_process(learnt, seed, windows=4 if quick else 24)
    scale = float(source.std[0])

    def by_eqm(x: Tensor, known: Tensor, numbers: Tensor) -> Tensor:
        parts = [
            restore(
                network, part * known, Inpaint(known, 2), count=samples, steps=steps, seed=seed
            ).x.view(len(part), samples, length)
            for part in x.split(32)
        ]
        return torch.cat(parts)

    def by_process(x: Tensor, known: Tensor, numbers: Tensor) -> Tensor:
        at, found = np.arange(length)[:, None], x.expand(-1, samples, -1).clone()
        for k, window in enumerate(x[:, 0]):
            process.fit(at[known], window[known].numpy())
            drawn = process.sample_y(at[~known], samples, random_state=seed + k)
            found[k][:, ~known] = torch.from_numpy(drawn.T).float()
        return found

    def by_line(x: Tensor, known: Tensor, numbers: Tensor) -> Tensor:
        at = np.arange(length)
        lines = [np.interp(at, at[known], window[known].numpy()) for window in x[:, 0]]
        return torch.from_numpy(np.stack(lines)).float()[:, None]

    def by_days(days: int) -> Method:
        def method(x: Tensor, known: Tensor, numbers: Tensor) -> Tensor:
            series, found = source.series, []
            for first in later.first[numbers].tolist():
                own = series.times[first : first + length]
                past = []
                for day in range(1, days + 1):
                    at = np.searchsorted(series.times, own - day * DAY - 150)
                    if (abs(series.times[at] - (own - day * DAY)) <= 300).all():
                        past.append((series.values[at, 0] - source.mean[0]) / source.std[0])
                fallback = [torch.full((length,), float(x[len(found), 0][known].mean()))]
                found.append(torch.stack([*(past or fallback)]).float())
            most = max(map(len, found))
            return torch.stack([each[torch.arange(most) % len(each)] for each in found])

        return method

    methods: dict[str, Method] = {
        "EqM": by_eqm,
        "Gaussian process": by_process,
        "linear interpolation": by_line,
        "seasonal naive, a day before": by_days(1),
        "seasonal naive, 14 days": by_days(14),
    }
    masks = {"imputation": 0, "forecasting": length - hidden}
    shown: list[Tensor] = []
    title = "Gaps and ends of series"
    with record("imputation", title, keep=not quick):
        print(
            f"\n{source.name}: {count} windows of {length} steps, later than all that was learnt; {hidden} steps "
            f"hidden; {samples} samples; EqM takes {steps} evaluations each. Mean CRPS [95 % interval] in units of "
            "the data; coverage is the share of hidden values between the 5 % and 95 % quantiles of the samples."
        )
        for task, start in masks.items():
            print(
                f"\n## {task}\n\n| method | CRPS | error of the median | coverage | s a window |\n|---|---|---|---|---|"
            )
            known = torch.ones(length, dtype=torch.bool)
            start = start or (length - hidden) // 2
            known[start : start + hidden] = False
            for name, method in methods.items():
                began = time.perf_counter()
                found = method(truth, known, rows)
                spent = (time.perf_counter() - began) / count
                found, target = found[..., ~known] * scale, truth[:, 0, ~known] * scale
                score = bootstrap(torch.mean, crps(found, target).mean(1))
                off = (found.median(1).values - target).abs().mean()
                low, high = found.quantile(torch.tensor([0.05, 0.95]), 1)
                inside = ((low <= target) & (target <= high)).float().mean()
                covered = f"{inside:.2f}" if found.shape[1] > 1 else "-"
                print(f"| {name} | {score} | {off:.3g} | {covered} | {spent:.3f} |")
                if name == "EqM":
                    few = torch.linspace(0, count - 1, min(count, 4)).long()
                    drawn = by_eqm(truth[few], known, rows[few])
                    for k in range(len(few)):
                        own = [
                            in_own_units(each, network.metadata)
                            for each in (truth[few[k]][None], drawn[k][:, None])
                        ]
                        shown.append(banded(own[0][0], own[1], known))
    if sheet:
        grid(torch.cat(shown), columns=len(shown) // 2).save(sheet)


def crps(samples: Tensor, truth: Tensor) -> Tensor:
    """The continuous ranked probability score of samples (B, K, T) for true values (B, T), (B, T): the mean distance
    to the truth minus half the mean distance of two different samples."""
    away = (samples - truth[:, None]).abs().mean(1)
    count = samples.shape[1]
    if count == 1:
        return away
    ordered = samples.sort(1).values
    weights = (2 * torch.arange(count) - count + 1).float()[:, None]
    return away - (ordered * weights).sum(1) / (count * (count - 1))


def fitted_process(source: Windows, seed: int, windows: int) -> GaussianProcessRegressor:
    """A Gaussian process whose kernel is fitted to some windows together, far apart in time."""
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(source), generator=generator)[:windows]
    values = source.batch(rows, SampleRandom(0, rows))[:, 0].numpy()
    at = np.arange(values.shape[1]) + 1e5 * np.arange(windows)[:, None]
    best: GaussianProcessRegressor | None = None
    for smoothness in (0.5, 1.5, 2.5):
        kernel = ConstantKernel(1.0) * Matern(10.0, (1.0, 1e3), nu=smoothness)
        process = GaussianProcessRegressor(kernel + WhiteKernel(1e-3, (1e-6, 1.0)))
        process.fit(at.reshape(-1, 1), values.reshape(-1))
        if (
            best is None
            or process.log_marginal_likelihood_value_ > best.log_marginal_likelihood_value_
        ):
            best = process
    assert best is not None
    return GaussianProcessRegressor(best.kernel_, optimizer=None)


if __name__ == "__main__":
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    tyro.cli(main)
