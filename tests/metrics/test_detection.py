import pytest
import torch

from eqm.metrics import auroc, average_precision, fpr_at_tpr

LOW, HIGH = torch.tensor([0.0, 1.0, 2.0]), torch.tensor([3.0, 4.0])


def test_separable_scores_give_one_and_swapped_ones_zero() -> None:
    assert auroc(LOW, HIGH) == 1
    assert auroc(HIGH, LOW) == 0


def test_ties_count_half() -> None:
    assert auroc(torch.ones(5), torch.ones(3)) == 0.5
    assert auroc(torch.tensor([0, 1]), torch.tensor([1])) == 0.75


@pytest.mark.parametrize("levels", [3, 1000])  # with many ties, and with few
def test_agrees_with_scikit_learn(levels: int) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(levels)
    normal = torch.randint(levels, (101,), generator=generator).float()
    anomalous = torch.randint(levels, (57,), generator=generator).float() + 1
    truth = torch.cat([torch.zeros(101), torch.ones(57)]).numpy()
    expected = metrics.roc_auc_score(truth, torch.cat([normal, anomalous]).numpy())
    assert auroc(normal, anomalous) == pytest.approx(expected, abs=1e-12)


def test_infinite_scores_are_the_most_anomalous() -> None:
    assert auroc(LOW, torch.tensor([torch.inf])) == 1
    assert auroc(torch.tensor([torch.inf]), torch.tensor([torch.inf])) == 0.5


def test_invalid_input_is_refused() -> None:
    with pytest.raises(ValueError, match="anomalous_scores must not be NaN; got 1 of 2"):
        auroc(LOW, torch.tensor([1.0, torch.nan]))
    with pytest.raises(ValueError, match="normal_scores must have shape"):
        auroc(torch.zeros(0), HIGH)
    with pytest.raises(ValueError, match=r"got \(2, 1\)"):
        auroc(LOW, HIGH[:, None])


@pytest.mark.parametrize("levels", [3, 1000])
@pytest.mark.parametrize("positive", ["anomalous", "normal"])
def test_precision_and_both_meanings_of_fpr95_agree_with_scikit_learn(levels, positive) -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = torch.Generator().manual_seed(levels)
    normal = torch.randint(levels, (101,), generator=generator).float()
    anomalous = torch.randint(levels, (57,), generator=generator).float() + 1
    scores = torch.cat([normal, anomalous]).numpy()
    truth = torch.cat([torch.zeros(101), torch.ones(57)]).numpy()
    if positive == "normal":
        scores, truth = -scores, 1 - truth
    assert average_precision(normal, anomalous, positive=positive) == pytest.approx(
        metrics.average_precision_score(truth, scores), abs=1e-12
    )
    wrong, right, _ = metrics.roc_curve(truth, scores, drop_intermediate=False)
    assert fpr_at_tpr(normal, anomalous, positive=positive) == pytest.approx(
        wrong[(right >= 0.95).argmax()], abs=1e-12
    )


def test_the_two_meanings_of_fpr95_differ() -> None:
    normal, anomalous = torch.arange(100.0), torch.cat([torch.tensor([50.5]), torch.full((9,), 99)])
    assert fpr_at_tpr(normal, anomalous) == pytest.approx(0.1)  # one anomaly of ten passes
    assert fpr_at_tpr(normal, anomalous, positive="anomalous") == pytest.approx(0.49)
    with pytest.raises(ValueError, match="positive must be one of anomalous, normal; got 'in'"):
        fpr_at_tpr(normal, anomalous, positive="in")
    with pytest.raises(ValueError, match=r"tpr must lie in \(0, 1\]; got 95"):
        fpr_at_tpr(normal, anomalous, tpr=95)


def test_the_rate_is_reached_and_not_only_nearly() -> None:
    # 95 % of 19 are 18.05: all 19 must pass, and with them the anomaly below the last
    normal = torch.arange(1.0, 20)
    assert fpr_at_tpr(normal, torch.tensor([18.5])) == 1
    assert fpr_at_tpr(normal, torch.tensor([18.5]), tpr=18 / 19) == 0
    assert fpr_at_tpr(normal, torch.tensor([18.5]), tpr=1) == 1


def test_bytes_and_halves_are_compared_as_numbers() -> None:
    normal, anomalous = torch.tensor([1, 2, 3]), torch.tensor([0, 200, 250])
    for kind in (torch.uint8, torch.float16, torch.int64):
        pair = normal.to(kind), anomalous.to(kind)
        assert auroc(*pair) == pytest.approx(2 / 3)
        # the weakest of the normal ones scores 3; the anomaly of score 0 passes
        assert fpr_at_tpr(*pair, tpr=1) == pytest.approx(1 / 3)
        assert average_precision(*pair) == pytest.approx((1 + 1 + 1 / 2) / 3)


@pytest.mark.parametrize("tpr", [0, -1, 1.01, 2, float("nan")])
def test_a_rate_outside_its_range_is_refused(tpr) -> None:
    with pytest.raises(ValueError, match=r"tpr must lie in \(0, 1\]"):
        fpr_at_tpr(torch.zeros(2), torch.ones(2), tpr=tpr)
