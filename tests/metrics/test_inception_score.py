import numpy as np
import pytest
import torch

from eqm.metrics import bootstrap, inception_influence, inception_score


def answers(count: int, classes: int = 6, seed: int = 0) -> torch.Tensor:
    logits = torch.randn(count, classes, generator=torch.Generator().manual_seed(seed))
    return (2 * logits).double().softmax(1)


def test_is_the_published_formula() -> None:
    p = answers(50).numpy()
    expected = np.exp((p * (np.log(p) - np.log(p.mean(0)))).sum(1).mean())
    assert inception_score(answers(50), splits=1).value == pytest.approx(expected, rel=1e-12)


def test_certain_predictions_score_the_number_of_classes_even_if_sorted() -> None:
    sorted_by_class = torch.eye(5).repeat_interleave(200, 0)
    assert inception_score(sorted_by_class).value == pytest.approx(5, rel=0.05)
    assert inception_score(torch.full((20, 5), 0.2)).value == pytest.approx(1)


def test_influence_gives_the_standard_deviation_of_the_score() -> None:
    found = [inception_score(answers(400, seed=k), splits=1).value for k in range(200)]
    low, _, high = bootstrap(torch.mean, inception_influence(answers(400)))
    assert (high - low) / 3.92 == pytest.approx(np.std(found), rel=0.2)


def test_rows_that_are_not_probabilities_are_refused() -> None:
    with pytest.raises(ValueError, match="apply softmax"):
        inception_score(torch.randn(20, 3))
    with pytest.raises(ValueError, match=r"splits must lie in 1..4"):
        inception_score(torch.full((4, 2), 0.5))
