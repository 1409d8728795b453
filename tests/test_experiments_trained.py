"""The experiments with trained models: what they compute is what they say, and one runs to its report."""

import json
import sys
from pathlib import Path

import pytest
import torch

import eqm
from eqm.models import MLPConfig, build

sys.path.insert(0, str(Path(__file__).parent.parent / "experiments"))

import composition
import convergence_bound
import detection
import harness
import local_minima
import step_sizes


@pytest.fixture
def conditioned():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = build(MLPConfig(shape=(3,), width=8, depth=1, noise_conditioning=True))
        torch.nn.init.normal_(
            next(p for n, p in reversed(list(network.named_parameters())) if p.ndim > 1)
        )
    return network.requires_grad_(False).eval()


def test_a_clocked_field_is_integrated_up_to_a_path_of_one_and_goes_on_at_its_end(conditioned):
    x = torch.randn(5, 3, generator=torch.Generator().manual_seed(1))
    clocked, rule = step_sizes.Clocked(conditioned), eqm.GradientDescent(0.1)
    end = eqm.descend(clocked, x, rule=rule, max_steps=10).x
    torch.testing.assert_close(end, eqm.descent.integrate(conditioned, x, steps=10).x)
    beyond = end - 0.1 * conditioned(end, None, torch.ones(5))
    torch.testing.assert_close(eqm.descend(clocked, x, rule=rule, max_steps=11).x, beyond)


def test_other_images_are_images_of_the_same_shape_and_range_made_as_said():
    digits = eqm.data.digits().data[:20]
    found = detection.other_images(digits, "digits")
    assert {images.shape for images in found.values()} == {digits.shape}
    assert max(images.abs().max() for images in found.values()) <= 1
    assert (found["constant"].flatten(1).std(1) == 0).all()
    partner = 2 * found["mean of two"] - digits
    assert eqm.metrics.nearest_distances(partner, digits).distance.max() < 1e-6


def test_in_many_dimensions_the_exact_field_rests_at_data_and_in_one_it_does_not(monkeypatch):
    monkeypatch.setattr(local_minima, "LENGTHS", (2.0,))
    bench = harness.Bench()
    (high,), (low,) = (local_minima.arrived(bench, 0, dimension) for dimension in (64, 1))
    assert high == 1 > low


def test_the_bound_of_a_bowl_is_the_closed_form(monkeypatch):
    monkeypatch.setattr(convergence_bound, "STEPS", 3)
    found = convergence_bound.descended(lambda x, labels: 4 * x, torch.ones(1, 2))
    # E = 2 |x|^2 is 4 at the start and 0 after one step of 1/L, where the least norm is reached.
    assert found.smoothness == pytest.approx(4, rel=1e-3)
    torch.testing.assert_close(
        found.bound, torch.tensor([32.0, 16.0, 32 / 3]).double(), rtol=1e-5, atol=0
    )
    assert found.least[0] == pytest.approx(32)
    assert found.least[1:].max() < 1e-4
    assert found.tightest == pytest.approx(1, rel=1e-5)  # of float32, as above
    assert found.kept == pytest.approx(1, abs=1 / 3)


def test_an_experiment_runs_to_its_report(monkeypatch, tmp_path):
    monkeypatch.setattr(composition, "COUNT", 8)
    bench = harness.Bench(
        **{"seeds": 2, "images": 256, "nfe": 2, "processes": 1},
        **{"output": tmp_path, "models": tmp_path / "models"},
    )
    text = composition.composition(bench)
    assert text == (tmp_path / "composition-digits.md").read_text()
    assert len(json.loads((tmp_path / "composition-digits.json").read_text())["verdicts"]) == 4
    assert (tmp_path / "composition-digits.png").stat().st_size > 10_000
