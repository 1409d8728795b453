"""Peak memory of training and sampling with eqm, the official code and torchebm, each in its own process.

    python benchmarks/memory.py --checkout EqM

The peak over three steps: weights, EMA weights, optimizer state and what the steps need. On CUDA it is the
allocated memory. On Linux it is the peak resident size during the steps, less the size before the network
was built.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

import torch
import tyro
from official import official_network, official_sampler, official_step, our_step, sampler
from peers import randomized, their_sampler, their_step
from timing import record, synchronize

from eqm.devices import pick_device
from eqm.models import TransformerConfig, build, for_inference, preset

VARIANTS = (
    "training, official",
    "training, torchebm",
    "training, eqm float32",
    "training, eqm bfloat16",
    "sampling, official",
    "sampling, torchebm",
    "sampling, eqm float32",
    "sampling, eqm bfloat16",
)
MIB = 2**20
RESET = Path("/proc/self/clear_refs")


def main(
    checkout: Path | None = None,
    model: str = "EqM-S/2",
    batch: int = 16,
    device: str = "auto",
    threads: int = 1,
    quick: bool = False,
    only: str = "",
) -> None:
    """Prints the table and writes it to results/memory.md.

    Args:
        checkout: Folder of the official repository.
        model: Preset of the network.
        batch: Latents per step, and samples per batch.
        device: cpu, cuda, ...; auto for the fastest.
        threads: CPU threads.
        quick: Only check that it runs, with a small network; write nothing.
        only: Measure only this variant, in this process, and print its MiB.
    """
    if quick:
        model, batch = "EqM-S/8", 2
    if only:
        torch.set_num_threads(threads)
        print(peak(only, checkout, model, batch, device))
        return
    if pick_device(device).type != "cuda" and not RESET.exists():
        print("skipped: peak memory can be measured only on Linux and on CUDA", file=sys.stderr)
        return
    with record("memory", "Peak memory", keep=not quick):
        print(f"{model}, {batch} latents of 32x32x4, {pick_device(device)}, three steps each.\n")
        print("| | MiB |\n|---|---|")
        for name in VARIANTS:
            if "official" in name and (checkout is None or not (checkout / "models.py").is_file()):
                print(f"| {name} | skipped: no checkout of github.com/raywang4/EqM |")
                continue
            if "torchebm" in name and find_spec("torchebm") is None:
                print(f"| {name} | skipped: pip install 'eqm[bench]' |")
                continue
            settings = ["--model", model, "--batch", str(batch), "--device", device]
            settings += ["--threads", str(threads), "--only", name]
            settings += [] if checkout is None else ["--checkout", str(checkout)]
            ran = subprocess.run(
                [sys.executable, __file__, *settings], capture_output=True, text=True
            )
            lines = ran.stdout.strip().splitlines() if ran.returncode == 0 else []
            failed = f"failed: {(ran.stderr.strip().splitlines() or ['no message'])[-1]}"
            print(f"| {name} | {lines[-1] if lines else failed} |")


def peak(name: str, checkout: Path | None, model: str, batch: int, device: str) -> str:
    """The peak of three steps of a variant, in MiB."""
    place = pick_device(device)
    config = preset(model, shape=(4, 32, 32), num_classes=1000)
    assert isinstance(config, TransformerConfig)
    x = torch.randn(batch, 4, 32, 32, device=place)
    labels = torch.arange(batch, device=place) % 1000
    before = 0.0 if place.type == "cuda" else resident("VmRSS")
    run = variant(name, checkout, config, x, labels)
    if place.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    else:
        RESET.write_text("5")  # resets the peak
    for _ in range(3):
        run()
    synchronize(place)
    most = torch.cuda.max_memory_allocated() / MIB if place.type == "cuda" else resident("VmHWM")
    return f"{most - before:.0f}"


def variant(
    name: str,
    checkout: Path | None,
    config: TransformerConfig,
    x: torch.Tensor,
    labels: torch.Tensor,
) -> Callable[[], object]:
    """One step of a variant."""
    kind, whose = name.split(", ")
    place, train = x.device, kind == "training"
    precision = whose.split()[-1]
    if whose == "official":
        assert checkout is not None
        theirs = official_network(checkout, config).to(place)
        if train:
            return official_step(theirs.train(), x, labels)
        return lambda: official_sampler(theirs, x, labels, 1)
    if train and whose != "torchebm":
        return our_step(config, place, x, labels, precision=precision)
    net = randomized(build(config)).to(place)
    if whose == "torchebm":
        if train:
            return their_step(net.train(), x, labels)
        return their_sampler(net.eval(), x, labels, 1)
    if precision == "float32":
        return sampler(net.eval(), x, labels, 1)
    return sampler(for_inference(net, precision="bfloat16"), x, labels, 1)


def resident(kind: str) -> float:
    """The resident size of this process in MiB: VmRSS is the current one, VmHWM the peak."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(kind)) / 1024


if __name__ == "__main__":
    tyro.cli(main)
