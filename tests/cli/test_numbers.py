"""Numbers on the command line: one that cannot be is a sentence and status 2, before anything is made."""

import numpy as np
import pytest

from eqm.cli.main import main
from eqm.models import UNetConfig, build, save_pretrained


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("place")
    save_pretrained(
        build(UNetConfig(shape=(1, 8, 8), num_classes=3, width=8, multipliers=(1, 2))),
        folder / "model",
    )
    np.savez(folder / "p.npz", images=np.zeros((4, 8, 8, 1), np.uint8))
    return folder


COMMANDS = {
    "sample {0}/model --output {0}/out.png": ["--count", "--batch-size", "--seed", "--scale", "--step-size"],
    "vary {0}/model {0}/p.npz --output {0}/out.png": ["--count", "--strength", "--batch-size"],
    "interpolate {0}/model {0}/p.npz --output {0}/out.png": ["--count", "--strength"],
    "restore {0}/model {0}/p.npz --output {0}/out.png --operator blur": ["--count", "--steps"],
    "compose {0}/model 0+1 --output {0}/out.png": ["--count", "--batch-size", "--guidance"],
    "detect {0}/model {0}/p.npz --normal {0}/p.npz": ["--batch-size", "--fpr"],
    "tune {0}/model": ["--samples", "--nfe", "--references", "--seed"],
    "distill {0}/model --output {0}/out.png": ["--samples", "--descents", "--evaluations", "--learning-rate"],
    "encode {0}/p.npz --vae pixels --output {0}/latents": ["--shard-size", "--batch-size", "--workers"],
    "train digits --dry-run": [
        *("--model.width", "--model.blocks", "--batch-size", "--images", "--seed", "--threads"),
        *("--optimizer.learning-rate", "--objective.scale", "--data.workers", "--data.size"),
    ],
    "demo --dry-run": ["--images"],
}  # fmt: skip
LARGE = ("--guidance", "--objective.scale")
"""Options that take any finite number."""
FAULTS = ["1" + "0" * 25, "nan", "inf", "1e400", "1" * 5000]
RAW = ("Overflow", "islice", "invalid literal", "too large to convert", "unexpected", "Traceback")


@pytest.mark.parametrize("fault", FAULTS, ids=["10^25", "nan", "inf", "1e400", "5000 digits"])
@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: command.split()[0])
def test_a_number_that_cannot_be_is_refused_before_anything_is_made(place, command, fault, capfd):
    for option in COMMANDS[command]:
        if fault == FAULTS[0] and option in LARGE:
            continue
        try:
            status = main([*command.format(place).split(), option, fault])
        except SystemExit as error:  # of tyro
            status = error.code
        words = capfd.readouterr().err
        assert status == 2, (option, words)
        assert not any(raw in words for raw in RAW), (option, words)
        assert len(words) < 2000
    assert not (place / "out.png").exists()
    assert not (place / "latents").exists()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--count", "1000000000000"], "samples needs"),
        (["--count", "-1"], "count must be a whole number from 1"),
        (["--count", "300", "--scale", "4096"], "a sheet must have at most"),
        (["--batch-size", "1000000000000"], "batch_size must be a whole number from 1"),
        (["--rule", "anderson", "--rule-options", "depth", "1e12"], "depth must be at most 1000"),
    ],
)
def test_what_cannot_fit_is_refused_with_what_it_needs(place, arguments, sentence, capsys):
    status = main(["sample", f"{place}/model", "--output", f"{place}/out.png", *arguments])
    assert status == 2
    assert sentence in capsys.readouterr().err
