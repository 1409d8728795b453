"""Sounds from files, and as files."""

from __future__ import annotations

import shutil
import tarfile

import numpy as np
import pytest
from PIL import Image

from eqm.cli.main import main
from eqm.data import DataConfig, open_source
from eqm.drawings import drawn
from eqm.models import UNet, UNetConfig, save_pretrained

soundfile = pytest.importorskip("soundfile")
RATE = 4000


def tone(length, pitch, channels=1):
    wave = 0.5 * np.sin(2 * np.pi * pitch * np.arange(length) / RATE)
    return np.stack([wave] * channels, 1).astype(np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Tones of two pitches in two folders, of several lengths and kinds of files."""
    monkeypatch.chdir(tmp_path)
    for name, pitch in (("high", 1000), ("low", 250)):
        (tmp_path / "tones" / name).mkdir(parents=True)
        for k, ending in enumerate(("wav", "flac", "ogg", "wav", "wav")):
            path = f"tones/{name}/{name}_{k}.{ending}"
            soundfile.write(path, tone(240 + 10 * k, pitch), RATE)
    return tmp_path


def test_sounds_are_cut_or_end_in_silence_and_have_classes(folder):
    source = open_source(DataConfig("tones", length=256))
    assert source.shape == (1, 256)
    assert source.class_names == ("high", "low")
    assert source.labels.tolist() == [0] * 5 + [1] * 5
    assert any("6 are cut to 256 samples, and 4 are shorter" in note for note in source.notes)
    std, rate = source.metadata["std"][0], source.metadata["sample_rate"]
    assert rate == RATE
    assert source.data.std() == pytest.approx(1, abs=0.01)
    exact = tone(240, 1000)[:, 0]
    np.testing.assert_allclose(source.data[0, 0, :240] * std, exact, atol=1e-4)
    assert (source.data[0, 0, 240:] == 0).all()
    np.testing.assert_allclose(source.data[4, 0] * std, tone(256, 1000)[:, 0], atol=1e-4)


def test_zips_tars_and_single_files_are_read_alike(folder):
    whole = open_source(DataConfig("tones", length=256))
    shutil.make_archive("tones", "zip", "tones")
    with tarfile.open("tones.tar", "w") as archive:
        archive.add("tones", ".")
    for name in ("tones.zip", "tones.tar"):
        packed = open_source(DataConfig(name, length=256))
        assert packed.data.equal(whole.data), name
        assert packed.labels.equal(whole.labels), name
    one = open_source(DataConfig("tones/low/low_0.wav"))
    assert one.shape == (1, 240)
    named = open_source(DataConfig("tones", length=256, labels_from="names"))
    assert named.class_names == ("high", "low")


def test_data_check_says_what_sounds_there_are(folder, capsys):
    (folder / "tones" / "low" / "x.wav").write_bytes(b"RIFF no sound")
    assert main(["data", "check", "tones"]) == 0
    out = capsys.readouterr().out
    assert "readable     10\n" in out
    assert "4000 Hz (10)" in out
    assert "lengths differ: set data.length" in out
    assert "class low: 5" in out
    assert "broken low/x.wav" in out


def test_what_is_mixed_is_refused(folder, capsys):
    cases = [
        ("rates", tone(240, 500), 8000, "several sample rates"),
        ("channels", tone(240, 500, 2), RATE, "set data.channels 1"),
        ("lengths", tone(241, 500), RATE, "set data.length"),
    ]
    for name, values, rate, sentence in cases:
        (folder / name).mkdir()
        soundfile.write(f"{name}/a.wav", tone(240, 500), RATE)
        soundfile.write(f"{name}/b.wav", values, rate)
        with pytest.raises(ValueError, match=sentence):
            open_source(DataConfig(name))
    assert open_source(DataConfig("channels", channels=1)).shape == (1, 240)
    (folder / "lengths" / "c.wav").write_bytes(b"RIFF no sound")
    with pytest.raises(ValueError, match=r"cannot read the sound c\.wav"):
        open_source(DataConfig("lengths", length=240, broken="fail"))
    assert len(open_source(DataConfig("lengths", length=240))) == 2
    with pytest.raises(ValueError, match="leave data.size out"):
        open_source(DataConfig("lengths", length=240, size=8))


def test_sounds_are_trained_sampled_and_restored(folder, capsys):
    quick = ["--images", "32", "--batch-size", "16", "--eval-every", "0"]
    quick += ["--model.width", "8", "--model.multipliers", "1", "1"]
    data = ["--data.path", "tones", "--data.length", "256"]
    assert main(["train", "digits", *data, "--output", "run", *quick]) == 0
    assert main(["sample", "run", "--labels", "low", "--count", "2", "--output", "x.wav"]) == 0
    values, rate = soundfile.read("x.wav")
    assert (len(values), rate) == (512, RATE)
    vary = ["vary", "run", "tones/low", "--strength", "0", "--count", "1", "--output"]
    assert main([*vary, "out"]) == 0
    files = sorted((folder / "out").rglob("*.wav"))
    assert len(files) == 5
    np.testing.assert_allclose(soundfile.read(files[4])[0], tone(256, 250)[:, 0], atol=2e-4)
    restore = ["restore", "run", "tones/low/low_4.wav", "--hole", "200:", "--steps", "2"]
    assert main([*restore, "--count", "1", "--output", "r.wav"]) == 0
    np.testing.assert_allclose(soundfile.read("r.wav")[0][:200], tone(200, 250)[:, 0], atol=2e-4)
    assert main([*vary, "out.png"]) == 0
    with Image.open("out.png") as sheet:
        assert sheet.height > 5 * 128  # a curve and a spectrogram each
    soundfile.write("fast.wav", tone(256, 500), 8000)
    assert main(["vary", "run", "fast.wav", "--output", "f.npz"]) == 2
    assert "8000 Hz; the model takes 4000 Hz" in capsys.readouterr().err
    network = UNet(UNetConfig(shape=(1, 16), num_classes=0, width=4, multipliers=(1,)))
    save_pretrained(network, "silent")
    assert main(["sample", "silent", "--output", "s.wav"]) == 2
    assert "samples that are no sounds" in capsys.readouterr().err


def test_a_spectrogram_shows_the_pitch():
    import torch

    waves = torch.from_numpy(np.stack([tone(2048, 1000)[:, 0], tone(2048, 250)[:, 0]]))[:, None]
    shown = drawn(waves, spectrogram=True)
    rows = shown[:, 0, 64:, 50:-50].mean(2).argmin(1)  # the darkest row, of 64 from 2000 Hz to 0
    assert abs(int(rows[0]) - 32) <= 1
    assert abs(int(rows[1]) - 56) <= 1


def test_spectrograms_are_trained_and_sampled_as_sound(folder, capsys):
    quick = ["--images", "32", "--batch-size", "16", "--eval-every", "0"]
    quick += ["--model.width", "8", "--model.multipliers", "1", "--precision", "float32"]
    data = ["--data.path", "tones", "--data.length", "256"]
    assert main(["train", "spoken-digits", *data, "--output", "run", *quick]) == 0
    assert "spectrograms of 64 bands and 4 frames" in capsys.readouterr().err
    assert main(["sample", "run", "--labels", "low", "--count", "2", "--output", "x.wav"]) == 0
    values, rate = soundfile.read("x.wav")
    assert (len(values), rate) == (512, RATE)
    vary = ["vary", "run", "tones/low/low_4.wav", "--strength", "0", "--count", "1", "--output"]
    assert main([*vary, "same.wav"]) == 0
    heard = np.abs(np.fft.rfft(soundfile.read("same.wav")[0]))
    assert abs(int(heard.argmax()) - 16) <= 2  # 250 of 4000 Hz in 256 samples
    assert main([*vary, "same.npz"]) == 0
    assert np.load("same.npz")["arr_0"].shape == (1, 1, 4, 1, 64)
    assert main([*vary, "same.png"]) == 0
    with Image.open("same.png") as sheet:
        assert sheet.height > 128  # a curve and a spectrogram
    restore = ["restore", "run", "tones/low/low_4.wav", "--hole", "2:", "--steps", "2"]
    assert main([*restore, "--count", "1", "--output", "r.npz"]) == 0
    known = np.load("same.npz")["arr_0"][0, :, :2]
    np.testing.assert_allclose(np.load("r.npz")["arr_0"][0, :, :2], known, atol=1e-3)
    assert main([*vary, "same.gif"]) == 2
    assert "samples that are no videos" in capsys.readouterr().err


def test_the_model_that_comes_with_eqm_speaks_and_then_is_silent(tmp_path):
    output = str(tmp_path / "words")
    words = ["--labels", "0", "3", "6", "9", "--count", "4"]
    assert main(["sample", "spoken-digits", *words, "--output", output]) == 0
    for path in sorted((tmp_path / "words").iterdir()):
        wave, rate = soundfile.read(path)
        assert (rate, len(wave)) == (8000, 6144)
        level = np.square(wave.reshape(-1, 128)).mean(1)  # of 16 ms each
        loud = level > 1e-4 * level.max()
        assert 10 <= loud.sum() <= 44  # .16 to .7 s
        assert level[-4:].max() < 1e-2 * level.max()
