"""The guarded download, against servers on loopback that behave well and badly. Loopback itself is let in by policy."""

from __future__ import annotations

import ipaddress
import shutil
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from smolvlm.errors import FetchError, ImageError
from smolvlm.media import source as door
from smolvlm.media.fetch import FetchPolicy, fetch, is_public
from smolvlm.media.image import ImageLimits, open_image

LOOPBACK = FetchPolicy(allowed_networks=("127.0.0.1/32",))
Talk = Callable[[socket.socket, str], None]


@contextmanager
def server(talk: Talk) -> Iterator[str]:
    """A server that hands each connection and its request line to `talk`. Yields its address."""
    listener = socket.create_server(("127.0.0.1", 0))
    listener.settimeout(0.1)
    stop = threading.Event()

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                continue
            with connection:
                connection.settimeout(2)
                try:
                    request = b""
                    while b"\r\n\r\n" not in request and (more := connection.recv(4096)):
                        request += more
                    talk(connection, request.decode(errors="replace"))
                except OSError:
                    continue

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        stop.set()
        thread.join()
        listener.close()


def answer(body: bytes, status: str = "200 OK", **headers: str) -> Talk:
    lines = {"Content-Length": str(len(body)), **{name.replace("_", "-"): value for name, value in headers.items()}}
    head = f"HTTP/1.1 {status}\r\n" + "".join(f"{name}: {value}\r\n" for name, value in lines.items() if value) + "\r\n"

    def talk(connection: socket.socket, _: str) -> None:
        connection.sendall(head.encode() + body)

    return talk


def test_a_body_comes_back_whole() -> None:
    seen: list[str] = []

    def talk(connection: socket.socket, request: str) -> None:
        seen.append(request)
        answer(b"x" * 100_000)(connection, request)

    with server(talk) as address:
        assert fetch(address + "/a b.png".replace(" ", "%20") + "?q=1&r=%2F", policy=LOOPBACK) == b"x" * 100_000
    assert seen[0].startswith("GET /a%20b.png?q=1&r=%2F HTTP/1.1\r\n")
    assert "Accept-Encoding: identity" in seen[0]
    assert f"Host: {address.removeprefix('http://')}\r\n" in seen[0]


def test_a_chunked_body_comes_back_whole() -> None:
    def talk(connection: socket.socket, _: str) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n")

    with server(talk) as address:
        assert fetch(address, policy=LOOPBACK) == b"abcde"


def test_a_letter_outside_ascii_is_encoded() -> None:
    seen: list[str] = []

    def talk(connection: socket.socket, request: str) -> None:
        seen.append(request)
        answer(b"x")(connection, request)

    with server(talk) as address:
        fetch(address + "/ä.png", policy=LOOPBACK)
    assert seen[0].startswith("GET /%C3%A4.png ")


@pytest.mark.parametrize("status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"])
def test_a_redirect_is_followed(status: str) -> None:
    def talk(connection: socket.socket, request: str) -> None:
        if request.startswith("GET /old "):
            answer(b"", status, Location="/new")(connection, request)
        else:
            answer(b"found")(connection, request)

    with server(talk) as address:
        assert fetch(address + "/old", policy=LOOPBACK) == b"found"


def test_redirects_are_counted() -> None:
    with server(answer(b"", "302 Found", Location="/again")) as address, pytest.raises(FetchError, match="more than 3"):
        fetch(address + "/start", policy=LOOPBACK)


@pytest.mark.parametrize(
    "target,part",
    [
        ("http://127.0.0.2/secret", "127.0.0.2"),
        ("http://169.254.169.254/latest/meta-data/", "169.254.169.254"),
        ("http://[::1]/", "::1"),
        ("http://10.0.0.1/", "10.0.0.1"),
        ("http://0.0.0.0/", "0.0.0.0"),
        ("http://2130706434/", "as a number"),
        ("file:///etc/passwd", "'file'"),
        ("ftp://127.0.0.1/x", "'ftp'"),
        ("data:text/plain,hello", "'data'"),
        ("http://user:word@127.0.0.1/", "user name"),
    ],
)
def test_a_redirect_is_checked_like_the_first_address(target: str, part: str) -> None:
    with server(answer(b"", "302 Found", Location=target)) as address, pytest.raises(FetchError) as error:
        fetch(address, policy=LOOPBACK)
    assert part in str(error.value)


PRIVATE = [
    *["127.0.0.1", "127.8.9.1", "10.1.2.3", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"],
    *["100.64.0.1", "100.100.100.200", "0.0.0.0", "255.255.255.255", "224.0.0.1", "239.1.1.1", "240.0.0.1"],
    *["192.0.0.192", "192.0.2.1", "198.18.0.1", "198.51.100.7", "203.0.113.9", "168.63.129.16", "192.88.99.1"],
    *["::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "fec0::1", "2001:db8::1", "100::1"],
    *["::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::127.0.0.1", "::a00:1"],
    *["64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "64:ff9b:1::1", "2002:7f00:1::", "2002:a9fe:a9fe::1"],
    *["2001:0:7f00:1::", "2001:0:4136:e378:8000:63bf:80ff:fffe"],
]
PUBLIC = ["8.8.8.8", "93.184.216.34", "1.1.1.1", "2606:4700:4700::1111", "2a00:1450::1", "::ffff:8.8.8.8"]
PUBLIC += ["64:ff9b::808:808", "2002:808:808::1"]


@pytest.mark.parametrize("address", PRIVATE)
def test_an_address_that_is_not_public_is_refused_after_the_look_up(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))
    policy = FetchPolicy(resolve=lambda host, port: [address])
    with pytest.raises(FetchError, match="not an address of the open internet"):
        fetch("http://innocent.example/cat.png", policy=policy)


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_pass_the_guard(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


def test_one_private_address_among_public_ones_is_enough_to_refuse() -> None:
    policy = FetchPolicy(resolve=lambda host, port: ["8.8.8.8", "10.0.0.1"])
    with pytest.raises(FetchError, match="10.0.0.1"):
        fetch("http://mixed.example/", policy=policy)


@pytest.mark.parametrize(
    "host", ["localhost", "127.0.0.1", "127.1", "0x7f000001", "2130706433", "[::1]", "017700000001"]
)
def test_no_spelling_of_this_machine_gets_through(host: str) -> None:
    with pytest.raises(FetchError, match=r"not an address of the open internet|unknown|as a number"):
        fetch(f"http://{host}:9/")


def test_the_host_is_looked_up_once_and_connected_to_as_checked() -> None:
    """A host that answers differently the second time (rebinding) gains nothing."""
    asked: list[str] = []

    def resolve(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["127.0.0.1"] if len(asked) == 1 else ["127.0.0.9"]

    seen: list[str] = []

    def talk(connection: socket.socket, request: str) -> None:
        seen.append(request)
        answer(b"ok")(connection, request)

    with server(talk) as address:
        port = address.rpartition(":")[2]
        policy = FetchPolicy(resolve=resolve, allowed_networks=("127.0.0.1/32",))
        assert fetch(f"http://cats.example:{port}/", policy=policy) == b"ok"
    assert asked == ["cats.example"]
    assert f"Host: cats.example:{port}\r\n" in seen[0]


def test_an_unknown_host_is_named() -> None:
    with pytest.raises(FetchError, match=r"nowhere\.example.*unknown"):
        fetch("http://nowhere.example/cat.png", policy=FetchPolicy(resolve=lambda host, port: []))


@pytest.mark.parametrize(
    "url,part",
    [
        ("file:///etc/passwd", "'file'"),
        ("ftp://example.org/x", "'ftp'"),
        ("/etc/passwd", "''"),
        ("http:///path", "no host"),
        ("http://user:secret@example.org/", "user name"),
        ("http://example.org/a b", "space"),
        ("http://example.org/\r\nHost: evil", "control"),
        ("http://example.org\\@evil/", "backslash"),
        ("http://example.org:99999/", "example.org"),
        ("http://[::1/", "["),
    ],
)
def test_an_address_that_is_none_is_refused(url: str, part: str) -> None:
    with pytest.raises(FetchError) as error:
        fetch(url, policy=FetchPolicy(resolve=lambda host, port: ["8.8.8.8"]))
    assert part in str(error.value)
    assert "secret" not in str(error.value)


def test_a_body_beyond_the_limit_is_not_read() -> None:
    with server(answer(b"x" * 2000)) as address, pytest.raises(FetchError, match="limit of 1,000 bytes"):
        fetch(address, max_bytes=1000, policy=LOOPBACK)


def test_a_body_that_hides_its_length_is_stopped_at_the_limit() -> None:
    sent = 0

    def talk(connection: socket.socket, _: str) -> None:
        nonlocal sent
        connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
        for _ in range(4000):
            connection.sendall(b"x" * 10_000)
            sent += 10_000

    with server(talk) as address, pytest.raises(FetchError, match="limit of 100,000 bytes"):
        fetch(address, max_bytes=100_000, policy=LOOPBACK)
    assert sent < 20_000_000


def drip(first: bytes, pause_s: float = 0.05) -> Talk:
    def talk(connection: socket.socket, _: str) -> None:
        connection.sendall(first)
        for _ in range(200):
            connection.sendall(b"x")
            time.sleep(pause_s)

    return talk


@pytest.mark.parametrize(
    "first", [b"", b"HTTP/1.1 200 OK\r\nX-", b"HTTP/1.1 200 OK\r\n\r\n"], ids=["status", "header", "body"]
)
def test_a_server_that_drips_is_left_at_the_deadline(first: bytes) -> None:
    with server(drip(first)) as address:
        start = time.monotonic()
        with pytest.raises(FetchError, match=r"within 0\.4 s"):
            fetch(address, timeout_s=0.4, policy=LOOPBACK)
        assert time.monotonic() - start < 2


def test_a_server_that_says_nothing_is_left_at_the_deadline() -> None:
    with server(lambda connection, request: time.sleep(1.5)) as address, pytest.raises(FetchError, match="within"):
        fetch(address, timeout_s=0.3, policy=LOOPBACK)


def test_a_look_up_that_hangs_is_left_at_the_deadline() -> None:
    def resolve(host: str, port: int) -> list[str]:
        time.sleep(2)
        return ["8.8.8.8"]

    start = time.monotonic()
    with pytest.raises(FetchError, match="within"):
        fetch("http://slow.example/", timeout_s=0.2, policy=FetchPolicy(resolve=resolve))
    assert time.monotonic() - start < 1.5


@pytest.mark.parametrize(
    "talk,part",
    [
        (answer(b"no", "404 Not Found"), "404"),
        (answer(b"no", "500 Oops"), "500"),
        (answer(b"", "302 Found"), "302"),
        (answer(b"zzz", Content_Encoding="gzip"), "gzip"),
        (answer(b"abc", Content_Length="10"), "broke off"),
        (lambda connection, request: connection.sendall(b"SSH-2.0-OpenSSH\r\n"), "can't be downloaded"),
        (lambda connection, request: None, "can't be downloaded"),
    ],
    ids=["404", "500", "redirect nowhere", "compressed", "cut off", "not http", "nothing"],
)
def test_an_answer_that_is_no_file_is_an_error(talk: Talk, part: str) -> None:
    with server(talk) as address, pytest.raises(FetchError) as error:
        fetch(address + "/cat.png?token=secret", policy=LOOPBACK)
    assert part in str(error.value)
    assert "secret" not in str(error.value)


def test_a_closed_port_is_an_error() -> None:
    with pytest.raises(FetchError, match="can't be downloaded"):
        fetch("http://127.0.0.1:1/", policy=LOOPBACK)


def test_a_plain_server_is_no_https_server() -> None:
    with server(answer(b"x")) as address, pytest.raises(FetchError, match="can't be downloaded"):
        fetch(address.replace("http:", "https:"), timeout_s=5, policy=LOOPBACK)


@pytest.fixture
def secure_server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """The port of an https server whose certificate names cats.example and is trusted here."""
    if not shutil.which("openssl"):
        pytest.skip("openssl, which makes the certificate, isn't installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    made = "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 2 -subj /CN=cats.example"
    names = ["-addext", "subjectAltName=DNS:cats.example", "-keyout", str(key), "-out", str(certificate)]
    subprocess.run(["openssl", *made.split(), *names], check=True, capture_output=True)
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        try:
            connection, _ = listener.accept()
            with context.wrap_socket(connection, server_side=True) as encrypted:
                encrypted.recv(4096)
                answer(b"safe")(encrypted, "")
        except OSError:
            return

    threading.Thread(target=serve, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def test_https_is_checked_against_the_name_and_connected_to_the_address(secure_server: int) -> None:
    policy = FetchPolicy(allowed_networks=("127.0.0.1/32",), resolve=lambda host, port: ["127.0.0.1"])
    assert fetch(f"https://cats.example:{secure_server}/", policy=policy, timeout_s=5) == b"safe"


def test_a_certificate_of_another_name_is_refused(secure_server: int) -> None:
    policy = FetchPolicy(allowed_networks=("127.0.0.1/32",), resolve=lambda host, port: ["127.0.0.1"])
    with pytest.raises(FetchError, match="(?i)certificate"):
        fetch(f"https://dogs.example:{secure_server}/", policy=policy, timeout_s=5)


def test_https_never_falls_back_to_http() -> None:
    from smolvlm.media.fetch import _follow

    with pytest.raises(FetchError, match="from https"):
        _follow("https://cats.example/a", "http://cats.example/b")


def test_a_fetched_file_is_judged_by_its_bytes_not_by_its_header(monkeypatch: pytest.MonkeyPatch) -> None:
    def loopback_fetch(url: str, **limits: float) -> bytes:
        return fetch(url, policy=LOOPBACK, max_bytes=int(limits["max_bytes"]), timeout_s=limits["timeout_s"])

    monkeypatch.setattr(door, "fetch", loopback_fetch)
    with server(answer(b"<svg/>", Content_Type="image/png")) as address, pytest.raises(ImageError, match="SVG"):
        open_image(address + "/cat.png", allow_url=True)
    with server(answer(b"x" * 5000)) as address, pytest.raises(FetchError, match="limit of 4,000"):
        open_image(address + "/cat.png", allow_url=True, limits=ImageLimits(max_bytes=4000))
