"""Several processes train as one does."""

import os
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import eqm
from eqm.data import digits
from eqm.models import MLPConfig, TransformerConfig, UNetConfig
from eqm.train import ObjectiveConfig, OptimizerConfig, TrainConfig, start, train

UNET = UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2))
TRANSFORMER = TransformerConfig(shape=(1, 8, 8), num_classes=10, width=16, depth=2, heads=2)
TINY = TrainConfig(
    model=UNET,
    optimizer=OptimizerConfig(learning_rate=3e-3, warmup=64, ema_halflife=100, clip=1.0),
    images=160,
    batch_size=32,
    checkpoint_every=64,
)
DOT = ObjectiveConfig(energy="dot")
MUON = replace(TINY, optimizer=replace(TINY.optimizer, name="muon", weight_decay=0.1))


def environment(rank: int, world_size: int, port: int) -> dict[str, str]:
    """What torchrun tells a process."""
    return os.environ | {
        "OMP_NUM_THREADS": "1",
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
        "WORLD_SIZE": str(world_size),
        "RANK": str(rank),
        "LOCAL_RANK": str(rank),
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def launch(*command: str, world_size: int = 2) -> list[subprocess.Popen]:
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, *command],
            env=environment(rank, world_size, port),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world_size)
    ]


def train_together(folder: Path, runs: dict[str, TrainConfig], world_size: int = 2) -> str:
    """Trains all `runs` by several processes; gives what they said."""
    worker = str(Path(__file__).parent / "worker.py")
    processes = launch(worker, str(folder), repr(list(runs.items())), world_size=world_size)
    said = [process.communicate(timeout=300)[1] for process in processes]
    assert [process.returncode for process in processes] == [0] * world_size, said
    return "".join(said)


@pytest.fixture(scope="module")
def images():
    return digits()[torch.arange(0, 1797, 9)]


def last(run):
    *_, end = run
    return end


def newest(folder: Path):
    return load_file(max((folder / "checkpoints").glob("*.safetensors")))


def assert_same_to_rounding(config, ours, theirs):
    """Of the way that the weights, their average and the optimizer's moments went in all."""
    ours, theirs = newest(ours), newest(theirs)
    assert ours.keys() == theirs.keys()
    fresh = start(config, torch.device("cpu")).model.state_dict()
    for kind in ("model", "average", "optimizer"):
        names = [name for name in theirs if name.startswith(f"{kind}.")]
        base = [fresh[n.partition(".")[2]] if kind != "optimizer" else 0 for n in names]
        a = torch.cat([(ours[n] - b).flatten() for n, b in zip(names, base, strict=True)])
        b = torch.cat([(theirs[n] - b).flatten() for n, b in zip(names, base, strict=True)])
        assert (a - b).norm() < 1e-4 * b.norm(), kind


def compare(images, tmp_path, runs, **alone):
    """Trains all runs by two processes, and by one, and compares."""
    said = train_together(tmp_path / "two", runs)
    for name, config in runs.items():
        single = replace(config, **alone)
        last(train(single, images, tmp_path / "one" / name))
        assert_same_to_rounding(single, tmp_path / "two" / name, tmp_path / "one" / name)
    return said


def test_two_processes_are_one(images, tmp_path):
    runs = {"ddp": TINY, "odd": replace(TINY, batch_size=33)}
    (tmp_path / "two").mkdir()
    said = train_together(tmp_path / "two", runs)
    assert said == ""
    last(train(TINY, images, tmp_path / "one"))
    assert_same_to_rounding(TINY, tmp_path / "two" / "ddp", tmp_path / "one")
    error = (tmp_path / "two" / "odd.1.error").read_text()
    assert "multiple of the number of processes, 2; got 33: take 32" in error
    assert eqm.from_pretrained(tmp_path / "two" / "ddp" / "best").metadata["best"] > 0


@pytest.mark.slow
def test_compiled_networks_that_train_together_warn_of_nothing(tmp_path):
    run = replace(TINY, model=UNET, compile="on", images=TINY.batch_size)
    assert train_together(tmp_path, {"run": run}) == ""


@pytest.mark.slow
def test_compiled_energies_train_together(images, tmp_path):
    # of more weights than DDP has in its first bucket, where it would cut the graph
    large = replace(
        TINY,
        model=MLPConfig(shape=(1, 8, 8), num_classes=10, width=300, depth=3),
        objective=DOT,
        images=2 * TINY.batch_size,
        compile="on",
    )
    runs = {"ddp": large, "fsdp": replace(large, parallel="fsdp")}
    said = compare(images, tmp_path, runs, parallel="ddp", compile="off")
    assert said.count("an explicit energy with FSDP is not compiled") == 1


@pytest.mark.slow
def test_every_way_to_train_together_is_training_alone(images, tmp_path):
    runs = {
        f"{parallel} {energy} {type(model).__name__}": replace(
            TINY, parallel=parallel, model=model, objective=ObjectiveConfig(energy=energy)
        )
        for parallel in ("ddp", "fsdp")
        for energy in ("implicit", "dot")
        for model in (UNET, TRANSFORMER, MLPConfig(shape=(1, 8, 8), num_classes=10, width=8))
    }
    few = {"micro_batch": 3, "activation_checkpointing": True}
    fsdp = replace(TINY, parallel="fsdp", model=TRANSFORMER)
    runs |= {
        "ddp in parts": replace(TINY, **few),
        "ddp dot in parts": replace(TINY, objective=DOT, model=TRANSFORMER, **few),
        "fsdp in parts": replace(fsdp, **few),
        "fsdp dot in parts": replace(fsdp, objective=DOT, **few),
        "ddp muon": MUON,
        "fsdp muon": replace(MUON, parallel="fsdp"),
        "ddp without labels": replace(TINY, model=replace(UNET, num_classes=0)),
    }
    assert (
        compare(
            images, tmp_path, runs, parallel="ddp", micro_batch=0, activation_checkpointing=False
        )
        == ""
    )


@pytest.mark.slow
@pytest.mark.parametrize("parallel", ["ddp", "fsdp"])
def test_the_number_of_processes_may_change_on_the_way(images, tmp_path, parallel):
    config = replace(TINY, parallel=parallel, model=TRANSFORMER)
    last(train(config, images, tmp_path / "alone"))
    last(train(replace(config, images=64), images, tmp_path / "run"))
    train_together(tmp_path, {"run": replace(config, images=128)})
    end = last(train(config, images, tmp_path / "run"))
    assert end.images == 160
    assert_same_to_rounding(config, tmp_path / "run", tmp_path / "alone")


@pytest.mark.slow
def test_memory_that_runs_out_in_one_process_halves_the_micro_batch_in_all(images, tmp_path):
    said = compare(images, tmp_path, {"scarce": TINY})
    assert said.count("memory ran out at") == 3
    assert "memory ran out at 4 images at once: trying 2" in said


@pytest.mark.slow
def test_a_question_that_nobody_answers_is_given_up():
    ask = (
        "import time; from datetime import timedelta; from eqm.train import distributed as d\n"
        "d.join('cpu')\n"
        "assert d.all_agree(True, within=timedelta(minutes=5))\n"
        "if d.rank() == 1: time.sleep(3)\n"
        "else:\n"
        "    try: d.all_agree(False, within=timedelta(seconds=1))\n"
        "    except TimeoutError: raise SystemExit(7)\n"
    )
    processes = launch("-c", ask)
    said = [process.communicate(timeout=120)[1] for process in processes]
    assert processes[0].returncode == 7, said


@pytest.mark.slow
@pytest.mark.parametrize(
    "options",
    [
        ["--optimizer.learning-rate", "nan"],
        ["--batch-size", "33"],
        ["--objective.scale", "1e30", "--images", "320", "--batch-size", "32"],
    ],
    ids=["settings", "shares", "no finite step"],
)
@pytest.mark.parametrize("torchrun", [False, True])
def test_a_refusal_of_all_processes_is_said_once(tmp_path, options, torchrun):
    train = ["-m", "eqm", "train", "digits", "--device", "cpu", "--output", str(tmp_path), *options]
    if torchrun:
        ask = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", *train]
        done = subprocess.run([sys.executable, *ask], capture_output=True, text=True, timeout=300)
        said = done.stderr
        assert "exitcode  : 2" in said
    else:
        processes = launch(*train)
        said = "".join(process.communicate(timeout=300)[1] for process in processes)
        assert [process.returncode for process in processes] == [2, 2]
    assert said.count("eqm: ") == 1


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_one_process_saves_and_ends_all(tmp_path, number):
    command = [
        *("-m", "eqm", "train", "digits", "--images", "64000", "--batch-size", "64"),
        *("--model.width", "4", "--model.multipliers", "1", "2", "--output", str(tmp_path)),
        *("--checkpoint-every", "640"),
    ]
    processes = launch(*command)
    try:
        while not (tmp_path / "model.safetensors").exists():
            assert processes[0].poll() is None, processes[0].communicate()[1]
            time.sleep(0.02)
        processes[1].send_signal(number)
        said = [process.communicate(timeout=60)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [process.returncode for process in processes] == [130, 130], said
    assert "run the same command to resume" in said[0]
    assert "Traceback" not in said[0] + said[1]
    assert "eqm:" not in said[1]
