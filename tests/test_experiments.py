"""The experiments: the verdicts come out both ways, and one runs from training to its report."""

import json
import shlex
import sys
from pathlib import Path

import pytest
import tyro
from scipy.stats import ttest_1samp

import eqm
from eqm.recipes import RECIPES
from eqm.train import TrainConfig

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))

import conditioning
import harness
import summary
import verdict


@pytest.mark.parametrize(
    ("margins", "outcome"),
    [
        ((1.0, 1.2, 0.9), "holds"),
        ((-1.0, -1.2, -0.9), "does not hold"),
        ((1.0, -1.2, 0.9), "undecided"),
        ((2.0, 2.0, 2.0), "holds"),
        ((0.0, 0.0, 0.0), "undecided"),
        ((5.0,), "undecided"),
    ],
)
def test_margins_decide(margins, outcome):
    found = verdict.Verdict("It is so.", "1 against 2", margins)
    assert found.outcome == outcome
    if len(set(margins)) > 1:
        expected = ttest_1samp(margins, 0, alternative="less").pvalue
        assert found.sure == pytest.approx(expected)


@pytest.mark.parametrize(
    ("ours", "outcome"), [((1.0, 1.1, 1.2), "holds"), ((9.0, 9.5, 9.1), "does not hold")]
)
def test_an_experiment_says_what_its_distances_say(monkeypatch, tmp_path, ours, outcome):
    others = ((3.0, 3.2, 3.1), (3.3, 3.1, 3.2), (4.0, 4.1, 4.2))
    values = dict(zip(conditioning.PAPER, (*others, ours, ours), strict=True))
    samplers = dict.fromkeys(values, harness.SAMPLERS[0])
    monkeypatch.setattr(conditioning, "distances", lambda bench, variants: (values, samplers))
    text = conditioning.conditioning(harness.Bench(output=tmp_path))
    assert f"32.85 against 40.81 | {4.1 - sum(ours) / 3:.4g} ±" in text
    kept = json.loads((tmp_path / "conditioning-digits.json").read_text())
    assert [v["outcome"] for v in kept["verdicts"]] == [*[outcome] * 3, "holds", outcome]
    page = summary.summary(tmp_path)
    assert page.count(f"[{outcome}](results/conditioning-digits.md)") >= 3
    assert text == (tmp_path / "conditioning-digits.md").read_text()


def test_an_experiment_runs_and_finds_what_it_has_trained(monkeypatch, tmp_path):
    monkeypatch.setattr(harness, "SAMPLERS", harness.SAMPLERS[::5])
    bench = harness.Bench(
        seeds=1, images=256, nfe=1, processes=1, output=tmp_path, models=tmp_path / "models"
    )
    first = conditioning.conditioning(bench)
    assert "undecided" in first  # one seed decides nothing
    assert (tmp_path / "conditioning-digits.png").stat().st_size > 10_000
    written = {f: f.stat().st_mtime_ns for f in (tmp_path / "models").rglob("*.safetensors")}
    assert len(written) == 5
    assert conditioning.conditioning(bench) == first
    assert {f: f.stat().st_mtime_ns for f in written} == written


def test_the_published_commands_are_the_variants(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["conditioning.py", "--scale", "imagenet"])
    harness.run(conditioning.conditioning, conditioning.VARIANTS)
    lines = [shlex.split(line) for line in capsys.readouterr().out.splitlines()]
    trained = [
        words[3 : words.index("--data.path")] for words in lines if words[:2] == ["eqm", "train"]
    ]
    recipe = RECIPES[harness.IMAGENET]
    how = (tyro.conf.AvoidSubcommands, tyro.conf.FlagCreatePairsOff)
    configs = [tyro.cli(TrainConfig, default=recipe, args=words, config=how) for words in trained]
    assert configs == [harness.changed(recipe, v) for v in conditioning.VARIANTS.values()]


@pytest.mark.parametrize(
    ("decay", "left", "length"),
    [
        (eqm.ConstantDecay(), 0.01, 0.99),
        (eqm.TruncatedDecay(), 0.2, 0.2),
        (eqm.TruncatedDecay(), 0.2 * 2.718281828459045**-2, 0.3),
        (eqm.LinearDecay(2.0), 2.718281828459045**-3, 1.5),
    ],
)
def test_the_path_of_a_decay_is_the_integral_of_its_inverse(decay, left, length):
    assert harness.path_length(decay, left) == pytest.approx(length, rel=1e-6)
