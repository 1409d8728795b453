"""The server: throughput, latency under mixed load, memory over many requests, and restarts.

    python benchmarks/serving.py
    python benchmarks/serving.py --parts latency --rates 0.5 0.8

* `throughput`: evaluations a second of the engine beside `eqm.stream` alone. One request of many samples,
  and many requests of one sample, each with its own guidance scale and number of steps.
* `http`: the same over HTTP, with the server in another process.
* `latency`: requests of three tasks arrive at random (Poisson). The engine, static batches of equal
  settings and one request at a time get the same requests at the same times.
* `endurance`: thousands of requests of 64 clients, beside slow readers, half-open connections and clients
  that leave in mid-answer, with a tiny network: errors, and the memory of the server.
* `restart`: seconds until the server is ready, and until the first picture.

What is compared alternates, and ratios are medians over rounds: other processes may run on the machine.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from statistics import median, quantiles
from tempfile import TemporaryDirectory
from typing import Any, Literal

import torch
import tyro
from serving_clients import Server, clothes, endurance, over_http, restart
from static_batches import GUIDANCE, SAMPLES, STEPS, Job, StaticBatches, mixed, replay
from timing import record
from torch import Tensor

import eqm
from eqm.descent import State, Step, Stop
from eqm.models import MLPConfig, Network, build, preset
from eqm.sampling import prepare
from eqm.serving import Engine
from eqm.tasks import generate

Part = Literal["throughput", "http", "latency", "endurance", "restart"]
Submit = Callable[[Job], Future[Any]]
PARTS: tuple[Part, ...] = ("throughput", "http", "latency", "endurance", "restart")


def main(
    model: str = "fashion-mnist",
    parts: tuple[Part, ...] = PARTS,
    slots: int = 8,
    rounds: int = 5,
    samples: int = 192,
    large: str = "EqM-S/2",
    rates: tuple[float, ...] = (0.5, 0.8, 1.0),
    requests: int = 120,
    endless: int = 10_000,
    clients: int = 64,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the tables and writes them to results/serving.md.

    Args:
        model: A model by name or folder.
        parts: What to measure.
        slots: Size of the batch of the engine, of the static batches and of `eqm.stream`.
        rounds: Measurements of each variant.
        samples: Samples of each measurement of throughput.
        large: Preset of an untrained network, for the throughput of the engine; empty for none.
        rates: Arrivals, as shares of what one request at a time can do.
        requests: Requests of the mixed load, a rate and round.
        endless: Requests of `endurance`.
        clients: Clients of `endurance`.
        threads: CPU threads of torch.
        quick: Only check that it runs, with few samples; write nothing.
    """
    if quick:
        rounds, samples, rates, requests, endless, clients = 1, 8, rates[:1], 6, 40, 4
        large = large and "EqM-S/8"
    torch.set_num_threads(threads)
    network = eqm.from_pretrained(model)
    name = "serving" if parts == PARTS else f"serving-{'-'.join(parts)}"
    with record(name, "The server", keep=not quick):
        print("Other processes ran on the machine; what is compared alternates.\n")
        if "throughput" in parts:
            throughput(model, network, slots=slots, samples=samples, rounds=rounds)
            if large:
                untrained = build(preset(large, shape=(4, 32, 32), num_classes=1000)).eval()
                few = max(2, slots // 4)
                throughput(
                    f"{large}, untrained, 3 to 5 steps",
                    untrained,
                    slots=few,
                    samples=2 * few,
                    rounds=min(rounds, 3),
                    steps=(3, 4, 5),
                )
        if "http" in parts:
            http(model, network, slots=slots, samples=samples, rounds=rounds, threads=threads)
        if "latency" in parts:
            latency(model, network, slots, rates, requests, rounds)
        if "endurance" in parts:
            small = build(MLPConfig(shape=(1, 28, 28), num_classes=10, width=16, depth=1))
            with (
                TemporaryDirectory() as folder
            ):  # the network costs little, as the server is measured
                eqm.save_pretrained(small, folder)
                with Server(folder, threads=threads) as server:
                    endurance(server, requests=endless, clients=clients)
        if "restart" in parts:
            restart(model, rounds=rounds)


def settings_of(model: Network, count: int, steps: tuple[int, ...]) -> list[eqm.Sampling]:
    """`count` settings, no two alike: guidance scales from 1.1 to 3, and the numbers of steps in turn."""
    base = eqm.Sampling.of(model.metadata).but(guidance=2.0)
    return [
        base.but(
            guidance=1.1 + 1.9 * k / max(1, count - 1),
            step_size=base.path_length / steps[k % len(steps)],
        )
        for k in range(count)
    ]


def streamed(model: Network, settings: list[eqm.Sampling], slots: int) -> int:
    """Evaluations of one sample for each of the settings by `eqm.stream` alone: one guidance scale for
    all, and each sample stops after the number of steps of its settings."""
    start = prepare(model, count=len(settings), sampling=settings[0])
    lengths = torch.tensor([each.max_steps for each in settings])
    labels = None if start.labels is None else start.labels.tolist()
    ends = eqm.stream(
        start.field,
        start,
        labels,
        rule=start.rule,
        stop=Lengths(lengths),
        max_steps=int(lengths.max()),
        batch_size=slots,
    )
    return sum(end.nfe for end in ends)


@dataclass(frozen=True)
class Lengths(Stop):
    """Ends each sample after its own number of steps, (N,)."""

    steps: Tensor

    def __call__(self, step: Step, state: State) -> tuple[Tensor, State]:
        return step.steps >= self.steps[step.index], state


def throughput(
    title: str,
    model: Network,
    *,
    slots: int,
    samples: int,
    rounds: int,
    steps: tuple[int, ...] = (8, 12, 20),
) -> None:
    """Prints evaluations a second of the engine and of `eqm.stream` alone."""
    alike = settings_of(model, 1, steps[1:2]) * samples
    mixed = settings_of(model, samples, steps)
    with Engine(model, slots=slots) as engine:

        def one() -> int:
            request = engine.submit(generate, count=samples, sampling=alike[0])
            return int(request.result().nfe.sum())

        def many() -> int:
            asked = [
                engine.submit(generate, count=1, seed=k, sampling=mixed[k]) for k in range(samples)
            ]
            return sum(int(request.result().nfe.sum()) for request in asked)

        variants = {
            f"stream, {samples} samples": lambda: streamed(model, alike, slots),
            f"engine, one request of {samples} samples": one,
            f"stream, {samples} lengths": lambda: streamed(model, mixed, slots),
            f"engine, {samples} requests, no settings alike": many,
        }
        compare(f"{title}: throughput, {slots} slots", variants, rounds)


def http(name: str, model: Network, *, slots: int, samples: int, rounds: int, threads: int) -> None:
    """Prints evaluations a second over HTTP and of `eqm.stream` alone."""
    steps = (8, 12, 20)
    alike = settings_of(model, 1, steps[1:2]) * samples
    mixed = settings_of(model, samples, steps)

    def request(settings: eqm.Sampling, **fields: Any) -> dict[str, Any]:
        changes = {"step_size": settings.step_size, "guidance": settings.guidance}
        return {"model": name, "sampling": changes, **fields}

    one = [request(alike[0], count=samples)]
    many = [request(each, count=1, seed=k) for k, each in enumerate(mixed)]
    with Server(name, "--slots", str(slots), threads=threads) as server:
        variants = {
            f"stream, {samples} samples": lambda: streamed(model, alike, slots),
            f"HTTP, one request of {samples} samples": lambda: over_http(server, one),
            f"stream, {samples} lengths": lambda: streamed(model, mixed, slots),
            f"HTTP, {samples} requests, no settings alike": lambda: over_http(server, many),
        }
        compare(f"{name}: throughput over HTTP, {slots} slots", variants, rounds, server)


def compare(
    title: str,
    variants: dict[str, Callable[[], int]],
    rounds: int,
    server: Server | None = None,
) -> None:
    """Prints the evaluations a second of each variant; each second variant is compared with the one
    before it. CPU seconds are those of the engine's or the server's process."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in variants}
    for run in variants.values():
        run()  # warm
    for _ in range(rounds):
        for name, run in variants.items():
            cpu = server.cpu if server and name.startswith("HTTP") else time.process_time
            began, worked = time.perf_counter(), cpu()
            evaluations = run()
            seconds, work = time.perf_counter() - began, cpu() - worked
            found[name].append((evaluations / seconds, evaluations / work))
    print(f"## {title}\n\nMedians of {rounds} rounds.\n")
    print("| | evaluations/s | of stream | range | of stream, by CPU time |\n|---|---|---|---|---|")
    names = list(variants)
    for base, other in zip(names[::2], names[1::2], strict=True):
        wall, work = (
            [b[k] / a[k] for a, b in zip(found[base], found[other], strict=True)] for k in (0, 1)
        )
        rates = [median(rate for rate, _ in found[name]) for name in (base, other)]
        print(f"| {base} | {rates[0]:.0f} | | | |")
        print(
            f"| {other} | {rates[1]:.0f} | {median(wall):.3f} | {min(wall):.3f} .. {max(wall):.3f} "
            f"| {median(work):.3f} |"
        )
    print()


def latency(
    name: str, model: Network, slots: int, rates: tuple[float, ...], requests: int, rounds: int
) -> None:
    """Prints the latency of the engine beside static batches and one request at a time."""
    pictures = clothes(100)
    with StaticBatches(model, slots=1) as single:
        jobs = mixed(model, pictures, count=max(6, requests // 2), rate=1e9, seed=99)
        capacity = len(jobs) / max(replay(single.submit, jobs))
    print(
        f"## {name}: latency under mixed load\n\nSampling, denoising and restoration at random times (Poisson); "
        f"guidance {', '.join(map(str, GUIDANCE))}; {', '.join(map(str, STEPS))} steps; 1 to {max(SAMPLES)} samples a "
        f"request. One request at a time does {capacity:.2f} a second. {rounds} rounds of {requests} requests a "
        "rate; the three get the same requests at the same times, one after the other. Seconds are CPU time of "
        "the process, so that other processes do not count.\n"
    )
    print("| requests/s | | p50, s | of static | p95, s | of static |\n|---|---|---|---|---|---|")
    for share in rates:
        took: dict[str, list[float]] = {}
        for k in range(rounds):
            jobs = mixed(model, pictures, count=requests, rate=share * capacity, seed=k)
            for kind, opened in systems(model, slots).items():
                with opened as submit:
                    took.setdefault(kind, []).extend(replay(submit, jobs))
        static = quantiles(took["static batches"], n=20)
        for kind, each in took.items():
            cut = quantiles(each, n=20)
            half, most = cut[9], cut[18]
            print(
                f"| {share * capacity:.2f} ({share:.0%}) | {kind} | {half:.2f} | {half / static[9]:.2f} "
                f"| {most:.2f} | {most / static[18]:.2f} |"
            )
    print()


def systems(model: Network, slots: int) -> dict[str, AbstractContextManager[Submit]]:
    """What the mixed load is sent to: the submission of a request by name."""

    @contextmanager
    def engine() -> Iterator[Submit]:
        with Engine(model, slots=slots) as opened:

            def submit(job: Job) -> Future[Any]:
                given, settings = job.arguments()
                return opened.submit(job.use, *given, **settings)

            yield submit

    @contextmanager
    def batches(slots: int) -> Iterator[Submit]:
        with StaticBatches(model, slots=slots) as opened:
            yield opened.submit

    return {
        "engine": engine(),
        "static batches": batches(slots),
        "one at a time": batches(1),
    }


if __name__ == "__main__":
    tyro.cli(main)
