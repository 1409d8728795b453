"""Sends requests from many clients to a server, and prints rates and latencies. Before: `eqm serve fashion-mnist`.

python examples/serving_load.py http://127.0.0.1:8000 --clients 16 --requests 200
"""

import argparse
import asyncio
import random
import time
from collections import Counter
from statistics import quantiles

import httpx


async def load(address: str, clients: int, requests: int) -> None:
    seconds, answers = [], Counter()
    numbers = iter(range(requests))

    async def client() -> None:
        async with httpx.AsyncClient(base_url=address, timeout=600) as server:
            model = (await server.get("/v1/models")).json()["data"][0]["id"]
            for seed in numbers:
                sampling = {"guidance": random.choice([1.0, 1.5, 2.0])}  # each its own settings
                body = {"model": model, "count": 1, "seed": seed, "sampling": sampling}
                began = time.perf_counter()
                answer = await server.post("/v1/sample", json=body)
                if answer.status_code == 429:  # the queue was full
                    await asyncio.sleep(float(answer.headers["Retry-After"]))
                seconds.append(time.perf_counter() - began)
                answers[answer.status_code] += 1

    began = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)))
    took, cut = time.perf_counter() - began, quantiles(seconds, n=20)
    print(f"{len(seconds) / took:.1f} requests a second; p50 {cut[9]:.2f} s, p95 {cut[18]:.2f} s")
    print(", ".join(f"{count} answers with status {status}" for status, count in answers.items()))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("address", nargs="?", default="http://127.0.0.1:8000")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--requests", type=int, default=20)
    given = parser.parse_args()
    asyncio.run(load(given.address, given.clients, given.requests))


if __name__ == "__main__":
    main()
