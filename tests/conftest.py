"""Settings and fixtures of every test."""

import os

os.environ["MPLBACKEND"] = "Agg"

import pytest
import torch
from hypothesis import settings

torch.set_num_threads(1)

settings.register_profile("eqm", deadline=None, derandomize=True)
settings.load_profile("eqm")


@pytest.fixture
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
