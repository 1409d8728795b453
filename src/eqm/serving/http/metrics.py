"""`/metrics`: what the server does, for Prometheus."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from eqm.serving.models import Models

TYPE = "text/plain; version=0.0.4; charset=utf-8"
BUCKETS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 300)


class Metrics:
    """The counters of one server. Endpoints are its routes, so their number is fixed."""

    def __init__(self, models: Models) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "eqm_requests",
            "Answers by endpoint and status.",
            ("endpoint", "status"),
            registry=self.registry,
        )
        self.seconds = Histogram(
            "eqm_request_seconds",
            "Time from a request to the end of its answer.",
            ("endpoint",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self.active = Gauge(
            "eqm_requests_active", "Requests without a whole answer.", registry=self.registry
        )
        self.registry.register(_Engines(models))

    def text(self) -> bytes:
        """All metrics in Prometheus' text format."""
        return generate_latest(self.registry)


class _Engines(Collector):
    """The load of the engines, read when somebody asks."""

    def __init__(self, models: Models) -> None:
        self.models = models

    def collect(self) -> Iterator[Metric]:
        label = ["model"]
        waiting = GaugeMetricFamily("eqm_waiting", "Requests that have not begun.", labels=label)
        running = GaugeMetricFamily("eqm_running", "Requests that have begun.", labels=label)
        slots = GaugeMetricFamily("eqm_slots", "Size of the batch.", labels=label)
        filled = GaugeMetricFamily("eqm_slots_filled", "Slots that hold a sample.", labels=label)
        loaded = GaugeMetricFamily("eqm_model_loaded", "1 if the model is loaded.", labels=label)
        evaluations = CounterMetricFamily(
            "eqm_evaluations",
            "Evaluations of one sample; its rate is evaluations a second.",
            labels=label,
        )
        passes = CounterMetricFamily(
            "eqm_passes",
            "Passes through the model; evaluations / passes is the mean size of a batch.",
            labels=label,
        )
        for name, load in self.models.loads().items():
            waiting.add_metric([name], load.waiting)
            running.add_metric([name], load.running)
            slots.add_metric([name], load.slots)
            filled.add_metric([name], load.filled)
            loaded.add_metric([name], float(self.models.about(name)["loaded"]))
            evaluations.add_metric([name], load.evaluations)
            passes.add_metric([name], load.passes)
        yield from (waiting, running, slots, filled, loaded, evaluations, passes)
