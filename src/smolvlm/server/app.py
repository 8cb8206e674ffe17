"""The application: all routes on one model, and the page. Who may come in, and with what, is guard.py's.

Start it with run.py. In an application of one's own it can be mounted: `make_app(vlm, settings)`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

from fastapi import FastAPI

from ..vlm import VLM
from . import chat, completions, decisions, responses, service
from .failures import install
from .house import House
from .metrics import Measured
from .pages import page_router
from .replies import VERSION
from .settings import Settings

ROUTERS = (chat.router, completions.router, responses.router, decisions.router, service.router)


def make_app(vlm: VLM | Callable[[], VLM], settings: Settings | None = None) -> FastAPI:
    """vlm: loaded, or a function that loads it, which begins when the application starts; /ready tells when it is done.

    `app.state.house` is what is being served, `app.state.opening` the task that loads it.
    """
    house = House(vlm, settings or Settings())

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        app.state.opening = asyncio.create_task(house.open())
        yield
        app.state.opening.cancel()
        await house.drain()

    # No openapi_url: bodies are read by hand, and FastAPI's own pages would load scripts from other hosts.
    app = FastAPI(title="smolvlm", version=VERSION, lifespan=lifespan, openapi_url=None)
    app.state.house = house
    for router in ROUTERS:
        app.include_router(router)
    if house.settings.page:
        app.include_router(page_router())
    install(app)
    app.add_middleware(Measured, metrics=house.metrics)
    return app
