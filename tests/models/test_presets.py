"""Configs and presets: light to import, checked when made, named helpfully."""

import subprocess
import sys

import pytest
import torch

from eqm.models import PRESETS, MLPConfig, TransformerConfig, UNetConfig, build, preset


def test_configs_and_presets_need_no_torch():
    code = "import sys, eqm.models.config; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "count"), [("unet-xs", 0.25e6), ("unet-s", 1.1e6), ("unet-m", 4.2e6)]
)
def test_unets_have_the_parameters_they_promise(name, count):
    with torch.device("meta"):
        network = build(preset(name, shape=(1, 8, 8), num_classes=10))
    assert sum(p.numel() for p in network.parameters()) == pytest.approx(count, rel=0.05)


@pytest.mark.parametrize("name", PRESETS)
def test_preset_takes_shape_and_conditions(name):
    shape = (2,) if name == "mlp" else (3, 16, 24)
    config = preset(name, shape=shape, num_classes=7, noise_conditioning=True)
    assert (config.shape, config.num_classes, config.noise_conditioning) == (shape, 7, True)


@pytest.mark.parametrize(
    ("name", "suggestion"), [("eqm-xl2", "EqM-XL/2"), ("unet-l", "unet-m|unet-s|unet-xs")]
)
def test_unknown_preset_is_answered_with_the_closest(name, suggestion):
    with pytest.raises(ValueError, match=f"EqM-S/2, .*, mlp; .*did you mean '({suggestion})'"):
        preset(name, shape=(4, 32, 32))


@pytest.mark.parametrize(
    ("config_type", "sizes", "message"),
    [
        (
            TransformerConfig,
            {"shape": (32,)},
            "shape must be a list of 2 to 4 whole numbers, each from 1 to",
        ),
        (TransformerConfig, {"shape": (4, 33, 32)}, "divisible by the patch size 2; got 33x32"),
        (TransformerConfig, {"width": 100}, "number of heads 6; got 100: take 102"),
        (TransformerConfig, {"width": 18, "heads": 2}, "divisible by the number 4"),
        (TransformerConfig, {"depth": 0}, "depth must be a whole number from 1 to 512; got 0"),
        (UNetConfig, {"shape": (1, 6, 8), "multipliers": (1, 2, 4)}, "with 3 levels; got 6x8"),
        (
            TransformerConfig,
            {"shape": (4, 33), "width": 12},
            "the length must be .* size 2; got 33",
        ),
        (TransformerConfig, {"shape": (4, 4, 4, 4), "width": 16}, "divisible by the number 6"),
        (TransformerConfig, {"patch": (2, 2, 2)}, r"one for each of 2 axes; got \(2, 2, 2\)"),
        (UNetConfig, {"patch": ()}, "patch must be"),
        (UNetConfig, {"stride": (2,)}, r"stride must be one number, or one for each of 2 axes"),
        (UNetConfig, {"stride": 4}, "stride must be at most kernel, 3; got 4"),
        (
            UNetConfig,
            {"shape": (1, 4, 8, 8), "multipliers": (1, 2, 4), "stride": (2, 2, 4)},
            "stride must be at most kernel, 3; got 2x2x4",
        ),
        (
            UNetConfig,
            {"shape": (1, 3, 8, 8), "multipliers": (1, 2), "patch": (1, 2, 2)},
            "all sides must be divisible by .* got 3x8x8: .* multiples of 2x4x4",
        ),
        (UNetConfig, {"multipliers": ()}, "multipliers must be a list of 1 to 16 whole numbers"),
        (UNetConfig, {"heads": 3}, "lowest level's width must be divisible"),
        (UNetConfig, {"heads": -1}, "heads must be a whole number from 0 to 65,536; got -1"),
        (MLPConfig, {"shape": ()}, "shape must be a list of 1 to 8 whole numbers"),
        (MLPConfig, {"shape": (2, 0)}, r"shape\[1\] must be a whole number from 1 to"),
        (
            MLPConfig,
            {"shape": (2**20, 2**20)},
            "shape must have at most 1,073,741,824 numbers in all",
        ),
        (MLPConfig, {"num_classes": -1}, "num_classes must be a whole number from 0 to"),
    ],
)
def test_sizes_that_do_not_fit_are_explained(config_type, sizes, message):
    with pytest.raises(ValueError, match=message):
        config_type(**sizes)
