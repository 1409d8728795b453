"""Any module is saved and loaded, alone or in an energy; loading never imports what a file names."""

import json

import pytest
import torch
from torch import nn

from eqm.energy import DotEnergy
from eqm.models import for_inference, from_pretrained, save_pretrained


class Plain(nn.Module):
    """Not registered, without config; with a tied weight, an integer buffer and a child `module`."""

    def __init__(self):
        super().__init__()
        self.module = nn.Linear(3, 3)
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.module.weight
        self.norm = nn.BatchNorm1d(3)

    def forward(self, x, labels=None):
        return self.tied(self.norm(self.module(x)).tanh())


@pytest.mark.parametrize("wrap", [lambda net: net, DotEnergy], ids=["field", "energy"])
def test_a_module_is_loaded_into_the_one_that_is_given(tmp_path, wrap):
    model = wrap(Plain()).eval()
    save_pretrained(model, tmp_path, metadata={"note": "mine"})
    given = Plain()
    again = from_pretrained(tmp_path, network=given)
    assert type(again) is type(model)
    assert given.metadata == {"note": "mine"}
    assert given.tied.weight is given.module.weight
    x = torch.randn(4, 3)
    assert torch.equal(again(x), model(x))
    assert torch.equal(for_inference(model)(x), model(x))


def test_without_it_one_sentence_says_what_to_do(tmp_path):
    save_pretrained(Plain(), tmp_path)
    with pytest.raises(
        ValueError,
        match=r"class '.*test_own_module.Plain', which is not registered: pass network=... to from_",
    ):
        from_pretrained(tmp_path)
    with pytest.raises(ValueError, match="must hold the tensors of its Linear; bias is missing"):
        from_pretrained(tmp_path, network=nn.Linear(1, 1))


@pytest.mark.parametrize("key", ["architecture", "class"])
def test_a_file_that_names_a_module_imports_nothing(tmp_path, monkeypatch, key):
    save_pretrained(Plain(), tmp_path / "model")
    (tmp_path / "evil.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    path = tmp_path / "model" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: "evil.Net"}))
    with pytest.raises(ValueError, match="registered"):
        from_pretrained(tmp_path / "model")
