"""Registered parts are found by name and made from settings."""

import subprocess
import sys
from dataclasses import dataclass

import pytest
import torch

import eqm
from eqm.corruption import decay_of
from eqm.registry import HOMES, load_plugin, lookup, make, name_of, names, register, settings_of


@pytest.fixture
def own_decay():
    from eqm import registry

    @eqm.register("decay", "test-own")
    def own(gamma):
        return 1 - gamma

    @eqm.register("decay", "test-power")
    @dataclass(frozen=True)
    class Power:
        power: int
        scale: float = 1.0

        def __call__(self, gamma):
            return self.scale * (1 - gamma) ** self.power

    yield own
    for name in ("test-own", "test-power"):
        del registry._REGISTERED["decay"][name]


def test_a_part_is_found_by_its_name_and_the_name_by_the_part(own_decay):
    assert lookup("decay", "test-own") is own_decay
    assert name_of("decay", own_decay) == "test-own"
    assert "test-own" in names("decay")


def test_another_part_of_the_same_name_is_refused_but_the_same_module_may_load_again(own_decay):
    with pytest.raises(ValueError, match="'test-own' is registered already.*choose another name"):
        register("decay", "test-own")(lambda gamma: gamma)
    assert register("decay", "test-own")(own_decay) is own_decay


@pytest.mark.parametrize("name", ["", "Mine", "my_rule", "-mine", "mine-", "a--b", "../x", "a b"])
def test_names_can_be_typed_on_a_command_line(name):
    with pytest.raises(ValueError, match="lower-case letters, digits and single hyphens"):
        register("rule", name)


def test_unknown_kinds_and_unregistered_parts_are_one_sentence():
    with pytest.raises(ValueError, match="the kind must be one of rule, stop, .*; got 'rules'"):
        register("rules", "mine")
    with pytest.raises(ValueError, match="is not registered: put @eqm.register"):
        name_of("decay", object())


def test_a_file_or_a_module_registers_its_parts(tmp_path):
    plugin = tmp_path / "random.py"  # must not replace the module of that name
    plugin.write_text(
        'import eqm\n\n@eqm.register("decay", "from-file")\ndef own(gamma):\n    return 1 - gamma\n'
    )
    code = (
        "from eqm.registry import load_plugin, lookup\n"
        f"load_plugin({str(plugin)!r})\n"
        "assert lookup('decay', 'from-file').__name__ == 'own'\n"
        "import random; random.random()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    "order", ["import mine; load_plugin(FILE)", "load_plugin(FILE); import mine"]
)
def test_a_file_may_be_imported_and_also_loaded_as_a_plugin(tmp_path, order):
    plugin = tmp_path / "mine.py"
    plugin.write_text('import eqm\n\n@eqm.register("decay", "from-file")\nclass Own:\n    pass\n')
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r}); FILE = {str(plugin)!r}\n"
        "from eqm.registry import load_plugin, lookup\n"
        f"{order}\n"
        "assert lookup('decay', 'from-file').__name__ == 'Own'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize("where", ["nowhere.py", "no_such_module", "no_such_package.module"])
def test_a_missing_plugin_is_one_sentence(where):
    with pytest.raises(ValueError, match="a Python file or an installed module; there is no"):
        load_plugin(where)


def test_an_entry_point_of_another_package_is_found(tmp_path):
    (tmp_path / "other_package.py").write_text("def own(gamma):\n    return 1 - gamma\n")
    info = tmp_path / "other_package-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: other-package\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[eqm.decay]\nother-decay = other_package:own\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
        "from eqm.registry import lookup, names\n"
        "assert 'other-decay' in names('decay')\n"
        "assert lookup('decay', 'other-decay').__module__ == 'other_package'\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_every_kind_has_a_home():
    for kind in HOMES:
        names(kind)


def test_a_part_takes_the_settings_that_it_has_and_its_options(own_decay):
    config = {"start": 0.7, "scale": 2.0, "energy": "dot"}
    made = make("decay", "test-power", config, [("power", 3.0)])
    assert made(torch.tensor(0.5)) == 2.0 * 0.5**3
    assert make("decay", "truncated", config) == eqm.TruncatedDecay(0.7, 2.0)
    assert make("rule", "anderson", {"step_size": 0.1}, [("depth", 2.0)]) == eqm.Anderson(0.1, 2)
    assert make("decay", "test-own", config) is own_decay
    for part in (made, own_decay, eqm.PiecewiseDecay(), eqm.PathLength(0.5)):
        kind = "stop" if isinstance(part, eqm.PathLength) else "decay"
        name, settings = settings_of(kind, part)
        assert make(kind, name, {}, settings.items()) == part


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("test-power", [("reach", 2.0), ("power", 2.0)], "takes power, scale; got .* 'reach'"),
        ("test-power", [], "needs power: pass it as an option"),
        ("test-power", [("power", 2.5)], "power must be a whole number; got 2.5"),
        ("test-power", [("power", float("inf"))], "power must be a whole number; got inf"),
        ("test-own", [("scale", 2.0)], "takes no options; got the option 'scale'"),
    ],
)
def test_options_that_a_part_does_not_take_are_one_sentence(own_decay, name, options, message):
    with pytest.raises(ValueError, match=message):
        make("decay", name, {}, options)


def test_decay_of_makes_a_registered_decay_from_metadata(own_decay):
    class Model:
        metadata = {
            "training": {
                "objective.decay": "test-power",
                "objective.scale": 3.0,
                "objective.start": 0.8,
                "objective.decay_options": [["power", 2.0]],
            }
        }

    assert settings_of("decay", decay_of(Model())) == ("test-power", {"power": 2, "scale": 3.0})
    Model.metadata["training"]["objective.decay"] = "test-powre"
    with pytest.raises(ValueError, match="did you mean 'test-power'.*register your own first"):
        decay_of(Model())


def test_name_of_gives_the_first_of_two_names():
    assert name_of("rule", eqm.Euler) == "gradient-descent"


def test_decays_are_found_without_torch():
    code = "import sys, eqm.registry as r; r.names('decay'); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)
