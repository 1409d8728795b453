"""Inception-2015, the network of FID, sFID and the Inception Score, from its public weight files.

It is the Inception v3 of TensorFlow's `classify_image_graph_def.pb` of 2015-12-05, which defines these
metrics. It differs from Szegedy et al. 2015 (arXiv 1512.00567) in two points: average pools leave out
the padding, and the last block has a max pool. These files can be read:

* pt_inception-2015-12-05-6726825d.pth of pytorch-fid and weights-inception-2015-12-05-6726825d.pth of
  torch-fidelity: state dicts of tensors;
* inception-2015-12-05.pt of NVIDIA's stylegan2-ada-pytorch: a TorchScript archive. Its tensors are
  read; its code is not run.

inception-2015-12-05.pkl of stylegan3 is refused, because loading that pickle runs code.

The tests compare the layers, the resize and the readers with independent computations on random
weights, not with the public files. The names of the files' tensors come from programs that read them.
"""

from __future__ import annotations

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor, nn

from eqm.checks import check_path
from eqm.features.convolution import Convolution, fold
from eqm.features.features import Activations, Features, as_rgb, from_module
from eqm.registry import register

SIDE = 299

Layer = tuple[int, int, int]
"""Output channels, kernel height and kernel width of a convolution."""
Branches = dict[str, list[Layer | list[Layer]]]
"""The layers of each branch, in order; a list of two layers runs side by side."""


def _a(pooled: int) -> Branches:
    return {
        "branch1x1": [(64, 1, 1)],
        "branch5x5": [(48, 1, 1), (64, 5, 5)],
        "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
        "branch_pool": [(pooled, 1, 1)],
    }


def _c(n: int) -> Branches:
    return {
        "branch1x1": [(192, 1, 1)],
        "branch7x7": [(n, 1, 1), (n, 1, 7), (192, 7, 1)],
        "branch7x7dbl": [(n, 1, 1), (n, 7, 1), (n, 1, 7), (n, 7, 1), (192, 1, 7)],
        "branch_pool": [(192, 1, 1)],
    }


_B: Branches = {
    "branch3x3": [(384, 3, 3)],
    "branch3x3dbl": [(64, 1, 1), (96, 3, 3), (96, 3, 3)],
    "branch_pool": [],
}
_D: Branches = {
    "branch3x3": [(192, 1, 1), (320, 3, 3)],
    "branch7x7x3": [(192, 1, 1), (192, 1, 7), (192, 7, 1), (192, 3, 3)],
    "branch_pool": [],
}
_E: Branches = {
    "branch1x1": [(320, 1, 1)],
    "branch3x3": [(384, 1, 1), [(384, 1, 3), (384, 3, 1)]],
    "branch3x3dbl": [(448, 1, 1), (384, 3, 3), [(384, 1, 3), (384, 3, 1)]],
    "branch_pool": [(192, 1, 1)],
}
_STEM = {  # channels, kernel, stride, padding
    "Conv2d_1a_3x3": (32, 3, 2, 0),
    "Conv2d_2a_3x3": (32, 3, 1, 0),
    "Conv2d_2b_3x3": (64, 3, 1, 1),
    "MaxPool_1": None,
    "Conv2d_3b_1x1": (80, 1, 1, 0),
    "Conv2d_4a_3x3": (192, 3, 1, 0),
    "MaxPool_2": None,
}
_MIXED = {
    "Mixed_5b": _a(32),
    "Mixed_5c": _a(64),
    "Mixed_5d": _a(64),
    "Mixed_6a": _B,
    "Mixed_6b": _c(128),
    "Mixed_6c": _c(160),
    "Mixed_6d": _c(160),
    "Mixed_6e": _c(192),
    "Mixed_7a": _D,
    "Mixed_7b": _E,
    "Mixed_7c": _E,
}


class Inception(nn.Module):
    """The network with random weights; its tensors have the names used in torchvision."""

    def __init__(self) -> None:
        super().__init__()
        self.layers: list[str] = [*_STEM, *_MIXED]
        width = 3
        for name, stem in _STEM.items():
            if stem is None:
                self.add_module(name, nn.MaxPool2d(3, 2))
                continue
            outputs, kernel, stride, padding = stem
            self.add_module(
                name,
                Convolution(
                    width, outputs, (kernel, kernel), stride=stride, padding=(padding, padding)
                ),
            )
            width = outputs
        for name, branches in _MIXED.items():
            mixed = _Mixed(width, branches, last=name == "Mixed_7c")
            self.add_module(name, mixed)
            width = mixed.outputs
        self.fc = nn.Linear(width, 1008)

    def prepare(self, images: Tensor) -> Tensor:
        """The input of the layers: three channels, 299 x 299, scaled to about -1..1 as in the graph."""
        return (resize(as_rgb((images + 1) * 127.5), SIDE) - 128) / 128

    def activations(self, prepared: Tensor) -> Activations:
        """The pooled activations (B, 2048), those of sFID (B, 2023) and 1,008 probabilities.

        sFID uses the first 7 channels of the graph's mixed_6/conv, channels last. The probabilities
        leave out the bias of the logits, as the Inception Score does.
        """
        x = prepared.contiguous(memory_format=torch.channels_last)
        spatial = None
        for name in self.layers:
            if name == "Mixed_6d":
                branch = self.get_submodule("Mixed_6d.branch1x1")
                spatial = branch(x)[:, :7].permute(0, 2, 3, 1).flatten(1)
            x = getattr(self, name)(x)
        vector = x.mean((2, 3))
        return Activations(vector, spatial, (vector @ self.fc.weight.T).softmax(1))

    def forward(self, images: Tensor) -> Activations:
        """The activations of images (B, C, H, W) in -1..1."""
        return self.activations(self.prepare(images))


class _Mixed(nn.Module):
    """Parallel branches; a block without a layer after its pool halves height and width."""

    def __init__(self, inputs: int, branches: Branches, *, last: bool) -> None:
        super().__init__()
        self.outputs = 0
        self.paths: dict[str, list[list[str]]] = {}
        halving = not branches["branch_pool"]
        self.pool: nn.Module = (
            nn.MaxPool2d(3, 2)
            if halving
            else nn.MaxPool2d(3, 1, 1)
            if last
            else nn.AvgPool2d(3, 1, 1, count_include_pad=False)
        )
        for branch, layers in branches.items():
            width, self.paths[branch] = inputs, []
            for index, layer in enumerate(layers, 1):
                pair = layer if isinstance(layer, list) else [layer]
                names = _names(branch, index, len(layers), len(pair))
                shrinking = halving and index == len(layers)
                for name, (outputs, *kernel) in zip(names, pair, strict=True):
                    height, across = kernel
                    convolution = Convolution(
                        width,
                        outputs,
                        (height, across),
                        stride=2 if shrinking else 1,
                        padding=(0, 0) if shrinking else (height // 2, across // 2),
                    )
                    self.add_module(name, convolution)
                self.paths[branch].append(names)
                width = sum(outputs for outputs, *_ in pair)
            self.outputs += width

    def forward(self, x: Tensor) -> Tensor:
        found = []
        for branch, steps in self.paths.items():
            y = self.pool(x) if branch == "branch_pool" else x
            for names in steps:
                y = torch.cat([getattr(self, name)(y) for name in names], 1)
            found.append(y)
        return torch.cat(found, 1)


def _names(branch: str, index: int, count: int, width: int) -> list[str]:
    stem = branch if count == 1 else f"{branch}_{index}"
    return [stem] if width == 1 else [f"{stem}{letter}" for letter in "ab"]


def resize(images: Tensor, side: int) -> Tensor:
    """The images (B, C, H, W) at `side` x `side`, as TensorFlow 1's `resize_bilinear` gives them.

    Output pixel i lies at i H / side of the input. Only the top left corners coincide, there is no
    antialiasing, and the last pixels repeat the border. It rounds in float32 as TensorFlow does.
    """
    for axis in (3, 2):
        length = images.shape[axis]
        step = torch.tensor(float(length), device=images.device) / side
        position = torch.arange(side, device=images.device, dtype=torch.float32) * step
        below = position.long()
        weight = (position - below).view(-1, *[1] * (3 - axis))
        low = images.index_select(axis, below)
        high = images.index_select(axis, (below + 1).clamp(max=length - 1))
        images = low + (high - low) * weight
    return images


def graph_names() -> dict[str, str]:
    """The name of each convolution in TensorFlow's graph, by its name here.

    >>> graph_names()["Mixed_6d.branch7x7_2"]
    'mixed_6/tower/conv_1'
    """
    convolutions = [name for name, stem in _STEM.items() if stem]
    found = {name: _numbered("conv", index) for index, name in enumerate(convolutions)}
    for block, (mixed, branches) in enumerate(_MIXED.items()):
        towers = 0
        for branch, layers in branches.items():
            path = [_numbered("mixed", block)]
            if len(layers) > 1 or branch == "branch_pool":
                path.append(_numbered("tower", towers))
                towers += 1
            for index, layer in enumerate(layers):
                pair = layer if isinstance(layer, list) else [layer]
                for twin, name in enumerate(_names(branch, index + 1, len(layers), len(pair))):
                    end = (
                        [_numbered("conv", index)]
                        if len(pair) == 1
                        else ["mixed", _numbered("conv", twin)]
                    )
                    found[f"{mixed}.{name}"] = "/".join(path + end)
    return found


def _numbered(name: str, index: int) -> str:
    return f"{name}_{index}" if index else name


def load_inception(path: str | Path) -> Inception:
    """The network with the weights of a public file, in evaluation mode.

    Raises ValueError if the file is missing, damaged, of another network, or could run code.
    """
    check_path(path=path)
    path = Path(path)
    if not path.is_file():
        raise ValueError(
            f"inception needs a weight file, such as pt_inception-2015-12-05-6726825d.pth; {path} does "
            "not exist: use inception:PATH"
        )
    try:
        if _is_script(path):
            found = _from_script(_script_tensors(path))
        else:
            found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged pickle can fail anywhere
        raise ValueError(
            f"{path} must be a complete state dict of tensors or TorchScript archive; it is neither, or "
            "loading it could run code: use the .pth of pytorch-fid or torch-fidelity"
        ) from error
    network = Inception()
    tensors = {name: tensor for name, tensor in dict(found).items() if not _counts(name)}
    expected = {n: t.shape for n, t in network.state_dict().items() if not _counts(n)}
    wrong = sorted(
        name
        for name in tensors.keys() | expected.keys()
        if name not in tensors or tensors[name].shape != expected.get(name)
    )
    if wrong:
        raise ValueError(
            f"{path} must hold the Inception of 2015-12-05; {len(wrong)} tensors are missing, "
            f"unexpected or of another shape, such as {wrong[0]}"
        )
    network.load_state_dict(tensors, strict=False)
    return network.eval()


def _counts(name: str) -> bool:
    return name.endswith(".num_batches_tracked")  # missing in some files


def _is_script(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def _from_script(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of NVIDIA's module under the names used here; its batch norms have no scale."""
    found = {"fc.weight": tensors["output.weight"], "fc.bias": tensors["output.bias"]}
    for name, graph in graph_names().items():
        block, *inner = graph.split("/")
        separator = "_" if block in ("mixed_9", "mixed_10") else "."
        theirs = ".".join(["layers", block, *([separator.join(inner)] if inner else [])])
        found[f"{name}.conv.weight"] = tensors[f"{theirs}.weight"]
        found[f"{name}.bn.bias"] = tensors[f"{theirs}.beta"]
        found[f"{name}.bn.running_mean"] = tensors[f"{theirs}.mean"]
        found[f"{name}.bn.running_var"] = tensors[f"{theirs}.var"]
        found[f"{name}.bn.weight"] = torch.ones_like(tensors[f"{theirs}.beta"])
    return found


class _Node:
    """A module of the archive, with the attributes that the archive gives it."""


def _script_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a TorchScript archive by name; its code is not run."""

    def gather(node: object, prefix: str) -> None:
        for name, value in vars(node).items():
            if isinstance(value, Tensor):
                found[prefix + name] = value
            elif isinstance(value, _Node):
                gather(value, f"{prefix}{name}.")

    found: dict[str, Tensor] = {}
    with zipfile.ZipFile(path) as archive:
        data = next(name for name in archive.namelist() if name.endswith("/data.pkl"))
        with archive.open(data) as file:
            gather(_Reader(file, archive, data.removesuffix(".pkl")).load(), "")
    return found


class _Reader(pickle.Unpickler):
    """Reads the objects of a TorchScript archive; refuses everything that could run code."""

    def __init__(self, file: IO[bytes], archive: zipfile.ZipFile, folder: str) -> None:
        super().__init__(file)
        self.archive, self.folder = archive, folder

    def find_class(self, module: str, name: str) -> Any:
        if module.split(".")[0] == "__torch__":
            return _Node
        if module == "torch.jit._pickle":  # typed lists and dictionaries
            return lambda value, *_: value
        known: dict[tuple[str, str], Any] = {
            ("torch._utils", "_rebuild_tensor_v2"): _rebuilt,
            ("collections", "OrderedDict"): OrderedDict,
            ("torch", "FloatStorage"): torch.float32,
            ("torch", "LongStorage"): torch.int64,
        }
        if (module, name) not in known:
            raise pickle.UnpicklingError(f"{module}.{name} is not known")
        return known[module, name]

    def persistent_load(self, pid: Any) -> Tensor:
        _, dtype, key, *_ = pid
        content = bytearray(self.archive.read(f"{self.folder}/{key}"))
        return torch.frombuffer(content, dtype=dtype)


def _rebuilt(storage: Tensor, offset: int, size: Any, stride: Any, *_: Any) -> Tensor:
    return storage.as_strided(size, stride, offset)


@register("features", "inception")
def open_inception(argument: str, device: torch.device) -> Features:
    """The features of the weight file at `argument`."""
    features = from_module(
        load_inception(argument).to(device),
        name=f"inception:{argument}",
        size=2048,
        resize="TensorFlow 1's bilinear to 299x299, not antialiased; grey repeated",
        batch_size=32,
    )
    fold(features.module)
    return features
