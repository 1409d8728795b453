"""`EqmOutlierDetector` on tables, without a field."""

import numpy as np
import pytest
from sklearn.utils.estimator_checks import parametrize_with_checks

from eqm.metrics import auroc
from eqm.tasks import CalibrationWarning, EqmOutlierDetector


def table(count=300, seed=0):
    """Rows of five columns; the second is the first with a little noise."""
    rows = np.random.default_rng(seed).normal(size=(count, 5))
    rows[:, 1] = rows[:, 0] + 0.1 * rows[:, 1]
    return rows


@parametrize_with_checks([EqmOutlierDetector(steps=2, fpr=0.2)])
def test_the_estimator_keeps_scikit_learns_conventions(estimator, check):
    check(estimator)


def test_a_broken_relation_is_found_and_attributed_to_its_columns():
    detector = EqmOutlierDetector(steps=100).fit(table())
    normal, odd = table(200, seed=1), table(200, seed=2)
    odd[:, 1] = np.random.default_rng(3).permutation(odd[:, 1])  # each value alone is usual
    odd = odd[np.abs(odd[:, 0] - odd[:, 1]) > 1]
    scores = [-detector.score_samples(rows) for rows in (normal, odd)]
    assert auroc(*scores) > 0.97
    shares = detector.attributions(odd)
    assert shares.shape == odd.shape
    assert np.isin(shares.argmax(1), [0, 1]).mean() > 0.9
    assert shares[:, 2:].mean() < 5 < shares[:, :2].mean()
    assert (detector.predict(odd) == -1).mean() > 0.9


def test_false_alarms_come_at_the_rate_asked_for():
    detector = EqmOutlierDetector(steps=40, fpr=0.1).fit(table(1000))
    normal = table(3000, seed=1)
    # 0.1 +- 3 standard deviations of n = 1000 calibration and 3000 test rows
    assert 0.065 < (detector.predict(normal) == -1).mean() < 0.135
    p = detector.p_values(normal)
    assert 0.44 < (p <= 0.5).mean() < 0.56
    assert np.array_equal(detector.predict(normal) == -1, p <= 0.1)


def test_a_row_that_was_learnt_is_not_its_own_neighbour():
    rows = table(400)
    detector = EqmOutlierDetector(steps=40).fit(rows)
    known, new = detector.score_samples(rows), detector.score_samples(table(400, seed=1))
    assert abs(known.mean() - new.mean()) < 0.3 * new.std()


def test_contamination_is_the_share_marked():
    rows = np.concatenate([table(270), 6 + table(30, seed=1)])  # the outliers are alike
    detector = EqmOutlierDetector(steps=60, contamination=0.1).fit(rows)
    marked = detector.predict(rows) == -1
    assert marked.sum() == 30
    assert marked[270:].mean() > 0.9


def test_missing_constant_and_equal_values_are_taken():
    rows = table(200)
    rows[np.random.default_rng(1).random(rows.shape) < 0.1] = np.nan
    rows[:, 3], rows[:, 4] = 0.3, np.nan
    detector = EqmOutlierDetector(steps=20).fit(rows)
    assert np.isfinite(detector.score_samples(rows)).all()
    odd = rows[:1].copy()
    odd[0, 3] = -0.9  # a column that was constant
    assert detector.predict(odd).tolist() == [-1]
    assert detector.attributions(odd)[0].argmax() == 3
    equal = EqmOutlierDetector(steps=20).fit(np.ones((50, 3)))
    assert equal.predict([[1, 1, 1], [1, 2, 1]]).tolist() == [1, -1]
    wide = np.random.default_rng(0).normal(size=(40, 300))  # fewer rows than columns
    assert np.isfinite(EqmOutlierDetector(steps=2).fit(wide).score_samples(wide)).all()


def test_the_same_random_state_gives_the_same_detector():
    fits = [EqmOutlierDetector(steps=5, random_state=state).fit(table()) for state in (0, 0, 1)]
    first, again, other = (fit.score_samples(table(9, seed=1)) for fit in fits)
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_a_saved_detector_is_the_same(tmp_path):
    detector = EqmOutlierDetector(steps=5, fpr=0.1, random_state=3).fit(table())
    detector.save(tmp_path / "saved")
    detector.save(tmp_path / "saved")  # replaces its own files
    again, rows = EqmOutlierDetector.load(tmp_path / "saved"), table(9, seed=1)
    assert again.get_params() == detector.get_params()
    assert np.array_equal(again.decision_function(rows), detector.decision_function(rows))
    assert np.array_equal(again.attributions(rows), detector.attributions(rows))
    assert np.array_equal(again.p_values(rows), detector.p_values(rows))
    (tmp_path / "saved" / "outliers.safetensors").write_bytes(b"x")
    with pytest.raises(ValueError, match="fit and save it again"):
        EqmOutlierDetector.load(tmp_path / "saved")
    with pytest.raises(ValueError, match="must hold a saved detector of tables"):
        EqmOutlierDetector.load(tmp_path)
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "notes.txt").write_text("mine")
    with pytest.raises(ValueError, match="folder"):
        detector.save(tmp_path / "other")


@pytest.mark.parametrize(
    ("rows", "sentence"),
    [
        ([[1, "red"], [2, "blue"]] * 10, "column 1 must hold numbers; got 'red'"),
        (np.full((20, 2), np.inf), "infinity"),
        (np.full((20, 2), 1e200), "at most 1e.100"),
        (np.ones((1, 5)), "minimum of 4"),
        (np.ones(5), "1D array"),
    ],
)
def test_other_tables_are_refused(rows, sentence):
    with pytest.raises(ValueError, match=sentence) as error:
        EqmOutlierDetector().fit(rows)
    assert "\n" not in str(error.value)


def test_settings_out_of_range_are_refused():
    for settings in ({"contamination": 0.6}, {"fpr": 0}, {"steps": 0}):
        with pytest.raises(ValueError, match=next(iter(settings))):
            EqmOutlierDetector(**settings).fit(table())
    detector = EqmOutlierDetector(steps=2).fit(table(40))
    with pytest.raises(ValueError, match="4 features"):
        detector.predict(table()[:, :4])


def test_too_few_rows_for_the_rate_are_said():
    with pytest.warns(CalibrationWarning, match="needs 19 rows; got 10"):
        detector = EqmOutlierDetector(steps=20).fit(table(10))
    assert (detector.predict(table(10)) == 1).all()
    assert (detector.predict(100 + table(2)) == -1).all()


def test_attributions_and_files_are_for_tables():
    detector = EqmOutlierDetector(lambda x, labels: x, scores="dot", shape=(5,)).fit(table(50))
    assert detector.p_values(table(3)).shape == (3,)
    for call in (detector.attributions, detector.save):
        with pytest.raises(ValueError, match="is for tables"):
            call(table(3))
