"""The model card: what it says, whom it does not overwrite, and how it goes to the hub."""

from pathlib import Path

import pytest
import torch
import yaml

from eqm.models import MLPConfig, UNetConfig, build, from_pretrained, push_to_hub, save_pretrained
from eqm.models.pretrained import store_metadata

METADATA = {
    "data": {"name": "digits", "images": 1797, "license": "CC-BY-4.0", "classes": ["zero", "one"]},
    "license": "MIT",
    "training": {"images_seen": 64_000, "batch_size": 32, "optimizer.name": "muon"},
    "best": 0.125,
}


def test_it_says_what_the_model_is_and_how_it_was_made(tmp_path):
    network = build(UNetConfig(shape=(1, 8, 8), num_classes=2, width=4, multipliers=(1,)))
    folder = tmp_path / "small digits"
    save_pretrained(network, folder, metadata=METADATA)
    card = (folder / "README.md").read_text()
    _, header, text = card.split("---\n", 2)
    assert yaml.safe_load(header) == {
        "library_name": "eqm",
        "license": "mit",
        "tags": ["equilibrium-matching", "generative-model"],
    }
    count = sum(weight.numel() for weight in network.parameters())
    for fact in (
        "# small digits\n",
        f"- **Network:** unet, {count:,} parameters\n",
        "- **Sample:** 1 x 8 x 8\n",
        "- **Classes:** 2: zero, one\n",
        "- **Data:** digits; images 1797, license CC-BY-4.0\n",
        "- **Training:** images_seen 64000, batch_size 32, optimizer.name muon\n",
        "- **val_loss:** 0.125\n",
    ):
        assert fact in text
    code = text.split("```python\n")[1].split("```")[0]
    assert len(code.splitlines()) == 3
    found = {}
    exec(code, found)
    assert found["samples"].shape == (16, 1, 8, 8)
    store_metadata(folder, {"best": 0.0625})
    assert "- **val_loss:** 0.0625\n" in (folder / "README.md").read_text()


def test_a_readme_of_somebody_else_stays(tmp_path):
    (tmp_path / "README.md").write_text("mine")
    save_pretrained(build(MLPConfig(width=4, depth=1)), tmp_path)
    assert (tmp_path / "README.md").read_text() == "mine"
    (tmp_path / "README.md").unlink()
    save_pretrained(build(MLPConfig(width=4, depth=1)), tmp_path)
    save_pretrained(build(MLPConfig(width=8, depth=1)), tmp_path)
    card = (tmp_path / "README.md").read_text()
    assert "mlp, 338 parameters" in card
    assert "license" not in card


@pytest.mark.parametrize("as_folder", [True, False])
def test_a_model_goes_to_the_hub_with_its_card(tmp_path, monkeypatch, as_folder):
    import huggingface_hub

    uploaded = {}

    class HfApi:
        def create_repo(self, name, *, private, exist_ok):
            uploaded["repository"] = (name, private, exist_ok)
            return f"https://huggingface.co/{name}"

        def upload_folder(self, *, repo_id, folder_path, allow_patterns):
            found = (path for pattern in allow_patterns for path in Path(folder_path).glob(pattern))
            uploaded[repo_id] = {path.name: path.read_bytes() for path in found}

    monkeypatch.setattr(huggingface_hub, "HfApi", HfApi)
    network = build(MLPConfig(width=4, depth=1))
    save_pretrained(network, tmp_path / "run")
    (tmp_path / "run" / "log.jsonl").write_text("not for the hub")
    address = push_to_hub(tmp_path / "run" if as_folder else network, "owner/two-d", private=True)
    assert address == "https://huggingface.co/owner/two-d"
    assert uploaded["repository"] == ("owner/two-d", True, True)
    files = uploaded["owner/two-d"]
    assert files.keys() == {"README.md", "config.json", "model.safetensors"}
    card = files["README.md"].decode()
    assert "# two-d\n" in card
    assert "from_pretrained('owner/two-d')" in card
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    assert torch.equal(from_pretrained(tmp_path).head.weight, network.head.weight)

    class Offline(HfApi):
        def create_repo(self, name, **settings):
            raise ConnectionError("no network\nand a long story")

    monkeypatch.setattr(huggingface_hub, "HfApi", Offline)
    with pytest.raises(ValueError, match="owner/two-d could not be uploaded: no network$"):
        push_to_hub(network, "owner/two-d")
    with pytest.raises(ValueError, match=r"must hold config\.json"):
        push_to_hub(tmp_path / "none", "owner/two-d")
