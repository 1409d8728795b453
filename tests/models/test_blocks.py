"""The options of the transformer's blocks: each has its closed form, and all of them work together."""

from dataclasses import replace
from math import prod

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention import SDPBackend, sdpa_kernel

from eqm.models import TextConfig, TransformerConfig, build, cost, from_pretrained, save_pretrained
from eqm.models.axes import rotary_table, rotated
from eqm.models.transformer import SwiGLU, over_rms
from eqm.train import OptimizerConfig, TrainConfig, train

PLAIN = TransformerConfig(shape=(2, 4, 6), num_classes=3, width=24, depth=2, heads=2)
OPTIONS = ("rotary", "rms_norm", "qk_norm", "swiglu")
MODERN = replace(PLAIN, **dict.fromkeys(OPTIONS, True))


def randomised(config):
    torch.manual_seed(0)
    network = build(config).double()
    for name, weight in network.named_parameters():
        if name not in ("pos_embed", "rotary"):
            torch.nn.init.normal_(weight, std=0.3)
    return network.eval()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.integers(2, 4), min_size=1, max_size=3), st.integers(0, 9), st.integers(0, 2**20)
)
def test_products_of_rotated_vectors_depend_on_the_difference_of_places_alone(sides, more, seed):
    generator = torch.Generator().manual_seed(seed)
    channels = 2 * len(sides) + more
    q, k = torch.randn(2, channels, generator=generator, dtype=torch.float64)
    table = rotary_table(tuple(sides), channels).double()
    count = prod(sides)
    turned = [rotated(x.expand(count, -1), table) for x in (q, k)]
    products = turned[0] @ turned[1].T
    places = torch.cartesian_prod(*map(torch.arange, sides)).view(count, -1)
    apart = (places[:, None] - places[None]).flatten(0, 1)
    differences, group = apart.unique(dim=0, return_inverse=True)
    first = torch.zeros(len(differences), dtype=torch.float64)
    first[group] = products.flatten()
    torch.testing.assert_close(first[group], products.flatten(), rtol=1e-5, atol=1e-5)
    for difference, product in zip(differences, first, strict=True):
        if difference.abs().sum() == 0:
            torch.testing.assert_close(product, q @ k, rtol=1e-5, atol=1e-5)
        if difference.abs().sum() == 1:  # every axis counts
            assert abs(product - q @ k) > 1e-6


def test_rotary_angles_are_places_times_frequencies():
    cosine, sine = rotary_table((3, 4), 10)  # five pairs: two for each axis, one is left over
    angles = torch.tensor([2.0, 0.2, 3.0, 0.3, 0.0])  # of the last place, (2, 3)
    torch.testing.assert_close(cosine[-1], angles.cos())
    torch.testing.assert_close(sine[-1], angles.sin())
    unit = rotated(torch.eye(10)[0].expand(12, -1), rotary_table((3, 4), 10))[-1]
    torch.testing.assert_close(unit[[0, 5]], torch.stack([angles[0].cos(), angles[0].sin()]))


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_over_rms_is_the_rms_norm_of_torch(dtype):
    x = (7 * torch.randn(5, 3, 16, dtype=torch.float64)).to(dtype)
    ours = over_rms(x)
    assert ours.dtype == dtype
    torch.testing.assert_close(ours, F.rms_norm(x, (16,), eps=1e-6))


def test_qk_norm_bounds_the_attention_and_ignores_the_size_of_queries_and_keys(monkeypatch):
    attention = randomised(MODERN).blocks[0].attn
    seen = []

    def attend(q, k, v):
        seen.append(q @ k.mT / 12**0.5)
        return v

    monkeypatch.setattr("eqm.models.transformer.attend", attend)
    x = torch.randn(2, 6, 24, dtype=torch.float64)
    for size in (1, 1000):
        attention(size * x)
    bound = (attention.q_scale.abs().max() * attention.k_scale.abs().max()) * 12**0.5
    assert all(0 < logits.abs().max() <= bound for logits in seen)
    torch.nn.init.zeros_(attention.qkv.bias)
    for size in (1, 1000):
        attention(size * x)
    torch.testing.assert_close(seen[2], seen[3], rtol=1e-4, atol=1e-4)


def test_swiglu_is_its_formula_and_has_as_many_parameters_as_the_plain_mlp():
    mlp = SwiGLU(6, 24)
    x = torch.randn(4, 6)
    gate, h = x @ mlp.fc1.weight[:16].T, x @ mlp.fc1.weight[16:].T
    torch.nn.init.zeros_(mlp.fc1.bias)
    torch.nn.init.zeros_(mlp.fc2.bias)
    torch.testing.assert_close(mlp(x), (gate / (1 + (-gate).exp()) * h) @ mlp.fc2.weight.T)
    sizes = replace(PLAIN, width=240), replace(PLAIN, width=240, swiglu=True)
    plain, gated = map(cost, sizes)
    assert abs(gated.parameters / plain.parameters - 1) < 0.002
    assert abs(gated.flops / plain.flops - 1) < 0.002


@pytest.mark.parametrize("option", OPTIONS)
def test_each_option_alone_changes_the_field(option):
    config = replace(PLAIN, **{option: True})
    x, labels = torch.randn(2, *PLAIN.shape, dtype=torch.float64), torch.tensor([0, 3])
    ours, plain = randomised(config), randomised(PLAIN)
    shared = {
        name: weight
        for name, weight in plain.state_dict().items()
        if name in ours.state_dict() and weight.shape == ours.state_dict()[name].shape
    }
    ours.load_state_dict(shared, strict=False)
    assert (ours(x, labels) - plain(x, labels)).abs().max() > 1e-3


def test_a_plain_network_has_no_weight_of_the_options():
    plain, modern = build(PLAIN).state_dict(), build(MODERN).state_dict()
    scales = {f"blocks.{k}.attn.{x}_scale" for k in range(2) for x in "qk"}
    assert modern.keys() - plain.keys() == {"rotary", *scales}
    assert all((modern[name] == 1).all() for name in scales)


@pytest.mark.parametrize("shape", [(2, 12), (2, 4, 6), (1, 2, 4, 4)])
def test_a_network_with_all_options_learns_and_is_saved_whole(tmp_path, shape):
    config = replace(MODERN, shape=shape)
    images = torch.randn(32, *shape).clamp(-1, 1), torch.arange(32) % 3
    settings = TrainConfig(
        model=config,
        images=64,
        batch_size=16,
        optimizer=OptimizerConfig(name="muon", learning_rate=1e-2),
    )
    losses = [step.loss for step in train(settings, images, tmp_path)]
    assert torch.isfinite(torch.stack(losses)).all()
    network = from_pretrained(tmp_path)
    assert network.config == config
    x = torch.randn(3, *shape)
    order = torch.tensor([2, 0, 1])
    field = network(x, order)
    torch.testing.assert_close(network(x[order], order[order])[[1, 2, 0]], field)
    save_pretrained(network, tmp_path / "again")
    assert torch.equal(from_pretrained(tmp_path / "again")(x, order), field)


def test_all_options_can_be_differentiated_twice_also_with_words():
    text = TextConfig("vocabulary", length=4)
    config = replace(MODERN, shape=(1, 2, 2), patch=1, width=8, depth=1, num_classes=9, text=text)
    network = randomised(config)
    x = torch.randn(1, 1, 2, 2, dtype=torch.float64, requires_grad=True)
    words = torch.tensor([[3, 1, 9, 9]])
    with sdpa_kernel(SDPBackend.MATH):
        assert torch.autograd.gradgradcheck(lambda x: network(x, words), x)


def test_autocast_and_bfloat16_stay_near_full_precision():
    network, x = randomised(MODERN), torch.randn(2, *MODERN.shape, dtype=torch.float64)
    exact = network(x)
    with torch.autocast("cpu", torch.bfloat16):
        rounded = network.float()(x.float())
    assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()
    low = network.bfloat16()(x.bfloat16())
    assert low.dtype == torch.bfloat16
    assert 0 < (low - exact).norm() < 0.1 * exact.norm()


def test_rotary_needs_a_pair_of_channels_for_each_axis():
    with pytest.raises(ValueError, match="rotary needs 6 or more channels for each head"):
        TransformerConfig(shape=(1, 4, 4, 4), width=24, heads=6, rotary=True)
