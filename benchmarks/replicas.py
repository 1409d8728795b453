"""A server with replicas, one of which is killed under load: what is lost, how long it takes, what it needs.

    python benchmarks/replicas.py

Clients send a fixed list of requests, once undisturbed and once while a replica gets `kill -9`, and the pictures
of both times are compared. Then the server gets SIGTERM while it works. Linux only.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from base64 import b64decode
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from timing import record

Samples = np.ndarray
"""The pixels of the samples of an answer, (4, H, W) or (4, H, W, 3), in the order of their seeds."""


def main(
    model: str = "fashion-mnist",
    replicas: int = 2,
    requests: int = 200,
    clients: int = 16,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/replicas.md.

    Args:
        model: The model to serve.
        replicas: Number of replicas.
        requests: Number of requests; every third one is a stream.
        clients: Threads that send them.
        quick: Only check that it runs; write nothing.
    """
    if quick:
        requests, clients = 20, 4
    with record("replicas", f"{replicas} replicas of {model}", keep=not quick):
        imported = seconds_of([sys.executable, "-c", "import torch"])
        began = time.perf_counter()
        server = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "eqm",
                "serve",
                model,
                "--port",
                "0",
                "--replicas",
                str(replicas),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            assert server.stdout is not None
            address = next(line.split()[-1] for line in server.stdout if " serves " in line)
            print("| | |\n|---|---|")
            print(f"| `import torch` alone | {imported:.1f} s |")
            print(f"| from the command to ready | {time.perf_counter() - began:.1f} s |")
            measure(server.pid, address, replicas, requests, clients)
            print(f"| exit status after SIGTERM | {server.wait(120)} |")
        finally:
            server.kill()
            server.wait()


def measure(server: int, address: str, replicas: int, requests: int, clients: int) -> None:
    """Prints the rows of what happens to requests."""
    with ThreadPoolExecutor(clients) as pool:
        calm, calm_seconds = run_all(pool, address, requests)
        killed: list[float] = []

        def kill() -> None:
            os.kill(replicas_of(server)[0], signal.SIGKILL)
            killed.append(time.perf_counter())

        faulty, faulty_seconds = run_all(pool, address, requests, halfway=kill)
        wait_for(lambda: slots(address) == 64 * replicas)
        back = time.perf_counter() - killed[0]
        print(f"| {requests} requests of 4 samples, {clients} clients | {calm_seconds:.1f} s |")
        print(f"| the same, one replica killed halfway | {faulty_seconds:.1f} s |")
        lost = sum(isinstance(answer, Exception) for answer in faulty)
        print(f"| requests without an answer | {lost} |")
        whole = [
            (a, b)
            for a, b in zip(calm, faulty, strict=True)
            if not isinstance(a, Exception) and not isinstance(b, Exception)
        ]
        most = max(int(np.abs(a - b).max()) for a, b in whole)
        print(f"| largest difference of a pixel to undisturbed, of 255 | {most} |")
        print(f"| from the kill until the new replica answers | {back:.1f} s |")
        print("\n".join(memory(server)))
        late = [pool.submit(ask, address, k) for k in range(clients)]
        time.sleep(0.5)
        began = time.perf_counter()
        os.kill(server, signal.SIGTERM)
        answered = sum(not isinstance(each.result(), Exception) for each in late)
        print(f"| answered of {clients} requests that ran at SIGTERM | {answered} |")
        print(f"| from SIGTERM until they were answered | {time.perf_counter() - began:.1f} s |")


def run_all(
    pool: ThreadPoolExecutor, address: str, count: int, halfway: Callable[[], None] | None = None
) -> tuple[list[Samples | Exception], float]:
    """The answer or the error of each request, and the seconds that all took."""
    began = time.perf_counter()
    futures = [pool.submit(ask, address, k) for k in range(count)]
    if halfway is not None:
        wait_for(lambda: sum(future.done() for future in futures) >= count // 2)
        halfway()
    return [future.result() for future in futures], time.perf_counter() - began


def ask(address: str, number: int) -> Samples | Exception:
    """The samples of request `number`, in their order; an exception where there is no whole answer."""
    labels = [(number + k) % 10 for k in range(4)]
    body = {"count": 4, "labels": labels, "seed": 10 * number, "stream": number % 3 == 0}
    body |= {"sampling": {"guidance": 1 + number % 4 / 2}, "preview_every": 10}
    request = urllib.request.Request(
        f"{address}/v1/sample", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    try:
        with urllib.request.urlopen(request, timeout=300) as answer:
            if not body["stream"]:
                samples = json.load(answer)["samples"]
            else:
                happened = list(events(answer))
                samples = [data for name, data in happened if name == "sample"]
                assert happened[-1][0] == "done", f"the stream ends with {happened[-1]}"
                assert len(samples) == 4, f"the stream has {len(samples)} samples"
    except (OSError, AssertionError) as error:
        return error
    samples.sort(key=lambda sample: sample["seed"])
    files = [BytesIO(b64decode(sample["b64_json"])) for sample in samples]
    return np.stack([np.asarray(Image.open(file), dtype=int) for file in files])


def events(stream: Any) -> Iterator[tuple[str, Any]]:
    """The server-sent events of an answer: their names and data."""
    name = ""
    for line in stream:
        key, _, text = line.decode().rstrip("\n").partition(": ")
        if key == "event":
            name = text
        elif key == "data":
            yield name, json.loads(text)


def slots(address: str) -> int:
    """The slots of all replicas."""
    with urllib.request.urlopen(f"{address}/metrics", timeout=60) as answer:
        lines = answer.read().decode().splitlines()
    return int(sum(float(line.split()[-1]) for line in lines if line.startswith("eqm_slots{")))


def memory(server: int) -> list[str]:
    """Rows with the memory of the processes; pages that several share are counted in part (PSS)."""
    kinds: dict[str, list[float]] = {}
    for each, name in processes_of(server).items():
        with suppress(OSError, StopIteration):
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
            size = next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024
            kind = "the rest of Ray"
            if each == server:
                kind = "the process that answers HTTP"
            elif name.startswith("ray::ServeReplica"):
                kind = "a replica"
            kinds.setdefault(kind, []).append(size)
    found = []
    for kind, sizes in sorted(kinds.items()):
        if kind == "the rest of Ray":
            found.append(f"| memory of {kind}, {len(sizes)} processes | {sum(sizes):.0f} MiB |")
        else:
            found.append(f"| memory of {kind} | {max(sizes):.0f} MiB |")
    return found


def processes_of(server: int) -> dict[int, str]:
    """The server and all that it started, with their command lines."""
    parents, names = {}, {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            with suppress(OSError):
                status = (each / "stat").read_text().rpartition(")")[2].split()
                parents[int(each.name)] = int(status[1])
                names[int(each.name)] = (each / "cmdline").read_text().replace("\0", " ")
    ours = {server}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {each: names[each] for each in ours}


def replicas_of(server: int) -> list[int]:
    """The processes of the replicas."""
    return [
        each for each, name in processes_of(server).items() if name.startswith("ray::ServeReplica")
    ]


def wait_for(condition: Callable[[], bool], seconds: float = 300.0) -> None:
    """Returns when it holds; raises TimeoutError if that takes too long."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError(f"nothing came within {seconds:g} s")
        time.sleep(0.05)


def seconds_of(command: list[str]) -> float:
    """How long a command takes."""
    began = time.perf_counter()
    subprocess.run(command, check=True)
    return time.perf_counter() - began


if __name__ == "__main__":
    tyro.cli(main)
