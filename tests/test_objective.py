import pytest
import torch

import eqm


def test_loss_is_the_mean_square_distance_to_the_scaled_direction(generator):
    data, noise = torch.randn(2, 5, 3, 2, 2, generator=generator)
    gamma = torch.rand(5, generator=generator)
    decay = eqm.LinearDecay(2.0)
    loss = eqm.EquilibriumMatching(decay).loss_at(
        lambda x, labels: x, data, noise=noise, gamma=gamma
    )
    for i in range(5):
        g = gamma[i]
        error = g * data[i] + (1 - g) * noise[i] - (noise[i] - data[i]) * 2 * (1 - g)
        torch.testing.assert_close(loss[i], error.square().mean())


def test_the_same_generator_draws_the_same_loss():
    data = torch.randn(6, 4)
    losses = [
        eqm.EquilibriumMatching()(
            lambda x, labels: x, data, generator=torch.Generator().manual_seed(s)
        )
        for s in (1, 1, 2)
    ]
    assert torch.equal(losses[0], losses[1])
    assert not torch.equal(losses[0], losses[2])


def test_flow_matching_without_noise_conditioning_is_a_constant_decay(generator):
    data, noise, gamma = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4)
    flow = eqm.FlowMatching(noise_conditioning=False)
    constant = eqm.EquilibriumMatching(eqm.ConstantDecay())
    losses = [
        o.loss_at(lambda x, labels: x, data, noise=noise, gamma=gamma) for o in (flow, constant)
    ]
    assert torch.equal(*losses)


def test_flow_matching_passes_gamma_to_the_field():
    data, noise, gamma = torch.randn(4, 3), torch.randn(4, 3), torch.rand(4)

    def exact(x, labels, seen):
        assert torch.equal(seen, gamma)
        return noise - data

    assert eqm.FlowMatching().loss_at(exact, data, noise=noise, gamma=gamma).abs().max() == 0


def test_the_labels_reach_the_field():
    seen = []

    def field(x, labels):
        seen.append(labels)
        return x

    labels = torch.tensor([2, 0])
    eqm.EquilibriumMatching()(field, torch.zeros(2, 3), labels)
    assert torch.equal(seen[0], labels)


def test_a_field_that_changes_the_shape_is_named():
    with pytest.raises(
        ValueError, match=r"must return the shape of its input, \(4, 3\); got \(4, 2\)"
    ):
        eqm.EquilibriumMatching()(lambda x, labels: x[:, :2], torch.zeros(4, 3))


class Labelled(torch.nn.Module):
    num_classes = 4

    def forward(self, x, labels):
        return x - labels.view(-1, 1)


def test_the_checks_of_a_loss_do_not_cut_a_compiled_graph(generator):
    data, noise = torch.randn(2, 5, 3, generator=generator)
    gamma, labels = torch.rand(5, generator=generator), torch.tensor([0, 1, 2, 3, 4])

    objective, field = eqm.EquilibriumMatching(), Labelled()

    def loss(data, labels):
        return objective.loss_at(field, data, labels, noise=noise, gamma=gamma)

    whole = torch.compile(loss, fullgraph=True, backend="eager")
    torch.testing.assert_close(whole(data, labels), loss(data, labels))


def test_labels_that_a_field_does_not_have_are_refused():
    with pytest.raises(ValueError, match=r"labels must lie in 0..3, or be 4 for none; got 1..5"):
        eqm.EquilibriumMatching()(Labelled(), torch.zeros(2, 3), torch.tensor([1, 5]))
