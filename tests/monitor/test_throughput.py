import math
import time
from types import SimpleNamespace

import pytest
import torch

from eqm.data import digits
from eqm.models import UNetConfig, cost
from eqm.monitor import throughput
from eqm.monitor.throughput import Throughput, Work, estimate_time, matmul_rate, work_of
from eqm.train import ObjectiveConfig, TrainConfig

SMALL = UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2))


def step(images, loss, *, norm=1.0, skipped=0.0, waited=0.0):
    return SimpleNamespace(
        images=images,
        batch=32,
        means=torch.tensor([loss, norm]),
        skipped=torch.tensor(skipped),
        learning_rate=1e-3,
        waited=waited,
    )


def test_speed_is_that_since_the_last_measurement(monkeypatch):
    now = [100.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    numbers = Throughput(Work(flops=50.0, matmul_flops_per_second=64_000.0))
    numbers.add(step(32, 1.0, norm=3.0, waited=0.25))
    numbers.add(step(64, 1.5, norm=4.0, waited=0.25, skipped=1.0))
    now[0] += 2.0
    assert numbers.measure() == {
        "loss": 1.5,
        "gradient_norm": 4.0,
        "images_per_second": 32.0,
        "learning_rate": 1e-3,
        "skipped_steps": 1.0,
        "data_wait_share": 0.25,
        "mfu": 32 * 50 / 64_000,
        "matmul_flops_per_second": 64_000.0,
    }
    numbers.add(step(96, 9.0))
    now[0] += 1.0
    again = numbers.measure()
    assert (again["loss"], again["images_per_second"], again["data_wait_share"]) == (9.0, 32.0, 0.0)


def test_the_work_of_an_image_is_three_evaluations_and_six_for_an_energy():
    flops = cost(SMALL).flops
    for energy, nfe in (("implicit", 3), ("dot", 6)):
        config = TrainConfig(model=SMALL, objective=ObjectiveConfig(energy=energy))
        assert work_of(config, torch.device("cpu")).flops == nfe * flops


def test_the_rate_of_the_device_is_measured_in_under_a_second():
    since = time.perf_counter()
    rate = matmul_rate(torch.device("cpu"), torch.float32, seconds=0.05)
    a = torch.rand(512, 512)
    timed = time.perf_counter()
    a @ a
    assert rate > 2 * 512**3 / (time.perf_counter() - timed) / 30  # the order of magnitude
    assert time.perf_counter() - since < 1


def test_nothing_to_compare_with_has_no_utilisation():
    numbers = Throughput()
    numbers.add(step(32, 1.0))
    assert "mfu" not in numbers.measure()


def test_the_time_of_a_run_is_estimated_from_real_steps():
    config = TrainConfig(model=SMALL, images=64_000, batch_size=64)
    assert 0 < estimate_time(config, digits()) < math.inf


def test_a_slow_network_is_measured_on_few_images(monkeypatch):
    sizes, clock = [], [0.0]

    def slow(config, state, device):
        sizes.append(config.batch_size)

        def step(data, labels, draws):
            clock[0] += len(data)  # one second per image

        return step

    monkeypatch.setattr(throughput, "make_step", slow)
    monkeypatch.setattr(throughput, "time", SimpleNamespace(perf_counter=lambda: clock[0]))
    monkeypatch.setattr(throughput, "BUDGET", 25.0)
    config = TrainConfig(model=SMALL, images=1000, batch_size=256)
    assert estimate_time(config, digits()) == pytest.approx(1000, rel=0.1)
    assert sizes == [1, 4]
