"""Starting Ray and its replicas, on this machine or in a cluster."""

from __future__ import annotations

import logging
import os
import re
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from eqm.checks import check_count
from eqm.memory import free_memory
from eqm.serving.ray.replica import Replica

PER_REPLICA = 64
"""Requests that a replica has at once; more wait in the process that answers HTTP."""
BUSY = 16
"""Requests for each replica at which another replica starts."""
OBJECT_STORE = 128 << 20
"""Bytes of shared memory for results on their way between processes."""


@dataclass(frozen=True)
class Count:
    """How many replicas there are: always `least`, and up to `most` while many requests wait.

    Raises ValueError for counts below 1, and for a `most` below `least`.
    """

    least: int
    most: int

    def __post_init__(self) -> None:
        check_count(least=self.least, most=self.most)
        if self.most < self.least:
            raise ValueError(f"most must be at least {self.least}; got {self.most}")

    @classmethod
    def read(cls, text: str) -> Count:
        """The count that a text such as `4`, or `1:8` for one to eight, means. Raises ValueError for others."""
        found = re.fullmatch(r"([1-9]\d{0,3})(?::([1-9]\d{0,3}))?", text.strip())
        least, most = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if most < least:
            raise ValueError(
                f"replicas must be a number such as 4, or the least and the most such as 1:8; got {text!r}"
            )
        return cls(least, most)


def deploy(names: Sequence[str], count: Count, app: str, settings: Mapping[str, Any]) -> Any:
    """Starts the replicas, and returns the `DeploymentHandle` that calls them.

    Raises ValueError and RuntimeError as `ReplicatedModels` does.
    """
    local = "RAY_ADDRESS" not in os.environ
    ray, serve = _import_ray(local)
    _start_here(ray, count) if local else _join_cluster(ray)
    settings = dict(settings)
    if local and settings.get("memory") is None:
        settings["memory"] = free_memory() // 2 // count.most
    serve.start(proxy_location="Disabled")
    deployment = serve.deployment(
        Replica,
        name="replica",
        max_ongoing_requests=PER_REPLICA,
        health_check_period_s=1,
        graceful_shutdown_timeout_s=600,
        ray_actor_options=_share_of(ray.nodes(), count, settings.get("device", "auto")),
        **_scaling(count),
    )
    sources = [_absolute(name) for name in names]
    try:
        return serve.run(deployment.bind(sources, settings, local), name=app, route_prefix=None)
    except RuntimeError as error:
        sentence = f"the replicas cannot start: {_reason(serve, app)}"
        serve.delete(app)
        ray.shutdown()
        raise RuntimeError(sentence) from error


def _import_ray(local: bool) -> tuple[Any, Any]:
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    if local:  # its processes listen on 127.0.0.1, and know each other by a token
        os.environ["RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER"] = "0"
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    try:
        import ray
        from ray import serve
    except ImportError:
        raise ValueError(
            "replicas need Ray, which is not installed: pip install 'eqm[ray]', or leave --replicas out"
        ) from None
    logging.getLogger("ray.serve").setLevel(logging.ERROR)
    return ray, serve


def _start_here(ray: Any, count: Count) -> None:
    ray.init(
        "local",
        num_cpus=max(os.cpu_count() or 1, count.most),
        object_store_memory=OBJECT_STORE,
        include_dashboard=False,
        log_to_driver=False,
        logging_level=logging.ERROR,
    )
    if (devices := int(ray.cluster_resources().get("GPU", 0))) and count.least > devices:
        ray.shutdown()
        raise ValueError(
            f"each replica takes a GPU, and this machine has {devices}; got {count.least} replicas: ask for "
            "fewer, or add --device cpu"
        )


def _join_cluster(ray: Any) -> None:
    address = os.environ["RAY_ADDRESS"]
    host, _, port = address.rpartition(":")
    try:
        if host and port.isdecimal():  # Ray itself would wait for minutes
            socket.create_connection((host.rpartition("/")[2], int(port)), timeout=10).close()
        ray.init(log_to_driver=False, logging_level=logging.ERROR)
    except (OSError, OverflowError):  # ConnectionError of Ray is one
        raise ValueError(
            f"no cluster of Ray answers at RAY_ADDRESS, {address}: start one with ray start, or unset "
            "RAY_ADDRESS to use this machine alone"
        ) from None


def _share_of(nodes: Sequence[Mapping[str, Any]], count: Count, device: str) -> dict[str, int]:
    """What a replica takes: the cores of a machine if they are enough, else its share, and a GPU if there
    are any. Ray makes the number of cores that of threads."""
    cpus = [int(node["Resources"].get("CPU", 0)) for node in nodes]
    share = min([sum(cpus) // count.most, *filter(None, cpus)])
    gpus = any(node["Resources"].get("GPU", 0) for node in nodes) and device != "cpu"
    return {"num_cpus": max(1, share), "num_gpus": int(gpus)}


def _scaling(count: Count) -> dict[str, Any]:
    if count.least == count.most:
        return {"num_replicas": count.most}
    settings = {
        "min_replicas": count.least,
        "max_replicas": count.most,
        "target_ongoing_requests": BUSY,
        "upscale_delay_s": 5,
        "downscale_delay_s": 120,
        "look_back_period_s": 5,
    }
    return {"autoscaling_config": settings}


def _reason(serve: Any, app: str) -> str:
    """The last line of what the replicas said before they ended."""
    said = serve.status().applications[app].deployments["replica"].message
    return str(said.strip().rpartition("\n")[2])


def _absolute(name: str) -> str:
    """The same model as NAME=FOLDER, for a process that works in another folder."""
    known, _, source = ("", "", name) if Path(name).is_dir() else name.partition("=")
    folder = Path(source).resolve()
    return f"{known or folder.name}={folder}" if source and folder.is_dir() else name
