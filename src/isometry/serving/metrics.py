"""Counts and times for Prometheus, one registry per application."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)


class Metrics:
    """Requests by route and status, their seconds, texts per encoder run, encoder seconds, records per collection."""

    def __init__(self) -> None:
        self._registry = CollectorRegistry()
        labels = ["route", "method"]
        self._requests = Counter("isometry_requests", "Requests", [*labels, "status"], registry=self._registry)
        self._seconds = Histogram(
            "isometry_request_seconds", "Seconds", labels, buckets=_SECONDS, registry=self._registry
        )
        self._batch = Histogram(
            "isometry_encoder_batch",
            "Texts per encoder run",
            buckets=(1, 2, 4, 8, 16, 32, 64, 256, 1024),
            registry=self._registry,
        )
        self._encoder = Counter("isometry_encoder_seconds", "Seconds of the encoder", registry=self._registry)
        self._records = Gauge("isometry_records", "Records", ["collection"], registry=self._registry)

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        self._requests.labels(route, method, str(status)).inc()
        self._seconds.labels(route, method).observe(seconds)

    def batch(self, texts: int, seconds: float) -> None:
        self._batch.observe(texts)
        self._encoder.inc(seconds)

    def page(self, records: dict[str, int]) -> bytes:
        """The text format of Prometheus."""
        for name, count in records.items():
            self._records.labels(name).set(count)
        return generate_latest(self._registry)
