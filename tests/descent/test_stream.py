import pytest
import torch

import eqm
from eqm.descent import Outcome, stream

RULES = [eqm.GradientDescent(0.02), eqm.NesterovLookahead(0.02)]
STOP = eqm.GradientNorm(0.5)
HALF, SOON = eqm.GradientDescent(0.5), eqm.GradientNorm(0.6)


@pytest.fixture(scope="module")
def oracle():
    generator = torch.Generator().manual_seed(3)
    data = torch.randn(12, 8, generator=generator, dtype=torch.float64)
    return eqm.OptimalField(data, labels=torch.arange(12) % 3)


@pytest.fixture(scope="module")
def noise():
    return torch.randn(25, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


LABELS = torch.arange(25) % 3


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batch_size", [1, 4, 25, 60])
@pytest.mark.parametrize("fixed", [False, True])
def test_a_stream_gives_the_results_of_a_batch(oracle, noise, rule, batch_size, fixed):
    whole = eqm.descend(oracle, noise, LABELS, rule=rule, stop=STOP)
    ends = stream(oracle, noise, LABELS, rule=rule, stop=STOP, batch_size=batch_size, fixed=fixed)
    ends = sorted(ends, key=lambda end: end.index)
    assert [end.index for end in ends] == list(range(25))
    torch.testing.assert_close(torch.stack([end.x for end in ends]), whole.x)
    assert [end.steps for end in ends] == whole.steps.tolist()
    assert [end.nfe for end in ends] == whole.nfe.tolist()
    assert tuple(end.outcome for end in ends) == whole.outcome
    torch.testing.assert_close(eqm.descent.collect(ends).gradient_norm, whole.gradient_norm)


def test_the_batch_stays_full_while_there_are_starts_and_no_evaluation_waits(oracle, noise):
    sizes = []

    def counting(x, labels):
        sizes.append(len(x))
        return oracle(x, labels)

    ends = list(stream(counting, noise, LABELS, rule=RULES[0], stop=STOP, batch_size=4))
    assert sum(sizes) == sum(end.steps for end in ends)
    tail = next(i for i, size in enumerate(sizes) if size < 4)
    assert set(sizes[:tail]) == {4}
    assert len(sizes) - tail < max(end.steps for end in ends)
    sizes.clear()
    list(stream(counting, noise, LABELS, rule=RULES[0], stop=STOP, batch_size=4, fixed=True))
    assert set(sizes) == {4}


def test_starts_are_read_when_slots_are_free_and_ends_are_yielded_at_once():
    drawn = []

    def endless():
        for k in range(10**9):
            drawn.append(k)
            yield torch.full((1,), 2.0 ** (k % 5))

    ends = stream(lambda x, y: x, endless(), rule=HALF, stop=SOON, batch_size=3)
    first = [next(ends) for _ in range(20)]
    assert len(drawn) <= 20 + 3
    assert all(end.steps == 2 + end.index % 5 for end in first)


def test_max_steps_and_divergence_end_one_sample_only():
    starts = torch.tensor([[1.0], [torch.nan], [1e6], [2.0], [torch.inf], [4.0]])
    ends = stream(lambda x, y: x, starts, rule=HALF, stop=SOON, batch_size=2, max_steps=9)
    outcome = {end.index: (end.outcome, end.steps) for end in ends}
    assert outcome == {
        0: (Outcome.CONVERGED, 2),
        1: (Outcome.DIVERGED, 1),
        2: (Outcome.MAX_STEPS, 9),
        3: (Outcome.CONVERGED, 3),
        4: (Outcome.DIVERGED, 1),
        5: (Outcome.CONVERGED, 4),
    }


def test_guidance_intervals_use_each_samples_own_path(oracle, noise):
    field = eqm.guide(lambda x, labels: oracle(x, labels % 3), 2.0, 3, interval=(0.1, 0.2))
    whole = eqm.descend(field, noise, LABELS, rule=RULES[1], stop=STOP)
    plain = eqm.descend(oracle, noise, LABELS, rule=RULES[1], stop=STOP)
    ends = eqm.descent.collect(stream(field, noise, LABELS, rule=RULES[1], stop=STOP, batch_size=4))
    torch.testing.assert_close(ends.x, whole.x)
    assert ends.steps.tolist() == whole.steps.tolist()
    assert not torch.allclose(whole.x, plain.x)


def test_finished_samples_are_yielded_before_an_error():
    def fails(x, labels):
        if x.max() > 3:
            raise RuntimeError("no memory")
        return x

    ends, starts = [], torch.tensor([[1.0], [2.0], [8.0]])
    with pytest.raises(RuntimeError, match="no memory"):
        for end in stream(fails, starts, rule=HALF, stop=SOON, batch_size=2):
            ends.append(end.index)
    assert ends == [0]


def test_an_empty_stream_is_allowed():
    assert list(stream(lambda x, y: x, torch.empty(0, 3), rule=RULES[0], batch_size=4)) == []


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch_size": 0}, "batch_size must be at least 1; got 0"),
        ({"max_steps": 0}, "max_steps must be at least 1"),
        ({"labels": iter([0, 1])}, "labels must be one for each start; got 2: pass more"),
        ({"starts": torch.ones(3, 2).long()}, "floating-point"),
        ({"labels": [0] * 4}, "labels must be one for each start; got 4 for 3 starts"),
        ({"starts": [torch.ones(2), torch.ones(3)]}, "starts must have one shape"),
        ({"starts": [torch.ones(2)] * 2 + [torch.ones(3)]}, r"got \(2,\) and \(3,\) at index 2"),
    ],
)
def test_bad_input_is_named(changes, message):
    settings = {"starts": torch.ones(3, 2), "rule": RULES[0], "batch_size": 2, "max_steps": 3}
    with pytest.raises(ValueError, match=message):
        list(stream(lambda x, y: x, **{**settings, **changes}))


@pytest.mark.parametrize(
    "changes", [{"batch_size": 0}, {"max_steps": 0}, {"labels": [0, 1]}, {"labels": [0] * 4}]
)
def test_bad_sizes_are_refused_before_the_first_step(changes):
    settings = {"rule": RULES[0], "batch_size": 2, **changes}
    with pytest.raises(ValueError, match=r"at least 1|one for each start; got [24] for 3 starts"):
        stream(lambda x, y: x, torch.ones(3, 2), **settings)
