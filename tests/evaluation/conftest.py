"""A small model, and features that need no weights."""

import pytest
import torch

from eqm.features import open_features
from eqm.models import UNetConfig, build, save_pretrained


@pytest.fixture
def pixels():
    return open_features("pixels")


@pytest.fixture
def model(tmp_path):
    """A folder with an untrained model whose metadata name digits, with a fifth for validation."""
    torch.manual_seed(0)
    network = build(UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)))
    metadata = {
        "sampling": {"step_size": 0.1, "path_length": 0.3},
        "data": {"name": "digits", "images": 1438},
        "training": {"data.path": "digits", "data.val_fraction": 0.2, "data.classes": []},
    }
    save_pretrained(network, tmp_path / "model", metadata=metadata)
    return tmp_path / "model"
