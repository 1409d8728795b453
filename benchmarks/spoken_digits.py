"""Whether the samples of `spoken-digits` are words: what a classifier of real recordings hears in them.

    EQM_DATA=FOLDER python benchmarks/spoken_digits.py --model spoken-digits

FOLDER holds spoken-digits.zip. The classifier learns the real training recordings as waveforms, with noise and
shifts, and is measured on the 300 test recordings, which neither it nor the model has seen. It hears the samples
as the sound that `eqm sample` writes.
"""

from __future__ import annotations

import time
from itertools import pairwise
from pathlib import Path

import torch
import tyro
from timing import record
from torch import Tensor, nn
from torch.nn import functional

from eqm.data import DataConfig, open_source
from eqm.data.sounds import to_sound, write_sound
from eqm.data.spectra import LogMel
from eqm.data.values import in_own_units
from eqm.drawings import drawn
from eqm.models import from_pretrained
from eqm.pictures import grid
from eqm.tasks import generate

RATE = 8000


def main(
    model: str = "spoken-digits",
    count: int = 400,
    epochs: int = 12,
    sheet: Path | None = None,
    sound: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/.

    Args:
        model: Name or folder of the model.
        count: Samples, of each digit in turn.
        epochs: Passes of the classifier over the training recordings.
        sheet: A .png for real recordings and samples of each digit.
        sound: A .wav for samples of 0 to 9.
        threads: CPU threads.
        quick: Only check that it runs; write nothing to results/.
    """
    torch.set_num_threads(threads)
    if quick:
        count, epochs = 20, 1
    real, labels = recordings("train")
    test, wanted = recordings("test")
    judge = train(real, labels, epochs)
    field = from_pretrained(model)
    since = time.process_time()
    asked = torch.arange(count) % 10
    samples = generate(field, labels=asked, count=count).x
    seconds = (time.process_time() - since) / count
    sounds = to_sound(samples, field.metadata)[:, 0]
    mel = LogMel.of(field.metadata)
    with record("spoken-digits", "Spoken digits, heard by a classifier", keep=not quick):
        print(
            f"\n{count} samples of {model}, {seconds:.2f} s of CPU time each without the sound. The classifier "
            f"learnt {len(real):,} recordings.\n\n| sounds | recognised | RMS in dB, 10 %, 50 %, 90 % | seconds "
            "above -40 dB of the peak, 10 %, 50 %, 90 % |\n|---|---|---|---|"
        )
        shown = {"real recordings, test": (test, wanted), "samples": (sounds, asked)}
        if mel is not None:
            again = mel.sound(mel.spectrogram(test))
            shown["real recordings, test, as spectrograms and back"] = (again, wanted)
        for name, (waves, digits) in shown.items():
            right = (heard(judge, waves) == digits).float().mean()
            print(
                f"| {name} | {right:.3f} | {said(loudness(waves), 0)} | {said(spoken(waves), 2)} |"
            )
        right = heard(judge, sounds) == asked
        each = ", ".join(
            f"{digit}: {right[asked == digit].float().mean():.2f}" for digit in range(10)
        )
        print(f"\nSamples recognised by digit: {each}.")
        if mel is not None:
            ratio = nearest(mel.spectrogram(sounds), mel, real) / nearest(
                mel.spectrogram(test), mel, real
            )
            print(
                f"\nThe distance to the nearest training recording, as spectrograms, is {ratio:.2f} times that "
                "of a test recording, in the median. Copies would have 0."
            )
    if sheet is not None:
        columns = []
        for waves, digits in ((test, wanted), (sounds, asked)):
            columns += [
                torch.stack([waves[digits == k][n * (len(waves) // 30)] for k in range(10)])
                for n in range(3)
            ]
        waves = torch.stack(columns, 1).flatten(0, 1)[:, None]
        waves = waves / waves.abs().amax(-1, keepdim=True)
        grid(drawn(waves, spectrogram=True)[:, :, 64:, ::3], columns=6, scale=1).save(sheet)
    if sound is not None:
        write_sound(sounds[:10].reshape(1, -1), RATE, str(sound))


def recordings(split: str) -> tuple[Tensor, Tensor]:
    """Real waveforms (N, L) and their digits (N,)."""
    source = open_source(DataConfig("spoken-digits", split=split))
    samples = source.batch(torch.arange(len(source)), None)  # type: ignore[arg-type]
    assert source.labels is not None
    return in_own_units(samples, {"data": source.metadata})[:, 0], source.labels  # type: ignore[attr-defined]


class Judge(nn.Module):
    """A small convolutional classifier of waveforms (B, L), whatever their loudness: logits (B, 10)."""

    def __init__(self) -> None:
        super().__init__()
        widths = (1, 16, 32, 64, 64)
        layers: list[nn.Module] = []
        for a, b in pairwise(widths):
            layers += [nn.Conv2d(a, b, 3, padding=1), nn.BatchNorm2d(b), nn.ReLU(), nn.MaxPool2d(2)]
        layers += [nn.AdaptiveAvgPool2d((2, 1)), nn.Flatten(), nn.Dropout(0.3), nn.Linear(128, 10)]
        self.net = nn.Sequential(*layers)

    def forward(self, waves: Tensor) -> Tensor:
        waves = waves / waves.square().mean(1, keepdim=True).sqrt().clamp(min=1e-5)
        window = torch.hann_window(256)
        found = torch.stft(waves, 256, 128, window=window, return_complex=True).abs()[:, :112]
        pairs = found.unflatten(1, (56, 2)).mean(2)
        logits: Tensor = self.net((pairs + 0.1).log()[:, None] / 2)
        return logits


def train(waves: Tensor, labels: Tensor, epochs: int) -> Judge:
    """A judge that has learnt these recordings, shifted, with noise of -30 to -70 dB of their peak."""
    generator = torch.Generator().manual_seed(0)
    torch.manual_seed(0)
    judge, batch = Judge(), 64
    steps = epochs * (len(waves) // batch)
    optimizer = torch.optim.AdamW(judge.parameters(), weight_decay=1e-2)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 4e-3, total_steps=steps)
    for _ in range(epochs):
        order = torch.randperm(len(waves), generator=generator)
        for rows in order[: len(waves) // batch * batch].split(batch):
            shifts = torch.randint(-400, 1200, (batch,), generator=generator).tolist()
            x = torch.stack([w.roll(k) for w, k in zip(waves[rows], shifts, strict=True)])
            level = 10 ** (-1.5 - 2 * torch.rand(batch, 1, generator=generator))
            noise = torch.randn(x.shape, generator=generator) * level
            x = x + noise * x.abs().amax(1, keepdim=True)
            loss = functional.cross_entropy(judge(x), labels[rows], label_smoothing=0.05)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


@torch.no_grad()
def heard(judge: Judge, waves: Tensor) -> Tensor:
    """The digit that the judge hears in each wave, (N,)."""
    return torch.cat([judge(part).argmax(1) for part in waves.split(200)])


def loudness(waves: Tensor) -> Tensor:
    """The root mean square of each wave, (N,), in decibels of full scale."""
    return 20 * waves.square().mean(1).sqrt().clamp(min=1e-6).log10()


def spoken(waves: Tensor) -> Tensor:
    """Seconds of each wave, (N,), in which it is louder than -40 dB of its loudest 16 ms."""
    level = waves.unfold(1, 128, 128).square().mean(2)
    return (level > 1e-4 * level.amax(1, keepdim=True)).float().sum(1) * (128 / RATE)


def nearest(spectrograms: Tensor, mel: LogMel, real: Tensor) -> float:
    """The median distance of spectrograms (N, bands, frames) to the nearest one of the real recordings."""
    known = torch.cat([mel.spectrogram(part) for part in real.split(256)])
    return torch.cdist(spectrograms.flatten(1), known.flatten(1)).amin(1).median().item()


def said(values: Tensor, digits: int) -> str:
    """The deciles 1, 5 and 9."""
    levels = values.quantile(torch.tensor([0.1, 0.5, 0.9])).tolist()
    return ", ".join(f"{level:.{digits}f}" for level in levels)


if __name__ == "__main__":
    tyro.cli(main)
