"""`eqm serve`: answer requests over HTTP, and show the studio."""

from __future__ import annotations

import os
import socket
from importlib.util import find_spec
from pathlib import Path
from threading import Thread
from typing import Annotated, Any

from tyro.conf import Positional, arg

from eqm.cli import options
from eqm.registry import register
from eqm.schema import Meta

Served = Annotated[
    Positional[tuple[str, ...]],
    arg(
        metavar="MODEL ...",
        help="Models to serve, each a folder, a name on the Hugging Face Hub or a model that comes with eqm; "
        "NAME=FOLDER serves a folder under another name.",
        help_behavior_hint="(one or more)",
    ),
]
Port = Annotated[int, arg(help="Port; 0 takes a free one."), Meta(ge=0, le=65535)]
Host = Annotated[str, arg(help="Address to listen at. All but this machine's own need a token.")]
Token = Annotated[
    str | None,
    arg(
        help="Requests must bring this token, as `Authorization: Bearer TOKEN`. EQM_TOKEN in the environment "
        "does the same, and other users do not see it.",
        help_behavior_hint="(default: EQM_TOKEN, else none)",
    ),
]
Slots = Annotated[
    Annotated[int, Meta(ge=1, le=65536)] | None,
    arg(
        help="Samples in the batch of a model.",
        help_behavior_hint="(default: 8 on a CPU, 64 on an accelerator)",
    ),
]
Waiting = Annotated[int, arg(help="Requests that may wait for each model."), Meta(ge=1, le=2**20)]
Memory = Annotated[
    Annotated[float, Meta(gt=0, le=2**20)] | None,
    arg(
        help="GB for the weights of all models. Where it is short, the one used longest ago leaves.",
        help_behavior_hint="(default: half of the free memory)",
    ),
]
Runs = Annotated[
    Path | None,
    arg(metavar="FOLDER", help="Show the training runs below this folder on the page."),
]
Drain = Annotated[
    float,
    arg(help="Seconds that running requests have at the end, after SIGTERM or Ctrl-C."),
    Meta(ge=0, le=86400),
]
Replicas = Annotated[
    str | None,
    arg(
        metavar="N",
        help="Compute in N processes with a batch each, by Ray; 1:8 is one to eight, as many as the queue needs. "
        "In the cluster of RAY_ADDRESS, else on this machine.",
        help_behavior_hint="(default: none, this process computes)",
    ),
]


@register("command", "serve")
def serve(
    models: Served,
    port: Port = 8000,
    host: Host = "127.0.0.1",
    token: Token = None,
    slots: Slots = None,
    max_waiting: Waiting = 1024,
    memory: Memory = None,
    runs: Runs = None,
    drain: Drain = 30.0,
    replicas: Replicas = None,
    vae: options.Vae = None,
    device: options.Device = "auto",
    precision: options.Precision = "auto",
) -> int:
    """Answer requests over HTTP and show the studio, a page in the browser.

    Example: `eqm serve fashion-mnist --port 8000`

    All requests share one full batch. OpenAI's image clients work against it; `/docs` explains every
    endpoint. Without a token it answers only this machine.
    """
    return serve_models(
        models,
        port=port,
        host=host,
        token=token,
        slots=slots,
        max_waiting=max_waiting,
        memory=memory,
        runs=runs,
        drain=drain,
        replicas=replicas,
        vae=vae,
        device=device,
        precision=precision,
    )


def serve_models(
    models: tuple[str, ...],
    *,
    port: int,
    host: str,
    token: str | None,
    slots: int | None,
    max_waiting: int,
    memory: float | None,
    runs: Path | None,
    drain: float,
    vae: str | None,
    device: str,
    precision: str,
    replicas: str | None = None,
    browse: bool = False,
) -> int:
    """The exit status of a server, after its end; with `browse` it opens the page in the browser.

    Raises ValueError for models that do not exist, a port in use, and another host without a token.
    """
    for package in ("fastapi", "uvicorn", "prometheus_client", "multipart"):
        if find_spec(package) is None:
            raise ValueError(
                f"the server needs {package}, which is not installed: pip install 'eqm[serve]'"
            )
    if not models:
        raise ValueError("no models were given: pass one or more, such as fashion-mnist")
    token = token or os.environ.get("EQM_TOKEN") or None
    if token is not None and (not token.isascii() or not token.isprintable() or " " in token):
        raise ValueError("token must be letters, digits and signs without spaces")
    from eqm.serving.http.guard import is_loopback

    if token is None and not is_loopback(host):
        raise ValueError(
            f"the host {host} lets other machines in: give a token, with --token or EQM_TOKEN in the environment"
        )
    if runs is not None and not runs.is_dir():
        raise ValueError(f"runs must be a folder with training runs; there is no folder {runs}")
    from eqm.serving.http.app import create_app
    from eqm.serving.http.server import address_of, listen, run
    from eqm.serving.models import Models

    def opened(listener: socket.socket) -> Models:
        settings: dict[str, Any] = {
            "memory": None if memory is None else int(memory * 1e9),
            "slots": slots,
            "max_waiting": max_waiting,
            "device": device,
            "precision": precision,
            "vae": vae,
        }
        if replicas is None:
            return Models(models, **settings)
        from eqm.serving.ray import Count, ReplicatedModels

        app = f"eqm-{socket.gethostname()}-{listener.getsockname()[1]}"
        return ReplicatedModels(models, Count.read(replicas), app=app, **settings)

    with listen(host, port) as listener, opened(listener) as served:
        address = address_of(listener)
        served.get(served.names[0])  # damaged weights are said now

        def ready() -> None:
            print(f"eqm serves {', '.join(served.names)} at {address}")
            print(
                f"The page is {address}/ and the reference {address}/docs; Ctrl-C ends it.",
                flush=True,
            )
            if browse:
                import webbrowser

                # a browser in the terminal would hold the server
                Thread(target=webbrowser.open, args=(address,), daemon=True).start()

        done = run(
            create_app(served, token=token, runs=runs), listener, drain_seconds=drain, ready=ready
        )
        served.close(drain=done)
    return 0
