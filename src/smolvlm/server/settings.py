"""What a server allows: its limits, and what it is exposed to. Values only, checked once; every default is a safe one.

Who enforces which limit stands beside it: guard.py before a body is read to its end, parts.py before anything is
decoded, kitchen.py and the media door while it is. `smolvlm serve` has an option for each field.
"""

from __future__ import annotations

import ipaddress
import os
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..errors import ConfigError

MEGABYTE = 1_000_000
LOOPBACK_NAMES = ("localhost", "127.0.0.1", "::1")


@dataclass(frozen=True)
class Limits:
    """The most a client may ask for. None means: what the model holds. Raises ConfigError for a limit below its least.

    Of a request as it comes in (guard.py): body_bytes; bodies_bytes, of all that are here at one time; json_depth,
    levels of brackets; body_s, seconds for the whole body; chunk_s, seconds without a byte of it; header_s, seconds
    for the request line and headers; header_bytes.
    Of what it asks (parts.py): messages, parts of all messages together, text_chars of all texts together; images,
    videos, frames (of all videos together); n; max_tokens; stop strings, stop_chars of one; top_logprobs; questions,
    choices and levels of decisions; schema_bytes.
    Of its media (kitchen.py): encoded_bytes of one file, picture_pixels, frame_pixels, decoded_bytes of everything in
    one request, video_s seconds of one video, video_streams, video_frames that its file may hold; fetch_bytes, fetch_s
    and redirects of a download, fetched_bytes of all of a request; decode_s, seconds to open and prepare everything;
    prompt_tokens.
    Of the server: queue, requests that may wait; request_s, seconds from a request's body to its last byte;
    connections; workers that decode; worker_bytes, memory of one.
    """

    body_bytes: int = 64 * MEGABYTE
    bodies_bytes: int = 1_000 * MEGABYTE
    json_depth: int = 64
    body_s: float = 60.0
    chunk_s: float = 10.0
    header_s: float = 10.0
    header_bytes: int = 32_768

    messages: int = 1024
    parts: int = 4096
    text_chars: int = MEGABYTE
    images: int = 32
    videos: int = 4
    frames: int = 256
    n: int = 8
    max_tokens: int | None = None
    stop: int = 4
    stop_chars: int = 256
    top_logprobs: int = 20
    questions: int = 400
    choices: int = 255
    levels: int = 255
    schema_bytes: int = 65_536

    encoded_bytes: int = 48 * MEGABYTE
    picture_pixels: int = 64 * MEGABYTE
    frame_pixels: int = 10 * MEGABYTE
    decoded_bytes: int = 2_000 * MEGABYTE
    video_s: float = 3600.0
    video_streams: int = 16
    video_frames: int = 500_000
    fetch_bytes: int = 48 * MEGABYTE
    fetched_bytes: int = 128 * MEGABYTE
    fetch_s: float = 10.0
    redirects: int = 3
    decode_s: float = 60.0
    prompt_tokens: int | None = None

    queue: int = 64
    request_s: float = 300.0
    connections: int = 512
    workers: int = field(default_factory=lambda: max(1, min(4, os.cpu_count() or 1)))
    worker_bytes: int = 4_000 * MEGABYTE

    def __post_init__(self) -> None:
        for one in fields(self):
            value, least = getattr(self, one.name), 0 if one.name in _MAY_BE_NONE_AT_ALL else 1
            if value is None and one.name in ("max_tokens", "prompt_tokens"):
                continue
            if isinstance(value, bool) or not isinstance(value, int | float) or not _at_least(one.name, value, least):
                raise ConfigError(
                    f"The limit {one.name}={value!r} can't be used: it must be "
                    + ("a number above 0 of seconds." if one.name.endswith("_s") else f"a whole number from {least}.")
                )


_MAY_BE_NONE_AT_ALL = ("images", "videos", "frames", "redirects", "top_logprobs", "stop")


def _at_least(name: str, value: float, least: int) -> bool:
    if name.endswith("_s"):
        return 0 < value < float("inf")
    return isinstance(value, int) and value >= least


@dataclass(frozen=True)
class Settings:
    """How a server is exposed, and its limits. Raises ConfigError for values that contradict each other.

    host, port: what it listens on; port 0 takes a free one. name: of the model in /v1/models; None is the model's own.
    api_keys: a client must send one of them as `Authorization: Bearer ...`; () asks for none. hosts: names in the
    Host header that are answered beside loopback's; () allows all when host is not a loopback address.
    cors_origins: pages of other origins that may call, such as "https://example.org"; () allows none; "*" allows all.
    allow_url: fetch pictures and videos from http(s) addresses of public hosts, under guard. allowed_url_hosts: of
    these hosts only ("example.org", ".example.org" for all below it); () is every public one. url_ports: to connect to.
    allowed_networks: private networks that may be fetched from all the same, such as "10.1.0.0/16".
    media_root: a directory whose files may be named by file: addresses; None refuses all local paths.
    page: serve the web page at /. new_tokens: most tokens of an answer when a request doesn't say how many. When the
    server is told to stop, it takes requests for leave_s more seconds, while /ready says no; then running answers get
    grace_s seconds.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    name: str | None = None
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    hosts: tuple[str, ...] = ()
    cors_origins: tuple[str, ...] = ()
    allow_url: bool = False
    allowed_url_hosts: tuple[str, ...] = ()
    url_ports: tuple[int, ...] = (80, 443)
    allowed_networks: tuple[str, ...] = ()
    media_root: Path | None = None
    page: bool = True
    new_tokens: int = 1024
    leave_s: float = 0.0
    grace_s: float = 30.0
    limits: Limits = field(default_factory=Limits)

    def __post_init__(self) -> None:
        if not 0 <= self.port <= 65535:
            raise ConfigError(f"port={self.port} is no port: it must be 1 to 65535, or 0 for any free one.")
        if any(len(key) < 8 or not key.isascii() or not key.isprintable() or " " in key for key in self.api_keys):
            raise ConfigError("An API key must be at least 8 printable ASCII characters without a space.")
        if self.allowed_url_hosts and not self.allow_url:
            raise ConfigError("Hosts to fetch from are named, but fetching is off: add --allow-url.")
        if not self.url_ports or not all(0 < port <= 65535 for port in self.url_ports):
            raise ConfigError(f"url_ports={self.url_ports} must be ports from 1 to 65535, at least one.")
        if self.new_tokens < 1 or min(self.leave_s, self.grace_s) < 0:
            raise ConfigError("new_tokens must be at least 1, and leave_s and grace_s seconds from 0.")
        _check_networks(self.allowed_networks)
        if self.media_root is not None:
            if not self.media_root.expanduser().is_dir():
                raise ConfigError(f"The media root {str(self.media_root)!r} is no directory.")
            object.__setattr__(self, "media_root", self.media_root.expanduser().resolve())

    @property
    def loopback(self) -> bool:
        """Whether only this machine can reach the server."""
        if self.host in LOOPBACK_NAMES:
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False


def _check_networks(networks: tuple[str, ...]) -> None:
    for network in networks:
        try:
            ipaddress.ip_network(network)
        except ValueError as error:
            raise ConfigError(f"{network!r} is no network: {error}. Write it as 10.1.0.0/16.") from error
