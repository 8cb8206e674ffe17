"""A server process: the socket, uvicorn around the application, and an orderly end.

The first SIGTERM or Ctrl-C drains: /ready says no, new requests are refused, answers on their way are finished within
Settings.grace_s. The second one ends at once.
"""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import Callable
from types import FrameType

import uvicorn

from ..errors import ConfigError
from ..vlm import VLM
from .app import make_app
from .guard import protect, server_options
from .settings import Settings

BACKLOG = 1024
LAST_BYTES_S = 5  # for replies that are written already, and whose clients are slow to read them
log = logging.getLogger(__name__)


class Server(uvicorn.Server):
    """A server that isn't running yet. It holds its port from now on: `url` says where it will be.

    vlm: loaded, or a function that loads it while the server already tells that it isn't ready.
    Raises ConfigError when it can't listen there.
    """

    def __init__(self, vlm: VLM | Callable[[], VLM], settings: Settings | None = None) -> None:
        self.settings = settings or Settings()
        self._socket = listen(self.settings)
        app = make_app(vlm, self.settings)
        self.house, self._opening = app.state.house, app.state
        self._failure: BaseException | None = None
        self._leaving: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        config = uvicorn.Config(
            protect(app, self.settings, self.house.metrics.count_refusal), lifespan="on", log_config=None,
            access_log=False, server_header=False,
            timeout_graceful_shutdown=LAST_BYTES_S, **server_options(self.settings),
        )  # fmt: skip
        super().__init__(config)

    @property
    def url(self) -> str:
        host, port = self._socket.getsockname()[:2]
        return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"

    def serve_until_stopped(self) -> None:
        """Run. Raises what loading the model raised."""
        try:
            self.run(sockets=[self._socket])
        finally:
            self.house.close()
            self._socket.close()
        if self._failure is not None:
            raise self._failure

    def drain(self) -> None:
        """Begin an orderly end; from any thread, and from a signal's handler."""
        if self._loop is None:
            self.should_exit = True
        elif not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._begin_leaving)

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        self._loop = asyncio.get_running_loop()
        await super().startup(sockets)
        self._watching = asyncio.create_task(self._watch())

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Of uvicorn: a signal came."""
        if self._leaving is None:
            self.drain()
        else:
            self.force_exit = self.should_exit = True

    def _begin_leaving(self) -> None:
        if self._leaving is None:
            self._leaving = asyncio.create_task(self._leave())

    async def _leave(self) -> None:
        try:
            await self.house.drain()
        finally:
            self.should_exit = True

    async def _watch(self) -> None:
        """End when the model can't be loaded."""
        try:
            await self._opening.opening
        except Exception as error:
            self._failure = error
            self.should_exit = True


def listen(settings: Settings) -> socket.socket:
    """Raises ConfigError when the address is not this machine's, or taken."""
    host, port = settings.host, settings.port
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        # Named as TCP, because asyncio sends small packets of other sockets late: 40 ms later, with most clients.
        listening = socket.socket(family, kind, socket.IPPROTO_TCP)
        try:
            if os.name == "posix":  # elsewhere it lets two servers have one port
                listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listening.bind(address)
            listening.listen(BACKLOG)
        except OSError:
            listening.close()
            raise
        return listening
    except OSError as error:
        raise ConfigError(f"The server can't listen on {host}, port {port}: {error.strerror or error}.") from error
