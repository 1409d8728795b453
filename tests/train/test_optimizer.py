import math
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from torch.distributed.checkpoint.state_dict import (
    get_optimizer_state_dict,
    set_optimizer_state_dict,
)

from eqm.models import MLPConfig, TransformerConfig, UNetConfig, build
from eqm.train.config import OptimizerConfig
from eqm.train.optimizer import Muon, make_optimizer, orthogonalised

CPU = torch.device("cpu")
UNET = UNetConfig(shape=(1, 8, 8), num_classes=3, width=4, multipliers=(1, 2))
MUON = OptimizerConfig(name="muon", learning_rate=0.01, weight_decay=0.1)


def parameters_of(model, group):
    names = {id(p): name for name, p in model.named_parameters()}
    return {names[id(p)] for p in group["params"]}


def set_gradients(model, seed):
    generator = torch.Generator().manual_seed(seed)
    for p in model.parameters():
        if p.requires_grad:
            p.grad = torch.randn(p.shape, generator=generator)


@pytest.mark.parametrize(
    ("config", "hidden", "outer"),
    [
        (UNET, "encoder.0.0.conv1.weight", {"stem.weight", "head.weight"}),
        (
            replace(UNET, positions=True),
            "encoder.0.0.conv1.weight",
            {"stem.weight", "head.weight"},
        ),
        (
            MLPConfig(shape=(2,), num_classes=3, width=8, depth=1),
            "blocks.0.fc1.weight",
            {"stem.weight", "head.weight"},
        ),
        (
            TransformerConfig(shape=(1, 4, 4), num_classes=3, patch=2, width=8, depth=1, heads=2),
            "blocks.0.attn.qkv.weight",
            {
                *("x_embedder.proj.weight", "final_layer.linear.weight"),
                *("final_layer.adaLN_modulation.1.weight",),
                *("t_embedder.mlp.0.weight", "t_embedder.mlp.2.weight"),
            },
        ),
    ],
)
def test_every_trainable_weight_is_in_the_group_of_its_kind(config, hidden, outer):
    model = build(config)
    groups = make_optimizer(model, MUON, CPU).param_groups
    matrices, others, rest = (parameters_of(model, group) for group in groups)
    assert hidden in matrices
    assert others == outer
    assert any(name.endswith("embedding_table.weight") for name in rest)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert matrices | others | rest == trainable
    assert sum(len(group["params"]) for group in groups) == len(trainable)
    assert [group["orthogonal"] for group in groups] == [True, False, False]
    assert [group["weight_decay"] for group in groups] == [0.1, 0.1, 0.0]
    decayed, spared = make_optimizer(model, OptimizerConfig(weight_decay=0.1), CPU).param_groups
    assert parameters_of(model, decayed) == matrices | others
    assert (parameters_of(model, spared), spared["weight_decay"]) == (rest, 0.0)


@pytest.mark.parametrize("name", ["adamw", "muon"])
def test_decay_shrinks_matrices_alone_and_muon_steps_hidden_ones_alone(name):
    model = build(UNET)
    optimizer = make_optimizer(model, replace(MUON, name=name), CPU)

    def steps():
        before = {key: p.detach().clone() for key, p in model.named_parameters()}
        optimizer.step()
        for key, p in model.named_parameters():
            if p.requires_grad:
                matrix = p.ndim >= 2 and "embedding" not in key
                shrunk = before[key] * (0.999 if matrix else 1.0)  # 1 - rate * decay
                yield key, matrix, shrunk - p.detach()

    for p in model.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    for _, _, step in steps():
        torch.testing.assert_close(step, torch.zeros_like(step))
    set_gradients(model, 1)
    for key, matrix, step in steps():
        lengths = step.abs().flatten()
        even = lengths.std(correction=0) < 0.01 * lengths.mean()  # AdamW moves each entry alike
        assert even == (name == "adamw" or not matrix or key in ("stem.weight", "head.weight")), key


def test_adamw_takes_its_settings():
    settings = OptimizerConfig(betas=(0.8, 0.95), eps=1e-6, learning_rate=0.3)
    optimizer = make_optimizer(build(UNET), settings, CPU)
    assert type(optimizer) is torch.optim.AdamW
    for group in optimizer.param_groups:
        assert (group["betas"], group["eps"], group["lr"]) == ((0.8, 0.95), 1e-6, 0.3)
        assert group["fused"]


@pytest.mark.parametrize("shape", [(16, 16), (8, 40), (40, 8)])
def test_orthogonalising_keeps_the_singular_vectors_and_evens_the_values(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = orthogonalised(matrix, dtype=torch.float64)
    u, _, vt = torch.linalg.svd(matrix, full_matrices=False)
    core = u.mT @ found @ vt.mT
    torch.testing.assert_close(core, torch.diag(core.diag()), atol=1e-10, rtol=0)
    assert core.diag().min() > 0.6
    assert core.diag().max() < 1.3


def test_small_matrices_are_orthogonalised_as_large_ones_are_in_single_precision_on_a_cpu():
    matrix = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    exact = orthogonalised(matrix, dtype=torch.float64).float()
    for scale in (1.0, 1e-5, 1e5):
        torch.testing.assert_close(orthogonalised(scale * matrix), exact, atol=1e-4, rtol=0)


def test_many_matrices_are_orthogonalised_as_each_is():
    matrices = torch.randn(3, 8, 20, generator=torch.Generator().manual_seed(0))
    together = orthogonalised(matrices)
    torch.testing.assert_close(together, torch.stack([orthogonalised(m) for m in matrices]))


def reference_pair(shape):
    """Our Muon and torch's on the same matrix of `shape`."""
    weight = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    ours, theirs = torch.nn.Parameter(weight.clone()), torch.nn.Parameter(weight.clone())
    group = {"params": [ours], "orthogonal": True, "weight_decay": 0.1}
    return ours, theirs, Muon([group], lr=0.02)


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch.optim.Muon came with 2.9")
def test_on_matrices_muon_is_that_of_torch(monkeypatch):
    # torch rounds the iteration to bfloat16: so does ours here, for equal bits but the order of sums
    rounded = lambda matrix: orthogonalised(matrix, dtype=torch.bfloat16)  # noqa: E731
    monkeypatch.setattr("eqm.train.optimizer.orthogonalised", rounded)
    ours, theirs, optimizer = reference_pair((12, 30))
    reference = torch.optim.Muon(
        [theirs], lr=0.02, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    began = ours.detach().clone()
    for seed in range(5):
        gradient = torch.randn(ours.shape, generator=torch.Generator().manual_seed(seed))
        ours.grad, theirs.grad = gradient.clone(), gradient.clone()
        optimizer.step()
        reference.step()
    moved = (theirs - began).norm()
    assert (ours - theirs).norm() < 0.02 * moved


def test_a_kernel_is_the_matrix_of_its_output_channels():
    matrix, _, for_matrix = reference_pair((6, 18))
    kernel = torch.nn.Parameter(matrix.detach().clone().reshape(6, 2, 3, 3))
    for_kernel = Muon([{"params": [kernel], "orthogonal": True, "weight_decay": 0.1}], lr=0.02)
    for seed in range(3):
        matrix.grad = torch.randn(matrix.shape, generator=torch.Generator().manual_seed(seed))
        kernel.grad = matrix.grad.reshape(kernel.shape).clone()
        for_matrix.step()
        for_kernel.step()
    assert torch.equal(kernel.flatten(1), matrix)


def test_the_others_are_stepped_by_adamw_to_the_bit():
    model = build(UNET)
    twin = deepcopy(model)
    ours = Muon(model.parameters(), lr=0.01, weight_decay=0.1)
    theirs = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.1, fused=True)
    for seed in range(3):
        for m, optimizer in ((model, ours), (twin, theirs)):
            set_gradients(m, seed)
            optimizer.step()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_a_step_of_muon_is_as_long_as_one_of_adamw():
    weight = torch.nn.Parameter(torch.zeros(64, 48))
    optimizer = Muon([{"params": [weight], "orthogonal": True}], lr=0.01)
    weight.grad = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0))
    optimizer.step()
    length = weight.square().mean().sqrt().item()
    assert length == pytest.approx(0.01 * 0.2, rel=0.2)  # AdamW's is about 0.2 lr, arXiv 2502.16982


@pytest.mark.parametrize("name", ["adamw", "muon"])
@pytest.mark.parametrize("through", ["torch", "distributed checkpoint"])
def test_a_reloaded_optimizer_goes_on_to_the_same_bits(name, through, tmp_path):
    settings = OptimizerConfig(name=name, learning_rate=0.01, weight_decay=0.1)
    model = build(UNET)
    optimizer = make_optimizer(model, settings, CPU)
    for seed in range(3):
        set_gradients(model, seed)
        optimizer.step()
    twin = deepcopy(model)
    other = make_optimizer(twin, settings, CPU)
    if through == "torch":
        torch.save(optimizer.state_dict(), tmp_path / "state.pt")
        other.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    else:
        torch.save(get_optimizer_state_dict(model, optimizer), tmp_path / "state.pt")
        state = torch.load(tmp_path / "state.pt", weights_only=True)
        set_optimizer_state_dict(twin, other, state)
    for m, o in ((model, optimizer), (twin, other)):
        set_gradients(m, 99)
        o.step()
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), twin.parameters(), strict=True)
    )


def test_a_step_that_is_told_of_bad_gradients_changes_nothing():
    """Told on the device: `found_inf` is how torch's fused optimizers hear of it."""
    model = build(UNET)
    optimizer = make_optimizer(model, MUON, CPU)
    set_gradients(model, 0)
    optimizer.step()
    twin, state = deepcopy(model), deepcopy(optimizer.state_dict()["state"])
    for p in model.parameters():
        p.grad = torch.full_like(p, math.nan)
    optimizer.found_inf = torch.ones(())
    optimizer.step()
    pairs = zip(model.parameters(), twin.parameters(), strict=True)
    assert all(torch.equal(a, b) for a, b in pairs)
    for index, tensors in optimizer.state_dict()["state"].items():
        assert all(torch.equal(tensors[name], state[index][name]) for name in tensors)
    optimizer.found_inf = torch.zeros(())
    other = make_optimizer(twin, MUON, CPU)
    other.load_state_dict({**other.state_dict(), "state": state})
    for m, o in ((model, optimizer), (twin, other)):
        set_gradients(m, 1)
        o.step()
    for a, b in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-8)  # lr as a tensor rounds once more


def test_weights_without_a_gradient_stay():
    model = build(UNET)
    optimizer = make_optimizer(model, MUON, CPU)
    before = deepcopy(model)
    optimizer.step(lambda: math.nan)
    assert all(
        torch.equal(a, b) for a, b in zip(model.parameters(), before.parameters(), strict=True)
    )
