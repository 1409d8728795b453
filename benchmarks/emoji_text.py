"""Emoji from words: whether samples show what their captions say.

    python benchmarks/emoji_text.py --model runs/emoji-text

The captions are those of the held-out pairs: training saw the concept in other styles, and other concepts in
the style, but never both. The judge of emoji_judge.py says what a picture shows. Its answers on the real
pictures of the same pairs are the reference: a ratio of 1 means that samples are recognised as often as
real pictures.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro
from emoji_judge import JUDGE, Emoji, Judge, open_judge, real
from timing import record
from torch import Tensor

import eqm
from eqm.field import Field
from eqm.metrics import bootstrap
from eqm.pictures import grid
from eqm.sampling import Sampling
from eqm.tasks import generate

NEW = ("a blue cat with a crown", "a green car with a heart", "a red house on the moon")
"""Prompts of which there is no emoji."""
STYLES = ("noto", "twemoji", "openmoji", "fluent", "3d")


def main(
    model: str = "emoji-text",
    guidance: tuple[float, ...] = (1.0, 3.0),
    count: int = 0,
    seed: int = 1_000_000,
    judge: Path = JUDGE,
    sheet: Path | None = None,
    threads: int = 1,
    quick: bool = False,
) -> None:
    """Prints the table and writes it to results/emoji-text.md.

    Args:
        model: Name or folder of a trained model.
        guidance: Guidance scales, a row each.
        count: Captions of a row; 0 for all held-out pairs.
        seed: Seed of the noise.
        judge: Where the judge is, or is written to.
        sheet: Write a picture to this file: real held-out pictures, samples below each, then five samples of each
            new prompt in each style.
        threads: CPU threads.
        quick: Only check that it runs; write nothing.
    """
    torch.set_num_threads(threads)
    network, critic, held_out, seen = (
        eqm.from_pretrained(model),
        open_judge(judge),
        real("test"),
        real("train"),
    )
    sampling = Sampling.of(network.metadata)
    if quick:
        count, guidance = 8, guidance[:1]
    held_out = chosen(held_out, count or len(held_out.styles))
    seen = chosen(seen, len(held_out.styles))
    with record("emoji-text", "Emoji from words", keep=not quick):
        print(
            f"{model}, {network.metadata['training']['images_seen']:,} images seen: {sampling}. {len(held_out.styles)} "
            f"captions a row; {len(critic.concepts):,} concepts, {len(critic.styles)} styles. In brackets: 95 % "
            "intervals of the bootstrap over captions.\n"
        )
        print(
            "| | first | first five | style | first five / real | style / real | NFE | s |\n"
            + "|---" * 8
            + "|"
        )
        base = answers(critic, held_out.pictures, held_out)
        line("real, held-out pairs", base)
        line("real, seen pairs", answers(critic, seen.pictures, seen))
        sheets = {}
        for scale in guidance:
            for name, emoji in (("held-out", held_out), ("seen", seen)):
                if name == "seen" and scale != sampling.guidance:
                    continue
                since = time.process_time()
                ends = generate(
                    network,
                    prompts=emoji.captions,
                    seed=seed,
                    sampling=sampling.but(guidance=scale),
                )
                pictures = ends.x.clamp(-1, 1)
                sheets[name, scale] = pictures
                found = answers(critic, pictures, emoji)
                spent = f"{ends.nfe.float().mean():.0f} | {time.process_time() - since:.0f}"
                line(f"samples, {name} pairs, guidance {scale:g}", found, base, spent)
    if sheet is not None:
        best = sheets.get(("held-out", sampling.guidance), pictures)
        draw(sheet, network, held_out, best, seed)


def chosen(emoji: Emoji, count: int) -> Emoji:
    """As many of the pictures, at random, always the same."""
    rows = torch.randperm(len(emoji.styles), generator=torch.Generator().manual_seed(0))[:count]
    at = rows.tolist()
    lists = [[values[k] for k in at] for values in (emoji.concepts, emoji.styles, emoji.captions)]
    return Emoji(emoji.pictures[rows], *lists)


def answers(judge: Judge, pictures: Tensor, emoji: Emoji) -> Tensor:
    """For each picture (N, 3): whether the judge has the concept first, among the first five, and the style."""
    ranks = judge.ranks(pictures, emoji.concepts)
    style = [a == b for a, b in zip(judge.style_of(pictures), emoji.styles, strict=True)]
    return torch.stack([ranks == 1, ranks <= 5, torch.tensor(style)], 1).float()


def line(name: str, found: Tensor, base: Tensor | None = None, spent: str = " | ") -> None:
    """Prints a row of the table; `base` are the answers on real pictures of the same captions."""
    rates = " | ".join(f"{rate:.3f}" for rate in found.mean(0).tolist())
    ratios = " | "
    if base is not None:
        both = torch.cat([found, base], 1)
        intervals = [
            bootstrap(lambda x, k=k: x[:, k].mean() / x[:, k + 3].mean(), both) for k in (1, 2)
        ]
        ratios = " | ".join(f"{i.value:.3f} ({i.low:.3f}-{i.high:.3f})" for i in intervals)
    print(f"| {name} | {rates} | {ratios} | {spent} |", flush=True)


def draw(sheet: Path, network: Field, held_out: Emoji, samples: Tensor, seed: int) -> None:
    """Writes the picture of `main`, of 25 columns."""
    rows = []
    for start in (0, 25):
        part = slice(start, start + 25)
        rows += [held_out.pictures[part], samples[part]]
    for prompt in NEW:
        prompts = [f"{style}: {prompt}" for style in STYLES for _ in range(5)]
        rows.append(generate(network, prompts=prompts, seed=seed).x.clamp(-1, 1))
    grid(torch.cat(rows), columns=25, scale=2).save(sheet)
    print("captions above:", "; ".join(held_out.captions[:50]))


if __name__ == "__main__":
    tyro.cli(main)
