"""Training and sampling on CUDA, in at most ten minutes.

    PYTHONPATH=src python benchmarks/gpu.py --checkout EqM

Every part runs in its own process. A part that fails or takes too long is reported in the table, and the
next part runs. To check that it runs, with small sizes on a CPU:

    PYTHONPATH=src python benchmarks/gpu.py --quick --device cpu
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch
import tyro
from official import official_network, official_sampler, official_step, our_step, sampler
from peers import randomized
from timing import record, synchronize

import eqm
from eqm.devices import pick_device
from eqm.models import TransformerConfig, build, cost, for_inference, preset
from eqm.monitor.throughput import matmul_rate
from eqm.randomness import SampleRandom
from eqm.recipes import RECIPES
from eqm.train import TrainConfig, make_step, start
from eqm.train.distributed import is_main, join, leave, world_size

BATCHES = {"EqM-S/2": 512, "EqM-B/2": 256, "EqM-L/2": 128, "EqM-XL/2": 128}


def main(
    checkout: Path | None = None,
    device: str = "cuda",
    budget: float = 570.0,
    quick: bool = False,
    part: str = "",
) -> None:
    """Prints the table and writes it to results/gpu.md.

    Args:
        checkout: Folder of the official repository; its parts are skipped if not given.
        device: cuda, or cpu to check that it runs.
        budget: Seconds for all parts.
        quick: Only check that it runs, with small sizes; write nothing.
        part: Run only this part, in this process.
    """
    if part:
        print(run(part, checkout, device, quick))
        return
    end = time.monotonic() + budget
    with record("gpu", "Training and sampling on CUDA", keep=not quick):
        print(
            "Latents of 32x32x4, except for the recipes. Throughput per process; peak of the allocated "
            "memory.\n"
        )
        print("| part | result | seconds |\n|---|---|---|")
        for name in parts(quick, checkout is not None, device):
            began = time.monotonic()
            left = end - began
            result = "skipped: no time left"
            if left > 5:
                result = in_process(name, checkout, device, quick, min(left, 150))
            print(f"| {name} | {result} | {time.monotonic() - began:.0f} |")


def parts(quick: bool, official: bool, device: str) -> list[str]:
    """The names of the parts, the most important first."""
    sizes = ["EqM-S/8"] if quick else ["EqM-B/2", "EqM-XL/2", "EqM-S/2", "EqM-L/2"]
    whose = ["eqm", "official"] if official else ["eqm"]
    first, *others = [[f"train {who} {size}" for who in whose] for size in sizes]
    sampling = [f"sample {who} {sizes[0]}" for who in whose]
    names = ["matmul", *first, *(others[0] if others else []), *sampling]
    names += [name for training in others[1:] for name in training]
    names += ["recipe fashion-mnist", "recipe openmoji-32"]
    names += [f"{kind} eqm {sizes[0]}" for kind in ("stream", "ddp", "fsdp")]
    return names


def in_process(name: str, checkout: Path | None, device: str, quick: bool, seconds: float) -> str:
    """Runs a part in its own process; returns its result, or its error."""
    count = torch.cuda.device_count() if device == "cuda" else 1
    command = [sys.executable]
    if name.split()[0] in ("ddp", "fsdp"):
        if count < 2 and device == "cuda":
            return "skipped: only one device"
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={count}"]
    command += [__file__, "--device", device, "--part", name]
    command += ["--quick"] * quick + ([] if checkout is None else ["--checkout", str(checkout)])
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True)
    try:
        out, errors = process.communicate(timeout=seconds)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)  # with its workers, which hold the device
        process.communicate()
        return f"failed: not finished after {seconds:.0f} s"
    results = [line for line in out.splitlines() if line.startswith("=")]
    lines = errors.strip().splitlines() or ["no message"]
    if process.returncode == 0 and results:
        smaller = [line for line in lines if "memory ran out" in line]
        return " ".join([results[-1][1:].strip(), *smaller[-1:]])
    why = [line for line in lines if re.match(r"(\[rank\d+\]: )?[\w.]*Error\b", line)]
    return f"failed: {(why or lines)[-1][:160].replace('|', '/')}"


def run(part: str, checkout: Path | None, device: str, quick: bool) -> str:
    """The result of a part, after an equals sign."""
    kind, *rest = part.split()
    place = join(device) if kind in ("ddp", "fsdp") else pick_device(device)
    dtype = torch.bfloat16
    if kind == "matmul":
        return f"= {matmul_rate(place, dtype, seconds=1.0) / 1e12:.2f} TFLOP/s in bfloat16"
    if kind == "recipe":
        return recipe(rest[0], place, quick)
    whose, size = rest
    config = preset(size, shape=(4, 32, 32), num_classes=1000)
    assert isinstance(config, TransformerConfig)
    count = 2 if quick else BATCHES[size]
    count = count if kind in ("train", "ddp", "fsdp") else min(count, 64)
    x = torch.randn(count, 4, 32, 32, device=place)
    labels = torch.arange(count, device=place) % 1000
    compile = place.type == "cuda"
    if kind in ("sample", "stream"):
        if whose == "official":
            assert checkout is not None
            theirs = official_network(checkout, config).to(place)
            rate = per_second(lambda: official_sampler(theirs, x, labels, 5), count, place, quick)
        else:
            net = randomized(build(config)).to(place).eval()
            field = for_inference(net, precision="bfloat16", compile=compile)
            if kind == "sample":
                call = sampler(field, x, labels, 5)
            else:
                guided = eqm.guide(field, 1.5, 1000, channels=3, fixed=True)
                rule, starts = eqm.NesterovLookahead(0.0017, 0.3), torch.cat([x, x])

                def call() -> object:
                    classes = torch.cat([labels, labels]).tolist()
                    ends = eqm.stream(
                        guided,
                        starts,
                        classes,
                        rule=rule,
                        batch_size=count,
                        max_steps=5,
                        fixed=True,
                    )
                    return list(ends)

            images = count if kind == "sample" else 2 * count
            rate = per_second(call, images, place, quick)
        return f"= {rate / 50:.2f} images/s of 250 guided steps, batch {count}{peak(place)}"
    if whose == "official":
        assert checkout is not None
        step = official_step(official_network(checkout, config).to(place).train(), x, labels)
    elif kind == "train":
        step = our_step(config, place, x, labels, precision="bfloat16", compile="auto")
    else:
        settings = TrainConfig(
            model=config,
            batch_size=count * world_size(),
            precision="bfloat16",
            compile="auto",
            parallel=kind,  # type: ignore[arg-type]
        )
        state = start(settings, place)
        state.model.train()
        ours = make_step(settings, state, place)
        draws = SampleRandom(0, torch.arange(count, device=place))

        def step() -> object:
            return ours(x, labels, draws)

    rate = per_second(step, count, place, quick)
    mfu = 3 * cost(config).flops * rate / matmul_rate(place, dtype)
    result = f"= {rate:.1f} images/s, {mfu:.1%} of the matmul rate, batch {count}{peak(place)}"
    if kind in ("ddp", "fsdp"):
        result, main = result + f", in each of {world_size()} processes", is_main()
        leave()
        return result if main else ""
    return result


def recipe(name: str, place: torch.device, quick: bool) -> str:
    """The throughput of training with a recipe, whose network is small."""
    chosen = RECIPES[name]
    count = 8 if quick else chosen.batch_size
    data = torch.randn(count, *chosen.model.shape, device=place)
    labels = torch.arange(count, device=place) % chosen.model.num_classes
    changes = {"objective": chosen.objective, "optimizer": chosen.optimizer}
    changes |= {"precision": "bfloat16", "compile": "auto"}
    step = our_step(chosen.model, place, data, labels, **changes)
    rate = per_second(step, count, place, quick)
    return f"= {rate:.1f} images/s, batch {count}{peak(place)}"


def per_second(call, images: int, place: torch.device, quick: bool) -> float:  # type: ignore[no-untyped-def]
    """Images per second, over some seconds after three warm-up calls."""
    for _ in range(1 if quick else 3):
        call()
    synchronize(place)
    done, began = 0, time.perf_counter()
    while done < (1 if quick else 5) or time.perf_counter() - began < (0 if quick else 4):
        call()
        done += 1
        if done % 5 == 0:
            synchronize(place)
    synchronize(place)
    return done * images / (time.perf_counter() - began)


def peak(place: torch.device) -> str:
    """The peak of the allocated CUDA memory."""
    if place.type != "cuda":
        return ""
    return f", peak {torch.cuda.max_memory_allocated() / 2**30:.1f} GiB"


if __name__ == "__main__":
    tyro.cli(main)
