from dataclasses import asdict, replace

import pytest
import torch

import eqm
from eqm.descent import descend
from eqm.models import UNet, UNetConfig
from eqm.sampling import Sampling, starting_noise
from eqm.tasks import Composition, compose, generate, trajectory

FIVE = Sampling("gradient-descent", step_size=0.02, path_length=0.1)
GUIDED = replace(FIVE, guidance=2.0)
CLASSES = ["T-shirt", "trouser", "bag"]


def network(seed, **changes):
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        made = UNet(UNetConfig(**{"shape": (1, 4, 4), "num_classes": 3, "width": 4} | changes))
        for weight in made.parameters():
            torch.nn.init.normal_(weight, std=0.3)
    made.metadata = {"data": {"classes": CLASSES}}
    return made.eval()


@pytest.fixture(scope="module")
def model():
    return network(0, multipliers=(1,))


@pytest.fixture(scope="module")
def other():
    return network(1, multipliers=(1,))


def test_one_label_is_that_label_and_its_weight_is_guidance(model):
    for sampling in (FIVE, GUIDED, replace(GUIDED, guidance_interval=(0.03, 0.07))):
        expected = generate(model, 2, count=3, seed=4, sampling=sampling)
        found = compose(model, "2", count=3, seed=4, sampling=sampling)
        torch.testing.assert_close(found.x, expected.x, rtol=1e-4, atol=1e-4)
    found = compose(model, "2*bag", count=3, seed=4, sampling=FIVE)
    expected = generate(model, 2, count=3, seed=4, sampling=GUIDED)
    torch.testing.assert_close(found.x, expected.x, rtol=1e-4, atol=1e-4)
    nothing = compose(model, "null", count=2, sampling=GUIDED)
    torch.testing.assert_close(nothing.x, generate(model, ["none", "none"], sampling=FIVE).x)


def test_masks_are_where_the_model_is():
    elsewhere = network(0, multipliers=(1,)).to("meta")
    both = Composition.of(elsewhere, "left*mine*0 + ~mine*1", masks={"mine": torch.ones(4, 4)})
    assert {weight.device.type for weight in both.weights} == {"meta"}


def test_guidance_begins_and_ends_where_that_of_one_label_does(model):
    for interval in ((0.2, 0.3), (0.1, 0.2)):  # ten steps of .02 come to a rounding less than .2
        sampling = replace(GUIDED, path_length=0.3, guidance_interval=interval)
        expected = generate(model, 2, seed=4, sampling=sampling)
        found = compose(model, "2", seed=4, sampling=sampling)
        torch.testing.assert_close(found.x, expected.x, rtol=1e-4, atol=1e-4)


def test_fitted_steps_of_one_label_are_not_those_of_a_composition():
    tuned = network(0, multipliers=(1,))
    tuned.metadata["sampling"] = asdict(
        replace(GUIDED, multistep_coefficients=((1, 0.02, 0, 0),) * 2)
    )
    both = Composition.of(tuned, "0 + 1")
    expected = compose(tuned, "0 + 1")
    assert expected.steps.tolist() == [5]
    assert torch.equal(generate(both).x, expected.x)
    assert torch.equal(trajectory(both).x[-1], expected.x)


def test_a_composition_is_the_descent_of_the_sum_it_says(model):
    found = compose(model, "trouser + 0.5*bag - 'T-Shirt'", count=2, seed=1, sampling=GUIDED)
    parts = [eqm.condition(model, label) for label in (1, 2, 0, 3)]
    field = eqm.compose(parts, [2.0, 1.0, -2.0, 0.0])  # the weights add up to 1
    x = starting_noise((1, 4, 4), seeds=[1, 2])
    by_hand = descend(field, x, rule=GUIDED.make_rule(), max_steps=5)
    torch.testing.assert_close(found.x, by_hand.x, rtol=1e-4, atol=1e-4)


def test_neither_order_nor_batch_nor_count_matter(model):
    whole = compose(model, "0 + 0.5*1 - 2", count=5, sampling=GUIDED).x
    turned = compose(model, "-2 + .5*1 + 0", count=5, sampling=GUIDED, batch_size=2).x
    torch.testing.assert_close(turned, whole, rtol=1e-4, atol=1e-4)
    alone = compose(model, "0 + 0.5*1 - 2", seed=4, sampling=GUIDED).x
    torch.testing.assert_close(alone, whole[4:], rtol=1e-4, atol=1e-4)


def test_masks_give_each_label_its_part_of_the_picture(model):
    x = starting_noise((1, 4, 4), seeds=[0])
    halves = Composition.of(model, "left*0 + right*1", sampling=FIVE)(x)
    own = Composition.of(
        model, "m*0 + ~m*1", sampling=FIVE, masks={"m": torch.tensor([[1.0, 1, 0, 0]] * 4)}
    )(x)
    zero, one = (model(x, torch.tensor([label])) for label in (0, 1))
    torch.testing.assert_close(halves, torch.cat([zero[..., :2], one[..., 2:]], dim=3))
    torch.testing.assert_close(own, halves)


def test_models_are_composed_by_name(model, other):
    alone = network(2, multipliers=(1,), num_classes=0)
    models = {"a": model, "b": other, "c": alone}
    x = starting_noise((1, 4, 4), seeds=[0, 1])
    found = Composition.of(models, "0.5*a:1 + 0.25*b:bag + .25*c", sampling=FIVE)(x)
    one, two = torch.tensor([1, 1]), torch.tensor([2, 2])
    expected = 0.5 * model(x, one) + 0.25 * other(x, two) + 0.25 * alone(x)
    torch.testing.assert_close(found, expected)
    mean = (model(x, two + 1) + other(x, two + 1) + alone(x)) / 3
    found = Composition.of(models, "a:1", sampling=GUIDED)(x)
    torch.testing.assert_close(found, mean + 2 * (model(x, one) - mean))


def test_classes_that_are_called_by_digits_go_by_their_names(model):
    named = network(0, multipliers=(1,))
    named.metadata = {"data": {"classes": ["3", "007", "0"]}}
    for expression, number in (("3", 0), ("007", 1), ("0", 2)):
        found = compose(named, expression, sampling=FIVE)
        torch.testing.assert_close(found.x, generate(named, expression, sampling=FIVE).x)
        torch.testing.assert_close(found.x, generate(model, number, sampling=FIVE).x)
    with pytest.raises(ValueError, match="there is no class '1', only 3, 007, 0"):
        compose(named, "1", sampling=FIVE)


def test_a_composition_can_be_watched_and_balanced(model):
    both = Composition.of(model, "0 + 1", balance=True, sampling=FIVE)
    moved = trajectory(both, count=2, sampling=FIVE, moments=5)
    torch.testing.assert_close(
        moved.x[-1], compose(model, "0 + 1", balance=True, count=2, sampling=FIVE).x
    )


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("0 + 3", r"'0 \+ 3', position 5: labels must lie in 0..2, or be none .*; got 3"),
        ("shoe", "position 1: there is no class 'shoe', only T-shirt, trouser, bag"),
        ("t-shirt + bag", "position 1: write the class 'T-shirt' in quotes"),
        ("b:1", "position 3: there is no model 'b'"),
        ("face*1", "position 6: there is no mask 'face', only left, right, top, bottom"),
        ("1 +", "position 4"),
    ],
)
def test_what_is_not_there_is_named(model, expression, message):
    with pytest.raises(ValueError, match=message):
        Composition.of(model, expression)


def test_models_and_masks_that_do_not_fit_are_named(model):
    wide = network(0, shape=(1, 4, 8), multipliers=(1,))
    with pytest.raises(ValueError, match=r"one shape; got a with \(1, 4, 4\), b with \(1, 4, 8\)"):
        Composition.of({"a": model, "b": wide}, "a:1 + b:2")
    with pytest.raises(ValueError, match="name the model of the label, as in a:2"):
        Composition.of({"a": model, "b": model}, "a:1 + 2")
    with pytest.raises(ValueError, match="needs a model"):
        Composition.of({}, "1")
    flow = network(0, multipliers=(1,), noise_conditioning=True)
    with pytest.raises(ValueError, match="the model is noise-conditioned"):
        Composition.of(flow, "1")
    for mask in (torch.ones(4, 5), torch.full((4, 4), torch.nan)):
        with pytest.raises(ValueError, match=r"mask m must hold finite numbers of shape \(4, 4\)"):
            Composition.of(model, "m*1", masks={"m": mask})
    with pytest.raises(ValueError, match="no classes, only none; got 1"):
        Composition.of(network(0, multipliers=(1,), num_classes=0), "1")


def test_a_long_expression_is_cut_in_the_sentence(model):
    with pytest.raises(ValueError, match="position 1") as error:
        Composition.of(model, "cat" * 2000)
    assert len(str(error.value)) < 500
