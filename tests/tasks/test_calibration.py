"""Detectors whose normal images are spoilt, copied, few, or not images."""

import math
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from eqm import registry
from eqm.objective import EquilibriumMatching
from eqm.sampling import Sampling
from eqm.tasks import CalibrationWarning, EqmDetector, EqmOutlierDetector, scores
from eqm.tasks.calibration import Calibration, outlyingness
from eqm.tasks.scores import ScoreConfig, ScoreContext

CONFIG = ScoreConfig(EquilibriumMatching(), Sampling(), gammas=(0.3, 1.0))


def spring(x, labels=None):
    return 4 * x


def normal(count, seed=0, shape=(1, 4, 4), scale=0.1):
    generator = torch.Generator().manual_seed(seed)
    return scale * torch.randn(count, *shape, generator=generator)


def noise(count, seed=0):
    return 2 * torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(seed)) - 1


def fitted(images, score="combined", **settings):
    """The detector, and what it warned of."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        detector = EqmDetector(spring, score, config=CONFIG, **settings).fit(images)
    assert {warning.category for warning in caught} <= {CalibrationWarning}
    return detector, [str(warning.message) for warning in caught]


@pytest.mark.parametrize("score", ["gradient-norm", "dot", "combined", ("dot", "complexity")])
def test_anomalies_among_the_normal_images_are_said_and_can_be_left_out(score):
    good, spoilt = normal(400), torch.cat([noise(100), normal(400)])
    odd, mild, usual = noise(500, 5), normal(500, 6, scale=0.25), normal(500, 7)
    clean, problems = fitted(good, score)
    assert not problems
    blind, problems = fitted(spoilt, score)
    assert any("clear outliers" in each and "contamination=0.2" in each for each in problems), (
        problems
    )
    assert blind.predict(odd).double().mean() < 0.5
    robust, problems = fitted(spoilt, score, contamination=0.2)
    assert not problems
    for images in (odd, mild, usual):
        rates = [each.predict(images).double().mean() for each in (robust, clean)]
        assert abs(rates[0] - rates[1]) < 0.04
    assert robust.predict(odd).all()
    torch.testing.assert_close(  # maps forget them too
        robust.anomaly_map(usual).mean(), clean.anomaly_map(usual).mean(), rtol=0.3, atol=0
    )
    _, problems = fitted(spoilt, score, contamination=0.1)  # too small a share
    assert any("clear outliers" in each and "contamination=0.2" in each for each in problems), (
        problems
    )


def test_a_number_that_is_the_same_for_most_images_makes_no_outliers():
    """zlib needs the same size for most pictures of noise."""
    images = normal(200, shape=(1, 8, 8), scale=0.2)
    sizes = scores.complexity(SimpleNamespace(x=images))
    assert 0.6 < (sizes == sizes.median()).double().mean() < 0.95
    for score in ("combined", ("losses", "complexity")):
        assert fitted(images, score)[1] == []
        odd = (normal(50, 1, (1, 8, 8), 0.2) + 0.5).clamp(-1, 1)
        spoilt = torch.cat([images, odd])
        assert any("clear outliers" in each for each in fitted(spoilt, score)[1])
        robust, problems = fitted(spoilt, score, contamination=0.2)
        assert not problems
        assert robust.predict(odd).double().mean() > 0.9


def test_many_anomalies_that_several_numbers_do_not_show_are_said():
    good, odd = normal(120, shape=(1, 8, 8), scale=0.2), normal(80, 1, (1, 8, 8), 0.2) + 0.5
    spoilt = torch.cat([good, odd.clamp(-1, 1)])
    _, problems = fitted(spoilt, "residuals", contamination=0.4)
    assert any("only 1 of 200 normal images" in each and "loss" in each for each in problems)
    robust, problems = fitted(spoilt, "loss", contamination=0.4)
    assert not problems
    assert robust.predict(odd).double().mean() > 0.9


def test_leaving_out_outliers_costs_clean_images_little():
    for score in ("gradient-norm", "combined"):
        kept = fitted(normal(400), score, contamination=0.3)[0].calibration.scores
        assert len(kept) >= 0.98 * len(fitted(normal(400), score)[0].calibration.scores)


@pytest.mark.parametrize("contamination", [0.49, 0.1])
@pytest.mark.parametrize("size", [1, 2, 7])
def test_what_lies_far_away_is_an_outlier_and_gaussian_numbers_are_not(size, contamination):
    numbers = normal(600, shape=(size,), scale=1.0).double() + 20
    assert (outlyingness([numbers]) <= 1).all()
    share = min(contamination, 0.2)
    far = numbers.clone()
    far[: int(600 * share)] += 100
    assert torch.equal(outlyingness([far]) > 1, torch.arange(600) < int(600 * share))


def test_p_values_are_super_uniform():
    # for exchangeable images P(p <= k / (n + 1)) is k / (n + 1): here n = 15 of 30 images are ranked
    found = []
    for seed in range(800):
        numbers = normal(40, seed, shape=(3,)).double().exp()
        found.append(Calibration.of([numbers[:30]]))
        found[-1] = found[-1].p_values(found[-1].distance(numbers[30:])).mul(16).round()
    ranks = torch.cat(found)
    assert set(ranks.tolist()) == set(range(1, 17))
    for k in (1, 2, 4, 8):
        # 10 p-values share a calibration; 800 calibrations are independent
        assert (ranks <= k).double().mean() == pytest.approx(
            k / 16, abs=4 * math.sqrt(k / 16 / 800)
        )


@pytest.mark.parametrize("score", ["combined", "losses", ("dot", "gradient-norm")])
def test_copies_are_counted_and_leave_scores_finite_and_comparable(score):
    detector, problems = fitted(normal(1).repeat(40, 1, 1, 1), score)
    assert any("39 of 40 normal images are copies" in each for each in problems)
    usual, odd = detector.score_samples(normal(50, 1)), detector.score_samples(noise(50))
    assert usual.max() < 1e8
    assert usual.median() < odd.median() < 1e9
    few, problems = fitted(torch.cat([normal(400), normal(2)]), score)  # not worth a word
    assert not problems
    assert few.calibration is not None


def test_a_number_that_never_varies_changes_no_other_score():
    numbers = normal(200, shape=(3,), scale=1.0).double()
    constant = torch.cat([numbers, torch.full((200, 1), 7.0, dtype=torch.float64)], 1)
    one, two = Calibration.of([numbers]), Calibration.of([constant])
    torch.testing.assert_close(
        two.distance(constant) * 4, one.distance(numbers) * 3, rtol=0.05, atol=0.05
    )


def test_too_few_images_for_the_rate_are_said_with_the_number_that_it_needs():
    for score, count, images in [("dot", 18, 19), ("combined", 36, 38)]:
        detector, problems = fitted(normal(count), score)
        assert any(f"from {images} normal images" in each for each in problems)
        with pytest.raises(ValueError, match=f"from {images} normal images"):
            detector.predict(normal(1))
        detector, problems = fitted(normal(images), score)
        assert not problems
        assert detector.predict(noise(1)).all()


@pytest.mark.parametrize("size", [1, 2, 3, 8, 16, 17, 50])
def test_residuals_count_every_column_of_a_table_once(size):
    errors = torch.rand(2, 5, size, generator=torch.Generator().manual_seed(size))
    found = scores.residuals(SimpleNamespace(errors=errors)).exp() - 1e-8
    parts = min(size, 16)
    assert found.shape == (5, 2 * parts)
    if size <= 16:
        torch.testing.assert_close(found, errors.transpose(0, 1).flatten(1))
    changed = errors.clone()
    for column in range(size):
        changed[..., column] += 1
        moved = scores.residuals(SimpleNamespace(errors=changed)).exp() - 1e-8 - found
        assert (moved[:, :parts] > 1e-3).sum() == 5  # one part of each row
        changed[..., column] -= 1


def test_residuals_of_small_images_have_a_cell_a_pixel():
    errors = torch.rand(2, 5, 3, 2, 3)
    found = scores.residuals(SimpleNamespace(errors=errors)).exp() - 1e-8
    torch.testing.assert_close(found, errors.mean(2).flatten(2).transpose(0, 1).flatten(1))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("score", ["test-first", ("test-first", "complexity")])
def test_scores_that_are_not_finite_rank_as_most_anomalous(score, value):
    registry.register("score", "test-first")(_first)
    try:
        detector, _ = fitted(normal(100), score)
        odd = normal(2, 9)
        odd[0, 0, 0, 0] = 0.77
        _first.value = value
        found = detector.score_samples(odd)
        assert found.isfinite().tolist() == [False, True]
        assert found[0] == math.inf
        assert detector.p_values(odd)[0] == 1 / (len(detector.calibration.scores) + 1)
        assert detector.p_values_of(torch.tensor([value]))[0] == detector.p_values(odd)[0]
        assert detector.predict(odd)[0]
        assert detector.decision_function(odd)[0] == math.inf
    finally:
        registry._REGISTERED["score"].pop("test-first", None)


def _first(context):
    first = context.x.flatten(1)[:, 0]
    return first.masked_fill((first - 0.77).abs() < 1e-6, _first.value)


_first.value = 0.0


@pytest.mark.parametrize("score", ["work", "displacement", "reconstruction", "steps"])
@pytest.mark.parametrize("bound", [10.0, 1e30])
def test_a_sample_that_diverges_on_the_way_is_most_anomalous(score, bound):
    def field(x, labels):
        # rows that begin above 10 leave at once, or when they have come far
        far = x.flatten(1).abs().amax(1) > 10
        gone = x.flatten(1).abs().amax(1) > bound
        rate = torch.where(far, -1e8, 4.0).masked_fill(gone, torch.nan)
        return x * rate.view(-1, 1, 1, 1)

    x = torch.cat([normal(3), 30 + normal(1)])
    context = ScoreContext(field, x, None, CONFIG)
    found = registry.lookup("score", score)(context).double()
    assert found.isfinite().tolist() == [True, True, True, False]
    assert found[3] == math.inf


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"contamination": 0.5}, r"contamination.* must lie in \[0, 0.5\); got 0.5"),
        ({"contamination": -0.1}, r"must lie in \[0, 0.5\)"),
        ({"contamination": math.nan}, r"must lie in \[0, 0.5\)"),
        ({"score": ("dot", "dot")}, "several different ones; got"),
        ({"score": ()}, "several different ones; got"),
    ],
)
def test_settings_out_of_range_are_refused(settings, sentence):
    with pytest.raises(ValueError, match=sentence):
        EqmDetector(spring, **settings)


@pytest.mark.parametrize("shape", [3, (3, 1.0), (-3,), "x", (0,), None])
def test_the_estimator_refuses_what_is_no_shape(shape):
    rows = normal(40, shape=(3,)).numpy()
    estimator = EqmOutlierDetector(spring, shape=shape, scores="dot")
    if shape is None:
        assert estimator.fit(rows).predict(rows).shape == (40,)
    else:
        with pytest.raises(ValueError, match="shape"):
            estimator.fit(rows)


def test_another_number_of_columns_than_in_fit_is_refused():
    detector, _ = fitted(normal(50, shape=(5,)), "losses")
    with pytest.raises(ValueError, match=r"shape \(5,\).*got \(4,\)"):
        detector.score_samples(normal(2, shape=(4,)))


def test_the_estimator_takes_tables_as_people_have_them():
    rows = normal(200, shape=(5,)).numpy()
    rows[:, 2] = 0.3  # a constant column
    estimator = EqmOutlierDetector(spring).fit(rows)
    assert np.isfinite(estimator.score_samples(rows)).all()
    odd = rows[:1].copy()
    odd[0, 2] = -0.9
    assert estimator.predict(odd).tolist() == [-1]
    wide = normal(40, shape=(200,)).numpy()  # fewer rows than columns
    assert np.isfinite(EqmOutlierDetector(spring).fit(wide).score_samples(wide)).all()
    for wrong, sentence in [
        (rows[:, :4], "features"),
        (np.full((2, 5), np.nan), "NaN"),
        (np.full((2, 5), np.inf), "infinity"),
        (rows[0], "1D array|2D array"),
    ]:
        with pytest.raises(ValueError, match=sentence):
            estimator.predict(wrong)
    with pytest.raises(ValueError, match="minimum of 4"):
        EqmOutlierDetector(spring).fit(rows[:1])
    spoilt = np.concatenate([rows, 1 - 2 * np.random.default_rng(0).random((50, 5))])
    with pytest.warns(CalibrationWarning, match="clear outliers"):
        EqmOutlierDetector(spring, scores="dot").fit(spoilt)
    robust = EqmOutlierDetector(spring, scores="dot", calibration_contamination=0.2).fit(spoilt)
    assert (robust.predict(spoilt[-50:]) == -1).mean() > 0.9
