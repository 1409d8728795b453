import pytest
import torch
from scipy import stats

from eqm.randomness import SampleRandom, generator_at, philox


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ([0] * 4, [0] * 2, [0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8]),
        ([2**32 - 1] * 4, [2**32 - 1] * 2, [0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD]),
        (
            [0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344],
            [0xA4093822, 0x299F31D0],
            [0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1],
        ),
    ],
)
def test_the_bits_are_those_published_with_the_generator(counter, key, expected):
    words = philox(tuple(torch.tensor([word]) for word in counter), tuple(key))
    assert [word.item() for word in words] == expected


def test_random_numbers_have_their_distributions_and_are_independent():
    draws = SampleRandom(3, torch.arange(2000) + 2**40)
    uniform, normal = draws.uniform("gamma", (10,)), draws.normal("noise", (11,))
    assert stats.kstest(uniform.flatten().numpy(), "uniform").pvalue > 0.01
    assert stats.kstest(normal.flatten().numpy(), "norm").pvalue > 0.01
    correlation = torch.corrcoef(normal.T).fill_diagonal_(0)
    assert correlation.abs().max() < 0.1
    assert torch.corrcoef(normal[:, :10].reshape(2, -1))[0, 1].abs() < 0.03


def test_random_numbers_of_a_sample_do_not_depend_on_its_batch():
    draws = SampleRandom(0, torch.tensor([7, 3, 2**33 + 7]))
    whole = draws.normal("noise", (3, 3))
    assert torch.equal(draws[1:].normal("noise", (3, 3)), whole[1:])
    assert not torch.equal(whole[0], whole[2])
    assert not torch.equal(whole, SampleRandom(1, draws.positions).normal("noise", (3, 3)))
    assert not torch.equal(whole, draws.normal("flip", (3, 3)))
    assert draws.uniform("gamma").shape == (3,)
    assert draws[:0].normal("noise", (3, 3)).shape == (0, 3, 3)


def test_generators_differ_by_purpose_seed_and_position():
    places = [("order", 0, 0), ("order", 1, 0), ("order", 2**32, 0), ("order", 0, 1), ("x", 0, 0)]
    draws = {
        torch.rand(4, generator=generator_at(p, seed=s, position=k)).sum().item()
        for p, s, k in places
    }
    assert len(draws) == len(places)
