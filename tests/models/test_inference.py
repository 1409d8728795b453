"""What makes networks cheap changes nothing but rounding."""

import pytest
import torch
from torch import nn

import eqm
from eqm.models import (
    MLPConfig,
    TransformerConfig,
    UNetConfig,
    build,
    for_inference,
    save_pretrained,
)
from eqm.models.transformer import attend
from eqm.sampling import Sampling
from eqm.tasks import generate

CONFIGS = [
    TransformerConfig(shape=(2, 4, 4), num_classes=3, width=16, depth=2, heads=2),
    UNetConfig(shape=(2, 4, 4), num_classes=3, width=8, multipliers=(1, 2), heads=2),
    MLPConfig(shape=(2, 4, 4), num_classes=3, width=16),
]
NETWORKS = pytest.mark.parametrize("config", CONFIGS, ids=lambda c: type(c).__name__)
X = torch.randn(3, 2, 4, 4, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 3])


def random_network(config):
    generator = torch.Generator().manual_seed(0)
    network = build(config)
    with torch.no_grad():
        for weight in network.parameters():
            weight.copy_(0.2 * torch.randn(weight.shape, generator=generator))
    return network


@NETWORKS
@pytest.mark.parametrize("kind", ["implicit", "dot"])
def test_checkpointing_changes_no_gradient(config, kind):
    network = random_network(config).double()
    field = network if kind == "implicit" else eqm.DotEnergy(network)
    gradients, saved = [], []
    for network.activation_checkpointing in (False, True):
        network.zero_grad()
        kept = 0

        def count(tensor):
            nonlocal kept
            kept += tensor.numel()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
            loss = field(X.double(), LABELS).square().sum()
        loss.backward()
        saved.append(kept)
        gradients.append([w.grad for w in network.parameters() if w.grad is not None])
    for ours, reference in zip(*gradients, strict=True):
        assert torch.equal(ours, reference)
    if kind == "implicit":
        assert saved[1] < 0.5 * saved[0]
    assert "checkpointing" not in str(network.state_dict().keys())


@NETWORKS
def test_a_field_for_inference_is_the_models_but_for_rounding(config):
    network = random_network(config)
    before = [weight.clone() for weight in network.parameters()]
    for model in (network, eqm.DotEnergy(network)):
        exact = model(X, LABELS).detach()
        same = for_inference(model, precision="float32")(X, LABELS)
        torch.testing.assert_close(same, exact, rtol=1e-6, atol=1e-6)
        rounded = for_inference(model, precision="bfloat16")(X, LABELS)
        assert rounded.dtype == X.dtype
        assert not rounded.requires_grad
        assert 0 < (rounded - exact).norm() < 0.05 * exact.norm()
    assert all(map(torch.equal, before, network.parameters()))
    assert all(weight.requires_grad or name == "pos_embed" for name, weight in network.named_parameters())  # fmt: skip


@NETWORKS
def test_a_field_for_inference_is_sampled_like_a_model(config):
    network = random_network(config)
    sampling = Sampling(step_size=0.01, path_length=0.05, guidance=1.5)
    exact = generate(network, count=5, sampling=sampling).x
    fast = for_inference(network, precision="bfloat16")
    rounded = generate(fast, count=5, sampling=sampling).x
    assert rounded.dtype == exact.dtype
    assert 0 < (rounded - exact).abs().max() < 0.1


def test_a_field_for_inference_is_not_saved_and_its_precision_is_checked(tmp_path):
    network = build(CONFIGS[2])
    with pytest.raises(ValueError, match="must not be one for inference: save the model"):
        save_pretrained(for_inference(network), tmp_path)
    with pytest.raises(ValueError, match="precision must be auto, float32 or bfloat16; got 'half'"):
        for_inference(network, precision="half")


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_bfloat16_is_refused_where_autocast_does_not_make_it(dtype):
    network = build(UNetConfig(shape=(1, 4, 4), width=4, multipliers=(1,))).to(dtype)
    with pytest.raises(ValueError, match=f"needs a model in float32; this one is in {dtype}: pass"):
        for_inference(network, precision="bfloat16")
    assert for_inference(network)(torch.zeros(1, 1, 4, 4, dtype=dtype)).dtype == dtype


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["implicit", "dot"])
def test_a_compiled_field_for_inference_keeps_one_graph_in_a_stream(kind):
    network = random_network(CONFIGS[0])
    model = network if kind == "implicit" else eqm.DotEnergy(network)
    sampling = Sampling(step_size=0.01, path_length=0.05, guidance=1.5, gradient_ratio=0.9)
    exact = generate(model, count=5, sampling=sampling, batch_size=2)
    fast = for_inference(model, precision="float32", compile=True)
    assert fast.fixed_shapes
    torch._dynamo.reset()
    graphs = torch._dynamo.utils.counters["stats"]
    graphs.clear()
    found = generate(fast, count=5, sampling=sampling, batch_size=2)
    torch.testing.assert_close(found.x, exact.x, rtol=1e-5, atol=1e-5)
    assert graphs["unique_graphs"] == 1


def test_attention_is_the_same_by_both_kernels():
    generator = torch.Generator().manual_seed(0)
    q, k, v = torch.randn(3, 2, 4, 16, 8, generator=generator).bfloat16()
    exact = nn.functional.scaled_dot_product_attention(q.double(), k.double(), v.double())
    for grad in (False, True):
        with torch.set_grad_enabled(grad):
            found = attend(q, k, v)
        assert found.dtype == torch.bfloat16
        assert (found.double() - exact).abs().max() < 0.02
