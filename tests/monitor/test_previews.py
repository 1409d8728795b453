from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from eqm.models import MLPConfig, UNetConfig, from_pretrained
from eqm.monitor.callbacks import NORMS, Previews, _descend, _sheet
from eqm.pictures import grid
from eqm.sampling import Sampling
from eqm.tasks import generate
from eqm.train import ObjectiveConfig, TrainConfig, start
from eqm.train.state import Run

CONFIG = TrainConfig(
    model=UNetConfig(shape=(1, 8, 8), num_classes=10, width=4, multipliers=(1, 2)),
    sampling=Sampling(step_size=0.05, guidance=1.5, gradient_ratio=0.9),
)


def at(images, config, data=None, tmp=Path()):
    state = start(config, torch.device("cpu"))
    state.run = Run(config, tmp, data or {})
    with torch.no_grad():  # fresh weights are zero at the end
        for weight in state.average.parameters():
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(1)))
    return SimpleNamespace(images=images, state=state)


def test_the_sheet_is_what_generate_gives(tmp_path):
    progress = at(640, CONFIG)
    metrics = Previews(CONFIG, tmp_path)(progress)
    drawn = generate(progress.state.average, count=40, sampling=CONFIG.sampling)
    path = tmp_path / "pictures" / "000000640.png"
    assert metrics.pictures == {"samples": path}
    with Image.open(path) as sheet:
        assert sheet.tobytes() == grid(drawn.x, columns=10, scale=8).tobytes()
    assert (tmp_path / "pictures" / "latest.png").read_bytes() == path.read_bytes()
    assert drawn.steps.unique().numel() > 1  # some stop early and keep their last norm
    assert list(metrics.numbers)[-1] == "descent_gradient_norm/1.00"
    assert list(metrics.numbers.values())[-1] == pytest.approx(drawn.gradient_norm.mean().item())


def test_guidance_in_an_interval_reaches_the_samples():
    model = from_pretrained("mnist-5k")
    sampling = Sampling(step_size=0.08, path_length=0.4, guidance=3.0, guidance_interval=(0.0, 0.1))
    labels = torch.tensor([0, 1])
    drawn = generate(model, labels, sampling=sampling).x
    torch.testing.assert_close(_descend(model, labels, 2, sampling)[0], drawn, rtol=0, atol=1e-4)


def test_latents_are_decoded_by_the_encoder_that_their_data_name(tmp_path, monkeypatch):
    config = replace(CONFIG, model=replace(CONFIG.model, shape=(4, 8, 8)))
    white = SimpleNamespace(decode=lambda samples: torch.ones(len(samples), 3, 16, 16))
    asked = []
    monkeypatch.setattr(
        "eqm.monitor.callbacks.encoder_of",
        lambda about, device, outside: asked.append((about, outside)) or white,
    )
    data = {"encoder": {"name": "somewhere"}}
    metrics = Previews(config, tmp_path)(at(7, config, data))
    assert asked == [({"data": data}, False)]
    with Image.open(metrics.pictures["samples"]) as sheet:
        assert sheet.getextrema() == ((255, 255),) * 3


def test_latents_whose_encoder_is_not_allowed_show_their_channels(tmp_path, caplog):
    config = replace(CONFIG, model=replace(CONFIG.model, shape=(4, 8, 8)))
    data = {"encoder": {"name": str(tmp_path / "gone"), "fingerprint": "0"}}
    metrics = Previews(config, tmp_path)(at(7, config, data))
    assert "set data.outside to decode them by" in caplog.text
    with Image.open(metrics.pictures["samples"]) as sheet:
        assert sheet.mode == "RGB"  # the first three


@pytest.mark.parametrize(
    ("model", "pictures"),
    [
        (replace(CONFIG.model, num_classes=0), 1),
        (replace(CONFIG.model, shape=(4, 8, 8)), 1),
        (replace(CONFIG.model, shape=(2, 8, 8), num_classes=1000), 1),
        (MLPConfig(shape=(2,), num_classes=3, width=16), 0),
    ],
)
def test_any_data_can_be_watched(tmp_path, model, pictures):
    config = replace(CONFIG, model=model)
    metrics = Previews(config, tmp_path)(at(7, config))
    assert len(metrics.pictures) == pictures
    assert len(metrics.numbers) == NORMS


def test_a_flow_has_samples_and_no_descent(tmp_path):
    config = replace(
        CONFIG,
        model=replace(CONFIG.model, noise_conditioning=True),
        objective=ObjectiveConfig(decay="constant", scale=1.0),
    )
    metrics = Previews(config, tmp_path)(at(7, config))
    assert metrics.numbers == {}
    assert metrics.pictures["samples"].exists()


def test_latents_are_decoded(tmp_path):
    config = replace(CONFIG, model=replace(CONFIG.model, shape=(4, 8, 8)))

    def decode(samples):
        assert samples.shape == (40, 4, 8, 8)
        return torch.ones(40, 3, 16, 16)

    metrics = Previews(config, tmp_path, decode)(at(7, config))
    with Image.open(metrics.pictures["samples"]) as sheet:
        assert sheet.getextrema() == ((255, 255),) * 3


def test_many_classes_are_shown_far_apart():
    labels, columns = _sheet(1000)
    assert (len(labels), columns) == (32, 8)
    assert labels.tolist() == sorted(set(labels.tolist()))
    assert labels[-1] > 900
    assert _sheet(10)[0][:12].tolist() == [*range(10), 0, 1]
