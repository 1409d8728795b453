import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest

from eqm.cli.main import main
from eqm.data import DataConfig, open_source, split
from eqm.models.config import TransformerConfig
from eqm.recipes import RECIPES
from eqm.train import train

NETWORK = TransformerConfig(shape=(4, 4, 4), num_classes=3, patch=2, width=16, depth=1, heads=2)
SMALL = ["--shard-size", "4", "--batch-size", "2"]


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def photos(tmp_path):
    generator = np.random.default_rng(0)
    pixels = generator.integers(0, 256, (12, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "photos.npz", images=pixels, labels=np.arange(12) % 3)
    return tmp_path / "photos.npz"


def test_the_whole_way_from_pictures_over_latents_to_pictures(vae, photos, tmp_path, capsys):
    latents, model = tmp_path / "latents", tmp_path / "model"
    command = ["encode", str(photos), "--vae", str(vae()), "--output", str(latents), *SMALL]
    assert main(command) == 0
    assert "12 latents (4, 4, 4)" in capsys.readouterr().out
    config = replace(
        RECIPES["digits"], name="small", model=NETWORK, images=12, batch_size=4, device="cpu"
    )
    source, _ = split(open_source(DataConfig(str(latents), flip=True)), 0.25)
    assert sum(1 for _ in train(config, source, model)) == 3
    sample = ["sample", str(model), "--count", "3", "--output", str(tmp_path / "a.npz")]
    assert main(sample) == 2  # the model may come from anybody
    assert "pass --vae" in capsys.readouterr().err
    assert main([*sample, "--vae", str(vae())]) == 0
    assert np.load(tmp_path / "a.npz")["arr_0"].shape == (3, 8, 8, 3)
    capsys.readouterr()
    assert main(["sample", str(model), "--vae", str(vae(seed=1))]) == 2
    assert "pass the first" in capsys.readouterr().err


def test_a_dry_run_tells_what_encoding_would_take(vae, photos, tmp_path, capsys):
    output = tmp_path / "latents"
    arguments = ["--vae", str(vae()), "--output", str(output), "--dry-run"]
    assert main(["encode", str(photos), *arguments]) == 0
    assert "0.006 MB in 1 files" in capsys.readouterr().out
    assert not output.exists()
    assert main(["encode", str(photos), *arguments, "--shard-size", "0"]) == 2
    assert "shard_size must be at least 1; got 0" in capsys.readouterr().err


@pytest.mark.slow
def test_killed_and_rerun_or_shared_by_two_processes_the_bytes_are_the_same(vae, photos, tmp_path):
    def command(output):
        arguments = ["eqm", "encode", photos, "--vae", vae(), "--output", output, *SMALL]
        return [str(x) for x in ["-m", *arguments]]

    def call(*arguments):
        done = subprocess.run([sys.executable, *arguments], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr

    call(*command(tmp_path / "whole"))
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-port", "0"]
    call(*launch, *command(tmp_path / "shared"))
    assert contents(tmp_path / "shared") == contents(tmp_path / "whole")

    killed = tmp_path / "killed"
    process = subprocess.Popen([sys.executable, *command(killed)], stderr=subprocess.DEVNULL)
    while not any(killed.glob("*.safetensors")) and process.poll() is None:
        time.sleep(0.005)
    process.kill()
    process.wait()
    call(*command(killed))
    for part in killed.glob(".*.part"):  # what was being written when the process was killed
        part.unlink()
    assert contents(killed) == contents(tmp_path / "whole")
