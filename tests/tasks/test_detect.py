import json
import math
import zlib
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from sklearn.covariance import OAS
from sklearn.utils.estimator_checks import parametrize_with_checks

import eqm
from eqm import registry
from eqm.corruption import ConstantDecay, LinearDecay, TruncatedDecay
from eqm.energy import DotEnergy
from eqm.metrics import auroc
from eqm.models import UNet, UNetConfig, save_pretrained
from eqm.objective import EquilibriumMatching
from eqm.sampling import Sampling
from eqm.tasks import EqmDetector, EqmOutlierDetector, scores
from eqm.tasks.calibration import Calibration, _precision
from eqm.tasks.error_maps import smooth
from eqm.tasks.scores import ScoreConfig, ScoreContext

STEP = Sampling("gradient-descent", step_size=0.01, path_length=0.1)  # ten steps
CONFIG = ScoreConfig(EquilibriumMatching(), STEP, gammas=(0.3, 1.0))
SMALL = UNetConfig(shape=(1, 8, 8), num_classes=3, width=4, multipliers=(1,))


def spring(x, labels=None):
    """The gradient of 2 ||x||^2."""
    return 4 * x


def normal(count, seed=0, shape=(1, 4, 4), scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, *shape, generator=generator)


@pytest.fixture(scope="module")
def model():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = UNet(SMALL)
        for weight in network.parameters():
            torch.nn.init.normal_(weight, std=0.2)
    network.metadata = {"sampling": {"rule": "gradient-descent", "step_size": 0.02}}
    return network.eval()


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dot", lambda x: 4 * x.square().sum(1)),
        ("gradient-norm", lambda x: 4 * x.norm(dim=1)),
        # after n steps of gradient descent x is 0.96^n x, and work is the fall of 2 ||x||^2
        ("work", lambda x: 2 * x.square().sum(1) * (1 - 0.96**20)),
        ("displacement", lambda x: x.norm(dim=1) * (1 - 0.96**10)),
    ],
)
def test_scores_of_a_spring_have_a_closed_form(name, expected):
    x = normal(5)
    found = EqmDetector(spring, name, config=CONFIG).score_samples(x)
    torch.testing.assert_close(found, expected(x.flatten(1)).double(), rtol=1e-4, atol=1e-6)


def test_complexity_is_the_size_after_zlib():
    x = torch.cat([torch.zeros(1, 1, 16, 16), normal(1, shape=(1, 16, 16))])
    simple, rich = EqmDetector(spring, "complexity").score_samples(x).tolist()
    assert simple == 8 * len(zlib.compress(bytes([128] * 256), 9)) / 256
    assert rich > 5 * simple


def test_scores_of_one_datum_have_a_closed_form():
    datum = torch.tensor([0.5, -0.5, 0.2]).view(1, 1, 1, 3)
    field = eqm.OptimalField(datum, LinearDecay(4.0))  # 4 (z - datum), whatever gamma
    config = ScoreConfig(EquilibriumMatching(LinearDecay(4.0)), STEP, gammas=(0.0, 0.5), draws=3)
    x = torch.cat([datum, datum + 0.1])
    context = ScoreContext(field, x, None, config)
    # the field is 4 (z - datum), the target 4 (z - x): they differ by 4 * 0.1 at any noise
    torch.testing.assert_close(
        scores.loss(context), torch.tensor([0.0, 0.16]), atol=1e-4, rtol=1e-3
    )
    losses, residuals = scores.losses(context), scores.residuals(context)
    assert losses.shape == (2, 2)
    torch.testing.assert_close(losses[1].exp(), torch.full((2,), 0.16), rtol=1e-3, atol=1e-6)
    torch.testing.assert_close(residuals[1].exp(), torch.full((6,), 0.16), rtol=1e-3, atol=1e-6)
    start = context.noisy()
    away = (datum + 0.96**10 * (start - datum) - x).flatten(1).norm(dim=1)
    torch.testing.assert_close(scores.reconstruction(context), away, rtol=1e-3, atol=1e-4)
    # the gradient falls by 0.96 a step: to a fifth at the 41st gradient, the last of 41 steps
    long = replace(config, sampling=replace(STEP, path_length=1.0))
    assert scores.steps(replace(context, config=long)).tolist() == [41, 41]


def test_an_energy_is_the_score_of_an_explicit_model(model):
    energy, x = DotEnergy(model), normal(3, shape=(1, 8, 8))
    with torch.no_grad():
        torch.testing.assert_close(
            EqmDetector(energy, "energy").score_samples(x), energy.energy(x).double()
        )
    with pytest.raises(
        ValueError, match="needs an explicit energy, such as DotEnergy; got .* UNet"
    ):
        EqmDetector(model, "energy")


def test_scores_do_not_depend_on_the_batch(model):
    x = normal(40, shape=(1, 8, 8))
    detector = EqmDetector(model, batch_size=7).fit(x)
    scores = detector.score_samples(x)
    assert scores.dtype == torch.float64
    torch.testing.assert_close(detector.score_samples(x[5:6]), scores[5:6], rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        detector.score_samples(iter(x.split(9))), scores, rtol=1e-4, atol=1e-4
    )
    assert detector.score_samples(x[:0]).shape == (0,)
    given = detector.score_samples(x, torch.tensor([0, 1, 2, 3] * 10))
    assert not torch.allclose(given, scores)  # labels reach the model; 3 is none
    torch.testing.assert_close(given[3::4], scores[3::4], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("score", ["gradient-norm", "combined", ("dot", "complexity")])
def test_the_false_positive_rate_holds_on_new_normal_images(score):
    detector = EqmDetector(spring, score, config=CONFIG).fit(normal(600, seed=1))
    scores = detector.score_samples(normal(4000, seed=2))
    p = detector.p_values_of(scores)
    known = len(detector.calibration.scores)
    for rate in (0.01, 0.05, 0.2):
        # the share is binomial around a rate that itself is beta-distributed over calibrations
        spread = math.sqrt(rate * (1 - rate) * (1 / 4000 + 1 / known))
        assert abs((p <= rate).double().mean() - rate) < 3.3 * spread + 1 / known
        assert torch.equal(p <= rate, scores > detector.threshold(rate))


def test_p_values_and_thresholds_match_counts_by_hand():
    detector = EqmDetector(spring, "gradient-norm", fpr=0.25)
    detector.fit(torch.tensor([1.0, 2.0, -2.0, 3.0, 4.0, 5.0, 6.0]).view(7, 1, 1, 1))
    scores = torch.tensor([0.0, 8.0, 9.0, 24.0, 25.0, torch.inf])  # known: 4 8 8 12 16 20 24
    assert (8 * detector.p_values_of(scores)).tolist() == [8, 7, 5, 2, 1, 1]
    assert detector.threshold() == 20.0  # two of eight may be above
    assert detector.threshold(0.13) == 24.0
    assert detector.predict(torch.tensor([5.0, 5.1]).view(2, 1, 1, 1)).tolist() == [False, True]
    with pytest.raises(
        ValueError, match="of 0.1 needs 9 ranked scores, from 9 normal images; got 7 scores"
    ):
        detector.predict(normal(1), fpr=0.1)


def test_several_numbers_become_a_mahalanobis_distance():
    numbers = normal(60, shape=(5,), scale=1.0).double() @ normal(5, shape=(5,), scale=1.0).double()
    scale = numbers.std(0)
    oracle = OAS(assume_centered=False).fit((numbers / scale).numpy()).precision_
    torch.testing.assert_close(
        _precision(numbers),
        torch.from_numpy(oracle) / torch.outer(scale, scale),
        rtol=1e-3,
        atol=1e-3,
    )
    # with several numbers, unusually low ones are anomalous too
    quiet, loud, usual = normal(50, 3, scale=0.02), normal(50, 4, scale=0.5), normal(200, 5)
    both = EqmDetector(spring, ("gradient-norm", "dot"), config=CONFIG).fit(normal(400, seed=6))
    alone = EqmDetector(spring, "gradient-norm", config=CONFIG).fit(normal(400, seed=6))
    for other in (quiet, loud):
        assert auroc(both.score_samples(usual), both.score_samples(other)) > 0.99
    assert auroc(alone.score_samples(usual), alone.score_samples(quiet)) < 0.01


def test_each_group_of_numbers_counts_the_same_however_many_it_has():
    numbers = normal(8000, shape=(5,), scale=1.0).double()
    found = Calibration.of([numbers[:, :1], numbers[:, 1:]])
    # the squared length of K standard normal numbers has the mean K
    assert found.distance(normal(8000, seed=1, shape=(5,), scale=1.0)).mean() == pytest.approx(
        2, rel=0.05
    )


def test_reconstruction_starts_half_way_to_the_noise():
    x, still = torch.full((2, 3), 100.0), lambda x, labels=None: torch.zeros_like(x)
    found = EqmDetector(still, "reconstruction", config=CONFIG).score_samples(x)
    assert found.tolist() == pytest.approx([50 * 3**0.5] * 2, rel=0.03)  # noise is of length 1


def test_a_descent_of_a_score_sees_the_labels():
    def field(x, labels):
        return x * labels[:, None]

    detector = EqmDetector(field, "displacement", config=CONFIG)
    found = detector.score_samples(torch.ones(2, 4), torch.tensor([0, 2]))
    assert found.tolist() == pytest.approx([0, 2 * (1 - 0.98**10)])  # ten steps of 0.01


@pytest.mark.parametrize("score", ["displacement", "reconstruction"])
def test_an_image_that_diverges_is_infinitely_far_away(score):
    def field(x, labels=None):
        return torch.where(x[:, :1] > 10, torch.nan, spring(x))

    x = torch.tensor([[0.1, 0.2, 0.3], [100.0, 0.2, 0.3]])
    near, far = EqmDetector(field, score, config=CONFIG).score_samples(x)
    assert near < 10
    assert far == math.inf


def test_smoothing_takes_the_mean_of_the_pixels_inside():
    marked = torch.zeros(1, 4, 4)
    marked[0, 0, 0] = 36
    expected = torch.zeros(1, 4, 4)
    expected[0, :2, :2] = torch.tensor([[9.0, 6], [6, 4]])  # of 4, 6, 6 and 9 pixels
    torch.testing.assert_close(smooth(marked), expected)


def test_a_noise_conditioned_model_gets_the_noise_level(model):
    conditioned = UNet(replace(SMALL, noise_conditioning=True)).eval()
    assert ScoreConfig.of(conditioned).objective == EquilibriumMatching(
        ConstantDecay(), noise_conditioning=True
    )
    assert ScoreConfig.of(model).objective == EquilibriumMatching(TruncatedDecay())
    seen = []

    class Conditioned(torch.nn.Module):
        config, metadata = conditioned.config, {}

        def forward(self, x, labels, gamma):
            seen.append(gamma.unique().tolist())
            return x

    x = normal(30, shape=(1, 8, 8))
    config = ScoreConfig.of(Conditioned(), gammas=(0.25, 1.0))
    EqmDetector(Conditioned(), "loss", config=config).score_samples(x)
    assert seen == [[0.25], [1.0]]
    with pytest.raises(ValueError, match="noise-conditioned model cannot"):
        EqmDetector(Conditioned(), "work").score_samples(x)


def test_an_anomaly_map_shows_where():
    x = normal(300, shape=(2, 8, 8))
    detector = EqmDetector(spring, "gradient-norm", config=CONFIG).fit(x)
    maps = detector.anomaly_map(x)
    assert maps.shape == (300, 8, 8)
    assert maps.mean() == pytest.approx(1, abs=0.1)
    spoilt = x[:1].clone()
    spoilt[..., 2, 5] += 1
    found = detector.anomaly_map(spoilt)[0]
    assert found[1:4, 4:7].min() > found[5:, :4].max()


@pytest.mark.parametrize("score", ["combined", "loss", ("dot", "complexity")])
def test_a_saved_detector_loads_with_the_model(model, tmp_path, score):
    x = normal(60, shape=(1, 8, 8))
    save_pretrained(model, tmp_path)
    config = replace(ScoreConfig.of(model, gammas=(0.2, 0.9), draws=2, seed=3), sampling=STEP)
    detector = EqmDetector(model, score, fpr=0.1, config=config).fit(x)
    detector.save(tmp_path)
    loaded = EqmDetector.load(tmp_path)
    assert (loaded.score, loaded.fpr, loaded.config) == (score, 0.1, config)
    torch.testing.assert_close(loaded.score_samples(x), detector.score_samples(x), rtol=0, atol=0)
    assert loaded.threshold() == detector.threshold()
    assert torch.equal(loaded.anomaly_map(x), detector.anomaly_map(x))


def test_a_saved_detector_of_a_function_loads_with_the_function(tmp_path):
    detector = EqmDetector(spring, "dot").fit(normal(40, shape=(3,)))
    detector.save(tmp_path)
    loaded = EqmDetector.load(tmp_path, spring)
    assert loaded.threshold() == detector.threshold()


@pytest.mark.parametrize("rate", [1e-320, 1e-300, 1e-9])
def test_a_rate_that_no_calibration_reaches_is_refused_in_a_short_sentence(rate):
    detector = EqmDetector(spring, "dot").fit(normal(40))
    with pytest.raises(ValueError, match="calibrate on more images") as error:
        detector.threshold(rate)
    assert len(str(error.value)) < 220
    assert detector.threshold(1 - 1e-12) == detector.score_samples(normal(40)).min()


@pytest.fixture
def own_parts():
    @eqm.register("decay", "test-power")
    @dataclass(frozen=True)
    class Power:
        power: float = 2.0

        def __call__(self, gamma):
            return (1 - gamma) ** self.power

    @eqm.register("rule", "test-half")
    @dataclass(frozen=True)
    class Half:
        step_size: float

        def init(self, x):
            return ()

        def step(self, gradient_of, x, state, steps):
            gradient = gradient_of(x)
            return eqm.descent.StepResult(
                x - self.step_size / 2 * gradient, gradient, self.step_size, state
            )

    @eqm.register("score", "test-brightness")
    def brightness(context):
        return context.x.flatten(1).mean(1)

    parts = {"decay": "test-power", "rule": "test-half", "score": "test-brightness"}
    yield Power(3.0)
    for kind, name in parts.items():
        registry._REGISTERED[kind].pop(name, None)


@pytest.mark.parametrize("score", ["test-brightness", ("test-brightness", "loss"), "displacement"])
def test_a_saved_detector_loads_with_your_own_parts(model, own_parts, tmp_path, score):
    x = normal(60, shape=(1, 8, 8))
    sampling = Sampling("test-half", step_size=0.01, path_length=0.1)
    config = replace(CONFIG, objective=EquilibriumMatching(own_parts), sampling=sampling)
    detector = EqmDetector(model, score, config=config).fit(x)
    detector.save(tmp_path)
    loaded = EqmDetector.load(tmp_path, model)
    assert (loaded.score, loaded.config) == (score, config)
    torch.testing.assert_close(loaded.score_samples(x), detector.score_samples(x), rtol=0, atol=0)
    del registry._REGISTERED["rule"]["test-half"]
    with pytest.raises(
        ValueError, match="the rule must be one of .*'test-half'.*register your own"
    ):
        EqmDetector.load(tmp_path, model)


def test_a_decay_without_a_name_is_refused_when_the_detector_is_saved(model, tmp_path):
    config = replace(CONFIG, objective=EquilibriumMatching(lambda gamma: 1 - gamma))
    detector = EqmDetector(model, "loss", config=config).fit(normal(20, shape=(1, 8, 8)))
    with pytest.raises(ValueError, match="is not registered: put @eqm.register"):
        detector.save(tmp_path)


def test_damaged_detectors_are_refused(model, tmp_path):
    save_pretrained(model, tmp_path)
    with pytest.raises(ValueError, match=r"must hold a calibrated detector.*--normal"):
        EqmDetector.load(tmp_path)
    with pytest.raises(ValueError, match="is not calibrated: call fit"):
        EqmDetector(model).save(tmp_path)
    EqmDetector(model, "loss").fit(normal(20, shape=(1, 8, 8))).save(tmp_path)
    with pytest.raises(ValueError, match="with other weights than these"):
        EqmDetector.load(tmp_path, UNet(SMALL))
    settings = tmp_path / "detector.json"
    whole = json.loads(settings.read_text())
    for change, sentence in [
        ({"score": "lots"}, "the score must be one of .*'lots'.*: register your own first"),
        ({"decay": ["steep", {}]}, "the decay must be one of .*'steep'.*: register your own first"),
        ({"decay": ["linear", {"slope": 2}]}, "damaged .*takes scale; got the option 'slope'"),
        ({"version": 9}, "must have version 1; got 9: upgrade eqm"),
        (
            {"gammas": [2]},
            r"detector.json: gammas\[0\] must be a number from 0 to 1; got 2: calibrate it again",
        ),
    ]:
        settings.write_text(json.dumps(whole | change))
        with pytest.raises(ValueError, match=sentence):
            EqmDetector.load(tmp_path)
    settings.write_text(json.dumps(whole))
    (tmp_path / "detector.safetensors").write_bytes(b"cut off")
    with pytest.raises(ValueError, match="complete safetensors file.*: calibrate it again"):
        EqmDetector.load(tmp_path)


def test_bad_input_is_one_sentence(model):
    x, detector = normal(20, shape=(1, 8, 8)), EqmDetector(model, "loss")
    for images, sentence in [
        (normal(3), r"model's shape \(1, 8, 8\); got \(1, 4, 4\): resize"),
        ((x * 100).byte(), "floating-point tensors .* got torch.uint8"),
        (x.numpy(), "floating-point tensors .* got ndarray"),
        (x + 3, r"must lie in -1..1; got 2.*scale them"),
        (x.masked_fill(x > 0, torch.nan), "images must be finite"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            detector.score_samples(images)
    with pytest.raises(
        ValueError, match=r"labels must lie in 0..2, or be none for no class; got 7"
    ):
        detector.score_samples(x, 7)
    with pytest.raises(ValueError, match="one a sample"):
        detector.score_samples(x, [0, 1])
    with pytest.raises(ValueError, match="labels need one tensor"):
        detector.score_samples([x], 1)
    with pytest.raises(ValueError, match="needs at least 4 normal images, better 1,000; got 3"):
        detector.fit(x[:3])
    with pytest.raises(ValueError, match="is not calibrated"):
        EqmDetector(model).score_samples(x)
    with pytest.raises(ValueError, match="must be finite; got NaN"):
        EqmDetector(lambda x, labels: x * torch.inf, "dot").fit(x)
    for settings, sentence in [
        ({"score": "best"}, "the score must be one of combined, .* got 'best'"),
        ({"score": ()}, "score must be the name of a score, or several"),
        ({"fpr": 1.0}, "fpr, the false positive rate, must lie between 0 and 1; got 1.0"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            EqmDetector(model, **settings)
    with pytest.raises(ValueError, match=r"gammas\[0\] must be a number from 0 to 1; got 1.5"):
        ScoreConfig.of(model, gammas=(1.5,))


@parametrize_with_checks(
    [
        EqmOutlierDetector(spring, scores="dot", fpr=0.1),
        EqmOutlierDetector(spring, scores=("dot", "gradient-norm"), fpr=0.2),
    ]
)
def test_the_estimator_keeps_scikit_learns_conventions(estimator, check):
    check(estimator)


def test_the_estimator_reshapes_rows_and_flips_the_sign(model):
    x = normal(200, shape=(1, 8, 8))
    rows = x.flatten(1).numpy()
    estimator = EqmOutlierDetector(model, fpr=0.1).fit(rows)
    detector = EqmDetector(model, fpr=0.1).fit(x)
    np.testing.assert_array_equal(estimator.score_samples(rows), -detector.score_samples(x).numpy())
    assert np.array_equal(estimator.predict(rows) == -1, detector.predict(x).numpy())
    with pytest.raises(ValueError, match="rows must have 64 numbers.* got 9"):
        EqmOutlierDetector(model).fit(rows[:, :9])
    other = EqmOutlierDetector(spring, shape=(4, 4, 4), scores="dot").fit(rows)
    assert other.detector_.calibration.expected.shape == (6, 4, 4)


def test_the_bundled_model_has_a_calibration():
    detector = EqmDetector.load("fashion-mnist", network := eqm.from_pretrained("fashion-mnist"))
    assert network.metadata["sampling"]["multistep_coefficients"]
    assert detector.config is not None
    assert detector.config.sampling.multistep_coefficients == ()
    flat = torch.full((2, 1, 28, 28), 0.3)
    assert detector.field is network
    assert detector.p_values(flat).max() == 1 / 2501  # none of 2,500 normal scores is as high
    assert detector.predict(flat, fpr=0.001).all()


def test_batches_are_scored_one_batch_size():
    events = []

    def field(x, labels):
        events.append(len(x))
        return spring(x)

    def batches():
        for seed in range(2):
            events.append("made")
            yield normal(20, seed)

    assert len(EqmDetector(field, "dot", batch_size=8).score_samples(batches())) == 40
    assert events == ["made", 8, 8, 4, "made", 8, 8, 4]
