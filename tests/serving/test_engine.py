"""The engine: results as alone, whoever shares the batch; fairness, ends and errors of requests."""

from __future__ import annotations

import math
import threading
from concurrent.futures import CancelledError

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from eqm import DotEnergy, Sampling
from eqm.models import UNetConfig, build
from eqm.serving import ClosedError, DeadlineError, Engine, FullError
from eqm.tasks import (
    Downsample,
    EqmDetector,
    Inpaint,
    compose,
    denoise,
    generate,
    interpolate,
    restore,
    trajectory,
    vary,
)

SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    net = build(UNetConfig(shape=SHAPE, num_classes=5, width=8, multipliers=(1, 2), blocks=1))
    for weight in net.parameters():  # the last layer begins at zero
        weight.data.add_(0.05 * torch.randn(weight.shape))
    return net.eval()


@pytest.fixture(scope="module")
def engine(net):
    with Engine(net, slots=6) as engine:
        yield engine


class Gate:
    """A bowl, x - 1, whose evaluations wait while the gate is shut."""

    shape = (2,)

    def __init__(self):
        self.opened = threading.Event()
        self.entered = threading.Event()
        self.batches = []

    def __call__(self, x, labels=None):
        self.entered.set()
        self.batches.append(len(x))
        assert self.opened.wait(20)
        return x - 1


def pictures(count, seed):
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(seed)) * 2 - 1


samplings = st.builds(
    Sampling,
    rule=st.sampled_from(["gradient-descent", "nesterov-lookahead", "heavy-ball", "heun", "adam"]),
    step_size=st.sampled_from([0.05, 0.1, 0.11]),
    momentum=st.sampled_from([0.0, 0.3, 0.5]),
    path_length=st.sampled_from([0.2, 0.35, 0.5]),
    gradient_ratio=st.sampled_from([0.0, 0.9]),
    guidance=st.sampled_from([0.0, 1.0, 1.7]),
    guidance_interval=st.sampled_from([None, (0.1, 0.3)]),
    multistep_coefficients=st.sampled_from(
        [(), ((1.0, 0.1, 0.0, 0.0), (1.0, 0.2, -0.1, 0.0), (0.9, 0.2, -0.1, 0.02))]
    ),
)
seeds = st.integers(0, 2**40)
HOLE = Inpaint((torch.arange(64) % 3 > 0).float().view(8, 8))
uses = st.one_of(
    st.tuples(
        st.just(generate),
        st.tuples(st.one_of(st.none(), st.integers(0, 4))),
        st.fixed_dictionaries({"count": st.integers(1, 9), "seed": seeds, "sampling": samplings}),
    ),
    st.tuples(
        st.just(vary),
        st.tuples(st.builds(pictures, st.integers(1, 3), seeds), st.integers(0, 4)),
        st.fixed_dictionaries(
            {"strength": st.sampled_from([0.0, 0.3, 1.0]), "seed": seeds, "sampling": samplings}
        ),
    ),
    st.tuples(
        st.just(denoise),
        st.tuples(st.builds(pictures, st.integers(1, 4), seeds)),
        st.fixed_dictionaries(
            {
                "aim": st.sampled_from(["sample", "mmse"]),
                "sigma": st.sampled_from([None, 0.3]),
                "sampling": samplings,
            }
        ),
    ),
    st.tuples(
        st.just(restore),
        st.one_of(
            st.tuples(
                st.builds(lambda n, s: HOLE(pictures(n, s)), st.just(2), seeds), st.just(HOLE)
            ),
            st.tuples(
                st.builds(lambda s: Downsample(2)(pictures(1, s)), seeds), st.just(Downsample(2))
            ),
        ),
        st.fixed_dictionaries({"count": st.integers(1, 3), "steps": st.integers(1, 4)}),
    ),
    st.tuples(
        st.just(interpolate),
        st.tuples(*[st.builds(lambda s: pictures(1, s)[0], seeds)] * 2, st.just((1, 4))),
        st.fixed_dictionaries(
            {"count": st.integers(2, 4), "through": st.sampled_from(["noise", "landscape"])}
        ),
    ),
    st.tuples(
        st.just(compose),
        st.tuples(st.sampled_from(["1", "1 + 2", "0.5*1 - 2 + 3", "left*1 + right*2", "none"])),
        st.fixed_dictionaries(
            {"count": st.integers(1, 4), "balance": st.booleans(), "sampling": samplings}
        ),
    ),
)


@settings(max_examples=15, deadline=None)
@given(st.lists(uses, min_size=1, max_size=5))
def test_results_are_those_of_the_functions_alone_whoever_shares_the_batch(net, engine, jobs):
    requests = [engine.submit(use, *args, **options) for use, args, options in jobs]
    for request, (use, args, options) in zip(requests, jobs, strict=True):
        alone, shared = use(net, *args, **options), request.result(60)
        torch.testing.assert_close(shared.x, alone.x, atol=1e-5, rtol=1e-5)
        assert shared.outcome == alone.outcome
        assert shared.steps.tolist() == alone.steps.tolist()
        assert shared.nfe.tolist() == alone.nfe.tolist()


def test_all_other_functions_of_a_model_work_too(net, engine):
    normal = pictures(40, 1)

    def detect(model):
        return EqmDetector(model, score="loss").fit(normal).score_samples(pictures(3, 2))

    paths = engine.submit(trajectory, [1, 2], seed=4, moments=3)
    scores = engine.submit(detect)
    torch.testing.assert_close(scores.result(60), detect(net), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(
        paths.result(60).x, trajectory(net, [1, 2], seed=4, moments=3).x, atol=1e-5, rtol=1e-5
    )


def test_an_explicit_energy_is_descended_as_alone(net):
    energy = DotEnergy(net)
    with Engine(energy, slots=3) as engine:
        shared = engine.submit(generate, [1, 2, 3, 4], seed=1).result(60)
    torch.testing.assert_close(shared.x, generate(energy, [1, 2, 3, 4], seed=1).x)


def test_requests_with_different_settings_share_each_pass():
    field = Gate()
    with Engine(field, slots=8) as engine:
        first = engine.submit(generate, count=1, sampling=Sampling(step_size=0.1, path_length=0.5))
        assert field.entered.wait(20)
        others = [
            engine.submit(
                generate, count=1, seed=k, sampling=Sampling(step_size=0.1 / k, path_length=0.5)
            )
            for k in (2, 4, 5)
        ]
        field.opened.set()
        assert [len(request.result(20).x) for request in (first, *others)] == [1] * 4
    # The first makes 5 steps. It is alone in the first one, and then all four share their steps.
    assert field.batches[:6] == [1, 4, 4, 4, 4, 3]
    assert len(field.batches) == 26  # those of the longest, and one


def test_a_large_request_does_not_keep_a_small_one_waiting():
    field = Gate()
    long = Sampling(step_size=0.01, path_length=0.5)
    with Engine(field, slots=4) as engine:
        large = engine.submit(generate, count=1000, sampling=long)
        assert field.entered.wait(20)
        small = engine.submit(generate, count=1, sampling=long)
        field.opened.set()
        assert len(small.result(20).x) == 1
        assert engine.load().passes < 60  # 50 are its own
        assert not large.done()
        large.cancel()


def test_free_slots_go_to_the_request_with_the_least_work():
    field = Gate()
    steps = Sampling(step_size=0.05, path_length=0.5)  # 10 steps
    with Engine(field, slots=4) as engine:
        large = engine.submit(generate, count=400, sampling=steps)
        assert field.entered.wait(20)
        small = engine.submit(generate, count=12, sampling=steps)
        smaller = engine.submit(generate, count=4, sampling=steps)
        ended = []
        for name, request in (("large", large), ("small", small), ("smaller", smaller)):
            request.add_done_callback(lambda _, name=name: ended.append(name))
        field.opened.set()
        smaller.result(20)
        small.result(20)
        # 160 evaluations are theirs. At most 4 and the first ones of 2 requests share a pass.
        assert engine.load().passes < 80
        assert not large.done()
        large.cancel()
    assert ended == ["smaller", "small", "large"]


def test_cancelled_requests_leave_the_batch_and_harm_nobody():
    field = Gate()
    with Engine(field, slots=4) as engine:
        gone = engine.submit(generate, count=100)
        stays = engine.submit(generate, count=2, seed=7)
        assert field.entered.wait(20)
        assert gone.cancel()
        field.opened.set()
        torch.testing.assert_close(stays.result(20).x, generate(field, count=2, seed=7).x)
        with pytest.raises(CancelledError):
            gone.result(20)
        assert engine.load().evaluations < 2 * 25 + 2 * 4


def test_a_deadline_ends_running_and_waiting_requests():
    field = Gate()
    field.opened.set()
    slow = Sampling(step_size=1e-6, path_length=0.5)
    with Engine(field, slots=1) as engine:
        requests = [engine.submit(generate, count=1, sampling=slow, deadline=0.2) for _ in range(3)]
        for request in requests:
            with pytest.raises(DeadlineError, match="deadline passed"):
                request.result(20)


def test_more_than_the_queue_holds_is_refused_and_cancelled_ones_make_room():
    field = Gate()
    with Engine(field, slots=1, max_waiting=2) as engine:
        first = engine.submit(generate, count=1)
        assert field.entered.wait(20)  # the engine is in a pass, and takes no other request
        waiting = [engine.submit(generate, count=1) for _ in range(2)]
        with pytest.raises(FullError, match="full, with 2 requests") as caught:
            engine.submit(generate, count=1)
        assert 1 <= caught.value.retry_after <= 60
        waiting[0].cancel()
        last = engine.submit(generate, count=1)
        field.opened.set()
        assert all(len(request.result(20).x) == 1 for request in (first, waiting[1], last))


def test_errors_are_those_of_the_function_and_only_of_its_request(net, engine):
    def wrong(model):
        return model(torch.zeros(1, 3, 5, 5), torch.tensor([1]))

    good = engine.submit(generate, [1, 2, 3], seed=2)
    for use, args, match in [
        (wrong, (), "5"),
        (generate, ("no such",), "no class"),
        (compose, ("1 + ",), "expected"),
        (vary, (torch.zeros(1, 1, 9, 9),), r"\(1, 1, 9, 9\)"),
    ]:
        with pytest.raises((ValueError, RuntimeError), match=match):
            engine.submit(use, *args).result(60)
    torch.testing.assert_close(
        good.result(60).x, generate(net, [1, 2, 3], seed=2).x, atol=1e-5, rtol=1e-5
    )


def test_a_model_that_fails_ends_its_requests_and_the_engine_goes_on():
    def field(x, labels):
        if (labels == 3).any():
            raise RuntimeError("three is broken")
        return x - 1

    field.num_classes = 5
    with Engine(field) as engine:
        broken = engine.submit(generate, [3], shape=(2,))
        with pytest.raises(RuntimeError, match="three is broken"):
            broken.result(20)
        assert len(engine.submit(generate, [1, 2], shape=(2,)).result(20).x) == 2


def test_a_diverging_sample_is_its_own_answer():
    def field(x, labels):
        return x.where(labels[:, None] != 3, torch.nan)

    field.num_classes = 5
    with Engine(field) as engine:
        broken = engine.submit(generate, [3, 1], shape=(2,))
        fine = engine.submit(generate, [1, 2], shape=(2,))
        assert broken.result(20).outcome == ("diverged", "converged")
        assert fine.result(20).outcome == ("converged", "converged")


@pytest.mark.parametrize(
    ("use", "args"), [(generate, ()), (restore, (torch.ones(1, 1), lambda x: x[:, :1]))]
)
def test_progress_shows_samples_on_their_way(use, args):
    field = Gate()
    with Engine(field) as engine:
        request = engine.submit(use, *args, count=2, preview_every=3)
        progress = request.progress()
        field.opened.set()
        seen = list(progress)
    ends = request.result(0)
    on_their_way = [p for p in seen if p.finished is None]
    steps = {index: [p.steps for p in on_their_way if p.index == index] for index in (0, 1)}
    assert all(each == list(range(3, each[-1] + 1, 3)) for each in steps.values())
    assert all(p.x.shape == (2,) and p.steps <= p.max_steps == 25 for p in seen)
    assert all(math.isfinite(p.gradient_norm) for p in seen)
    if use is generate:
        finished = {p.index: p for p in seen if p.finished is not None}
        for index, x in enumerate(ends.x):
            torch.testing.assert_close(finished[index].x, x)
            # The energy is |x - 1|^2 / 2, and the steps are small.
            start = torch.randn(2, generator=torch.Generator().manual_seed(index))
            change = ((x - 1).square().sum() - (start - 1).square().sum()) / 2
            assert finished[index].energy == pytest.approx(float(change), rel=0.05)


def test_a_listener_that_fails_ends_its_request():
    with Engine(lambda x, labels: x - 1) as engine:
        request = engine.submit(
            generate, shape=(2,), sampling=Sampling(step_size=1e-5), preview_every=1
        )
        request.listen(lambda progress: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            request.result(20)


def test_closing_drains_or_cancels():
    field = Gate()
    engine = Engine(field, slots=1)
    requests = [engine.submit(generate, count=1) for _ in range(3)]
    assert field.entered.wait(20)
    closing = threading.Thread(target=engine.close)
    closing.start()
    field.opened.set()
    closing.join(20)
    assert all(len(request.result(0).x) == 1 for request in requests)
    with pytest.raises(ClosedError, match="closed"):
        engine.submit(generate, count=1)

    other = Engine(field, slots=1)
    endless = [other.submit(generate, count=1, sampling=Sampling(step_size=1e-8)) for _ in range(3)]
    other.close(drain=False)
    assert all(request.cancelled() for request in endless)


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({"preview_every": -1}, "preview_every"),
        ({"deadline": 0.0}, "deadline"),
        ({"deadline": math.nan}, "deadline"),
        ({"use": "generate"}, "use must be a function"),
    ],
)
def test_wrong_options_are_refused_at_once(engine, options, match):
    with pytest.raises(ValueError, match=match):
        engine.submit(**{"use": generate, **options})


@pytest.mark.parametrize("options", [{"slots": 0}, {"max_waiting": 0}, {"model": "fashion-mnist"}])
def test_an_engine_needs_a_model_and_room(options):
    with pytest.raises(ValueError):
        Engine(**{"model": lambda x, labels: x, **options})
