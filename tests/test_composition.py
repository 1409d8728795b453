import pytest
import torch

import eqm
from eqm.field import at_path


def towards_label(x, labels):
    return x - labels.view(-1, 1, 1)


class Counting:
    """A field that notes the size of every batch."""

    def __init__(self):
        self.batches = []

    def __call__(self, x, labels):
        self.batches.append(len(x))
        return towards_label(x, labels) * torch.tensor([1.0, 2.0, 3.0])


X = torch.arange(24.0).view(2, 4, 3)
NULL = 9


def parts(*labels, field=towards_label):
    return [eqm.condition(field, label) for label in labels]


def test_composition_adds_weighted_fields():
    torch.testing.assert_close(eqm.compose(parts(1, 3))(X, None), (X - 1) + (X - 3))
    torch.testing.assert_close(
        eqm.compose(parts(1, 3), [2.0, -0.5])(X, None), 2 * (X - 1) - 0.5 * (X - 3)
    )


def test_with_a_base_field_one_label_is_guidance_and_two_are_a_conjunction():
    (none,) = parts(NULL)
    guided = eqm.compose(parts(1), [2.5], base=none)(X, None)
    by_hand = eqm.guide(towards_label, 2.5, NULL)(X, torch.tensor([1, 1]))
    torch.testing.assert_close(guided, by_hand)
    both = eqm.compose(parts(1, 3), [2.0, -0.5], base=none)(X, None)
    torch.testing.assert_close(both, (X - NULL) + 2.0 * (NULL - 1) - 0.5 * (NULL - 3))


def test_a_mask_gives_each_pixel_its_weight():
    mask = torch.tensor([[1.0, 0.0, 0.5]] * 4)
    field = eqm.compose(parts(1, 3), [mask, 1 - mask])
    torch.testing.assert_close(field(X, None), mask * (X - 1) + (1 - mask) * (X - 3))
    for shape in ((4, 2), (2, 2, 4, 3), (3, 4, 3)):
        with pytest.raises(ValueError, match=r"mask of shape \(4, 3\) or \(4, 3\); got"):
            eqm.compose(parts(1), [torch.ones(shape)])(X, None)


def test_balanced_parts_have_equal_norms():
    a, b = torch.randn(2, 2, 4, 3, generator=torch.Generator().manual_seed(0))
    fields = [lambda x, labels: a, lambda x, labels: 100 * b]
    together = eqm.compose(fields, [1.0, -1.0], balance=True)(X, None)
    size_a, size_b = a.flatten(1).norm(dim=1), 100 * b.flatten(1).norm(dim=1)
    mean = ((size_a + size_b) / 2).view(-1, 1, 1)
    expected = mean * (a / size_a.view(-1, 1, 1) - 100 * b / size_b.view(-1, 1, 1))
    torch.testing.assert_close(together, expected)


def test_balanced_differences_from_a_base_field_have_equal_norms():
    ones = torch.ones(2, 4)
    constant = [lambda x, labels, c=c: c * ones for c in (3.0, 5.0, 1.0)]
    total = eqm.compose(constant[:2], [2.0, 1.0], base=constant[2], balance=True)(ones, None)
    # the differences 2 and 4 become 3 and 3
    torch.testing.assert_close(total, (1 + 2 * 3 + 3) * ones)


def test_balance_leaves_zero_gradients_zero():
    field = eqm.compose([lambda x, labels: 0 * x, lambda x, labels: x], balance=True)
    torch.testing.assert_close(field(X, None), X / 2)


def test_labels_of_one_field_share_a_batch_and_none_is_evaluated_twice():
    field = Counting()
    none = eqm.condition(field, NULL)
    eqm.compose(parts(1, 3, 1, field=field), base=none)(X, None)
    eqm.compose(parts(1, 3, field=field), [0.75, 0.25], base=none)(X, None)
    eqm.compose([*parts(1, 3, field=field), field], base=none)(X, torch.tensor([0, 5]))
    assert field.batches == [6, 4, 2, 6]


def test_balance_does_not_scale_up_rounding_noise():
    def rounded(x, labels):  # as networks do: otherwise in every place of the batch
        place = torch.arange(x.numel()).view_as(x) % 5 - 2
        return towards_label(x, labels) * (1 + 1e-7 * place)

    labels = torch.full((2,), 4)  # the field base is that of label 4, too
    exact, rough = (
        eqm.compose(parts(7, 4, field=field), [0.5, 0.5], base=field, balance=True)(X, labels)
        for field in (towards_label, rounded)
    )
    torch.testing.assert_close(rough, exact, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("balance", [False, True])
def test_the_sum_does_not_depend_on_order_grouping_or_batch(balance):
    one, other, none = Counting(), Counting(), eqm.condition(Counting(), NULL)
    fields = [*parts(1, 3, field=one), *parts(5, field=other)]
    weights = [0.5, -2.0, 1.5]
    whole = eqm.compose(fields, weights, base=none, balance=balance)
    turned = eqm.compose(fields[::-1], weights[::-1], base=none, balance=balance)
    torch.testing.assert_close(turned(X, None), whole(X, None))
    torch.testing.assert_close(whole(X[1:], None), whole(X, None)[1:])


def test_the_path_reaches_the_parts():
    class Fading:
        def __call__(self, x, labels):
            return x

        def at(self, path):
            return lambda x, labels: x * path.view(-1, 1, 1) - labels.view(-1, 1, 1)

    path = torch.tensor([0.5, 2.0])
    there = at_path(eqm.compose(parts(1, 3, field=Fading()), [1.0, 2.0]), path)
    torch.testing.assert_close(there(X, None), 3 * X * path.view(-1, 1, 1) - 1 - 6)


@pytest.mark.parametrize(("fields", "weights"), [([], None), ([towards_label], [1.0, 2.0])])
def test_composition_needs_one_weight_a_field(fields, weights):
    with pytest.raises(ValueError, match="one weight a field"):
        eqm.compose(fields, weights)
