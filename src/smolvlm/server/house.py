"""What is being served, from the first moment to the last: a model that is loaded, that answers, that is drained."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future

from fastapi import Request

from ..vlm import VLM
from .asking import Service
from .failures import RequestError
from .metrics import Metrics
from .settings import Settings

RETRY_S = 2  # when to try again
log = logging.getLogger(__name__)


class House:
    """vlm: loaded, or a function that loads it, which runs in a thread while /ready says no."""

    def __init__(self, vlm: VLM | Callable[[], VLM], settings: Settings) -> None:
        self.settings = settings
        self.metrics = Metrics()
        self.is_leaving = self.is_draining = False
        self._vlm = vlm
        self._service: Service | None = None

    async def open(self) -> None:
        """Load. Raises what loading raises."""
        vlm = self._vlm if isinstance(self._vlm, VLM) else await _in_thread(self._vlm)
        self._service = Service(vlm, self.settings, self.metrics)

    @property
    def is_ready(self) -> bool:
        return self._service is not None and self._service.desk.is_alive and not self.is_leaving

    @property
    def is_well(self) -> bool:
        """False when it will never answer again: whoever watches over it should start another."""
        return self._service is None or self._service.desk.is_alive or self.is_draining

    @property
    def service(self) -> Service:
        """Raises RequestError while it is loaded or drained."""
        if self._service is None:
            raise RequestError(
                "The model is still being loaded: try again in a moment.", status=503, code="loading", retry_s=RETRY_S
            )
        if self.is_draining:
            raise RequestError(
                "The server is shutting down: ask another one.", status=503, code="shutting_down", retry_s=RETRY_S
            )
        return self._service

    async def drain(self) -> None:
        """Be ready no more, then take no more requests, and finish those that are here; as long as the settings say."""
        self.is_leaving = True
        if self._service is not None:
            await asyncio.sleep(self.settings.leave_s)
            self.is_draining = True
            try:
                await asyncio.wait_for(self._service.empty.wait(), self.settings.grace_s)
            except TimeoutError:
                log.warning("%d requests are cut off: they took longer than the grace period.", self._service.inside)
            await asyncio.to_thread(self.close)
        self.is_draining = True

    def close(self) -> None:
        """End what is left. Waits for the step that the engine is in."""
        if self._service is not None:
            self._service.close()


async def _in_thread(load: Callable[[], VLM]) -> VLM:
    """Unlike asyncio's own threads, this one doesn't keep a process alive that was told to end."""
    loaded: Future[VLM] = Future()

    def run() -> None:
        try:
            loaded.set_result(load())
        except BaseException as error:  # also Ctrl-C and exits: whoever waits gets them
            loaded.set_exception(error)

    threading.Thread(target=run, name="smolvlm-load", daemon=True).start()
    return await asyncio.shield(asyncio.wrap_future(loaded))


def house_of(request: Request) -> House:
    house = request.app.state.house
    assert isinstance(house, House), "make_app sets it"
    return house


def service_of(request: Request) -> Service:
    """Raises RequestError when nothing can be asked now."""
    return house_of(request).service
