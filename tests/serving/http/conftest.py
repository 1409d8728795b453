"""A server of tiny fields, asked in this process."""

import pytest
import torch
from torch import nn

from eqm.serving.models import Models

SHAPE = (1, 8, 8)


class Bowl(nn.Module):
    """A field with three classes whose samples end at a grey of the class: -0.5, 0 or 0.5."""

    shape, num_classes = SHAPE, 3

    def __init__(self):
        super().__init__()
        self.centre = nn.Parameter(torch.tensor([-0.5, 0.0, 0.5, 0.25]))
        names = ["dark", "middle", "light"]
        sampling = {"rule": "gradient-descent", "step_size": 0.05, "path_length": 1.0}
        self.metadata = {"data": {"classes": names}, "sampling": sampling}

    def forward(self, x, labels=None):
        centre = self.centre[3] if labels is None else self.centre[labels].view(-1, 1, 1, 1)
        return 8 * (x - centre)


class Plain(nn.Module):
    """A field without classes whose samples end at 0, grey."""

    shape, num_classes = SHAPE, 0

    def forward(self, x, labels=None):
        return 8 * x


@pytest.fixture(scope="module")
def models():
    with Models({"bowl": Bowl().requires_grad_(False), "plain": Plain()}, slots=32) as models:
        yield models


@pytest.fixture(scope="module")
def client(models):
    from starlette.testclient import TestClient

    from eqm.serving.http.app import create_app

    return TestClient(create_app(models), base_url="http://localhost")
