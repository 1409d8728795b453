"""Sounds as spectrograms, recordings of digits, and digits that move."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from eqm.data import DataConfig, MissingDataError, open_source
from eqm.data.moving import REACH, MovingDigits, paths
from eqm.data.spectra import LogMel
from eqm.data.tensors import Images
from eqm.randomness import SampleRandom

MEL = LogMel.at(8000)


def tone(pitch, length=4096, level=0.5):
    return level * (2 * math.pi * pitch * torch.arange(length) / 8000).sin()


def test_a_spectrogram_shows_pitch_loudness_and_silence():
    sound = torch.cat([tone(700), torch.zeros(2048)])
    found = MEL.spectrogram(sound)
    assert found.shape == (64, 48)
    top = 2595 * math.log10(1 + 4000 / 700)  # the mel scale
    band = 2595 * math.log10(1 + 700 / 700) / top * 65 - 1
    assert abs(int(found[:, 16].argmax()) - band) <= 1
    silence = math.log(MEL.floor)
    assert found[:, 36:].numpy() == pytest.approx(silence)
    assert found[:, :30].max() > silence + 6
    louder = MEL.spectrogram(2 * sound)[:, 2:28].max(0).values
    assert (louder - found[:, 2:28].max(0).values).numpy() == pytest.approx(
        np.full(26, math.log(2)), abs=1e-4
    )


def test_a_spectrogram_becomes_sound_of_the_same_pitch_and_loudness():
    sounds = torch.stack([torch.cat([tone(pitch), torch.zeros(2048)]) for pitch in (300, 700)])
    again = MEL.sound(MEL.spectrogram(sounds))
    assert again.shape == sounds.shape
    for sound, wave in zip(sounds, again, strict=True):
        heard = torch.fft.rfft(wave[512:3584]).abs().argmax()
        assert abs(int(heard) - int(torch.fft.rfft(sound[512:3584]).abs().argmax())) <= 3
        ratio = wave[512:3584].square().mean() / sound[512:3584].square().mean()
        assert 0.7 < ratio < 1.3
    assert again[:, 4800:].abs().max() < 1e-3  # silence stays silence
    assert torch.equal(again, MEL.sound(MEL.spectrogram(sounds)))
    assert MEL.sound(torch.full((64, 8), math.log(MEL.floor))).abs().max() == 0


@pytest.mark.parametrize(
    ("stored", "sentence"),
    [
        ({"rate": 8000, "hop": 0}, "hop"),
        ({"rate": 8000, "window": 10**9}, "window"),
        ({"rate": 8000, "hop": 600, "window": 512}, "at least hop"),
        ({"rate": 8000, "colour": 1}, "colour"),
        ([1], "log_mel"),
    ],
)
def test_damaged_metadata_of_spectrograms_are_refused(stored, sentence):
    with pytest.raises(ValueError, match=sentence):
        LogMel.of({"data": {"log_mel": stored}})
    assert LogMel.of({}) is None


def test_digits_move_straight_on_and_bounce():
    random = SampleRandom(0, torch.arange(200))
    places = paths(random)
    assert places.abs().max() <= REACH
    steps = places.diff(dim=1).abs()
    speed = steps.amax(1).norm(dim=1)  # unless it bounces, a step is as long as any other
    assert speed.min() > 0.95
    assert speed.max() < 2.55
    same = (steps - steps.amax(1, keepdim=True)).abs() < 1e-4
    assert 0.7 < same.float().mean() < 0.95
    spot = torch.full((3, 1, 28, 28), -1.0)
    spot[:, :, 12:16, 12:16] = 1
    source = MovingDigits(Images("spots", spot, torch.tensor([0, 1, 2]), 3))
    rows = torch.tensor([2, 0])
    videos = source.batch(rows, SampleRandom(0, torch.arange(2)))
    assert videos.shape == (2, 1, 16, 32, 32)
    assert videos.min() == -1
    assert videos.max() <= 1
    mass = videos[:, 0] + 1
    side = torch.arange(32.0) - 15.5
    centre = torch.stack([mass.sum(2) @ side, mass.sum(3) @ side], 2) / mass.sum((2, 3))[..., None]
    torch.testing.assert_close(centre, places[:2], atol=0.02, rtol=0)
    assert source.batch(rows, SampleRandom(0, torch.arange(2))).equal(videos)


def test_moving_digits_take_no_settings_of_arrays():
    with pytest.raises(ValueError, match=r"leave data\.size out"):
        open_source(DataConfig("moving-digits", size=64))


def test_recordings_are_divided_by_their_number(tmp_path, monkeypatch):
    soundfile = pytest.importorskip("soundfile")
    monkeypatch.setenv("EQM_DATA", str(tmp_path))
    with pytest.raises(MissingDataError, match="git clone https"):
        open_source(DataConfig("spoken-digits"))
    folder = tmp_path / "free-spoken-digit-dataset" / "recordings"
    folder.mkdir(parents=True)
    for digit in range(10):
        for number in (4, 5, 12):
            soundfile.write(folder / f"{digit}_ann_{number}.wav", tone(100 * number).numpy(), 8000)
    source = open_source(DataConfig("spoken-digits"))
    assert (len(source), source.shape, source.num_classes) == (20, (1, 6144), 10)
    assert source.labels.tolist() == [digit for digit in range(10) for _ in range(2)]
    tested = open_source(DataConfig("spoken-digits", split="test", sound="log-mel", length=2000))
    assert (len(tested), tested.shape) == (10, (1, 16, 1, 64))
    assert tested.data.std() == pytest.approx(1, abs=1e-3)
    with pytest.raises(ValueError, match="train, test and all"):
        open_source(DataConfig("spoken-digits", split="val"))
    soundfile.write(folder / "hello.wav", tone(100).numpy(), 8000)
    with pytest.raises(ValueError, match=r"7_theo_12\.wav; got hello"):
        open_source(DataConfig("spoken-digits"))
