import math
from itertools import islice

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._python_dispatch import TorchDispatchMode

import eqm
from eqm.descent import Outcome, integrate, iterate

RULES = [eqm.GradientDescent(0.02), eqm.NesterovLookahead(0.02), eqm.NesterovLookahead(0.01, 0.5)]


def bowl(x, labels):
    return x


@pytest.fixture(scope="module")
def oracle():
    return eqm.OptimalField(
        torch.randn(12, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )


@pytest.fixture(scope="module")
def noise():
    return torch.randn(24, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_reaches_the_data_from_noise(oracle, noise, rule):
    descent = eqm.descend(oracle, noise, rule=rule, stop=eqm.GradientNorm(1e-3), max_steps=1000)
    assert set(descent.outcome) == {Outcome.CONVERGED}
    assert torch.cdist(descent.x, oracle.data).min(dim=1).values.max() < 1e-2


@pytest.mark.parametrize("rule", RULES)
def test_a_batch_equals_its_rows_one_by_one_with_early_stopping(oracle, noise, rule):
    stop = eqm.GradientNorm(0.5)
    whole = eqm.descend(oracle, noise, rule=rule, stop=stop)
    assert len(whole.steps.unique()) > 3  # rows do leave at different times
    for i, row in enumerate(noise):
        alone = eqm.descend(oracle, row[None], rule=rule, stop=stop)
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-10, atol=1e-10)
        assert alone.steps[0] == whole.steps[i]
        assert alone.outcome[0] == whole.outcome[i]


@pytest.mark.parametrize("decay", [eqm.TruncatedDecay(), eqm.LinearDecay(1.5)])
def test_one_datum_is_approached_along_the_ideal_path(decay):
    # with one datum the field at x_gamma is exactly (noise - data) c(gamma) once gamma is known
    # from x, as it is in many dimensions; then gamma(s) obeys d gamma / d s = c(gamma)
    generator = torch.Generator().manual_seed(0)
    datum, start = torch.randn(2, 1, 4096, generator=generator, dtype=torch.float64)
    field, h = eqm.OptimalField(datum, decay), 0.0005
    for number, step in enumerate(
        islice(iterate(field, start, rule=eqm.GradientDescent(h)), 800), 1
    ):
        if number % 100 == 0:
            s = number * h
            if isinstance(decay, eqm.LinearDecay):
                ideal = math.exp(-1.5 * s)
            else:
                ideal = 1 - 4 * s if s <= 0.2 else 0.2 * math.exp(-20 * (s - 0.2))
            share = ((step.x - datum).norm() / (start - datum).norm()).item()
            assert share == pytest.approx(ideal, abs=0.01)


@given(step_size=st.floats(0.01, 0.9), steps=st.integers(1, 30))
def test_gradient_descent_on_a_bowl_in_closed_form(step_size, steps):
    x = torch.tensor([[1.0, -2.0]], dtype=torch.float64)
    end = eqm.descend(bowl, x, rule=eqm.GradientDescent(step_size), max_steps=steps).x
    torch.testing.assert_close(end, x * (1 - step_size) ** steps)


def test_the_papers_lookahead_is_not_textbook_nesterov():
    x = torch.ones(1, 1, dtype=torch.float64)
    steps = islice(iterate(bowl, x, rule=eqm.NesterovLookahead(0.1, 0.3)), 3)
    assert [round(step.x.item(), 3) for step in steps] == [0.9, 0.813, 0.734]


def test_samples_stop_independently_with_an_outcome():
    x = torch.tensor([[0.5], [1.0], [8.0], [1e9]])
    descent = eqm.descend(
        bowl, x, rule=eqm.GradientDescent(0.5), stop=eqm.GradientNorm(0.6), max_steps=5
    )
    assert descent.steps.tolist() == [1, 2, 5, 5]
    assert descent.outcome == ("converged", "converged", "converged", "max_steps")
    assert descent.nfe.tolist() == [1, 2, 5, 5]
    torch.testing.assert_close(descent.gradient_norm, torch.tensor([0.5, 0.5, 0.5, 1e9 / 16]))


@given(length=st.floats(0.05, 2), steps=st.integers(1, 300))
def test_path_length_ends_after_the_right_number_of_steps(length, steps):
    rule = eqm.GradientDescent(length / steps)
    descent = eqm.descend(bowl, torch.ones(1, 1), rule=rule, stop=eqm.PathLength(length))
    assert descent.steps.item() == steps


def test_stops_combine():
    stop = eqm.GradientNorm(0.6) | eqm.PathLength(1.5)
    descent = eqm.descend(
        bowl, torch.tensor([[0.5], [8.0]]), rule=eqm.GradientDescent(0.5), stop=stop
    )
    assert descent.steps.tolist() == [1, 3]


def test_rows_that_are_not_finite_end_at_once_and_do_not_affect_others(oracle, noise):
    spoiled = noise.clone()
    spoiled[3], spoiled[7, 2] = torch.nan, torch.inf
    good = [i for i in range(len(noise)) if i not in (3, 7)]
    stop = eqm.GradientNorm(0.5)
    descent = eqm.descend(oracle, spoiled, rule=RULES[0], stop=stop)
    clean = eqm.descend(oracle, noise, rule=RULES[0], stop=stop)
    assert [descent.outcome[i] for i in (3, 7)] == [Outcome.DIVERGED] * 2
    assert [descent.steps[i] for i in (3, 7)] == [1, 1]
    assert torch.equal(descent.x[good], clean.x[good])


def test_a_diverging_row_keeps_its_last_finite_value():
    def explode(x, labels):
        return torch.where(x.abs() > 100, torch.inf, -x)

    descent = eqm.descend(explode, torch.ones(2, 1), rule=eqm.GradientDescent(1.0), max_steps=50)
    assert descent.outcome == (Outcome.DIVERGED, Outcome.DIVERGED)
    assert descent.x.tolist() == [[128.0], [128.0]]
    assert "smaller step size" in descent.outcome[0].sentence


def test_labels_follow_their_samples():
    def towards_label(x, labels):
        return x - labels[:, None]

    x, labels = torch.tensor([[5.0], [1.0], [9.0]]), torch.tensor([5, 4, 0])
    descent = eqm.descend(
        towards_label, x, labels, rule=eqm.GradientDescent(0.5), stop=eqm.GradientNorm(1e-3)
    )
    torch.testing.assert_close(descent.x[:, 0], labels.float(), atol=1e-3, rtol=0)


@pytest.mark.parametrize("given", [torch.bfloat16, torch.float64])
def test_gradients_are_converted_to_the_dtype_of_the_samples(given):
    def field(x, labels):
        return x.to(given)

    x = torch.ones(2, 3)
    end = eqm.descend(field, x, rule=eqm.AdamsBashforth(0.5), max_steps=3).x
    assert end.dtype == torch.float32
    torch.testing.assert_close(
        end, eqm.descend(bowl, x, rule=eqm.AdamsBashforth(0.5), max_steps=3).x
    )


def test_the_path_does_not_drift_over_many_steps():
    rule = eqm.GradientDescent(1e-4)
    *_, last = islice(iterate(bowl, torch.ones(1, 1), rule=rule), 20_000)
    assert last.path.item() == pytest.approx(2, abs=1e-9)


def test_a_solution_prints_how_samples_ended():
    missed = eqm.descend(
        bowl, torch.tensor([[1.0], [3.0]]), rule=eqm.GradientDescent(0.5), max_steps=1
    )
    assert repr(missed) == "Solution of 2: 2 max_steps (gradient norm 1 to 3); NFE 1"
    lost = eqm.descend(bowl, torch.full((1, 1), torch.nan), rule=eqm.GradientDescent(0.5))
    assert str(lost) == (
        "Solution of 1: 1 diverged (use a smaller step size, or check the starts); NFE 1"
    )
    stop = eqm.GradientNorm(0.6)
    both = eqm.descend(bowl, missed.x, rule=eqm.GradientDescent(0.5), stop=stop, max_steps=9)
    assert str(both) == "Solution of 2: 2 converged; NFE 1 to 3"


def test_an_empty_batch_is_allowed():
    descent = eqm.descend(bowl, torch.empty(0, 3), rule=RULES[0], stop=eqm.GradientNorm(1.0))
    assert descent.x.shape == (0, 3)
    assert descent.outcome == ()
    assert str(descent) == "Solution of 0"


def test_iterate_changes_neither_grad_mode_nor_starts():
    x = torch.ones(2, 2)
    for step in islice(iterate(bowl, x, rule=RULES[1]), 3):
        assert torch.is_grad_enabled()
        assert not step.x.requires_grad
    assert torch.equal(x, torch.ones(2, 2))


@pytest.mark.parametrize(
    "decay",
    [
        None,
        eqm.TruncatedDecay(),
        eqm.TruncatedDecay(0.5, 1.0),
        eqm.LinearDecay(3.0),
        eqm.PiecewiseDecay(0.8, 0.8),
        eqm.ConstantDecay(2.0),
    ],
)
def test_integration_follows_the_exact_flow_of_one_datum(decay):
    datum, start = torch.randn(2, 3, 5, dtype=torch.float64)
    seen = []

    def flow(x, labels, gamma):
        seen.append(gamma[0].item())
        # (noise - data) c(gamma) on the straight path
        return (x - datum) / (1 - gamma[:, None]) * (1 if decay is None else decay(gamma)[:, None])

    torch.testing.assert_close(integrate(flow, start, steps=7, decay=decay).x, datum)
    assert seen == pytest.approx([k / 7 for k in range(7)])
    torch.testing.assert_close(integrate(flow, start, steps=4, start=0.5, decay=decay).x, datum)


def test_integration_reports_each_sample():
    def ends_in_a_wall(x, labels, gamma):  # at 0.5, after the first half of the way
        return torch.where((x > 0.45) & (labels[:, None] == 1), torch.inf, -1.0).double()

    start = torch.zeros(3, 1, dtype=torch.bfloat16)
    start[2] = torch.nan
    found = integrate(ends_in_a_wall, start, torch.tensor([0, 1, 1]), steps=8)
    assert found.x.dtype == torch.bfloat16  # though the field is not
    assert found.x[:2, 0].tolist() == [1.0, 0.5]
    assert found.outcome == (Outcome.CONVERGED, Outcome.DIVERGED, Outcome.DIVERGED)
    assert found.steps.tolist() == found.nfe.tolist() == [8, 5, 1]
    assert found.gradient_norm[:2].tolist() == [1.0, math.inf]


def test_integration_in_half_precision_respects_the_guidance_interval():
    seen = []

    def counting(x, labels, gamma):
        seen.append(len(x))
        return torch.zeros_like(x)

    half = {"guidance": 2.0, "null_label": 1, "guidance_interval": (0.35, 0.65)}
    x = torch.zeros(1, 2, dtype=torch.bfloat16)
    integrate(counting, x, torch.tensor([0]), steps=1000, **half)
    assert [k for k, size in enumerate(seen) if size == 2] == list(range(350, 650))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (
            lambda: eqm.descend(bowl, torch.ones(2, 2, dtype=torch.int64), rule=RULES[0]),
            "floating-point",
        ),
        (lambda: eqm.descend(bowl, torch.ones(2), rule=RULES[0]), r"\(B, ...\)"),
        (
            lambda: eqm.descend(bowl, torch.ones(2, 2), torch.zeros(3), rule=RULES[0]),
            r"labels must be a tensor of shape \(2,\)",
        ),
        (
            lambda: eqm.descend(bowl, torch.ones(2, 2), rule=RULES[0], max_steps=0),
            "max_steps must be at least 1",
        ),
        (
            lambda: eqm.descend(lambda x, y: x[:, :1], torch.ones(2, 2), rule=RULES[0]),
            "must return the shape",
        ),
        (
            lambda: eqm.descend(lambda x, y: x > 0, torch.ones(2, 2), rule=RULES[0]),
            "must return a floating-point tensor, the gradient; got torch.bool",
        ),
        (lambda: eqm.GradientDescent(0), "step_size must be a positive number"),
        (lambda: eqm.GradientDescent(float("nan")), "step_size must be a positive number"),
        (lambda: eqm.NesterovLookahead(0.1, 1.0), "momentum must lie in"),
        (lambda: eqm.GradientNorm(0), "threshold must be a positive number"),
        (lambda: eqm.PathLength(-1), "length must be a positive number"),
        (lambda: integrate(bowl, torch.ones(1, 1), steps=0), "at least 1"),
        (
            lambda: integrate(bowl, torch.ones(1, 1), steps=4, decay=lambda g: g),
            "decay must be positive before gamma = 1",
        ),
        (
            lambda: integrate(lambda x, y, gamma: x[:, :1], torch.ones(1, 2), steps=4),
            "must return the shape",
        ),
    ],
)
def test_bad_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


class Waits(TorchDispatchMode):
    """Counts what would make the host wait for an accelerator, were the tensors on one."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        aten = torch.ops.aten
        self.count += func in (aten.nonzero.default, aten._local_scalar_dense.default)
        if func in (aten.index.Tensor, aten.index_put_.default):
            self.count += any(i is not None and i.dtype == torch.bool for i in args[1])
        return func(*args, **(kwargs or {}))


def test_a_step_synchronises_once(noise):
    settings = {"rule": eqm.NesterovLookahead(0.1), "stop": eqm.GradientNorm(0.5)}
    with Waits() as waits:
        steps = eqm.descend(bowl, noise, **settings).steps.max().item()
    assert waits.count == steps + 1  # and one for the maximum here
    calls = []
    with Waits() as waits:
        list(
            eqm.stream(
                lambda x, y: calls.append(1) or x, noise, **settings, batch_size=7, fixed=True
            )
        )
    assert waits.count == len(calls)
