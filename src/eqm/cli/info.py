"""`eqm info`: what a model is."""

from __future__ import annotations

from eqm.cli import options
from eqm.registry import register


@register("command", "info")
def info(model: options.Model) -> None:
    """Print the network, the training and the sampling settings of a model.

    Example: `eqm info fashion-mnist`

    It also takes a preset of the paper, such as EqM-B/2.
    """
    from dataclasses import asdict

    from eqm.cli.output import show_settings
    from eqm.models import PRESETS, cost, from_pretrained, preset

    if model in PRESETS or model.startswith("EqM-"):
        config, about = preset(model, shape=(4, 32, 32), num_classes=1000), {}
    else:
        loaded = from_pretrained(model)
        config = loaded.config
        about = {
            f"{part}.{name}": value
            for part in ("data", "sampling", "training")
            for name, value in dict(loaded.metadata.get(part) or {}).items()
            if not name.startswith(("model.", "sampling."))
        }
    size = cost(config)
    show_settings(
        {
            "network": type(config).__name__.removesuffix("Config"),
            "parameters": f"{size.parameters:,}",
            "FLOP per image and evaluation": f"{size.flops:,}",
            **{f"network.{name}": value for name, value in asdict(config).items()},
            **about,
        }
    )
