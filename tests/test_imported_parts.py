"""Decays that are functions of the user, named package.module:function."""

import math
import subprocess
import sys
from dataclasses import replace

import pytest
import torch

import eqm
from eqm import registry
from eqm.cli.main import main
from eqm.corruption import decay_of
from eqm.data import digits
from eqm.models import MLPConfig
from eqm.registry import UnknownNameError, import_part, lookup, name_of
from eqm.train import ObjectiveConfig, TrainConfig, train

CODE = """
from dataclasses import dataclass
import torch

def cosine(gamma, *, scale=1.0):
    return scale * torch.cos(torch.pi / 2 * gamma)

@dataclass(frozen=True)
class Power:
    power: int = 2
    scale: float = 1.0
    def __call__(self, gamma):
        return self.scale * (1 - gamma) ** self.power

square = Power()
number = 3
def negative(gamma): return -gamma
def infinite(gamma): return 1 / (1 - gamma)
def one(gamma): return gamma.sum()
def fails(gamma): raise KeyError("no\\nsuch")
def number_of(gamma): return 3.0
"""
CONFIG = TrainConfig(
    model=MLPConfig(shape=(1, 8, 8), width=8, depth=1),
    objective=ObjectiveConfig(),
    images=64,
    batch_size=32,
)


@pytest.fixture
def mine(tmp_path, monkeypatch):
    """A module of a name of its own, in the current folder and not yet imported."""
    name = f"mine_{tmp_path.name.replace('-', '_')}"
    (tmp_path / f"{name}.py").write_text(CODE)
    monkeypatch.chdir(tmp_path)
    yield name
    sys.modules.pop(name, None)
    registry._NAMED.discard(name)


GAMMA = torch.linspace(0, 1, 5)


@pytest.mark.parametrize(
    ("part", "options", "expected"),
    [
        ("cosine", (), 4 * (math.pi / 2 * GAMMA).cos()),
        ("Power", (("power", 3.0),), 4 * (1 - GAMMA) ** 3),
        ("square", (), (1 - GAMMA) ** 2),
    ],
)
def test_a_function_class_or_object_is_a_decay_by_its_name(mine, part, options, expected):
    config = ObjectiveConfig(decay=f"{mine}:{part}", decay_options=options)
    torch.testing.assert_close(config.make_decay()(GAMMA), expected, atol=1e-6, rtol=0)


def test_the_name_is_stored_with_the_weights_and_found_again(mine, tmp_path):
    config = replace(CONFIG, objective=ObjectiveConfig(decay=f"{mine}:cosine", scale=2.0))
    assert [step.images for step in train(config, digits().data, "run")] == [32, 64]
    model = eqm.from_pretrained("run")
    torch.testing.assert_close(
        decay_of(model)(GAMMA), 2 * (math.pi / 2 * GAMMA).cos(), atol=1e-6, rtol=0
    )
    data = digits().data[:40]
    eqm.tasks.EqmDetector(model, "loss").fit(data).save("run")
    loaded = eqm.tasks.EqmDetector.load("run")
    assert torch.isfinite(loaded.score_samples(data[:3])).all()


def test_weights_import_nothing_until_the_user_allows_it(mine):
    class Model:
        metadata = {"training": {"objective.decay": f"{mine}:cosine", "objective.scale": 1.0}}

    with pytest.raises(
        UnknownNameError, match=f"is not imported: if you trust it, add --import {mine}"
    ):
        decay_of(Model())
    assert mine not in sys.modules
    registry.load_plugin(mine)
    assert decay_of(Model())(torch.zeros(1)) == 1


def test_a_module_that_the_program_has_imported_counts_as_allowed(mine, monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(tmp_path)
    module = __import__(mine)
    assert lookup("decay", f"{mine}:cosine") is module.cosine
    assert name_of("decay", module.cosine) == f"{mine}:cosine"


@pytest.mark.parametrize(
    "name", ["os:abort", "sys:exit", "builtins:exec", "torch:load", "eqm.registry:load_plugin"]
)
def test_weights_cannot_name_what_eqm_itself_has_imported(name, monkeypatch):
    monkeypatch.setattr(registry, "_NAMED", set())  # other tests may have allowed a module
    with pytest.raises(UnknownNameError, match="is code that is not imported"):
        lookup("decay", name)


def test_only_decays_are_imported(mine):
    with pytest.raises(UnknownNameError, match="register your own first"):
        eqm.Sampling(rule=f"{mine}:Power").make_rule()
    import_part("rule", f"{mine}:Power")
    assert mine not in sys.modules


@pytest.mark.parametrize(
    ("name", "sentence"),
    [
        ("MINE:gone", "has no function or class 'gone'"),
        ("MINE:number", "has no function or class 'number'"),
        ("nowhere_at_all:f", "there is no 'nowhere_at_all'"),
        ("MINE.inner:f", "there is no 'MINE.inner'"),
        ("MINE:", "must be named package.module:function"),
        (":f", "must be named package.module:function"),
        ("../MINE:f", "must be named package.module:function"),
        ("MINE:negative", "finite numbers of at least 0.*got -1 to 0"),
        ("MINE:infinite", "finite numbers of at least 0.*to inf"),
        ("MINE:one", r"must return a tensor \(B,\)"),
        ("MINE:number_of", r"must return a tensor \(B,\)"),
        ("MINE:fails", r"must be a function of gamma \(B,\); it failed, with KeyError"),
    ],
)
def test_what_cannot_be_imported_or_is_no_decay_is_one_sentence(mine, name, sentence):
    with pytest.raises(ValueError, match=sentence.replace("MINE", mine)) as caught:
        ObjectiveConfig(decay=name.replace("MINE", mine))
    assert "\n" not in str(caught.value)


def test_a_module_that_fails_is_one_sentence(mine, tmp_path):
    (tmp_path / f"{mine}.py").write_text("import nowhere_at_all")
    with pytest.raises(ValueError, match="failed, with ModuleNotFoundError"):
        ObjectiveConfig(decay=f"{mine}:cosine")
    (tmp_path / f"{mine}.py").write_text("1 / 0")
    with pytest.raises(ValueError, match="failed, with ZeroDivisionError"):
        ObjectiveConfig(decay=f"{mine}:cosine")


def test_the_command_line_imports_what_is_typed(mine, capsys):
    command = ["train", "digits", "--objective.decay", f"{mine}:cosine", "--dry-run"]
    assert main(command) == 0
    assert f"{mine}:cosine" in capsys.readouterr().out
    assert main([*command[:3], f"{mine}:gone", "--dry-run"]) == 2
    assert "has no function or class 'gone'" in capsys.readouterr().err


@pytest.mark.slow
def test_the_console_script_finds_a_module_in_the_current_folder(mine):
    code = "from eqm.__main__ import run; run()"
    command = ["train", "digits", "--objective.decay", f"{mine}:cosine", "--dry-run"]
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, *command], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
