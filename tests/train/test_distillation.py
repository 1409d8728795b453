"""A student does in fewer passes what its teacher does, and stays a field."""

from __future__ import annotations

import pytest
import torch

from eqm import Sampling
from eqm.guidance import guide
from eqm.models import MLPConfig, TextConfig, build
from eqm.sampling.start import guided
from eqm.tasks import generate
from eqm.train import distill


def teacher(**sampling: float) -> torch.nn.Module:
    """A small field of points with two classes, trained for a moment to pull to (1, 0) and (0, 1)."""
    torch.manual_seed(0)
    network = build(MLPConfig(shape=(2,), num_classes=2, width=32, depth=2))
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    ends = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.5, 0.5]])
    for _ in range(150):
        labels, x = torch.randint(3, (128,)), 1.5 * torch.randn(128, 2)
        loss = (network(x, labels) - (x - ends[labels])).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    settings = {"rule": "gradient-descent", "step_size": 0.2, "path_length": 4.0} | sampling
    network.metadata = {"sampling": settings}
    return network


def test_guidance_is_folded_into_one_pass() -> None:
    model = teacher(guidance=2.0)
    student = distill(model, samples=6000, descents=256, batch_size=64)
    x = torch.randn(200, 2, generator=torch.Generator().manual_seed(7))
    labels = torch.arange(200) % 2
    with torch.no_grad():
        wanted, plain = guide(model, 2.0, 2)(x, labels), model(x, labels)
        found = student(x, labels)
        null = torch.full_like(labels, 2)
        unlabelled = (student(x, null) - model(x, null)).square().mean()
    error, apart = (found - wanted).square().mean(), (plain - wanted).square().mean()
    assert error < 0.05 * apart
    assert unlabelled < 0.05 * apart
    assert Sampling.of(student.metadata).guidance == 1
    passes = generate(student, count=4).nfe
    assert (passes == generate(model, count=4).nfe).all()  # and each is of half as many rows


def test_few_evaluations_end_where_the_teacher_ends() -> None:
    model = teacher(guidance=2.0)
    student = distill(model, evaluations=2, samples=6000, descents=256)
    labels = torch.arange(64) % 2
    far = generate(model, labels, seed=99).x
    near = generate(student, labels, seed=99)
    assert (near.nfe == 2).all()
    assert (near.x - far).square().mean() < 0.01 * far.square().mean()


def test_the_teacher_is_not_changed_and_the_seed_decides() -> None:
    model = teacher(guidance=2.0)
    before = [weight.clone() for weight in model.parameters()]
    one, other = (distill(model, samples=200, descents=64) for _ in range(2))
    assert all(map(torch.equal, before, model.parameters()))
    assert all(map(torch.equal, one.parameters(), other.parameters()))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"evaluations": 20}, "evaluations must be fewer than the 20"),
        ({"evaluations": 0}, "evaluations must be"),
        ({"guidance": 1.0}, "needs a guidance other than 1, or fewer evaluations"),
        ({"guidance": -1.0}, "guidance must"),
        ({"samples": 0}, "samples must be"),
    ],
)
def test_what_cannot_be_distilled(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        distill(teacher(guidance=2.0), **settings)


def test_a_model_without_classes_has_no_guidance() -> None:
    network = build(MLPConfig(shape=(2,), width=8, depth=1))
    with pytest.raises(ValueError, match="needs a model with classes"):
        distill(network, guidance=1.5)


def test_a_student_has_no_other_guidance_and_no_student() -> None:
    student = distill(teacher(guidance=2.0), samples=64, descents=64)
    with pytest.raises(ValueError, match="guidance 2 is folded into this model"):
        generate(student, count=2, sampling=Sampling.of(student.metadata).but(guidance=3.0))
    with pytest.raises(ValueError, match="is a student already"):
        distill(student, guidance=2.0)
    assert guided(student, Sampling(), torch.zeros(1)) is student


def test_a_model_with_words_is_refused() -> None:
    network = build(
        MLPConfig(shape=(2,), num_classes=5, width=8, depth=1, text=TextConfig("vocabulary"))
    )
    with pytest.raises(ValueError, match="this one has words"):
        distill(network, guidance=2.0)
