import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from eqm.features import Inception, load_inception, open_features
from eqm.features.convolution import fold
from eqm.features.inception import graph_names, resize


@pytest.fixture(scope="module")
def network() -> Inception:
    """The network with weights and norms that keep signals about one in size."""
    torch.manual_seed(0)
    with torch.no_grad():
        found = Inception()
        for module in found.modules():
            if isinstance(module, nn.Conv2d):
                module.weight.mul_(2)
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(0, 0.2)
                module.running_var.uniform_(0.5, 1.5)
                module.bias.normal_(0, 0.2)
    return found.eval()


def naive_resize(image: np.ndarray, side: int) -> np.ndarray:
    """TensorFlow 1's legacy `resize_bilinear` of an image (H, W), pixel by pixel."""
    height, width = image.shape
    found = np.zeros((side, side))
    for i in range(side):
        y = i * height / side
        top, bottom = math.floor(y), min(math.floor(y) + 1, height - 1)
        for j in range(side):
            x = j * width / side
            left, right = math.floor(x), min(math.floor(x) + 1, width - 1)
            above = image[top, left] * (1 - x % 1) + image[top, right] * (x % 1)
            below = image[bottom, left] * (1 - x % 1) + image[bottom, right] * (x % 1)
            found[i, j] = above * (1 - y % 1) + below * (y % 1)
    return found


@pytest.mark.parametrize("shape", [(5, 7), (32, 32), (47, 40), (31, 31)])
def test_the_resize_agrees_with_tensorflow(shape: tuple[int, int]) -> None:
    image = torch.rand(1, 1, *shape, generator=torch.Generator().manual_seed(0)) * 255
    expected = naive_resize(image[0, 0].double().numpy(), 31)
    np.testing.assert_allclose(resize(image, 31)[0, 0], expected, rtol=0, atol=1e-3)
    if shape == (31, 31):
        assert resize(image, 31).equal(image)


def windows(x: np.ndarray, height: int, width: int) -> np.ndarray:
    return np.lib.stride_tricks.sliding_window_view(x, (height, width), axis=(1, 2))


class Graph:
    """The network as TensorFlow's graph has it, in NumPy, from tensors under the graph's names."""

    def __init__(self, tensors: dict[str, np.ndarray]) -> None:
        self.tensors = tensors
        self.seen: dict[str, np.ndarray] = {}

    def conv(self, x: np.ndarray, name: str, *, stride: int = 1, same: bool = True) -> np.ndarray:
        kernel = self.tensors[f"{name}/weight"]
        height, width = kernel.shape[2:]
        if same:
            x = np.pad(x, ((0, 0), (height // 2, height // 2), (width // 2, width // 2)))
        found = np.einsum(
            "chwkl,ockl->ohw",
            windows(x, height, width)[:, ::stride, ::stride],
            kernel,
            optimize=True,
        )
        beta, mean, var = (
            self.tensors[f"{name}/{part}"][:, None, None] for part in ("beta", "mean", "var")
        )
        self.seen[name] = np.maximum((found - mean) / np.sqrt(var + 0.001) + beta, 0)
        return self.seen[name]

    def average(self, x: np.ndarray) -> np.ndarray:
        padding = ((0, 0), (1, 1), (1, 1))
        return np.nanmean(windows(np.pad(x, padding, constant_values=np.nan), 3, 3), axis=(3, 4))

    def largest(self, x: np.ndarray, *, stride: int, padding: int = 0) -> np.ndarray:
        sides = ((0, 0), (padding, padding), (padding, padding))
        padded = np.pad(x, sides, constant_values=-np.inf)
        return windows(padded, 3, 3)[:, ::stride, ::stride].max(axis=(3, 4))

    def tower(self, x: np.ndarray, name: str, count: int) -> np.ndarray:
        for index in range(count):
            x = self.conv(x, f"{name}/conv" + (f"_{index}" if index else ""))
        return x

    def side_by_side(self, x: np.ndarray, name: str) -> np.ndarray:
        return np.concatenate(
            [self.conv(x, f"{name}/mixed/conv"), self.conv(x, f"{name}/mixed/conv_1")]
        )

    def pool(self, x: np.ndarray) -> np.ndarray:
        """pool_3 of the prepared image x (3, H, W)."""
        x = self.conv(x, "conv", stride=2, same=False)
        x = self.conv(x, "conv_1", same=False)
        x = self.largest(self.conv(x, "conv_2"), stride=2)
        x = self.conv(self.conv(x, "conv_3"), "conv_4", same=False)
        x = self.largest(x, stride=2)
        for block, towers in [("mixed", (2, 3)), ("mixed_1", (2, 3)), ("mixed_2", (2, 3))]:
            x = self.block(x, block, towers)
        deep = self.tower(x, "mixed_3/tower", 2)
        x = np.concatenate(
            [
                self.conv(x, "mixed_3/conv", stride=2, same=False),
                self.conv(deep, "mixed_3/tower/conv_2", stride=2, same=False),
                self.largest(x, stride=2),
            ]
        )
        for index in (4, 5, 6, 7):
            x = self.block(x, f"mixed_{index}", (3, 5))
        x = np.concatenate(
            [
                self.conv(
                    self.tower(x, "mixed_8/tower", 1), "mixed_8/tower/conv_1", stride=2, same=False
                ),
                self.conv(
                    self.tower(x, "mixed_8/tower_1", 3),
                    "mixed_8/tower_1/conv_3",
                    stride=2,
                    same=False,
                ),
                self.largest(x, stride=2),
            ]
        )
        for name in ("mixed_9", "mixed_10"):
            pooled = self.average(x) if name == "mixed_9" else self.largest(x, stride=1, padding=1)
            x = np.concatenate(
                [
                    self.conv(x, f"{name}/conv"),
                    self.side_by_side(self.tower(x, f"{name}/tower", 1), f"{name}/tower"),
                    self.side_by_side(self.tower(x, f"{name}/tower_1", 2), f"{name}/tower_1"),
                    self.conv(pooled, f"{name}/tower_2/conv"),
                ]
            )
        return x.mean((1, 2))

    def block(self, x: np.ndarray, name: str, towers: tuple[int, int]) -> np.ndarray:
        return np.concatenate(
            [
                self.conv(x, f"{name}/conv"),
                self.tower(x, f"{name}/tower", towers[0]),
                self.tower(x, f"{name}/tower_1", towers[1]),
                self.conv(self.average(x), f"{name}/tower_2/conv"),
            ]
        )


def graph_of(network: Inception) -> dict[str, torch.Tensor]:
    tensors = network.state_dict()
    parts = {
        "weight": "conv.weight",
        "beta": "bn.bias",
        "mean": "bn.running_mean",
        "var": "bn.running_var",
    }
    return {
        f"{graph}/{part}": tensors[f"{name}.{ours}"]
        for name, graph in graph_names().items()
        for part, ours in parts.items()
    }


def test_the_layers_agree_with_the_graph(network: Inception) -> None:
    side = 91  # the least but a few that every pool fits into
    x = torch.randn(1, 3, side, side, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        found = network.activations(x)
    graph = Graph({name: tensor.double().numpy() for name, tensor in graph_of(network).items()})
    vector = graph.pool(x[0].double().numpy())
    assert vector.std() > 0.05  # it says something
    np.testing.assert_allclose(found.vector[0], vector, rtol=1e-3, atol=1e-4)
    assert found.spatial is not None
    # (7, H, W), channels last as sFID flattens them
    spatial = graph.seen["mixed_6/conv"][:7].transpose(1, 2, 0).ravel()
    np.testing.assert_allclose(found.spatial[0], spatial, rtol=1e-3, atol=1e-4)
    logits = vector @ network.fc.weight.detach().double().numpy().T  # without the bias
    expected = np.exp(logits - logits.max())
    assert found.probabilities is not None
    np.testing.assert_allclose(found.probabilities[0], expected / expected.sum(), rtol=1e-3)


def test_every_convolution_has_one_name_in_the_graph(network: Inception) -> None:
    names = graph_names()
    assert len(names) == len(set(names.values())) == 94
    assert set(names) == {
        name.removesuffix(".conv")
        for name, m in network.named_modules()
        if isinstance(m, nn.Conv2d)
    }


class Leaf(nn.Module):
    """A convolution of NVIDIA's archive: tensors by other names, and a norm without scale."""

    def __init__(self) -> None:
        super().__init__()
        self.side = 3

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x


def nvidia_archive(network: Inception, path: Path) -> None:
    root = nn.Module()
    root.output = nn.Linear(1, 1)
    root.output.weight, root.output.bias = network.fc.weight, network.fc.bias
    for name, tensor in graph_of(network).items():
        block, *inner, leaf = name.split("/")
        if block in ("mixed_9", "mixed_10"):
            inner = ["_".join(inner)]
        node = root
        for part in ["layers", block, *inner]:
            if not hasattr(node, part):
                node.add_module(part, Leaf())
            node = getattr(node, part)
        node.register_buffer(leaf, tensor)
    with warnings.catch_warnings():
        warnings.simplefilter(
            "ignore"
        )  # TorchScript is deprecated, which does not concern its files
        torch.jit.script(root).save(str(path))


def test_every_public_file_format_gives_the_same_features(
    network: Inception, tmp_path: Path
) -> None:
    state = network.state_dict()
    torch.save(state, tmp_path / "whole.pth")
    few = {name: t for name, t in state.items() if not name.endswith("num_batches_tracked")}
    torch.save(few, tmp_path / "old.pth", _use_new_zipfile_serialization=False)
    nvidia_archive(network, tmp_path / "script.pt")
    images = torch.rand(1, 1, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    prints = set()
    for name in ("whole.pth", "old.pth", "script.pt"):
        loaded = load_inception(tmp_path / name).state_dict()
        assert all(loaded[key].equal(tensor) for key, tensor in few.items())
        features = open_features(f"inception:{tmp_path / name}")
        prints.add(features.fingerprint)
    assert len(prints) == 1
    found = features(images)
    with torch.no_grad():
        expected = network(images)
    for one, other, size in zip(found, expected, (2048, 2023, 1008), strict=True):
        assert one.shape == (1, size)
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-4)


def test_an_invalid_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="does not exist: use inception:PATH"):
        open_features("inception:nowhere.pth")
    path = tmp_path / "weights.pth"
    path.write_bytes(b"half")
    with pytest.raises(ValueError, match="or loading it could run code"):
        load_inception(path)
    torch.save({"weights": Path("/")}, path)
    with pytest.raises(ValueError, match="or loading it could run code"):
        load_inception(path)
    torch.save({"fc.weight": torch.zeros(1000, 2048)}, path)
    with pytest.raises(ValueError, match="Inception of 2015-12-05; .* tensors are missing"):
        load_inception(path)


def test_an_archive_that_could_run_code_is_refused(tmp_path: Path) -> None:
    import os
    import pickle
    import zipfile

    class Evil:
        def __reduce__(self) -> tuple[object, tuple[str]]:
            return os.mkdir, (str(tmp_path / "ran"),)

    path = tmp_path / "script.pt"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickle.dumps(Evil(), protocol=2))
        archive.writestr("x/constants.pkl", b"")
    with pytest.raises(ValueError, match="or loading it could run code"):
        load_inception(path)
    assert not (tmp_path / "ran").exists()


def test_folded_batch_norms_give_the_same_features(network: Inception) -> None:
    x = torch.randn(1, 3, 91, 91, generator=torch.Generator().manual_seed(2))
    copy = Inception()
    copy.load_state_dict(network.state_dict())
    with torch.no_grad():
        before, after = network.activations(x), fold(copy).activations(x)  # type: ignore[operator]
    torch.testing.assert_close(after.vector, before.vector, rtol=1e-3, atol=1e-4)
