"""What /metrics tells: the load of desk and kitchen when it is read, and how long requests and tokens took."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from ..vlm.desk import Desk
    from .kitchen import Kitchen

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
FIRST_TOKEN_S = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
BETWEEN_TOKENS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
REQUEST_S = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)


class Metrics:
    """The numbers of one server; several in a process don't mix."""

    def __init__(self) -> None:
        self._told = CollectorRegistry()
        own = ("", "", "", self._told)  # no namespace, subsystem or unit
        self.requests = Counter(
            "smolvlm_http_requests", "Requests answered, by route and status.", ("route", "status"), *own
        )
        self.request_s = Histogram(
            "smolvlm_http_request_duration_seconds", "From a request's headers to its last byte.", ("route",), *own,
            buckets=REQUEST_S,
        )  # fmt: skip
        self.first_token_s = Histogram(
            "smolvlm_time_to_first_token_seconds", "From a request to the first token of its answer.", (), *own,
            buckets=FIRST_TOKEN_S,
        )  # fmt: skip
        self.between_tokens_s = Histogram(
            "smolvlm_inter_token_latency_seconds", "From one token of an answer to the next.", (), *own,
            buckets=BETWEEN_TOKENS_S,
        )  # fmt: skip

    def watch(self, desk: Desk, kitchen: Kitchen) -> None:
        """Tell the load of these, too."""
        self._told.register(_Load(desk, kitchen))

    def count_refusal(self, status: int) -> None:
        """Of a request that came to no route."""
        self.requests.labels("refused", str(status)).inc()

    def text(self) -> bytes:
        """In Prometheus' text format."""
        return generate_latest(self._told)


class _Load(Collector):
    def __init__(self, desk: Desk, kitchen: Kitchen) -> None:
        self._desk = desk
        self._kitchen = kitchen

    def collect(self) -> Iterator[Metric]:
        load = self._desk.load()
        gauges = {
            "smolvlm_requests_running": ("Requests that are read or written now.", load.running),
            "smolvlm_requests_looking": ("Requests whose pictures are looked at now.", load.looking),
            "smolvlm_requests_waiting": ("Requests that wait for a place.", load.waiting),
            "smolvlm_media_working": ("Requests whose media are opened now.", self._kitchen.working),
            "smolvlm_media_waiting": ("Requests that wait for a media worker.", self._kitchen.waiting),
        }
        counters = {
            "smolvlm_prompt_tokens": ("Tokens of prompts that were answered.", load.prompt_tokens),
            "smolvlm_cached_tokens": ("Of these, read before for another request.", load.cached_tokens),
            "smolvlm_generation_tokens": ("Tokens written.", load.new_tokens),
            "smolvlm_tiles": ("Tiles of pictures and frames that were looked at.", load.tiles),
            "smolvlm_cached_tiles": ("Tiles that had been looked at before.", load.known_tiles),
            "smolvlm_steps": ("Steps of the engine.", load.steps),
            "smolvlm_works_answered": ("Answers and decisions that were completed.", load.answered),
            "smolvlm_works_failed": ("Answers and decisions that failed.", load.failed),
            "smolvlm_works_cancelled": ("Answers and decisions that were given up.", load.cancelled),
            "smolvlm_media_workers_killed": ("Media workers ended at their deadline.", self._kitchen.killed),
            "smolvlm_media_workers_died": ("Media workers that crashed.", self._kitchen.died),
        }  # fmt: skip
        yield from (GaugeMetricFamily(name, help, value=value) for name, (help, value) in gauges.items())
        yield from (CounterMetricFamily(name, help, value=value) for name, (help, value) in counters.items())


class Measured:
    """An application whose requests are counted and timed."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started, status = time.perf_counter(), "none"  # none: the client went away before an answer

        async def noting(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = str(message["status"])
            await send(message)

        try:
            await self._app(scope, receive, noting)
        finally:
            route = getattr(scope.get("route"), "path", "other")
            self._metrics.requests.labels(route, status).inc()
            self._metrics.request_s.labels(route).observe(time.perf_counter() - started)
