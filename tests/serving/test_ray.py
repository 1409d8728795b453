"""Replicas by Ray: results, faults, and what they open."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from eqm.cli.main import main
from eqm.models import UNetConfig, save_pretrained
from eqm.models.network import build
from eqm.sampling import Sampling
from eqm.serving.ray import Count
from eqm.tasks import generate

TINY = UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2))


@pytest.mark.parametrize(
    ("text", "count"), [("4", Count(4, 4)), ("1:8", Count(1, 8)), (" 2:2 ", Count(2, 2))]
)
def test_a_count_is_a_number_or_a_range(text, count):
    assert Count.read(text) == count


@pytest.mark.parametrize("text", ["", "0", "-1", "2:1", "1:", ":3", "1.5", "two", "1:2:3", "99999"])
def test_other_counts_are_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match=r"replicas must be a number such as 4, .* got '"):
        Count.read(text)


def test_without_ray_the_command_says_what_to_install(capsys):
    assert main(["serve", "fashion-mnist", "--port", "0", "--replicas", "2"]) == 2
    assert "pip install 'eqm[ray]'" in capsys.readouterr().err


@pytest.mark.needs("ray")
@pytest.mark.filterwarnings("ignore:Using extra keyword arguments")  # inside of Ray
def test_a_cluster_that_does_not_answer_is_an_error_of_one_sentence(monkeypatch, capsys):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:9")
    assert main(["serve", "fashion-mnist", "--port", "0", "--replicas", "2"]) == 2
    assert "no cluster of Ray answers at RAY_ADDRESS, 127.0.0.1:9" in capsys.readouterr().err


@pytest.fixture(scope="module")
def network():
    torch.manual_seed(0)
    return build(TINY)


@pytest.fixture(scope="module")
def seen(network, tmp_path_factory):
    """What two replicas did while one of them was killed."""
    folder = tmp_path_factory.mktemp("replicas")
    save_pretrained(network, folder / "model")
    worker = str(Path(__file__).parent / "replicas_worker.py")
    done = subprocess.run(
        [sys.executable, worker, str(folder)], capture_output=True, text=True, timeout=500
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return torch.load(folder / "seen.pt", weights_only=False) | {"stderr": done.stderr}


def slow(test):
    """Marks a test that starts Ray."""
    linux = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc of Linux")
    return pytest.mark.slow(pytest.mark.needs("ray")(linux(test)))


@slow
def test_a_killed_replica_loses_no_request_and_changes_no_sample(seen, network):
    assert seen["unfinished"] > 5
    sampling = Sampling(step_size=0.001, path_length=0.1)
    alone = [generate(network, [1, 2, 3], count=3, seed=k, sampling=sampling).x for k in range(40)]
    torch.testing.assert_close(seen["samples"], torch.stack(alone), rtol=0, atol=1e-5)
    assert seen["stderr"].count("a replica died") == 1


@slow
def test_each_sample_is_reported_as_finished_once_and_previewed(seen):
    for reports in seen["reports"]:
        assert sorted(index for index, _, finished in reports if finished) == [0, 1, 2]
        assert max(steps for _, steps, finished in reports if not finished) == 90


@slow
def test_nothing_listens_but_on_the_loopback_address(seen):
    assert seen["listening"]
    assert seen["listening"] <= {
        "0100007F",
        "0000000000000000FFFF00000100007F",
        "00000000000000000000000001000000",
    }


@slow
def test_errors_deadlines_and_cancelling_reach_the_other_side(seen):
    assert "11" in seen["error"]
    assert seen["deadline"] == "the deadline passed before the result was there"
    assert (seen["busy"].running, seen["busy"].slots) == (1, 2 * 64)
    assert seen["cancelled"]


@slow
def test_closing_waits_for_requests(seen):
    assert seen["drained"]
