"""Several models within a memory limit: loaded when asked for, and the longest unused idle one leaves."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from torch import nn

from eqm import Sampling
from eqm.models import UNetConfig, build, save_pretrained
from eqm.serving import ClosedError, FullError, Models
from eqm.tasks import generate

SHORT = Sampling("gradient-descent", step_size=0.1, path_length=0.1)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Three models of one size, and the bytes of one."""
    places = []
    for name in ("a", "b", "c"):
        network = build(UNetConfig(width=4, multipliers=(1, 2), num_classes=2))
        network.metadata = {"data": {"classes": ["left", "right"]}}
        places.append(str(tmp_path_factory.mktemp("models") / name))
        save_pretrained(network, places[-1])
    return places, sum(weight.numel() * 4 for weight in network.parameters())


def loaded(models):
    return [name for name in models.names if models.about(name)["loaded"]]


def test_a_model_is_known_before_it_is_loaded(folders):
    with Models(folders[0]) as models:
        about = models.about("a")
        assert models.names == ["a", "b", "c"]
        assert about["shape"] == [1, 8, 8]
        assert about["classes"] == ["left", "right"]
        assert about["uses"] == ["sample", "vary", "denoise", "restore", "interpolate", "compose"]
        assert loaded(models) == []
        models.get("b")
        assert loaded(models) == ["b"]


def test_the_longest_unused_model_leaves_where_memory_is_short(folders):
    places, size = folders
    with Models(places, memory=int(2.5 * size)) as models:
        first = models.get("a")
        first.engine.submit(generate, sampling=SHORT, count=3).result(60)
        models.get("b")
        models.get("a")
        models.get("c")
        assert loaded(models) == ["a", "c"]
        models.get("b")
        assert loaded(models) == ["b", "c"]
        assert models.loads()["a"].evaluations == 3  # they count although it left
        with pytest.raises(ClosedError):
            first.engine.submit(generate, sampling=SHORT)


def test_a_busy_model_stays(folders):
    places, size = folders
    hold = threading.Event()
    with Models(places, memory=int(1.5 * size)) as models:
        request = models.get("a").engine.submit(lambda model: hold.wait(60))
        with pytest.raises(FullError, match="busy"):
            models.get("b")
        hold.set()
        request.result(60)
        models.get("a").engine.submit(generate, sampling=SHORT).result(60)
        models.get("b")
        assert loaded(models) == ["b"]


def test_many_threads_get_one_model(folders):
    with Models(folders[0]) as models, ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: models.get("a"), range(16)))
    assert all(each is found[0] for each in found)


def test_models_that_load_at_one_time_share_the_memory(folders, monkeypatch):
    places, size = folders
    loading, hold, load = threading.Event(), threading.Event(), Models._load

    def slow(self, name, entry):
        loading.set()
        assert hold.wait(60)
        return load(self, name, entry)

    monkeypatch.setattr(Models, "_load", slow)
    with Models(places, memory=int(1.5 * size)) as models, ThreadPoolExecutor(1) as pool:
        first = pool.submit(models.get, "a")
        assert loading.wait(60)
        with pytest.raises(FullError):
            models.get("b")
        hold.set()
        first.result(60)
        models.get("b")
        assert loaded(models) == ["b"]


def test_a_model_that_fails_to_load_takes_no_memory(folders, monkeypatch):
    places, size = folders
    with Models(places, memory=int(1.5 * size)) as models:
        with monkeypatch.context() as broken:
            broken.setattr(Models, "_load", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                models.get("a")
        models.get("b")
        assert loaded(models) == ["b"]


def test_an_open_model_has_a_name_of_its_own(folders):
    with Models([f"x={folders[0][0]}", f"y={folders[0][0]}"]) as models:
        assert models.names == ["x", "y"]


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ([], "one or more"),
        (["fashion-mnst"], "fashion-mnist"),
        (["fashion-mnist", "fashion-mnist"], "two models are called fashion-mnist"),
        (["a b=fashion-mnist"], "NAME=FOLDER"),
        ({"flat": lambda x, labels: x}, "pictures"),
    ],
)
def test_models_that_cannot_be_served_are_refused(names, said):
    with pytest.raises(ValueError, match=said):
        Models(names)


def test_a_model_larger_than_the_memory_is_refused(folders):
    with pytest.raises(ValueError, match="allow more"):
        Models(folders[0], memory=100)


def test_latents_need_their_encoder():
    class Latent(nn.Module):
        shape, num_classes = (4, 4, 4), 0
        metadata = {
            "data": {"encoder": {"name": "x/y", "fingerprint": "f", "scale": 1, "shift": 0}}
        }

        def forward(self, x, labels=None):
            return x

    with pytest.raises(ValueError, match="--vae"):
        Models({"latent": Latent()})


def test_after_the_end_nothing_is_loaded(folders):
    models = Models(folders[0])
    models.get("a")
    models.close()
    with pytest.raises(ClosedError):
        models.get("a")
