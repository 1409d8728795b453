"""`eqm info`: what a model is."""

from __future__ import annotations

from eqm.cli.arguments import Model


def info(model: Model) -> None:
    """Print what a model is: its network, what it was trained on, and how it is sampled.

    Args:
        model: A trained model: its folder, its name on the hub, or one that comes with eqm (fashion-mnist,
            mnist-5k, openmoji-32); or a preset such as EqM-B/2.
    """
    from dataclasses import asdict

    from eqm.cli.show import show_settings
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
            "FLOP an image and evaluation": f"{size.flops:,}",
            **{f"network.{name}": value for name, value in asdict(config).items()},
            **about,
        }
    )
