"""Every rule on every kind of field: quadratics by hand, the exact field of a data set, bad rows."""

import math
from itertools import islice, pairwise

import pytest
import torch

import eqm
from eqm.descent import Outcome, iterate
from eqm.registry import lookup, make, names


def torch_adam(samples):
    return torch.optim.Adam(samples, lr=0.05)


def torch_sgd(samples):
    return torch.optim.SGD(samples, lr=0.02, momentum=0.3)


# Settings that reach the data of `oracle` from noise, and the maximum number of steps.
REACHING = {
    "gradient descent": (eqm.GradientDescent(0.02), 100),
    "cosine steps": (eqm.GradientDescent(eqm.CosineSteps(1.0, 50)), 50),
    "even gamma": (eqm.GradientDescent(eqm.EvenGamma(eqm.TruncatedDecay(), 20)), 60),
    "look-ahead": (eqm.NesterovLookahead(0.02), 100),
    "Nesterov": (eqm.Nesterov(0.02), 100),
    "heavy ball": (eqm.HeavyBall(0.02), 100),
    "Adam": (eqm.Adam(0.05), 400),
    "Barzilai-Borwein": (eqm.BarzilaiBorwein(0.02), 50),
    "Anderson": (eqm.Anderson(0.02), 100),
    "Euler": (eqm.Euler(0.02), 100),
    "Heun": (eqm.Heun(0.03), 100),
    "Runge-Kutta": (eqm.RungeKutta4(0.04), 100),
    "Adams-Bashforth 2": (eqm.AdamsBashforth(0.02), 100),
    "Adams-Bashforth 3": (eqm.AdamsBashforth(eqm.CosineSteps(1.0, 60), order=3), 100),
    "multistep": (eqm.LinearMultistep(((1, 0.02, 0), *[(1, 0.03, -0.01)] * 99)), 100),
    "torch Adam": (eqm.TorchOptimizer(torch_adam), 400),
    "torch SGD": (eqm.TorchOptimizer(torch_sgd), 100),
}
# All other registered rules, those of entry points included, keep the same contract.
TUNED = {type(rule) for rule, _ in REACHING.values()}
SETTINGS = {"step_size": 0.02, "temperature": 0.01}
REGISTERED = {
    name: make("rule", name, SETTINGS)
    for name in names("rule")
    if lookup("rule", name) not in TUNED
}
RULES = {name: rule for name, (rule, _) in REACHING.items()} | REGISTERED
every_rule = pytest.mark.parametrize("rule", RULES.values(), ids=RULES)


def bowl(x, labels):
    return x


@pytest.fixture(scope="module")
def oracle():
    return eqm.OptimalField(
        torch.randn(12, 8, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    )


@pytest.fixture(scope="module")
def noise():
    return torch.randn(12, 8, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


# --- against recursions written by hand ---------------------------------------------------------


def by_hand(name, x, curvature, steps, h=0.1, m=0.3):
    """Numbers of the rule `name` on field(x) = curvature * x, from x."""
    f = lambda x: curvature * x  # noqa: E731
    v = previous = 0.0
    points = [x]
    gradients = []
    for k in range(steps):
        g = f(x)
        gradients.append(g)
        if name == "gradient descent":
            x -= h * g
        elif name == "look-ahead":
            x -= h * f(x + m * (x - (points[-2] if k else x)))
        elif name == "Nesterov":
            v = m * v - h * f(x + m * v)
            x += v
        elif name == "heavy ball":
            x, previous = x - h * g + m * (x - previous if k else 0.0), x
        elif name == "Adam":
            mean = sum(0.1 * 0.9 ** (k - j) * gradients[j] for j in range(k + 1))
            square = sum(0.001 * 0.999 ** (k - j) * gradients[j] ** 2 for j in range(k + 1))
            mean, square = mean / (1 - 0.9 ** (k + 1)), square / (1 - 0.999 ** (k + 1))
            x -= h * mean / (math.sqrt(square) + 1e-8)
        elif name == "RMSProp":
            square = sum(0.01 * 0.99 ** (k - j) * gradients[j] ** 2 for j in range(k + 1))
            x -= h * g / (math.sqrt(square / (1 - 0.99 ** (k + 1))) + 1e-8)
        elif name == "Heun":
            x *= 1 - h * curvature + (h * curvature) ** 2 / 2
        elif name == "Runge-Kutta":
            x *= sum((-h * curvature) ** n / math.factorial(n) for n in range(5))
        elif name == "Adams-Bashforth 2":
            x -= h * (g if k == 0 else (3 * g - gradients[-2]) / 2)
        elif name == "Adams-Bashforth 3":
            if k < 2:
                x -= h * (g if k == 0 else (3 * g - gradients[-2]) / 2)
            else:
                x -= h * (23 * g - 16 * gradients[-2] + 5 * gradients[-3]) / 12
        points.append(x)
    return points[1:]


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("gradient descent", eqm.GradientDescent(0.1)),
        ("gradient descent", eqm.Euler(0.1)),
        ("gradient descent", eqm.Langevin(0.1, 0.0)),
        ("gradient descent", eqm.TorchOptimizer(lambda x: torch.optim.SGD(x, lr=0.1))),
        ("look-ahead", eqm.NesterovLookahead(0.1, 0.3)),
        ("Nesterov", eqm.Nesterov(0.1, 0.3)),
        ("heavy ball", eqm.HeavyBall(0.1, 0.3)),
        ("heavy ball", eqm.TorchOptimizer(lambda x: torch.optim.SGD(x, lr=0.1, momentum=0.3))),
        ("Adam", eqm.Adam(0.1)),
        ("Adam", eqm.TorchOptimizer(lambda x: torch.optim.Adam(x, lr=0.1))),
        ("RMSProp", eqm.RMSProp(0.1)),
        ("Heun", eqm.Heun(0.1)),
        ("Runge-Kutta", eqm.RungeKutta4(0.1)),
        ("Adams-Bashforth 2", eqm.AdamsBashforth(0.1)),
        ("Adams-Bashforth 3", eqm.AdamsBashforth(0.1, order=3)),
        (
            "Adams-Bashforth 2",
            eqm.LinearMultistep(((1, 0.1, 0, 0), *[(1, 0.15, -0.05, 0)] * 11)),
        ),
    ],
)
def test_rule_on_quadratics_by_hand(name, rule):
    starts, curvatures = torch.tensor([[1.0, -2.0], [0.3, 5.0]]).double(), [0.7, 3.0]
    field = lambda x, labels: x * torch.tensor(curvatures).double()  # noqa: E731
    steps = [step.x for step in islice(iterate(field, starts, rule=rule), 12)]
    for row in range(2):
        for element in range(2):
            hand = by_hand(name, starts[row, element].item(), curvatures[element], 12)
            assert [x[row, element].item() for x in steps] == pytest.approx(hand, rel=1e-6)


def test_textbook_nesterov_on_the_bowl():
    steps = islice(iterate(bowl, torch.ones(1, 1).double(), rule=eqm.Nesterov(0.1, 0.3)), 3)
    assert [round(step.x.item(), 3) for step in steps] == [0.9, 0.783, 0.673]


def test_adams_bashforth_with_uneven_steps_is_exact_for_polynomials():
    sizes = [0.3, 0.1, 0.25, 0.05, 0.4, 0.2]
    for order in (2, 3):
        rule = eqm.AdamsBashforth(lambda steps: torch.tensor(sizes)[steps], order=order)
        time = [0.0]  # a gradient that is a polynomial of the path, whatever x is

        def slope(x, labels, time=time, order=order):
            return torch.full_like(x, 1 + 2 * time[0] + (3 * time[0] ** 2 if order == 3 else 0))

        x = torch.zeros(1, 1).double()
        seen = []
        for k, step in enumerate(islice(iterate(slope, x, rule=rule), len(sizes))):
            seen.append(step.x.item())
            time[0] = sum(torch.tensor(sizes).double()[: k + 1].float().tolist())
        times = torch.tensor(sizes).cumsum(0).tolist()
        ideal = [-(t + t**2 + (t**3 if order == 3 else 0)) for t in times]
        ready = order - 1  # the first steps are of lower order
        for k in range(ready, len(sizes)):
            assert seen[k] - seen[ready - 1] == pytest.approx(ideal[k] - ideal[ready - 1], rel=1e-5)


@pytest.mark.parametrize(
    ("rule", "order"),
    [
        (eqm.Euler, 1),
        (eqm.Heun, 2),
        (eqm.RungeKutta4, 4),
        (eqm.AdamsBashforth, 2),
        (lambda h: eqm.AdamsBashforth(h, order=3), 2),  # for its first step
    ],
)
def test_order_of_accuracy_on_a_rotating_linear_flow(rule, order):
    matrix = torch.tensor([[1.0, 3.0], [-3.0, 0.5]]).double()
    start = torch.tensor([[1.0, -0.5]]).double()
    exact = start @ torch.linalg.matrix_exp(-matrix).mT
    errors = [
        (eqm.descend(lambda x, y: x @ matrix.mT, start, rule=rule(1 / n), max_steps=n).x - exact)
        .norm()
        .item()
        for n in (100, 200)
    ]
    assert math.log2(errors[0] / errors[1]) == pytest.approx(order, abs=0.2)


def test_anderson_solves_a_quadratic_in_as_many_steps_as_it_has_curvatures():
    curvatures = torch.tensor([1.0, 4.0, 9.0]).double()
    rule = eqm.Anderson(0.1, depth=3, ridge=1e-14, max_ratio=1e6)
    x = torch.tensor([[3.0, -1.0, 2.0], [0.1, 5.0, -7.0]]).double()
    end = eqm.descend(lambda x, y: x * curvatures, x, rule=rule, max_steps=6)
    plain = eqm.descend(lambda x, y: x * curvatures, x, rule=eqm.GradientDescent(0.1), max_steps=6)
    assert end.gradient_norm.max() < 1e-5
    assert plain.gradient_norm.min() > 0.05


# --- on the exact field of a data set -----------------------------------------------------------


@pytest.mark.parametrize(("rule", "max_steps"), REACHING.values(), ids=REACHING)
def test_rule_reaches_the_data_from_noise(oracle, noise, rule, max_steps):
    stop = eqm.GradientNorm(1e-3)
    descent = eqm.descend(oracle, noise, rule=rule, stop=stop, max_steps=max_steps)
    assert set(descent.outcome) == {Outcome.CONVERGED}
    assert torch.cdist(descent.x, oracle.data).min(dim=1).values.max() < 1e-2


@pytest.mark.parametrize(("rule", "max_steps"), REACHING.values(), ids=REACHING)
def test_rule_ends_at_a_mode_of_a_mixture(rule, max_steps):
    # The energy -20 log sum_i exp(-||x - m_i||^2 / 2): its modes are the means, which are far apart.
    means = 9 * torch.eye(4).double()

    def mixture(x, labels):
        return 20 * (x - torch.softmax(-torch.cdist(x, means).square() / 2, dim=1) @ means)

    starts = 9 * torch.rand(20, 4, generator=torch.Generator().manual_seed(5)).double()
    stop = eqm.GradientNorm(1e-3)
    # twice the steps, because the modes are farther away than the data
    descent = eqm.descend(mixture, starts, rule=rule, stop=stop, max_steps=2 * max_steps)
    assert set(descent.outcome) == {Outcome.CONVERGED}
    near = torch.cdist(descent.x, means).min(dim=1)
    assert near.values.max() < 1e-3
    assert len(near.indices.unique()) == len(means)


@pytest.mark.parametrize("name", ["rmsprop", "langevin"])  # equal steps in every element; noise
def test_rule_that_does_not_converge_stays_near_the_data(oracle, noise, name):
    rule = REGISTERED[name]
    descent = eqm.descend(oracle, noise, rule=rule, stop=eqm.GradientNorm(1e-6), max_steps=150)
    assert set(descent.outcome) == {Outcome.MAX_STEPS}
    assert torch.cdist(descent.x, oracle.data).min(dim=1).values.max() < 0.4


# --- rows are independent -----------------------------------------------------------------------


@every_rule
def test_a_batch_equals_its_rows_one_by_one_with_early_stopping(oracle, noise, rule):
    stop = eqm.GradientNorm(2.0)
    whole = eqm.descend(oracle, noise, rule=rule, stop=stop, max_steps=60)
    assert len(whole.steps.unique()) > 2  # rows do leave at different times
    for i in range(0, len(noise), 3):
        alone = eqm.descend(oracle, noise[i : i + 1], rule=rule, stop=stop, max_steps=60)
        torch.testing.assert_close(alone.x[0], whole.x[i], rtol=1e-8, atol=1e-8)
        assert alone.steps[0] == whole.steps[i]
        assert alone.nfe[0] == whole.nfe[i]
        assert alone.outcome[0] == whole.outcome[i]


@every_rule
@pytest.mark.parametrize("ages", [(0, 1, 2, 7), (3, 0)])
def test_rows_at_different_steps_share_a_batch(oracle, noise, rule, ages):
    def walk(x, state, made, more):
        for k in range(more):
            x, _, _, state = rule.step(oracle, x, state, torch.tensor(made) + k)
        return x, state

    rows = [(noise[i : i + 1], rule.init(noise[i : i + 1])) for i in range(len(ages))]
    grown = [walk(x, state, [0], age) for (x, state), age in zip(rows, ages, strict=True)]
    together = torch.cat([x for x, _ in grown])
    states = tuple(torch.cat(parts) for parts in zip(*(s for _, s in grown), strict=True))
    assert all(len(part) == len(ages) for part in states)
    end, _ = walk(together, states, ages, 4)
    for i, (x, state) in enumerate(grown):
        alone = walk(x, state, [ages[i]], 4)[0]
        torch.testing.assert_close(end[i : i + 1], alone, rtol=1e-8, atol=1e-8)


@every_rule
def test_dropped_rows_do_not_affect_others(rule):
    # rows with a label above 0 diverge
    def field(x, labels):
        return torch.where((labels[:, None, None] > 0) & (x.abs() < 0.9), torch.inf, x)

    x = torch.linspace(1, 2, 12).reshape(3, 2, 2)
    mixed = eqm.descend(field, x, torch.tensor([0, 1, 0]), rule=rule, max_steps=30)
    clean = eqm.descend(field, x, torch.tensor([0, 0, 0]), rule=rule, max_steps=30)
    for i in (0, 2):
        torch.testing.assert_close(mixed.x[i], clean.x[i])
    assert mixed.outcome[0] == mixed.outcome[2] == Outcome.MAX_STEPS
    assert mixed.x.isfinite().all()


@every_rule
def test_rows_that_are_not_finite_end_at_once_and_do_not_affect_others(oracle, noise, rule):
    spoiled = noise[:6].clone()
    spoiled[1], spoiled[4, 2] = torch.nan, torch.inf
    good = [0, 2, 3, 5]
    descent = eqm.descend(oracle, spoiled, rule=rule, max_steps=8)
    clean = eqm.descend(oracle, noise[:6], rule=rule, max_steps=8)
    assert [descent.outcome[i] for i in (1, 4)] == [Outcome.DIVERGED] * 2
    assert descent.steps[1] == descent.steps[4] == 1
    torch.testing.assert_close(descent.x[good], clean.x[good], rtol=1e-8, atol=1e-8)


@every_rule
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_rule_keeps_the_type_shape_and_start(rule, dtype):
    x = torch.randn(3, 1, 2, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    before = x.clone()
    end = eqm.descend(bowl, x, rule=rule, max_steps=3).x
    assert end.dtype == dtype
    assert end.shape == x.shape
    assert end.isfinite().all()
    assert torch.equal(x, before)
    assert eqm.descend(bowl, x[:0], rule=rule).x.shape == (0, 1, 2, 4)


@pytest.mark.parametrize(
    ("rule", "path", "nfe"),
    [
        (eqm.Heun(0.1), 0.4, 8),
        (eqm.RungeKutta4(0.1), 0.4, 16),
        (eqm.Adam(0.1), 0.4, 4),
        (eqm.TorchOptimizer(torch_adam), 0.2, 4),
        (eqm.GradientDescent(eqm.CosineSteps(0.4, 4)), 0.4, 4),
        (eqm.LinearMultistep(((1, 0.1, 0), (1, 0.2, -0.1))), 0.2, 4),
        (eqm.BarzilaiBorwein(0.01, 0.01, 0.05), 0.01 + 3 * 0.05, 4),
    ],
)
def test_path_and_evaluations_are_counted(rule, path, nfe):
    *_, last = islice(iterate(bowl, torch.ones(2, 2), rule=rule), 4)
    assert last.path.tolist() == pytest.approx([path] * 2)
    assert last.nfe.tolist() == [nfe] * 2


# --- properties of single rules -----------------------------------------------------------------


@pytest.mark.parametrize("rule", [eqm.Adam(0.01), eqm.RMSProp(0.01)])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_running_means_are_exact_in_half_precision(rule, dtype):
    # a zero, a number whose square underflows in float16, and two others
    slope = torch.tensor([[0.0, 1e-4, 3.0, -3.0]])
    moved = {}
    for kind in (dtype, torch.float32):
        state, moves = rule.init(slope.to(kind)), []
        for k in range(50):
            at = torch.zeros(1, 4, dtype=kind), state, torch.tensor([k])
            move = rule.step(lambda x, kind=kind, k=k: (slope * (1 + k / 50)).to(kind), *at)
            state = move.state
            moves.append(move.x.float())
        moved[kind] = torch.cat(moves)
    torch.testing.assert_close(moved[dtype], moved[torch.float32], rtol=0.01, atol=0)


def test_barzilai_borwein_steps_by_the_inverse_of_each_samples_curvature():
    curvature = torch.tensor([[20.0], [10.0], [40.0], [1.0], [-5.0], [0.0]])
    rule = eqm.BarzilaiBorwein(first_step=0.04, min_step=0.03, max_step=0.2)
    field = lambda x, labels: x * curvature if len(x) == 6 else x  # noqa: E731
    first, second = islice(iterate(field, torch.ones(6, 1), rule=rule), 2)
    assert first.path.tolist() == pytest.approx([0.04] * 6)
    # limited to the bounds; the maximum without positive curvature
    sizes = (second.path - first.path).tolist()
    assert sizes == pytest.approx([0.05, 0.1, 0.03, 0.2, 0.2, 0.2], rel=1e-4)


@pytest.mark.parametrize("scale", [1e-4, 4.0])
def test_half_precision_neither_loses_nor_overflows_what_is_summed(scale):
    # in float16 the squares of small moves underflow and the sum for large moves overflows
    x = torch.full((2, 4096), scale, dtype=torch.float16)
    field = lambda x, labels: 16 * x  # noqa: E731
    rule = eqm.BarzilaiBorwein(1 / 32, max_step=0.2)
    first, second = islice(iterate(field, x, rule=rule), 2)
    assert (second.path - first.path).tolist() == pytest.approx([1 / 16] * 2)
    # gradient descent goes half of the way, the secant the rest
    first, second = islice(iterate(field, x, rule=eqm.Anderson(1 / 32, depth=1)), 2)
    assert second.x.abs().max() < 0.01 * first.x.abs().min()


def test_anderson_limits_its_step_by_max_ratio():
    def plateau(x, labels):
        return x / x.norm(dim=1, keepdim=True) + 1e-4 * x.sin()

    x = 50 * torch.randn(4, 6, generator=torch.Generator().manual_seed(1))
    steps = list(islice(iterate(plateau, x, rule=eqm.Anderson(0.1)), 20))
    places = [x] + [step.x for step in steps]
    lengths = torch.stack([(b - a).norm(dim=1) for a, b in pairwise(places)])
    assert (lengths <= 0.1 * 3 * 1.01).all()
    assert (lengths > 0.1 * 1.5).any()
    slopes = torch.stack([step.gradient_norm for step in steps])  # the path tells of the stretch
    torch.testing.assert_close(steps[-1].path.float(), (lengths / slopes).sum(0), rtol=1e-3, atol=0)


def test_even_gamma_advances_gamma_evenly_along_the_ideal_path():
    for decay, last in [(eqm.TruncatedDecay(), 1.0), (eqm.LinearDecay(2.0), 0.9)]:
        sizes = eqm.EvenGamma(decay, 10, last)(torch.arange(12)).double()
        gammas = [torch.zeros((), dtype=torch.float64)]
        for size in sizes[:10]:
            gammas.append(gammas[-1] + size * decay(gammas[-1]))
        expected = torch.linspace(0, last, 11, dtype=torch.float64)
        torch.testing.assert_close(torch.stack(gammas), expected, rtol=1e-5, atol=1e-6)
        assert sizes[10] == sizes[11] == sizes[9]


def test_even_gamma_lands_on_the_one_datum():
    datum, start = torch.randn(2, 1, 4096, generator=torch.Generator().manual_seed(0)).double()
    rule = eqm.GradientDescent(eqm.EvenGamma(eqm.TruncatedDecay(), 20))
    end = eqm.descend(eqm.OptimalField(datum), start, rule=rule, max_steps=20).x
    assert (end - datum).norm() < 0.02 * (start - datum).norm()


def test_cosine_steps_cover_their_length_and_fall():
    sizes = eqm.CosineSteps(0.4, 10)(torch.arange(15))
    assert sizes[:10].sum().item() == pytest.approx(0.4)
    assert (sizes[:10].diff() < 0).all()
    assert (sizes[9:] == sizes[9]).all()
    assert sizes[9] > 0


# --- Langevin -----------------------------------------------------------------------------------


def first_noise(x, seed=0, steps=1):
    rule = eqm.Langevin(0.5, 1.0, seed)  # sqrt(2 * step_size * temperature) = 1
    still = lambda x, labels: torch.zeros_like(x)  # noqa: E731
    places = [x] + [s.x for s in islice(iterate(still, x, rule=rule), steps)]
    return places[-1] - places[-2]


def test_langevin_noise_is_standard_normal():
    x = torch.rand(50, 1000, generator=torch.Generator().manual_seed(0)).double()
    for steps in (1, 5):
        noise = first_noise(x, steps=steps).flatten().sort().values
        count = len(noise)
        assert abs(noise.mean()) < 4 / math.sqrt(count)
        assert abs(noise.var() - 1) < 4 * math.sqrt(2 / count)
        assert abs((noise**4).mean() - 3) < 4 * math.sqrt(96 / count)
        ideal = torch.special.ndtr(noise)
        gap = (ideal - torch.arange(count) / count).abs().max() * math.sqrt(count)
        assert gap < 1.63  # Kolmogorov-Smirnov, 1 %


def test_langevin_noise_is_independent_of_steps_rows_elements_and_seeds():
    x = torch.rand(20, 2000, generator=torch.Generator().manual_seed(0)).double()
    one = first_noise(x)
    others = [
        first_noise(x, steps=2),
        first_noise(x, seed=1),
        one.roll(1, 0),
        one.roll(1, 1),
        first_noise(x.nextafter(x + 1)),  # starts that differ in the last bit
    ]
    for other in others:
        assert abs((one * other).mean()) < 4 / math.sqrt(one.numel())
    assert torch.equal(first_noise(x), one)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_langevin_noise_is_a_function_of_seed_start_and_steps(dtype):
    x = torch.rand(6, 2, 3, generator=torch.Generator().manual_seed(0)).to(dtype)
    state = torch.random.get_rng_state()
    whole = first_noise(x, steps=3)
    assert torch.equal(first_noise(x[4:5], steps=3)[0], whole[4])
    assert torch.equal(first_noise(x.flip(0), steps=3), whole.flip(0))
    assert torch.equal(first_noise(torch.stack([x[1], x[1]]))[0], first_noise(x)[1])
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize("step_size", [0.1, 0.5])
def test_langevin_on_the_bowl_has_the_stationary_variance(step_size):
    temperature = 0.3
    x = torch.randn(400, 50, generator=torch.Generator().manual_seed(0))
    x = x * math.sqrt(temperature)
    rule = eqm.Langevin(step_size, temperature)
    squares = [
        step.x.square().mean().item()
        for step in islice(iterate(bowl, x, rule=rule), 200)
        if step.steps[0] > 60
    ]
    expected = temperature / (1 - step_size / 2)
    assert sum(squares) / len(squares) == pytest.approx(expected, rel=0.01)


# --- torch's optimizers -------------------------------------------------------------------------

OPTIMIZERS = {
    "SGD": lambda x: torch.optim.SGD(x, lr=0.05, momentum=0.9, nesterov=True),
    "Adam": lambda x: torch.optim.Adam(x, lr=0.05, amsgrad=True),
    "AdamW": lambda x: torch.optim.AdamW(x, lr=0.05, weight_decay=0.1),
    "NAdam": lambda x: torch.optim.NAdam(x, lr=0.05),
    "RAdam": lambda x: torch.optim.RAdam(x, lr=0.05),
    "Adamax": lambda x: torch.optim.Adamax(x, lr=0.05),
    "Adagrad": lambda x: torch.optim.Adagrad(x, lr=0.05),
    "Adadelta": lambda x: torch.optim.Adadelta(x, lr=1.0),
    "RMSprop": lambda x: torch.optim.RMSprop(x, lr=0.05, momentum=0.5, centered=True),
    "Rprop": lambda x: torch.optim.Rprop(x, lr=0.05),
    "ASGD": lambda x: torch.optim.ASGD(x, lr=0.05),
}


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_torch_optimizer_moves_as_the_optimizer_does(oracle, noise, make):
    sample = noise[:4].clone().requires_grad_()
    optimizer = make([sample])
    for _ in range(12):
        sample.grad = oracle(sample.detach())
        optimizer.step()
    descent = eqm.descend(oracle, noise[:4], rule=eqm.TorchOptimizer(make), max_steps=12)
    torch.testing.assert_close(descent.x, sample.detach(), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)
def test_torch_optimizer_steps_rows_with_different_step_counts(make):
    rule, x = eqm.TorchOptimizer(make), torch.tensor([[1.0, -2.0], [3.0, 0.5]])
    old, state = x[:1], rule.init(x[:1])
    for k in range(3):
        old, _, _, state = rule.step(lambda x: x, old, state, torch.tensor([k]))
    new, fresh = x[1:], rule.init(x[1:])
    both, merged = torch.cat([old, new]), tuple(map(torch.cat, zip(state, fresh, strict=True)))
    for k in range(3):
        old, _, _, state = rule.step(lambda x: x, old, state, torch.tensor([3 + k]))
        new, _, _, fresh = rule.step(lambda x: x, new, fresh, torch.tensor([k]))
        both, _, _, merged = rule.step(lambda x: x, both, merged, torch.tensor([3 + k, k]))
    torch.testing.assert_close(both, torch.cat([old, new]))


# --- settings -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: eqm.Nesterov(0.0), "step_size must be a positive number"),
        (lambda: eqm.Nesterov(0.1, 1.0), r"momentum must lie in \[0, 1\)"),
        (lambda: eqm.HeavyBall(0.1, -0.1), r"momentum must lie in \[0, 1\)"),
        (lambda: eqm.Euler(math.inf), "step_size must be a positive number"),
        (lambda: eqm.Heun(-1.0), "step_size must be a positive number"),
        (lambda: eqm.RungeKutta4(math.nan), "step_size must be a positive number"),
        (lambda: eqm.AdamsBashforth(0), "step_size must be a positive number"),
        (lambda: eqm.AdamsBashforth(0.1, order=4), "order must be one of 2, 3; got 4"),
        (lambda: eqm.Adam(0), "step_size must be a positive number"),
        (lambda: eqm.Adam(0.1, beta1=1.0), r"beta1 must lie in \[0, 1\)"),
        (lambda: eqm.Adam(0.1, beta2=1.0), r"beta2 must lie in \[0, 1\)"),
        (lambda: eqm.Adam(0.1, epsilon=0.0), "epsilon must be a positive number"),
        (lambda: eqm.RMSProp(0), "step_size must be a positive number"),
        (lambda: eqm.RMSProp(0.1, beta2=2), r"beta2 must lie in \[0, 1\)"),
        (lambda: eqm.RMSProp(0.1, epsilon=-1), "epsilon must be a positive number"),
        (lambda: eqm.BarzilaiBorwein(first_step=0), "first_step must be a positive number"),
        (lambda: eqm.BarzilaiBorwein(max_step=math.inf), "max_step must be a positive number"),
        (lambda: eqm.BarzilaiBorwein(0.1, 0.001, 0.05), "min_step <= first_step <= max_step"),
        (lambda: eqm.Anderson(0), "step_size must be a positive number"),
        (lambda: eqm.Anderson(0.1, depth=0), "depth must be at least 1"),
        (lambda: eqm.Anderson(0.1, ridge=0), "ridge must be a positive number"),
        (lambda: eqm.Anderson(0.1, max_ratio=-1), "max_ratio must be a positive number"),
        (lambda: eqm.LinearMultistep(()), "one or more"),
        (lambda: eqm.LinearMultistep(((1.0,),)), "one or more"),
        (lambda: eqm.LinearMultistep(((1, 0.1), (1, 0.1, 0))), r"rows of \[2, 3\] numbers"),
        (lambda: eqm.LinearMultistep(((1, math.nan),)), "finite numbers"),
        (lambda: eqm.Langevin(0, 1.0), "step_size must be a positive number"),
        (lambda: eqm.Langevin(0.1, -1.0), "temperature must be finite and 0 or more"),
        (lambda: eqm.Langevin(0.1, 1.0, seed=-1), "seed must lie in"),
        (lambda: eqm.CosineSteps(0, 10), "length must be a positive number"),
        (lambda: eqm.CosineSteps(0.4, 0), "steps must be at least 1"),
        (lambda: eqm.EvenGamma(eqm.TruncatedDecay(), 0), "steps must be at least 1"),
        (lambda: eqm.EvenGamma(eqm.TruncatedDecay(), 5, last=1.5), r"last.* must lie in \(0, 1\]"),
        (lambda: eqm.EvenGamma(lambda g: 0.5 - g, 5), "decay must be positive"),
        (
            lambda: eqm.TorchOptimizer(lambda x: torch.optim.LBFGS(x)),
            "elementwise .* its step failed with: .*closure",
        ),
        (
            lambda: eqm.TorchOptimizer(lambda x: torch.optim.Adafactor(x, lr=0.1)),
            "mixes the samples",
        ),
        (lambda: eqm.TorchOptimizer(lambda x: x[0]), "elementwise"),
    ],
)
def test_bad_settings_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()
