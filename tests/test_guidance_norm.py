"""Guidance that keeps the norm of the gradient with the label."""

from dataclasses import replace

import pytest
import torch

import eqm
from eqm.cli.main import main
from eqm.descent.flow import integrate
from eqm.field import at_path
from eqm.tasks import Composition, generate

NULL = 9


def towards_label(x, labels):
    """At 0: minus (label, 0) with a label, (0, 3) without."""
    axis = torch.stack([-labels, 0 * labels], dim=1).to(x)
    none = torch.tensor([0.0, 3.0]).to(x).expand_as(x)
    return x + axis.where((labels != NULL)[:, None], none)


ZEROS, LABELS = torch.zeros(2, 2), torch.tensor([4, 1])
# null + 2 (labelled - null) = (-8, -3) and (-2, -3); the labelled ones have norms 4 and 1.
GUIDED = torch.tensor([[-8.0, -3.0], [-2.0, -3.0]])
FACTORS = torch.tensor([4 / 73**0.5, 1 / 13**0.5])


@pytest.mark.parametrize("share", [0.0, 0.5, 1.0])
def test_the_guided_gradient_goes_to_the_norm_of_the_one_with_the_label(share):
    found = eqm.guide(towards_label, 2.0, NULL, norm=share)(ZEROS, LABELS)
    torch.testing.assert_close(found, GUIDED * (1 + share * (FACTORS - 1))[:, None])


def test_outside_the_interval_nothing_changes():
    field = eqm.guide(towards_label, 2.0, NULL, interval=(0.1, 0.2), norm=1.0)
    found = at_path(field, torch.tensor([0.15, 0.3]))(ZEROS, LABELS)
    torch.testing.assert_close(found[0], GUIDED[0] * FACTORS[0])
    torch.testing.assert_close(found[1], torch.tensor([-1.0, 0.0]))


def test_a_gradient_of_zero_stays_zero():
    field = eqm.guide(lambda x, labels: 0 * x, 2.0, NULL, norm=1.0)
    assert torch.equal(field(ZEROS, LABELS), ZEROS)


class Model:
    shape, num_classes, metadata = (2,), NULL, {}

    def __call__(self, x, labels=None, gamma=None):
        return towards_label(x, torch.full((len(x),), NULL) if labels is None else labels)


SETTINGS = eqm.Sampling("gradient-descent", 0.1, path_length=0.1, guidance=2.0, guidance_norm=1.0)


def test_the_setting_reaches_samplers():
    noise = generate(Model(), [4], sampling=replace(SETTINGS, step_size=1e-9, path_length=1e-9)).x
    expected = noise - 0.1 * eqm.guide(Model(), 2.0, NULL, norm=1.0)(noise, torch.tensor([4]))
    torch.testing.assert_close(generate(Model(), [4], sampling=SETTINGS).x, expected)
    other = generate(Model(), [4], sampling=replace(SETTINGS, guidance_norm=0.0)).x
    assert not torch.allclose(other, expected)
    flow = {"steps": 1, "guidance": 2.0, "null_label": NULL}
    ends = [
        integrate(Model(), ZEROS, LABELS, **flow, guidance_norm=share).x for share in (0.0, 1.0)
    ]
    torch.testing.assert_close(ends[0], -GUIDED)
    torch.testing.assert_close(ends[1], -GUIDED * FACTORS[:, None])


def test_the_server_computes_the_same():
    from eqm.serving.engine import Engine

    engine = Engine(Model(), slots=4)
    try:
        found = engine.submit(generate, [4, 1], sampling=SETTINGS).result(60)
    finally:
        engine.close()
    torch.testing.assert_close(found.x, generate(Model(), [4, 1], sampling=SETTINGS).x)


def test_what_cannot_be_is_one_sentence(tmp_path, capsys):
    for share in (-0.1, 1.1):
        with pytest.raises(ValueError, match="norm must lie in 0..1"):
            eqm.guide(towards_label, 2.0, NULL, norm=share)
        with pytest.raises(ValueError, match="guidance_norm must be a number from 0 to 1"):
            replace(SETTINGS, guidance_norm=share)
    with pytest.raises(ValueError, match="guidance_norm must be 0 for a composition; got 1"):
        Composition.of(Model(), "4 + 1", sampling=SETTINGS)
    command = ["sample", "fashion-mnist", "--guidance-norm", "2", "--dry-run"]
    assert main(command) == 2
    assert "guidance_norm must be a number from 0 to 1" in capsys.readouterr().err
    assert main([*command[:3], "0.5", "--dry-run"]) == 0
    assert "guidance_norm" in capsys.readouterr().out
