"""Kills training at many moments, resumes it each time, and compares every bit with a run that nobody disturbed.

    python tests/train/kills.py --kills 200 --pairs 40 --launches 2

One process imports everything, and forks the processes that train, which takes milliseconds. Half of the kills come
after a random time. The others come just before a random file is opened, renamed or removed in the run's folder.
The runs are those of `eqm train`: with checkpoints, validation, previews, averages and early stopping.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

TRAIN = [
    *("train", "digits", "--output", "run", "--images", "1280", "--batch-size", "32"),
    *("--model", "mlp", "--model.width", "8", "--model.depth", "1", "--threads", "1"),
    *("--checkpoint-every", "128", "--optimizer.ema-sigma-rel", "0.1", "--device", "cpu"),
]
KINDS = {
    "evaluated with its checkpoints": ["--eval-every", "512"],
    "evaluated between them": ["--eval-every", "192", "--optimizer.name", "muon"],
    "stopped early": ["--eval-every", "64", "--stop-after", "2", "--optimizer.learning-rate", "1"],
}
TIMES = {
    *("images_per_second", "data_wait_share", "mfu", "matmul_flops_per_second", "callback_seconds")
}
"""Numbers of the log that depend on the machine."""
FILE_EVENTS = {"open", "os.rename", "os.remove", "os.mkdir", "os.rmdir", "os.listdir", "os.chmod"}


def bits(folder: Path) -> dict[str, object]:
    """All that a run leaves: files by name, the tensors of its newest checkpoint, and its log without times."""
    found: dict[str, object] = {}
    for place in ("", "best", "averages", "pictures"):
        for path in sorted((folder / place).glob("*")):
            if path.is_file() and path.name not in (".lock", "log.jsonl"):
                found[str(path.relative_to(folder))] = path.read_bytes()
    found["checkpoint"] = max((folder / "checkpoints").glob("*.safetensors")).read_bytes()
    lines = (folder / "log.jsonl").read_text().splitlines()
    found["log"] = [
        {name: value for name, value in json.loads(line).items() if name not in TIMES}
        for line in lines
    ]
    return found


def differences(ours: dict[str, object], theirs: dict[str, object]) -> list[str]:
    """The names of what differs between two runs."""
    return [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]


def forked(work: Callable[[], int], place: Path) -> int:
    """The number of a new process that ends with the status of `work`; what it says is in said.txt."""
    number = os.fork()
    if number:
        return number
    status = 99
    try:
        with (place / "said.txt").open("a") as said:
            os.dup2(said.fileno(), 1)
            os.dup2(said.fileno(), 2)
        status = work()
    finally:
        os._exit(status)


def train(place: Path, kind: str, *, ranks: int, rank: int, port: int, kill_at: int) -> int:
    """Trains in `place`; a process dies before its file operation number `kill_at`, if that is not 0."""
    from eqm.cli.main import main
    from eqm.monitor import running

    os.chdir(place)
    if kind != next(iter(KINDS)):  # drawing the curves takes most of a run
        running.find_spec = lambda name: None
    if ranks > 1:
        os.environ |= {"RANK": str(rank), "WORLD_SIZE": str(ranks), "LOCAL_RANK": str(rank)}
        os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    count = 0

    def hook(event: str, given: tuple[object, ...]) -> None:
        nonlocal count
        if event in FILE_EVENTS and given and "run" in str(given[0]):
            count += 1
            if count == kill_at:
                os.kill(os.getpid(), signal.SIGKILL)

    if kill_at:
        sys.addaudithook(hook)
    return main([*TRAIN, *KINDS[kind]])


def start(place: Path, kind: str, ranks: int, kill_at: int = 0) -> list[int]:
    """The processes of a run in `place`; the first one is killed before the file operation `kill_at`."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    return [
        forked(
            lambda rank=rank: train(
                place,
                kind,
                ranks=ranks,
                rank=rank,
                port=port,
                kill_at=kill_at if rank == 0 else 0,
            ),
            place,
        )
        for rank in range(ranks)
    ]


def ended(processes: list[int], *, within: float) -> int | None:
    """The worst status of the processes, -9 for a killed one; None if they still run after that time.

    When one fails, the others are killed, as torchrun does."""
    until, worst, left = time.monotonic() + within, 0, set(processes)
    while left and time.monotonic() < until:
        for number in list(left):
            done, status = os.waitpid(number, os.WNOHANG)
            if done:
                left.discard(number)
                code = os.waitstatus_to_exitcode(status)
                worst = worst or code
                if code:
                    for other in left:
                        os.kill(other, signal.SIGKILL)
        time.sleep(0.002)
    return None if left else worst


def kill(processes: list[int], chance: random.Random) -> None:
    """Kills one process, the others a little later."""
    for number in chance.sample(processes, len(processes)):
        with contextlib.suppress(ProcessLookupError):
            os.kill(number, signal.SIGKILL)
        time.sleep(chance.random() * 0.05 * (len(processes) > 1))
    for number in processes:
        with contextlib.suppress(ChildProcessError):
            os.waitpid(number, 0)


def undisturbed(place: Path, kind: str, ranks: int) -> tuple[dict[str, object], float]:
    """The bits of a run that nobody kills, and its seconds."""
    place.mkdir(parents=True)
    began = time.monotonic()
    status = ended(start(place, kind, ranks), within=600)
    assert status == 0, (status, (place / "said.txt").read_text())
    return bits(place / "run"), time.monotonic() - began


def torment(root: Path, *, kills: int, ranks: int, chance: random.Random) -> list[str]:
    """What differs after so many kills, one sentence for each run that differs."""
    faults, done, turn = [], 0, 0
    whole = {
        kind: undisturbed(root / f"whole {ranks} {number}", kind, ranks)
        for number, kind in enumerate(KINDS)
    }
    while done < kills:
        kind = list(KINDS)[turn % len(KINDS)]
        expected, seconds = whole[kind]
        place = root / f"killed {ranks} {turn}"
        place.mkdir()
        turn, before, history = turn + 1, done, []
        while True:
            timed = chance.random() < 0.5
            delay = seconds * 1.2 * chance.random() if timed else 600
            at = 0 if timed or done >= kills else int(10 ** chance.uniform(0.3, 2.8))
            delay = 600 if done >= kills else delay
            processes = start(place, kind, ranks, kill_at=at)
            status = ended(processes, within=delay)
            if status is None:
                kill(processes, chance)
                done += 1
                history.append(f"after {delay:.3f} s")
            elif status == -signal.SIGKILL:
                done += 1
                history.append(f"before file operation {at}")
            elif status == 0:
                break
            else:
                said = (place / "said.txt").read_text()[-2000:]
                faults.append(f"{kind}: ended with {status} after kills {history}: {said}")
                break
        if status == 0 and (names := differences(bits(place / "run"), expected)):
            faults.append(f"{kind}: {sorted(names)} differ after kills {history}, in {place}")
        else:
            shutil.rmtree(place)
        print(
            f"{done} kills of {ranks} process(es), {done - before} in a run that was {kind}",
            flush=True,
        )
    return faults


def children(process: int) -> list[int]:
    """The living processes that a process started."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parent = path.read_text().rpartition(")")[2].split()[1]
            found += [int(path.parent.name)] if int(parent) == process else []
    return found


def torment_torchrun(root: Path, *, launches: int, chance: random.Random) -> list[str]:
    """The same with the real torchrun, whose start takes seconds: one run, killed that many times."""
    kind = next(iter(KINDS))
    command = [
        *(
            sys.executable,
            "-m",
            "torch.distributed.run",
            "--nproc-per-node",
            "2",
            "--standalone",
        ),
        *("-m", "eqm", *TRAIN, *KINDS[kind]),
    ]

    def launch(place: Path) -> subprocess.Popen[bytes]:
        with (place / "said.txt").open("a") as said:
            return subprocess.Popen(command, cwd=place, stdout=said, stderr=said)

    whole, torn = root / "whole torchrun", root / "killed torchrun"
    for place in (whole, torn):
        place.mkdir()
    began = time.monotonic()
    assert launch(whole).wait() == 0, (whole / "said.txt").read_text()
    seconds = time.monotonic() - began
    for _ in range(launches):
        run = launch(torn)
        with contextlib.suppress(subprocess.TimeoutExpired):
            run.wait(seconds * (0.4 + 0.6 * chance.random()))
        for number in [run.pid, *children(run.pid)]:  # which are in sessions of their own
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        run.wait()
        time.sleep(0.5)  # the locks of the dead may take a moment
    if launch(torn).wait() != 0:
        return [f"torchrun: {(torn / 'said.txt').read_text()[-2000:]}"]
    names = differences(bits(torn / "run"), bits(whole / "run"))
    print(f"{launches} kills of torchrun", flush=True)
    return [f"torchrun: {sorted(names)} differ, in {torn}"] if names else []


def prepare(root: Path) -> None:
    """Does in this process once what the forked ones need: they find the modules imported."""
    os.environ |= {"OMP_NUM_THREADS": "1", "MPLBACKEND": "agg"}
    import torch

    from eqm.monitor import throughput

    torch.set_num_threads(1)
    throughput.matmul_rate = lambda *_, **__: 1e9  # measuring it takes a fifth of a second
    (root / "first").mkdir()
    here = Path.cwd()
    with contextlib.redirect_stdout(io.StringIO()):
        status = train(root / "first", next(iter(KINDS)), ranks=1, rank=0, port=0, kill_at=0)
    assert status == 0
    os.chdir(here)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="kills of a single process")
    parser.add_argument(
        "--pairs", type=int, default=40, help="kills of two processes that train together"
    )
    parser.add_argument("--launches", type=int, default=2, help="kills of a real torchrun")
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    chance, faults = random.Random(asked.seed), list[str]()
    root = Path(tempfile.mkdtemp(prefix="eqm-kills-"))
    prepare(root)
    for kills, ranks in ((asked.kills, 1), (asked.pairs, 2)):
        if kills:
            faults += torment(root, kills=kills, ranks=ranks, chance=chance)
    if asked.launches:
        faults += torment_torchrun(root, launches=asked.launches, chance=chance)
    if faults:
        print("\n".join(faults))
        return 1
    shutil.rmtree(root)
    print("Every run ended in the same bits.")
    return 0


if __name__ == "__main__":
    sys.exit(main())
