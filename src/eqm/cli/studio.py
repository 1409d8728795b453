"""`eqm studio`: serve models and open their page in the browser."""

from __future__ import annotations

from typing import Annotated

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.cli.serve import Port, Runs, serve_models
from eqm.registry import register


@register("command", "studio")
def studio(
    models: Annotated[
        Positional[tuple[str, ...]],
        arg(
            metavar="MODEL ...",
            help="Models to serve, as for eqm serve.",
            help_behavior_hint="(default: the models of pictures that come with eqm)",
        ),
    ] = (),
    port: Port = 0,
    runs: Runs = None,
    no_browser: Annotated[bool, arg(help="Print the address and open nothing.")] = False,
    vae: options.Vae = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> int:
    """See and use models in the browser: serve them and open the page.

    Example: `eqm studio fashion-mnist`
    """
    from eqm.models.pretrained import bundled, read_config

    of_pictures = (name for name in bundled() if len(read_config(name)[0].shape) == 3)
    return serve_models(
        models or tuple(of_pictures),
        port=port,
        host="127.0.0.1",
        token=None,
        slots=None,
        max_waiting=1024,
        memory=None,
        runs=runs,
        drain=5.0,
        vae=vae,
        device=device,
        precision=precision,
        browse=not no_browser,
    )
