"""Clients of a server in another process, well-behaved and not, for `serving.py`."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import subprocess
import sys
import time
from base64 import b64encode
from collections import Counter
from contextlib import suppress
from io import BytesIO
from pathlib import Path
from statistics import median, quantiles
from typing import Any, Self
from urllib.error import URLError
from urllib.request import urlopen

import httpx
import torch
from torch import Tensor

from eqm.data import DataConfig, open_source
from eqm.pictures import picture
from eqm.randomness import SampleRandom

CLIENTS = 64
"""Connections of `over_http`."""
TICKS = os.sysconf("SC_CLK_TCK")


class Server:
    """`eqm serve` in another process, on a free port of this machine."""

    def __init__(self, model: str, *options: str, threads: int = 1) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self.address = f"http://127.0.0.1:{self.port}"
        words = ["-m", "eqm", "serve", model, "--port", str(self.port), *options]
        self.process = subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.DEVNULL,
        )

    def __enter__(self) -> Self:
        while True:
            with suppress(URLError), urlopen(f"{self.address}/health"):
                return self
            if self.process.poll() is not None:
                raise RuntimeError(f"the server ended with status {self.process.returncode}")
            time.sleep(0.05)

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(60)

    def cpu(self) -> float:
        """The CPU seconds of the server so far."""
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def memory(self) -> float:
        """The resident memory of the server in MiB."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


def over_http(server: Server, bodies: list[dict[str, Any]]) -> int:
    """Evaluations of the samples that the requests ask for, with at most CLIENTS at a time."""

    async def ask() -> int:
        async with httpx.AsyncClient(base_url=server.address, timeout=None) as client:
            turn = asyncio.Semaphore(CLIENTS)

            async def one(body: dict[str, Any]) -> int:
                async with turn:
                    answer = await client.post("/v1/sample", json=body)
                    answer.raise_for_status()
                    return sum(sample["nfe"] for sample in answer.json()["samples"])

            return sum(await asyncio.gather(*map(one, bodies)))

    return asyncio.run(ask())


def endurance(server: Server, *, requests: int, clients: int) -> None:
    """Prints the errors, the latency and the memory of the server over many requests, while other clients
    read slowly, send half a request, or leave in mid-answer."""
    file = BytesIO()
    picture(clothes(1)[0]).save(file, "png")
    shown = b64encode(file.getvalue()).decode()
    bodies = [
        ("sample", {"count": 1}),
        ("sample", {"count": 1, "sampling": {"guidance": 2.0}}),
        ("denoise", {"images": [shown], "aim": "mmse"}),
        ("restore", {"images": [shown], "operator": {"name": "blur"}, "steps": 4}),
        ("sample", {"count": 1, "stream": True, "preview_every": 4}),
    ]
    statuses: Counter[str] = Counter()
    took: list[float] = []
    memory: list[float] = []

    async def load() -> int:
        limits = httpx.Limits(max_connections=clients)
        async with httpx.AsyncClient(base_url=server.address, timeout=600, limits=limits) as client:
            numbers = iter(range(requests))

            async def visit() -> None:
                for k in numbers:
                    use, body = bodies[k % len(bodies)]
                    began = time.perf_counter()
                    answer = await client.post(f"/v1/{use}", json={**body, "seed": k})
                    took.append(time.perf_counter() - began)
                    broken = answer.is_success and b"event: error" in answer.content
                    statuses["error in a stream" if broken else str(answer.status_code)] += 1
                    if len(took) % max(1, requests // 10) == 0:
                        memory.append(server.memory())

            others = [asyncio.create_task(each) for each in hostile(server)]
            await asyncio.gather(*(visit() for _ in range(clients)))
            for each in others:
                each.cancel()
            ends = await asyncio.gather(*others, return_exceptions=True)
            return sum(isinstance(end, Exception) for end in ends)

    began = time.perf_counter()
    broken = asyncio.run(load())
    seconds = time.perf_counter() - began
    cut = quantiles(took, n=20)
    print(
        f"## {requests:,} requests of {clients} clients\n\nBeside 8 slow readers, 8 half-open connections and "
        f"4 clients that leave in mid-answer again and again ({broken} of these failed to connect).\n\n"
        f"* answers: {', '.join(f'{count:,} of status {each}' for each, count in statuses.items())}\n"
        f"* {requests / seconds:.1f} requests a second, p50 {cut[9]:.2f} s, p95 {cut[18]:.2f} s, longest "
        f"{max(took):.2f} s\n"
        f"* memory of the server after each tenth, MiB: {', '.join(f'{each:.0f}' for each in memory)}; growth "
        f"after the first: {max(memory) / memory[0] - 1:.1%} at most\n"
    )


def hostile(server: Server) -> list[Any]:
    """Clients that a server must live with, until they are cancelled."""
    body = json.dumps({"count": 8, "stream": True, "preview_every": 1}).encode()
    head = (
        "POST /v1/sample HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    )

    async def slow_reader() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port, limit=2**10)
            writer.write(head.encode() + body)
            for _ in range(120):
                await asyncio.sleep(0.5)
                if not await reader.read(16):
                    break
            writer.close()

    async def half_open(sent: bytes) -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(sent)
            await reader.read()  # until the server closes it
            writer.close()

    async def leaver() -> None:
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
            writer.write(head.encode() + body)
            await reader.read(200)
            writer.transport.abort()
            await asyncio.sleep(1)

    halves = (head.encode()[:40], head.encode() + body[:5]) * 4
    return [
        *(slow_reader() for _ in range(8)),
        *(half_open(half) for half in halves),
        *(leaver() for _ in range(4)),
    ]


def restart(model: str, *, rounds: int) -> None:
    """Prints how long it takes until a server answers, and until the first picture."""
    rows = []
    for _ in range(rounds):
        began = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        torch_alone = time.perf_counter() - began
        began = time.perf_counter()
        with Server(model) as server:
            ready = time.perf_counter() - began
            began = time.perf_counter()
            answer = httpx.post(f"{server.address}/v1/sample", json={"count": 1}, timeout=60)
            answer.raise_for_status()
            first = time.perf_counter() - began
        rows.append((torch_alone, ready, ready - torch_alone, first))
    parts = ("import torch", "ready", "ready, less the import of torch", "first picture after that")
    print(f"## {model}: restart\n\nMedians of {rounds} rounds.\n\n| | s | longest |\n|---|---|---|")
    for name, times in zip(parts, zip(*rows, strict=True), strict=True):
        print(f"| {name} | {median(times):.2f} | {max(times):.2f} |")
    print()


def clothes(count: int) -> Tensor:
    """Pictures of clothes that the models have not seen, (count, 1, 28, 28)."""
    rows = torch.arange(count)
    source = open_source(DataConfig("fashion-mnist-test"), small=True)
    return source.batch(rows, SampleRandom(0, rows))
