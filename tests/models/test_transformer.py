"""The transformer: equal to the official one, whole in its counts, and sound as a field."""

import json
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.models import PRESETS, Transformer, TransformerConfig, build, official, preset

GOLDEN = Path(__file__).parents[1] / "golden" / "official.safetensors"
TINY = TransformerConfig(
    shape=(3, 4, 6), num_classes=5, noise_conditioning=True, width=16, depth=2, heads=2
)
# Parameters for 4x32x32 latents and 1000 classes, the frozen position table included.
TOTALS = {
    "EqM-S/2": 32_963_360,
    "EqM-B/2": 130_512_416,
    "EqM-L/2": 458_102_816,
    "EqM-XL/2": 675_129_632,
}


def randomised(config: TransformerConfig) -> Transformer:
    """A float64 network whose zero-initialised layers are not zero."""
    generator = torch.Generator().manual_seed(0)
    network = Transformer(config).double()
    for parameter in network.parameters():
        parameter.data.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    return network.eval()


def inputs(config: TransformerConfig, count: int) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(count, *config.shape, generator=generator, dtype=torch.float64)
    labels = torch.randint(config.num_classes + 1, (count,), generator=generator)
    return [x, labels, torch.rand(count, generator=generator, dtype=torch.float64)]


def test_field_is_minus_that_of_the_official_implementation():
    with safe_open(GOLDEN, "pt") as file:
        golden = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        sizes = json.loads(file.metadata()["config"])
    weights = {
        name.removeprefix("weights."): tensor
        for name, tensor in golden.items()
        if name.startswith("weights.")
    }
    network = official.load(weights, num_heads=sizes["num_heads"])
    gradient = network(golden["x"], golden["y"])
    error = (gradient + golden["field"]).abs().max() / golden["field"].abs().max()
    assert error < 1e-12


def parameter_count(config: TransformerConfig) -> int:
    def linear(inputs: int, outputs: int) -> int:
        return inputs * outputs + outputs

    channels, height, width = config.shape
    d, pixels = config.width, config.patch**2
    tokens = height * width // pixels
    embedders = linear(pixels * channels, d) + tokens * d + linear(256, d) + linear(d, d)
    block = linear(d, 3 * d) + linear(d, d) + linear(d, 4 * d) + linear(4 * d, d) + linear(d, 6 * d)
    final = linear(d, 2 * d) + linear(d, pixels * 2 * channels)
    return embedders + (config.num_classes + 1) * d + config.depth * block + final


@pytest.mark.parametrize("name", [name for name in PRESETS if name.startswith("EqM")])
def test_preset_has_the_official_number_of_parameters(name):
    config = preset(name, shape=(4, 32, 32), num_classes=1000)
    with torch.device("meta"):
        count = sum(parameter.numel() for parameter in build(config).parameters())
    assert count == parameter_count(config)
    assert count == TOTALS.get(name, count)


def test_fresh_transformer_is_zero_and_learns_at_once():
    network = Transformer(TransformerConfig(shape=(3, 4, 6), width=16, depth=1, heads=2))
    x = torch.randn(2, 3, 4, 6)
    assert not network(x).any()
    (network(x) - x).square().sum().backward()
    assert network.final_layer.linear.weight.grad.any()
    assert not network.pos_embed.requires_grad


@given(st.permutations(range(5)), st.integers(1, 5))
def test_a_sample_depends_on_nothing_else_in_its_batch(order, count):
    network = randomised(TINY)
    batch = inputs(TINY, 5)
    chosen = order[:count]
    torch.testing.assert_close(
        network(*(values[chosen] for values in batch)), network(*batch)[chosen]
    )


def test_no_labels_mean_the_null_label():
    network = randomised(TINY)
    x, labels, gamma = inputs(TINY, 3)
    null = torch.full_like(labels, TINY.num_classes, dtype=torch.int32)
    torch.testing.assert_close(network(x, None, gamma), network(x, null, gamma))


def test_rows_and_columns_are_told_apart():
    config = TransformerConfig(shape=(1, 4, 6), patch=1, width=16, depth=1, heads=2)
    table = Transformer(config).pos_embed.reshape(4, 6, 2, 8)  # row, column, axis, waves
    assert torch.equal(table[:, :, 0], table[:1, :, 0].expand(4, -1, -1))
    assert torch.equal(table[:, :, 1], table[:, :1, 1].expand(-1, 6, -1))
    frequencies = 10_000 ** (-torch.arange(4) / 4)
    angles = 3 * frequencies
    torch.testing.assert_close(table[0, 3, 0], torch.cat([angles.sin(), angles.cos()]))


def test_transformer_can_be_differentiated_twice():
    config = TransformerConfig(shape=(2, 2, 2), patch=1, width=8, depth=1, heads=2)
    network = randomised(config)
    x = torch.randn(1, 2, 2, 2, dtype=torch.float64, requires_grad=True)
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(network, x)


def test_autocast_stays_finite_and_near_full_precision():
    config = TransformerConfig(shape=(3, 8, 8), num_classes=5, width=32, depth=3, heads=2)
    network = randomised(config).float()
    x, labels, _ = inputs(config, 4)
    exact = network(x.float(), labels)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network(x.float(), labels)
    assert (rounded - exact).norm() < 0.05 * exact.norm()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": torch.zeros(3, 3, 4, 6, dtype=torch.int64)}, "x must be floating point"),
        ({"x": torch.zeros(3, 3, 6, 4)}, r"x must have shape \(B, 3, 4, 6\); got \(3, 3, 6, 4\)"),
        ({"x": torch.zeros(3, 4, 6)}, r"x must have shape"),
        ({"labels": torch.zeros(3)}, r"labels must be int64 or int32.*labels\.long\(\)"),
        ({"labels": torch.tensor([0, 1, 6])}, r"labels must lie in 0\.\.5.*got 0\.\.6"),
        ({"labels": torch.tensor([-1, 1, 2])}, r"got -1\.\.2"),
        ({"labels": torch.zeros(2, dtype=torch.int64)}, r"one label a sample; got \(2,\)$"),
        ({"gamma": None}, "pass gamma"),
        (
            {"gamma": torch.zeros(3, 1)},
            r"^gamma must have shape \(3,\), one value a sample; got \(3, 1\): "
            r"pass gamma\.flatten\(\)$",
        ),
        ({"gamma": torch.zeros(3, dtype=torch.int64)}, "gamma must be floating point"),
        ({"gamma": torch.zeros(3, device="meta")}, r"pass gamma\.to\(x\.device\)"),
    ],
)
def test_inputs_that_do_not_fit_are_explained(change, message):
    good = {
        "x": torch.zeros(3, *TINY.shape),
        "labels": torch.tensor([0, 1, 5]),
        "gamma": torch.zeros(3),
    }
    with pytest.raises(ValueError, match=message):
        Transformer(TINY)(**good | change)


def test_unconditional_network_refuses_conditions():
    network = Transformer(TransformerConfig(shape=(3, 4, 6), width=16, depth=1, heads=2))
    x = torch.zeros(2, 3, 4, 6)
    with pytest.raises(ValueError, match="unconditional; got labels: leave them out"):
        network(x, torch.zeros(2, dtype=torch.int64))
    with pytest.raises(ValueError, match="not noise-conditioned; got gamma"):
        network(x, gamma=torch.zeros(2))


def test_an_empty_batch_passes():
    assert randomised(TINY)(*inputs(TINY, 0)).shape == (0, *TINY.shape)
