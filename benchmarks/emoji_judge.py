"""A judge of emoji: which concept a picture shows, and in which style.

    python benchmarks/emoji_judge.py

It is trained on the real pictures that the recipe emoji-text learns from too, and never sees the held-out
pairs of concept and style. It prints how often it is right on the real pictures of these pairs, and writes
runs/emoji-judge.pt. A concept is one emoji of Unicode.

A picture of 32x32 is described by frozen features of EfficientNet-Lite0 at 64x64 and by its colours. Two
linear layers follow: one for styles, and one to 512 numbers, which are compared with a vector for each
concept by their cosine.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
import tyro
from torch import Tensor, nn

from eqm.data import DataConfig, open_source
from eqm.features.lite0 import load_lite0
from eqm.randomness import SampleRandom

JUDGE = Path("runs/emoji-judge.pt")


@dataclass(frozen=True)
class Emoji:
    """Real pictures (N, 3, 32, 32), with the concept, the style and the caption of each."""

    pictures: Tensor
    concepts: list[str]
    styles: list[str]
    captions: list[str]


def real(split: str) -> Emoji:
    """The pictures of a split: train, or test, the held-out pairs."""

    def read(key: str) -> Any:
        return open_source(DataConfig("emoji", size=32, split=split, labels_from=key))

    codes, styles = read("code"), read("style")
    rows = torch.arange(len(codes))
    return Emoji(
        codes.batch(rows, SampleRandom(0, rows)),
        [codes.class_names[label] for label in codes.labels.tolist()],
        [styles.class_names[label] for label in styles.labels.tolist()],
        [some[0] for some in codes.captions],
    )


class Judge(nn.Module):
    """Scores of concepts and styles, from `features`."""

    mean: Tensor
    deviation: Tensor

    def __init__(self, concepts: list[str], styles: list[str], features: int) -> None:
        super().__init__()
        self.concepts, self.styles = concepts, styles
        self.register_buffer("mean", torch.zeros(features))
        self.register_buffer("deviation", torch.ones(features))
        self.dropout = nn.Dropout(0.2)
        self.project = nn.Linear(features, 512)
        self.vectors = nn.Parameter(torch.randn(len(concepts), 512) / 512**0.5)
        self.style = nn.Linear(features, len(styles))

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """The scores of features (B, F): of the concepts (B, K), and of the styles (B, S)."""
        z = ((features - self.mean) / self.deviation).clamp(-5, 5)
        z = self.dropout(z)
        cosine = F.normalize(self.project(z), dim=1) @ F.normalize(self.vectors, dim=1).T
        return 20 * cosine, self.style(z)

    @torch.no_grad()
    def ranks(self, pictures: Tensor, concepts: list[str]) -> Tensor:
        """The place of the true concept of each picture (B, 3, 32, 32) in the judge's list, 1 = first."""
        scores, _ = self.eval()(described(pictures))
        true = scores[torch.arange(len(scores)), [self.concepts.index(name) for name in concepts]]
        return (scores > true[:, None]).sum(1) + 1

    @torch.no_grad()
    def style_of(self, pictures: Tensor) -> list[str]:
        """The style of each picture."""
        _, scores = self.eval()(described(pictures))
        return [self.styles[number] for number in scores.argmax(1).tolist()]


def described(pictures: Tensor) -> Tensor:
    """The features of pictures (B, 3, 32, 32) in -1..1."""
    network = load_lite0(size=64)
    with torch.no_grad():
        return torch.cat([_described(network, part) for part in pictures.split(64)])


def _described(network: Any, pictures: Tensor) -> Tensor:
    found = []
    with torch.autocast("cpu", torch.bfloat16):
        h = network.stem(network.prepare(pictures))
        for number, block in enumerate(network.blocks):
            h = block(h)
            if number in (0, 2):  # fine detail, which tells styles apart
                flat = h.float().flatten(2)
                found += [flat.mean(2), flat.std(2)]
            if number in (4, 10):  # shapes, and where they are
                found.append(F.adaptive_avg_pool2d(h.float(), 2).flatten(1))
        found.append(network.head(h).float().mean((2, 3)))
    found.append(F.adaptive_avg_pool2d(pictures, 4).flatten(1))
    return torch.cat(found, 1)


def varied(pictures: Tensor) -> Tensor:
    """The pictures moved by up to 2 pixels, turned by up to 9 degrees, scaled by up to 15 %, in other colours and
    with noise."""
    count = len(pictures)

    def uniform(width: float, *shape: int) -> Tensor:
        return width * (2 * torch.rand(count, *shape) - 1)

    scale, angle = 1 + uniform(0.15), uniform(0.15)
    where = torch.stack(
        [scale * angle.cos(), -scale * angle.sin(), scale * angle.sin(), scale * angle.cos()], 1
    ).view(count, 2, 2)
    where = torch.cat([where, uniform(0.12, 2)[..., None]], 2)
    places = F.affine_grid(where, list(pictures.shape), align_corners=False)
    ink = F.grid_sample(1 - pictures, places, align_corners=False)  # outside is white
    ink = ink * (1 + uniform(0.2, 1, 1, 1)) + 0.05 * torch.randn(count, 3, 1, 1)
    noise = 0.05 * torch.rand(count, 1, 1, 1) * torch.randn_like(ink)
    return (1 - ink + noise).clamp(-1, 1)


def trained(emoji: Emoji, *, views: int = 3, epochs: int = 10) -> Judge:
    """A judge of these pictures, each seen in as many views."""
    torch.manual_seed(0)
    seen = [described(emoji.pictures)]
    seen += [described(varied(emoji.pictures)) for _ in range(views - 1)]
    concepts, styles = sorted(set(emoji.concepts)), sorted(set(emoji.styles))
    judge = Judge(concepts, styles, seen[0].shape[1])
    judge.mean.copy_(seen[0].mean(0))
    judge.deviation.copy_(seen[0].std(0) + 1e-3)
    x = torch.cat(seen)
    number = {name: k for k, name in enumerate(concepts)}
    of_concept = torch.tensor([number[name] for name in emoji.concepts]).repeat(views)
    of_style = torch.tensor([styles.index(name) for name in emoji.styles]).repeat(views)
    optimizer = torch.optim.AdamW(judge.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * -(-len(x) // 512)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 2e-3, steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(512):
            of, style = judge(x[rows])
            loss = F.cross_entropy(of, of_concept[rows], label_smoothing=0.05)
            loss = loss + F.cross_entropy(style, of_style[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return judge.eval()


def open_judge(path: Path = JUDGE) -> Judge:
    """The judge that was written to `path`, or a new one, which is written there."""
    if not path.is_file():
        judge = trained(real("train"))
        path.parent.mkdir(parents=True, exist_ok=True)
        torch.save((judge.concepts, judge.styles, judge.state_dict()), path)
    concepts, styles, weights = torch.load(path, weights_only=True)
    judge = Judge(concepts, styles, len(weights["mean"]))
    judge.load_state_dict(weights)
    return judge.eval()


def main(path: Path = JUDGE, threads: int = 1) -> None:
    """Trains the judge, if it is not there, and prints how often it is right.

    Args:
        path: Where the judge is kept.
        threads: CPU threads.
    """
    torch.set_num_threads(threads)
    since = time.process_time()
    judge, held_out = open_judge(path), real("test")
    ranks = judge.ranks(held_out.pictures, held_out.concepts)
    styles = judge.style_of(held_out.pictures)
    right = sum(a == b for a, b in zip(styles, held_out.styles, strict=True)) / len(styles)
    print(
        f"{len(styles)} real pictures, held out: the concept is first of {len(judge.concepts):,} in "
        f"{(ranks == 1).float().mean():.3f}, among the first five in {(ranks <= 5).float().mean():.3f}; the style "
        f"is right in {right:.3f}; {time.process_time() - since:.0f} s of CPU time"
    )


if __name__ == "__main__":
    tyro.cli(main)
