import pytest
import torch

import eqm
from eqm.field import at_path


def towards_label(x, labels):
    return x - labels.view(-1, 1, 1)


X = torch.arange(24.0).view(2, 4, 3)
LABELS = torch.tensor([1, 3])
NULL = 9


def test_guidance_extrapolates_from_the_null_label():
    for scale in (0.0, 0.5, 1.0, 2.5):
        expected = (X - NULL) + scale * ((X - LABELS.view(-1, 1, 1)) - (X - NULL))
        torch.testing.assert_close(eqm.guide(towards_label, scale, NULL)(X, LABELS), expected)


def test_guidance_on_some_channels_leaves_the_labelled_branch_in_the_others():
    guided = eqm.guide(towards_label, 2.0, NULL, channels=3)(X, LABELS)
    torch.testing.assert_close(guided[:, :3], eqm.guide(towards_label, 2.0, NULL)(X, LABELS)[:, :3])
    torch.testing.assert_close(guided[:, 3:], towards_label(X, LABELS)[:, 3:])


def test_guidance_costs_one_batch_and_nothing_at_scale_one():
    batches = []

    def counting(x, labels):
        batches.append(len(x))
        return towards_label(x, labels)

    eqm.guide(counting, 2.0, NULL)(X, LABELS)
    eqm.guide(counting, 1.0, NULL)(X, LABELS)
    assert batches == [4, 2]


def test_guidance_without_labels_says_what_is_missing():
    with pytest.raises(ValueError, match="needs labels of shape"):
        eqm.guide(towards_label, 2.0, NULL)(X, None)


def test_guidance_in_an_interval_evaluates_only_samples_inside_twice():
    batches = []

    def counting(x, labels):
        batches.append(len(x))
        return towards_label(x, labels)

    path = torch.tensor([0.05, 0.2])
    everywhere = eqm.guide(towards_label, 3.0, NULL, channels=2)(X, LABELS)
    plain = towards_label(X, LABELS)
    for fixed, passes in ((False, [3, 2]), (True, [4, 4])):
        field = eqm.guide(counting, 3.0, NULL, channels=2, interval=(0.1, 0.3), fixed=fixed)
        batches.clear()
        there = eqm.field.at_path(field, path)(X, LABELS)
        torch.testing.assert_close(there, torch.stack([plain[0], everywhere[1]]))
        torch.testing.assert_close(eqm.field.at_path(field, path + 0.5)(X, LABELS), plain)
        assert batches == passes
    summed = eqm.compose([field, eqm.condition(towards_label, 5)])
    torch.testing.assert_close(
        eqm.field.at_path(summed, path)(X, LABELS), there + towards_label(X, torch.tensor([5, 5]))
    )
    for interval in ((0.3, 0.1), (0.3, 0.3), (-0.1, 0.3)):
        with pytest.raises(ValueError, match="interval must be two rising path lengths"):
            eqm.guide(towards_label, 2.0, NULL, interval=interval)


@pytest.mark.parametrize("fixed", [False, True])
@pytest.mark.parametrize("interval", [None, (0.2, 0.4)])
def test_a_guided_field_passes_the_path_to_the_fields_inside(interval, fixed):
    early = eqm.guide(towards_label, 3.0, NULL, interval=(0.0, 0.2), fixed=fixed)
    field = eqm.guide(early, 2.0, NULL, interval=interval, fixed=fixed)
    path = torch.tensor([0.1, 0.3])
    # the first sample is in the early interval only; the second, or both, in the other
    first = X[0] - 3 * LABELS[0] + 2 * NULL
    if interval is None:
        first = 2 * first - (X[0] - NULL)
    second = X[1] - 2 * LABELS[1] + NULL
    found = eqm.field.at_path(field, path)(X, LABELS)
    torch.testing.assert_close(found, torch.stack([first, second]))


@pytest.mark.parametrize("step_size", [0.01, 0.02, 0.1 / 3])
def test_guidance_in_an_interval_guides_the_steps_that_begin_in_it(step_size):
    # rounding: the sum of ten steps of 0.01 is less than 0.1
    seen = []

    def counting(x, labels):
        seen.append(len(x))
        return torch.zeros_like(x)

    field = eqm.guide(counting, 2.0, NULL, interval=(0.1, 0.3))
    steps = round(0.4 / step_size)
    rule = eqm.GradientDescent(step_size)
    eqm.descend(field, torch.zeros(1, 3), torch.tensor([0]), rule=rule, max_steps=steps)
    assert [i for i, size in enumerate(seen) if size == 2] == list(
        range(round(0.1 / step_size), round(0.3 / step_size))
    )


@pytest.mark.parametrize("fixed", [False, True])
def test_guidance_begins_and_ends_at_the_ends_of_its_interval(fixed):
    tens = eqm.guide(
        lambda x, labels: x + labels[:, None], 10.0, 0, interval=(0.1, 0.3), fixed=fixed
    )
    path = torch.tensor(
        [0.0, 0.0999, 0.1 * (1 - 1e-4), 0.1, 0.2999, 0.3 * (1 - 1e-4), 0.3], dtype=torch.float64
    )
    x, labels = torch.zeros(len(path), 1).double(), torch.ones(len(path), dtype=torch.long)
    found = at_path(tens, path)(x, labels).flatten()
    assert found.tolist() == [1, 1, 10, 10, 10, 1, 1]
