import pytest
import torch
from torch import nn
from torch.autograd import forward_ad

import eqm
from eqm.difference import difference_loss
from eqm.models import Transformer, TransformerConfig


@pytest.fixture
def net():
    torch.manual_seed(0)
    net = Transformer(
        TransformerConfig(shape=(2, 4, 4), num_classes=3, width=16, depth=2, heads=2)
    ).double()
    for weight in net.parameters():
        if weight.requires_grad:
            nn.init.normal_(weight, std=0.2)
    return net


X = torch.randn(3, 2, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
LABELS = torch.tensor([0, 1, 3])
ENERGIES = pytest.mark.parametrize("energy", [eqm.DotEnergy, eqm.NormEnergy])


@ENERGIES
def test_the_field_is_the_gradient_of_the_energy(net, energy):
    field = energy(net)
    direction = torch.randn_like(X)
    h = 1e-5
    with torch.no_grad():
        rise = (
            field.energy(X + h * direction, LABELS) - field.energy(X - h * direction, LABELS)
        ) / (2 * h)
        slope = (field(X, LABELS) * direction).flatten(1).sum(1)
    torch.testing.assert_close(rise, slope, rtol=1e-6, atol=1e-8)


@ENERGIES
def test_the_field_is_the_same_in_every_mode_and_does_not_change_its_arguments(net, energy):
    field = energy(net)
    x = X.clone()
    reference = field(x, LABELS).detach()
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        for training in (True, False):
            field.train(training)
            with mode():
                torch.testing.assert_close(field(x, LABELS), reference, rtol=1e-12, atol=1e-12)
    with torch.inference_mode():
        torch.testing.assert_close(field(X.clone(), LABELS.clone()), reference)
        torch.testing.assert_close(field(x.clone(), LABELS), reference, rtol=1e-12, atol=1e-12)
    assert not x.requires_grad
    assert x.grad is None
    assert torch.equal(x, X)
    assert all(weight.grad is None for weight in net.parameters())


@ENERGIES
def test_a_graph_is_kept_only_if_gradients_are_enabled(net, energy):
    field = energy(net)
    assert field(X, LABELS).requires_grad
    with torch.no_grad():
        assert not field(X, LABELS).requires_grad
        assert not any(t.requires_grad for t in field.energy_and_gradient(X, LABELS))


@ENERGIES
def test_an_energy_is_summed_in_the_precision_of_x_under_autocast(energy):
    x = torch.randn(2, 5000, generator=torch.Generator().manual_seed(0)).bfloat16().float()
    value = energy(lambda x, labels: x.bfloat16()).energy(x)  # as a network under autocast gives
    full = x.square().sum(1) * (0.5 if energy is eqm.NormEnergy else 1.0)
    torch.testing.assert_close(value, full, rtol=1e-5, atol=0)


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")
@ENERGIES
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad])
def test_transforms_of_torch_func_work(net, energy, mode):
    field, direction, h = energy(net), X.flip(0), 1e-6
    with mode():
        slope = torch.func.jvp(lambda x: field(x, LABELS), (X,), (direction,))[1]
        ends = [field(X + sign * h * direction, LABELS) for sign in (1, -1)]
        torch.testing.assert_close(slope, (ends[0] - ends[1]) / (2 * h), rtol=1e-6, atol=1e-7)
        with forward_ad.dual_level():
            dual = forward_ad.unpack_dual(field(forward_ad.make_dual(X, direction), LABELS))
            torch.testing.assert_close(dual.tangent, slope)
        rows = torch.vmap(lambda x, label: field(x[None], label[None])[0])(X, LABELS)
        torch.testing.assert_close(rows, field(X, LABELS), rtol=1e-9, atol=1e-9)
    weights = {name: weight.detach() for name, weight in field.named_parameters()}

    def loss(weights):
        return torch.func.functional_call(field, weights, (X, LABELS)).square().sum()

    field(X, LABELS).square().sum().backward()
    for name, gradient in torch.func.grad(loss)(weights).items():
        if (expected := field.get_parameter(name).grad) is not None:
            torch.testing.assert_close(gradient, expected, rtol=1e-9, atol=1e-9)


def test_the_hessian_of_an_energy_is_symmetric(net):
    field = eqm.DotEnergy(net)
    x = X[:1].clone().requires_grad_()
    jacobian = torch.autograd.functional.jacobian(lambda x: field(x, LABELS[:1]).flatten(), x).view(
        32, 32
    )
    torch.testing.assert_close(jacobian, jacobian.T, rtol=1e-9, atol=1e-10)
    assert jacobian.abs().max() > 1e-3


@ENERGIES
def test_descent_lowers_the_energy(net, energy):
    field = energy(net)
    descent = eqm.descend(field, X, LABELS, rule=eqm.GradientDescent(1e-3), max_steps=20)
    with torch.no_grad():
        assert (field.energy(descent.x, LABELS) < field.energy(X, LABELS)).all()


@pytest.mark.slow
@ENERGIES
def test_the_compiled_field_and_its_weight_gradients_are_the_same(net, energy):
    field = energy(net)
    gradients = []
    for f in (field, field.compiled()):
        net.zero_grad()
        value = f(X, LABELS)
        value.square().sum().backward()
        gradients.append([value.detach(), *(w.grad for w in net.parameters() if w.requires_grad)])
    for ours, reference in zip(*gradients, strict=True):
        torch.testing.assert_close(ours, reference, rtol=1e-9, atol=1e-9)


def weight_gradients(net, loss):
    net.zero_grad()
    loss.sum().backward()
    return torch.cat([w.grad.flatten() for w in net.parameters() if w.grad is not None])


@ENERGIES
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_difference_gives_the_weight_gradients_of_the_loss(net, energy, dtype):
    field, x = energy(net.to(dtype)), X.to(dtype)
    target = torch.randn(x.shape, dtype=dtype, generator=torch.Generator().manual_seed(2))
    exact = (field(x, LABELS) - target).square().flatten(1).mean(1)
    expected = weight_gradients(net, exact)
    loss = difference_loss(field, x, target, LABELS)
    torch.testing.assert_close(loss, exact)
    found = weight_gradients(net, loss)
    assert (found - expected).norm() < 3e-3 * expected.norm()


def test_the_difference_is_zero_where_the_gradient_is_right(net):
    field = eqm.DotEnergy(net)
    loss = difference_loss(field, X, field(X, LABELS).detach(), LABELS)
    assert weight_gradients(net, loss).abs().max() < 1e-9


def test_a_difference_is_refused_in_half_precision_and_for_other_shapes(net):
    field = eqm.DotEnergy(net.float())
    with pytest.raises(ValueError, match="need float32; got half precision or autocast"):
        difference_loss(field, X.bfloat16(), X.bfloat16())
    with torch.autocast("cpu", torch.bfloat16), pytest.raises(ValueError, match="autocast"):
        difference_loss(field, X.float(), X.float())
    with pytest.raises(ValueError, match=r"target must have the shape of x, \(3, 2, 4, 4\)"):
        difference_loss(field, X.float(), X.float()[:1])


def test_the_objective_takes_differences_only_of_energies(net):
    objective = eqm.EquilibriumMatching(difference=True)
    where = {"noise": X.flip(0), "gamma": torch.tensor([0.1, 0.5, 0.9])}
    exact = eqm.EquilibriumMatching().loss_at(eqm.DotEnergy(net), X, LABELS, **where)
    torch.testing.assert_close(objective.loss_at(eqm.DotEnergy(net), X, LABELS, **where), exact)
    with pytest.raises(ValueError, match="difference needs a DotEnergy or NormEnergy"):
        objective.loss_at(net, X, LABELS, **where)
