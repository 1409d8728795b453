"""Two replicas of a model under load, one of them killed: `python replicas_worker.py FOLDER`.

Writes what it saw into FOLDER/seen.pt: samples, reports, and what listens where."""

import os
import signal
import sys
import time
from concurrent.futures import CancelledError
from pathlib import Path

import torch

from eqm.sampling import Sampling
from eqm.serving import DeadlineError
from eqm.serving.ray import Count, ReplicatedModels
from eqm.tasks import generate

FOLDER = Path(sys.argv[1])
REQUESTS, SAMPLES = 40, 3
SAMPLING = Sampling(step_size=0.001, path_length=0.1)
LONG = Sampling(step_size=0.0001, path_length=1000.0)


def draw(model, seed, *, sampling=SAMPLING):
    return generate(model, [1, 2, 3], count=SAMPLES, seed=seed, sampling=sampling).x


def processes() -> dict[int, str]:
    """The processes that this one started, and what they started."""
    parents, names = {}, {}
    for each in Path("/proc").iterdir():
        if each.name.isdigit():
            try:
                parents[int(each.name)] = int(
                    (each / "stat").read_text().rpartition(")")[2].split()[1]
                )
                names[int(each.name)] = (each / "cmdline").read_text()
            except OSError:  # it has ended
                continue
    ours = {os.getpid()}
    while more := {child for child, parent in parents.items() if parent in ours} - ours:
        ours |= more
    return {each: names[each] for each in ours}


def replicas() -> list[int]:
    return [each for each, name in processes().items() if name.startswith("ray::ServeReplica")]


def listening() -> set[str]:
    """The addresses, in the notation of /proc/net, at which our processes listen."""
    sockets = set()
    for each in processes():
        for file in Path(f"/proc/{each}/fd").iterdir():
            try:
                sockets.add(str(file.readlink()))
            except OSError:
                continue
    found = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            local, state, inode = (line.split()[k] for k in (1, 3, 9))
            if state == "0A" and f"socket:[{inode}]" in sockets:
                found.add(local.partition(":")[0])
    return found


def wait_for(condition, seconds=120.0):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it takes too long"
        time.sleep(0.05)


def main() -> None:
    seen = {}
    with ReplicatedModels([f"tiny={FOLDER / 'model'}"], Count(2, 2), memory=10**8) as models:
        engine = models.get().engine
        seen["listening"] = listening()
        reports = [[] for _ in range(REQUESTS)]
        requests = [
            engine.submit(draw, k, preview_every=10, listener=reports[k].append)
            for k in range(REQUESTS)
        ]
        wait_for(lambda: all(reports[:5]))
        killed = replicas()[0]
        os.kill(killed, signal.SIGKILL)
        seen["unfinished"] = sum(not request.done() for request in requests)
        seen["samples"] = torch.stack([request.result(300) for request in requests])
        seen["reports"] = [
            [(r.index, r.steps, r.finished is not None) for r in each] for each in reports
        ]
        wait_for(lambda: len(replicas()) == 2 and killed not in replicas())
        try:
            engine.submit(generate, [11]).result(60)
        except ValueError as error:
            seen["error"] = str(error)
        try:
            engine.submit(draw, 0, sampling=LONG, deadline=0.5).result(60)
        except DeadlineError as error:
            seen["deadline"] = str(error)
        endless = engine.submit(draw, 0, sampling=LONG)
        wait_for(lambda: (models.loads()["tiny"].running, models.loads()["tiny"].slots) == (1, 128))
        seen["busy"] = models.loads()["tiny"]
        endless.cancel()
        try:
            endless.result(60)
        except CancelledError:
            wait_for(lambda: models.loads()["tiny"].running == 0)
            seen["cancelled"] = True
        last = engine.submit(draw, 0)
    seen["drained"] = last.done()
    wait_for(lambda: not replicas())
    torch.save(seen, FOLDER / "seen.pt")


if __name__ == "__main__":
    main()
