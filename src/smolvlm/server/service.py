"""The routes beside answers: models, what a request would cost, and how the server is doing."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response

from .asking import Service, body_of, while_there
from .failures import RequestError
from .house import house_of, service_of
from .metrics import CONTENT_TYPE
from .parts import read_chat, read_prompt
from .replies import VERSION, Fields
from .sse import JSON
from .wire import Looking

router = APIRouter()


class CountBody(Looking):
    """A chat body or a prompt; its other fields cost nothing."""

    messages: list[Any] | None = None
    prompt: str | None = None

    @classmethod
    def _uses(cls, name: str, value: object) -> bool:
        return name in cls.model_fields


@router.get("/v1/models")
async def list_models(request: Request) -> Response:
    service = service_of(request)
    return JSON({"object": "list", "data": [model_card(service, name) for name in service.names]})


@router.get("/v1/models/{model:path}")
async def retrieve_model(request: Request, model: str) -> Response:
    service = service_of(request)
    service.adapter_of(model)
    return JSON(model_card(service, model))


def model_card(service: Service, name: str) -> Fields:
    return {
        "id": name,
        "object": "model",
        "created": service.started,
        "owned_by": "smolvlm",
        "root": service.name,
        "parent": None if name == service.name else service.name,
        "max_model_len": service.vlm.context,
        "tile_size": service.vlm.config.vision_config.image_size,  # the page makes its camera's frames that small
        "capabilities": ["text", "image", "video"],
    }


@router.post("/tokenize")
async def count_tokens(request: Request) -> Response:
    """What a chat body or a prompt would cost, before it is sent. Pictures are measured, not opened."""
    service = service_of(request)
    body = CountBody.read(await body_of(request), service.settings)
    return JSON(await while_there(request, count(service, body)))


async def count(service: Service, body: CountBody) -> Fields:
    if (body.messages is None) == (body.prompt is None):
        raise RequestError("Give either 'messages' or 'prompt'.", param="messages")
    if body.messages is not None:
        order = read_chat(body.messages, service.settings, body.look())
    else:
        order = read_prompt(body.prompt, service.settings, body.look())
    report = await service.kitchen.count(order)
    ids = None if report.media else (await service.kitchen.prepare(order)).input_ids.tolist()
    media = [asdict(one) for one in report.media]
    return {"tokens": ids, "count": report.total, "max_model_len": service.vlm.context, "media": media}


@router.get("/health")
async def tell_health(request: Request) -> Response:
    """503 when nothing will be answered any more, so that whoever watches starts another server."""
    well = house_of(request).is_well
    return JSON({"status": "ok" if well else "failed"}, status_code=200 if well else 503)


@router.get("/ready")
async def tell_readiness(request: Request) -> Response:
    """503 while the model is loaded and while the server is drained: send requests elsewhere."""
    house = house_of(request)
    state = "ready" if house.is_ready else "draining" if house.is_leaving else "loading" if house.is_well else "failed"
    return JSON({"status": state}, status_code=200 if house.is_ready else 503)


@router.get("/metrics")
async def tell_metrics(request: Request) -> Response:
    return Response(house_of(request).metrics.text(), media_type=CONTENT_TYPE)


@router.get("/version")
async def tell_version() -> Response:
    return JSON({"version": VERSION})
