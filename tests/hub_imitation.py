"""A small Hugging Face hub on loopback: the requests that huggingface_hub makes to find and download a model.

Answers in the shapes of the real hub (model info, file tree, HEAD and GET of a file with ETag, commit and ranges),
writes down every request, and can cut a connection or demand a token.
"""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import unquote, urlsplit

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@dataclass(frozen=True)
class Request:
    method: str
    path: str
    headers: dict[str, str]  # names in lower case


@dataclass
class Hub:
    """repositories: id -> file name -> content. cut_after: file name -> bytes sent before its first answer breaks."""

    repositories: dict[str, dict[str, bytes]]
    token: str | None = None
    cut_after: dict[str, int] = field(default_factory=dict)
    status: int | None = None  # every request is answered with this status
    requests: list[Request] = field(default_factory=list)
    endpoint: str = ""

    def downloads(self) -> list[str]:
        """Names of the files asked for with GET, in order."""
        return [r.path.rsplit("/", 1)[1] for r in self.requests if r.method == "GET" and "/resolve/" in r.path]


@contextmanager
def serve(hub: Hub) -> Iterator[Hub]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    hub.endpoint = f"http://127.0.0.1:{server.server_port}"
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *args: object) -> None:
            pass

        def do_GET(self) -> None:
            self._answer(with_body=True)

        def do_HEAD(self) -> None:
            self._answer(with_body=False)

        def _answer(self, with_body: bool) -> None:
            path = unquote(urlsplit(self.path).path)
            headers = {name.lower(): value for name, value in self.headers.items()}
            hub.requests.append(Request(self.command, path, headers))
            if hub.status is not None:
                return self._send(hub.status, b"{}", with_body)
            if hub.token is not None and headers.get("authorization") != f"Bearer {hub.token}":
                return self._refuse(401, "RepoNotFound", with_body)
            is_api = path.startswith("/api/models/")
            owner, name, *rest = path.removeprefix("/api/models" if is_api else "").strip("/").split("/")
            files = hub.repositories.get(f"{owner}/{name}")
            if files is None:
                return self._refuse(404, "RepoNotFound", with_body)
            match rest:
                case [] | ["revision", _] if is_api and rest[1:] in ([], ["main"], [COMMIT]):
                    info = {"_id": "0", "id": f"{owner}/{name}", "sha": COMMIT, "private": False, "tags": []}
                    info["siblings"] = [{"rfilename": file} for file in files]
                    return self._send(200, json.dumps(info).encode(), with_body)
                case ["tree", revision] if is_api and revision in (COMMIT, "main"):
                    tree = [{"type": "file", "path": p, "size": len(c), "oid": _etag(c)} for p, c in files.items()]
                    return self._send(200, json.dumps(tree).encode(), with_body)
                case ["resolve", revision, *parts] if revision in (COMMIT, "main"):
                    if "/".join(parts) not in files:
                        return self._refuse(404, "EntryNotFound", with_body)
                    return self._send_file("/".join(parts), files["/".join(parts)], headers, with_body)
            return self._refuse(404, "RevisionNotFound", with_body)

        def _refuse(self, status: int, code: str, with_body: bool) -> None:
            self._send(status, b'{"error": "refused"}', with_body, {"X-Error-Code": code, "X-Error-Message": "refused"})

        def _send_file(self, name: str, content: bytes, headers: dict[str, str], with_body: bool) -> None:
            start = int(headers["range"].removeprefix("bytes=").split("-")[0]) if "range" in headers else 0
            extra = {"ETag": f'"{_etag(content)}"', "X-Repo-Commit": COMMIT, "Accept-Ranges": "bytes"}
            if start:
                extra["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            cut = hub.cut_after.pop(name, None) if with_body else None
            self._send(206 if start else 200, content[start:], with_body, extra, cut)

        def _send(
            self, status: int, body: bytes, with_body: bool, extra: dict[str, str] | None = None, cut: int | None = None
        ) -> None:
            self.send_response(status)
            for key, value in {"Content-Type": "application/json", **(extra or {})}.items():
                self.send_header(key, value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            if with_body:
                self.wfile.write(body if cut is None else body[:cut])
            if cut is not None:
                self.close_connection = True

    return Handler


def _etag(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()
