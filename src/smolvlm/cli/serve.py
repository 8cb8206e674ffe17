"""Serve a model: an OpenAI-compatible service and a page, for this machine alone unless you say otherwise.

examples:
  smolvlm serve
  smolvlm serve --model HuggingFaceTB/SmolVLM2-500M-Video-Instruct --port 8080
  smolvlm serve --lora receipts=runs/receipts --lora plants=runs/plants
  smolvlm serve --host 0.0.0.0 --api-key "$KEY" --images 4

Ctrl-C, or SIGTERM, finishes what is being answered and ends; a second one ends at once.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import MissingDependencyError
from .arguments import Parser, add_model_options, number, whole_number
from .terminal import load_model

if TYPE_CHECKING:
    from ..server.run import Server
    from ..server.settings import Limits, Settings
    from ..vlm import VLM

KEYS_VARIABLE = "SMOLVLM_API_KEYS"
SECONDS = "_s"  # how names of limits end that are in seconds
LIMITS = {
    "body_bytes": "of a request's body",
    "bodies_bytes": "of all bodies that are here at one time",
    "json_depth": "levels of a body's JSON",
    "body_s": "seconds for a body to come in",
    "chunk_s": "seconds without a byte of it",
    "header_s": "seconds for the headers to come in",
    "header_bytes": "of the headers",
    "messages": "messages of a request",
    "parts": "parts of all its messages",
    "text_chars": "characters of all its texts",
    "images": "pictures of a request",
    "videos": "videos of a request",
    "frames": "frames of all its videos",
    "n": "answers of a request",
    "max_tokens": "tokens of an answer",
    "stop": "stop sequences",
    "stop_chars": "characters of one",
    "top_logprobs": "likeliest tokens told beside each chosen one",
    "questions": "questions of a decision",
    "choices": "choices of a question",
    "levels": "levels of a question",
    "schema_bytes": "of a JSON Schema or an expression",
    "encoded_bytes": "of one picture or video as it is sent",
    "picture_pixels": "pixels of a picture",
    "frame_pixels": "pixels of a video's frame",
    "decoded_bytes": "of everything in a request, decoded",
    "video_s": "seconds of a video",
    "video_streams": "streams of a video's file",
    "video_frames": "frames of a video's file",
    "fetch_bytes": "of a download",
    "fetched_bytes": "of all downloads of a request",
    "fetch_s": "seconds of a download",
    "redirects": "redirects of a download",
    "decode_s": "seconds to open all media of a request",
    "prompt_tokens": "tokens of a prompt",
    "queue": "requests that may wait; more are told to come back",
    "request_s": "seconds from a request's body to the end of its answer",
    "connections": "open connections",
    "workers": "processes that open media",
    "worker_bytes": "memory of one of them",
}


def add_arguments(parser: Parser) -> None:
    from ..server.settings import Settings

    usual = Settings()
    parser.usage = "smolvlm serve [options]"
    group = parser.add_argument_group("service")
    group.add_argument("--host", metavar="NAME", default=usual.host, help="to listen on; default: %(default)s")
    group.add_argument("--port", metavar="N", type=int, default=usual.port, help="default: %(default)s; 0: a free one")
    group.add_argument("--name", metavar="NAME", help="what clients call the model; default: as it was named here")
    group.add_argument(
        "--lora", metavar="NAME=DIR", action="append", default=[], type=_named_directory,
        help="a LoRA adapter that clients ask for under this name as the model; may repeat",
    )  # fmt: skip
    group.add_argument(
        "--new-tokens", metavar="N", type=whole_number, default=usual.new_tokens,
        help="of an answer, when a request doesn't say; default: %(default)s",
    )  # fmt: skip
    group.add_argument("--cache-bytes", metavar="N", type=whole_number, help="memory for the tokens of all requests")
    group.add_argument(
        "--grace-s", metavar="S", type=number, default=usual.grace_s,
        help="seconds for running answers at the end; default: %(default)g",
    )  # fmt: skip
    group.add_argument(
        "--leave-s", metavar="S", type=number, default=usual.leave_s,
        help="seconds before that, in which requests are still taken and /ready says no; default: %(default)g",
    )  # fmt: skip
    group.add_argument("--no-page", action="store_true", help="no page at /, the service alone")
    _add_access_options(parser)
    _add_limits(parser, usual.limits)
    add_model_options(parser)


def _add_access_options(parser: Parser) -> None:
    group = parser.add_argument_group("access")
    add = group.add_argument
    add("--api-key", metavar="KEY", action="append", default=[],
        help=f"clients must send it; may repeat; also from ${KEYS_VARIABLE}, with commas between")  # fmt: skip
    add("--allowed-host", metavar="NAME", action="append", default=[], help="a name that this server is called by")
    add("--cors-origin", metavar="URL", action="append", default=[], help="a site whose pages may use it; '*': any")
    add("--allow-url", action="store_true", help="fetch pictures and videos from http(s) addresses, under guard")
    add(
        "--allowed-url-host", metavar="NAME", action="append", default=[], help="from these hosts only; '.x.org': below"
    )
    add("--url-port", metavar="N", type=whole_number, action="append", help="to fetch from; default: 80 and 443")
    add("--allowed-network", metavar="NET", action="append", default=[], help="a private network to fetch from, too")
    add("--media-root", metavar="DIR", type=Path, help="files in it may be named by file: addresses")


def _add_limits(parser: Parser, usual: Limits) -> None:
    """One option a field of Limits."""
    group = parser.add_argument_group("limits, the most of each")
    for name, meaning in LIMITS.items():
        seconds, most = name.endswith(SECONDS), getattr(usual, name)
        group.add_argument(
            f"--{name.replace('_', '-')}", metavar="S" if seconds else "N", type=number if seconds else _count,
            default=most, help=f"{meaning}; default: {'what the model holds' if most is None else f'{most:,}'}",
        )  # fmt: skip


def run(options: argparse.Namespace) -> int:
    settings = read_settings(options)
    server_type = _server_type()
    logging.basicConfig(format="smolvlm: %(levelname)s: %(message)s", level=logging.WARNING)
    server = server_type(lambda: _load(options), settings)
    if not options.quiet:
        print(f"smolvlm: {server.url} is the page, {server.url}/v1 for clients. Ctrl-C ends it.", file=sys.stderr)
        if not settings.loopback and not settings.api_keys:
            print("smolvlm: warning: whoever reaches this machine can use it: set --api-key.", file=sys.stderr)
    server.serve_until_stopped()
    return 0


def read_settings(options: argparse.Namespace) -> Settings:
    """Raises ConfigError for options that contradict each other."""
    from ..server.settings import Limits, Settings

    keys = [*options.api_key, *(key.strip() for key in os.environ.get(KEYS_VARIABLE, "").split(",") if key.strip())]
    return Settings(
        host=options.host,
        port=options.port,
        name=options.name,
        api_keys=tuple(keys),
        hosts=tuple(options.allowed_host),
        cors_origins=tuple(options.cors_origin),
        allow_url=options.allow_url,
        allowed_url_hosts=tuple(options.allowed_url_host),
        allowed_networks=tuple(options.allowed_network),
        url_ports=tuple(options.url_port or Settings.url_ports),
        media_root=options.media_root,
        page=not options.no_page,
        new_tokens=options.new_tokens,
        grace_s=options.grace_s,
        leave_s=options.leave_s,
        limits=Limits(**{name: getattr(options, name) for name in LIMITS}),
    )


def _load(options: argparse.Namespace) -> VLM:
    vlm = load_model(options, cache_bytes=options.cache_bytes)
    for name, directory in options.lora:
        vlm.add_adapter(name, directory)
    if not options.quiet:
        print(f"smolvlm: {vlm.name} is ready.", file=sys.stderr)
    return vlm


def _server_type() -> type[Server]:
    """Raises MissingDependencyError without the extra."""
    try:
        from ..server.run import Server
    except ImportError as error:
        raise MissingDependencyError(f"{error.name} isn't installed: pip install 'smolvlm[server]'") from error
    return Server


def _count(text: str) -> int:
    """Zero is for limits that may forbid a thing; the others are checked with the settings."""
    return int(text)


def _named_directory(text: str) -> tuple[str, str]:
    name, _, directory = text.partition("=")
    if not name or not directory:
        raise argparse.ArgumentTypeError(f"{text!r} is no NAME=DIRECTORY, such as receipts=runs/receipts")
    return name, directory
