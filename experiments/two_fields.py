"""The two fields in the plane: at data the field of EqM is small, that of flow matching is not.

Both objectives without noise conditioning, on the points `moons`: the exact field of 200 points, and a
small network trained on 10,000. The plot shows direction and norm of the fields and the paths of a few
samples. The table has the norm at new points, divided by the norm at noise. Sample quality is not measured:
the theory needs many dimensions.
"""

import torch
from harness import Bench, run, seedwise
from torch import Generator
from verdict import Verdict, conclude, margins

from eqm.corruption import ConstantDecay, Decay, TruncatedDecay
from eqm.data import points
from eqm.descent import GradientDescent, record_trajectory
from eqm.field import Field
from eqm.models import MLPConfig, build
from eqm.objective import EquilibriumMatching
from eqm.optimal import OptimalField
from eqm.plots import BLUE, RED, drawing
from eqm.shapes import norms

CLOUD, EXACT, STEPS, BATCH = "moons", 200, 1500, 256
DECAYS: dict[str, Decay] = {"EqM": TruncatedDecay(), "flow matching": ConstantDecay()}
PATHS = {"EqM": 0.425, "flow matching": 1.0}


def trained(decay: Decay, seed: int) -> Field:
    """A small trained network."""
    data, generator = points(CLOUD).data, Generator().manual_seed(seed)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        network = build(MLPConfig(shape=(2,), width=128))
    objective = EquilibriumMatching(decay)
    optimizer = torch.optim.Adam(network.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.01, STEPS)
    for _ in range(STEPS):
        chosen = data[torch.randint(len(data), (BATCH,), generator=generator)]
        loss = objective(network, chosen, generator=generator).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    return network.requires_grad_(False).eval()


def fields(name: str, seed: int) -> dict[str, Field]:
    """The exact field and the trained one."""
    data = points(CLOUD).data
    chosen = torch.randperm(len(data), generator=Generator().manual_seed(seed))[:EXACT]
    exact = OptimalField(data[chosen], DECAYS[name], nodes=129)
    return {f"{name}, exact": exact, f"{name}, trained": trained(DECAYS[name], seed)}


def slopes(bench: Bench, seed: int, name: str) -> dict[str, float]:
    """The mean norm of each field at new points, divided by that at noise."""
    fresh = points(CLOUD, 12_000).data[-300:]
    noise = torch.randn(fresh.shape, generator=Generator().manual_seed(seed))
    return {
        which: (norms(field(fresh, None)).mean() / norms(field(noise, None)).mean()).item()
        for which, field in fields(name, seed).items()
    }


def two_fields(bench: Bench) -> str:
    every = seedwise(bench, slopes, list(DECAYS))
    found = {
        which: tuple(each[which] for each in some) for some in every.values() for which in some[0]
    }
    axis = torch.linspace(-2.2, 2.2, 23)
    where = torch.cartesian_prod(axis, axis)
    starts = 1.2 * torch.randn(12, 2, generator=Generator().manual_seed(3))
    with drawing(bench.output / "two_fields-digits.png", panels=4) as panels:
        shown = [(name, *pair) for name in DECAYS for pair in fields(name, 0).items()]
        for panel, (name, which, field) in zip(panels, shown, strict=True):
            slope = field(where, None)
            steep = norms(slope) / norms(field(torch.randn(300, 2), None)).mean()
            down = -slope / norms(slope)[:, None]
            panel.quiver(
                *where.T, *down.T, steep, cmap="viridis", clim=(0, 1.2), scale=30, width=0.005
            )
            panel.plot(*points(CLOUD).data[:EXACT].T, ".", color=RED, ms=2)
            marks = [k / 50 * PATHS[name] for k in range(51)]
            way = record_trajectory(
                field, starts, rule=GradientDescent(PATHS[name] / 50), at=marks, by="path"
            ).x
            panel.plot(way[..., 0], way[..., 1], color=BLUE, lw=0.8)
            panel.plot(*way[-1].T, "o", color=BLUE, ms=3)
            panel.set(title=which, xticks=[], yticks=[], aspect="equal")
            panel.grid(visible=False)
    rows = [
        {"field": which, "norm at data / norm at noise": values} for which, values in found.items()
    ]
    verdicts = [
        Verdict(
            f"At data, the {kind} field of EqM is smaller than that of flow matching, both relative to noise.",
            "a picture only",
            margins(found[f"flow matching, {kind}"], found[f"EqM, {kind}"]),
        )
        for kind in ("exact", "trained")
    ]
    how = (
        f"{bench.seeds} seeds; 10,000 points of {CLOUD}. The exact field is that of {EXACT} points; the network is "
        f"trained for {STEPS} steps of {BATCH} points. Measured at 300 new points. Plot: dark means a small norm; "
        "blue lines are descents along a path of .425 (EqM) and 1 (flow matching). Cells are mean ± standard "
        "deviation over the seeds."
    )
    return conclude(bench, "two_fields", "The two fields in the plane", rows, verdicts, how=how)


if __name__ == "__main__":
    run(two_fields, {}, [])
