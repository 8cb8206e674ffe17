"""Addresses that try to make the server fetch what only it can reach: each is refused, and nothing is connected to.

A resolver records what is looked up, and listeners on loopback what is connected to. Names that are not in the table
lead to this machine, and the listener's port is allowed: whatever slipped through would be seen.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

import pytest

from smolvlm.errors import FetchError
from smolvlm.media.fetch import FetchPolicy
from smolvlm.server.failures import RequestError
from smolvlm.server.settings import Settings
from smolvlm.server.sources import Access, Reference, fill, refer

FRONT = "127.0.0.2"  # plays a host of the open internet: the one private address that the policy lets in
NAMES = {
    "front.example": [FRONT],
    "metadata.google.internal": ["169.254.169.254"],
    "metadata.azure.com": ["168.63.129.16"],
    "instance-data.ec2.internal": ["169.254.169.254"],
    "ten.example": ["10.0.0.7"],
    "six.example": ["::1"],
    "local-six.example": ["fd00:ec2::254"],
    "linked.example": ["fe80::1"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "nat64.example": ["64:ff9b::7f00:1"],
    "sixtofour.example": ["2002:7f00:1::"],
    "teredo.example": ["2001:0:7f00:1::"],
    "mixed.example": [FRONT, "127.0.0.1"],
    "mixed-six.example": ["::1", FRONT],
    "carrier.example": ["100.64.0.1"],
    "zero.example": ["0.0.0.0"],
    "broadcast.example": ["255.255.255.255"],
    "many.example": ["224.0.0.1"],
    "translated.example": ["::ffff:0:127.0.0.1"],
    "zoned.example": ["fe80::1%1"],
    "unknown.example": [],
}

# {port} is the listener's. What a name resolves to is above; unknown ones resolve to 127.0.0.1.
FORMS = [
    # this machine, spelled in every way
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://LOCALHOST:{port}/", "http://localhost.:{port}/",
    "http://127.0.0.1.:{port}/", "http://127.1:{port}/", "http://127.0.1:{port}/", "http://0:{port}/",
    "http://0.0.0.0:{port}/", "http://2130706433:{port}/", "http://017700000001:{port}/", "http://0x7f000001:{port}/",
    "http://0x7f.0.0.1:{port}/", "http://0177.0.0.1:{port}/", "http://127.0.0.0x1:{port}/", "http://127.0.0.01:{port}/",
    "http://0x7f.1:{port}/", "http://00000177.0.0.1:{port}/", "http://127.0.0.1.0x7f000001:{port}/",
    "http://4294967297:{port}/", "http://127.255.255.254:{port}/", "http://localhost.localdomain:{port}/",
    "http://127.0.0.1.nip.example:{port}/", "http://localtest.me:{port}/",
    # IPv6, and IPv4 inside it
    "http://[::1]:{port}/", "http://[::]:{port}/", "http://[0:0:0:0:0:0:0:1]:{port}/",
    "http://[::ffff:127.0.0.1]:{port}/", "http://[::ffff:7f00:1]:{port}/", "http://[::127.0.0.1]:{port}/",
    "http://[64:ff9b::127.0.0.1]:{port}/", "http://[64:ff9b:1::7f00:1]:{port}/", "http://[2002:7f00:1::]:{port}/",
    "http://[2002:a9fe:a9fe::1]:{port}/", "http://[2001:0:7f00:1::]:{port}/", "http://[fe80::1%25lo]:{port}/",
    "http://[fe80::1%lo]:{port}/", "http://[::1%25]:{port}/", "http://[fd00:ec2::254]:{port}/", "http://[fc00::1]/",
    "http://[fec0::1]:{port}/", "http://[ff02::1]:{port}/", "http://[::ffff:0:7f00:1]:{port}/", "http://[::ffff:a00:1]/",
    "http://[100::1]:{port}/", "http://[v1.127.0.0.1]:{port}/", "http://[127.0.0.1]:{port}/", "http://[::1:{port}/",
    # private networks, metadata services
    "http://10.0.0.1:{port}/", "http://172.16.0.1/", "http://192.168.0.1/", "http://100.64.0.1/", "http://198.18.0.1/",
    "http://169.254.169.254/latest/meta-data/", "http://169.254.170.2/v2/credentials", "http://100.100.100.200/",
    "http://192.0.0.192/", "http://168.63.129.16/", "http://0xa9fea9fe/", "http://2852039166/", "http://0xa9.0xfe.0xa9.0xfe/",
    "http://0251.0376.0251.0376/", "http://425.510.425.510/", "http://metadata.google.internal/computeMetadata/v1/",
    "http://metadata.azure.com/", "http://instance-data.ec2.internal/", "http://224.0.0.1/", "http://255.255.255.255/",
    # names that lead there
    *(f"http://{name}:{{port}}/" for name in NAMES if name != "front.example"),
    # user names, and parsers that disagree
    "http://front.example@127.0.0.1:{port}/", "http://user:word@front.example:{port}/", "http://127.0.0.1:{port}@front.example/",
    "http://front.example:{port}@127.0.0.1:{port}/", "http://front.example%40127.0.0.1:{port}/",
    "http://front.example#@127.0.0.1:{port}\\@front.example/", "http://127.0.0.1:{port}\\@front.example/",
    "http:\\\\127.0.0.1:{port}/", "http://front.example\\.127.0.0.1:{port}/", "http:///127.0.0.1:{port}/",
    "http:/127.0.0.1:{port}/", "http:127.0.0.1:{port}", "http://@127.0.0.1:{port}/", "http://:@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}:80/", "http://127.0.0.1%23.front.example:{port}/", "http://127.0.0.1%00.front.example:{port}/",
    "http://127.0.0.1;front.example:{port}/", "http://127.0.0.1,front.example:{port}/", "http://front.example,127.0.0.1/",
    "http://127。0。0。1:{port}/", "http://①②⑦.⓪.⓪.①:{port}/", "http://１２７.0.0.1:{port}/", "http://127．0．0．1:{port}/",
    "http://ⓛocalhost:{port}/", "http://localho\u017ft:{port}/", "http://127\u00ad.0.0.1:{port}/", "http://loc\u200balhost:{port}/",
    "http://%31%32%37.0.0.1:{port}/", "http://127.0.0.1%2f@front.example/", "http://%6cocalhost:{port}/", "http://localhost%2e:{port}/",
    # control characters
    "http://127.0.0.1:{port}/\r\nHost: front.example", "http://front.example:{port}/\r\nX: y", "http://fr\tont.example:{port}/",
    "http://127.0.0.1\n:{port}/", "http://127.0.0.1 :{port}/", "http://\x00127.0.0.1:{port}/", "http://127.0.0.1:{port}/\x00",
    "http://front.example:{port}/\x7f", "ht\ntp://127.0.0.1:{port}/", " http://127.0.0.1:{port}/",
    # ports
    "http://front.example:22/", "http://front.example:6379/", "http://front.example:0/", "http://front.example:65536/",
    "http://front.example:-1/", "http://front.example:{port}x/", "http://front.example:99999999999/", "http://127.0.0.1:0{port}/",
    "http://front.example:/../127.0.0.1:{port}", "https://front.example:25/",
    # schemes
    "file:///etc/passwd", "file://127.0.0.1:{port}/etc/passwd", "FILE:///etc/passwd", "file:/etc/passwd",
    "file:etc/passwd",
    "ftp://127.0.0.1:{port}/x", "gopher://127.0.0.1:{port}/_x", "dict://127.0.0.1:{port}/x", "ldap://127.0.0.1:{port}/x",
    "sftp://127.0.0.1:{port}/x", "tftp://127.0.0.1:{port}/x", "jar:http://127.0.0.1:{port}/!/", "unix:///var/run/docker.sock",
    "http+unix://%2Fvar%2Frun%2Fdocker.sock/", "ws://127.0.0.1:{port}/", "rtsp://127.0.0.1:{port}/", "rtmp://127.0.0.1:{port}/",
    "concat:http://127.0.0.1:{port}/|x", "subfile,,start,0,end,9,,:/etc/passwd", "crypto:http://127.0.0.1:{port}/",
    "hls+http://127.0.0.1:{port}/x.m3u8", "tcp://127.0.0.1:{port}", "udp://127.0.0.1:{port}", "pipe:0", "cache:http://127.0.0.1/",
    "javascript:alert(1)", "blob:http://127.0.0.1:{port}/x", "view-source:http://127.0.0.1:{port}/", "about:blank",
    "netdoc:///etc/passwd", "php://filter/resource=/etc/passwd", "expect://id", "phar:///x", "s3://bucket/key", "gs://bucket/key",
    "//127.0.0.1:{port}/", "/etc/passwd", "../../etc/passwd", "C:\\Windows\\win.ini", "\\\\127.0.0.1\\share\\x",
    "~/.ssh/id_rsa",
]  # fmt: skip
REDIRECTS = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://[::1]:{port}/", "http://2130706433:{port}/",
    "http://0x7f000001:{port}/", "http://127.1:{port}/", "//127.0.0.1:{port}/", "///127.0.0.1:{port}/",
    "http://ten.example/", "http://six.example:{port}/", "http://169.254.169.254/", "http://metadata.google.internal/",
    "http://user:word@front.example:{port}/", "http://front.example@127.0.0.1:{port}/", "file:///etc/passwd",
    "ftp://127.0.0.1:{port}/", "gopher://127.0.0.1:{port}/_x", "data:image/png;base64,AAAA", "http://front.example:22/",
    "http:\\\\127.0.0.1:{port}/", "http://127。0。0。1:{port}/", "http://mapped.example:{port}/", "http://unknown.example/",
    "concat:http://127.0.0.1:{port}/",
]  # fmt: skip


@dataclass
class World:
    """A front host that redirects, a listener that nobody may reach, and a resolver that remembers."""

    port: int = 0
    location: str = ""
    asked: list[str] = field(default_factory=list)
    reached: list[str] = field(default_factory=list)
    front_requests: int = 0
    changes: bool = False

    def resolve(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if self.changes:
            return [FRONT] if len(self.asked) == 1 else ["127.0.0.1"]
        if host in NAMES:
            return NAMES[host]
        try:
            return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)]
        except (OSError, UnicodeError):
            return ["127.0.0.1"]

    @property
    def access(self) -> Access:
        policy = FetchPolicy(resolve=self.resolve, allowed_networks=(f"{FRONT}/32",), ports=(80, 443, self.port))
        return replace(Access.of(self.settings), policy=policy)

    @property
    def settings(self) -> Settings:
        return Settings(allow_url=True, url_ports=(80, 443, self.port))


@pytest.fixture
def world() -> Iterator[World]:
    world = World()
    victims, stop, threads = [], threading.Event(), []
    first = socket.create_server(("127.0.0.1", 0))
    world.port = first.getsockname()[1]
    victims.append(first)
    try:
        victims.append(socket.create_server(("::1", world.port), family=socket.AF_INET6))
    except OSError:  # a machine without IPv6
        pass
    front = socket.create_server((FRONT, world.port))

    def listen(server: socket.socket) -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except OSError:
                continue
            with connection:
                if server is not front:
                    world.reached.append(str(server.getsockname()))
                    continue
                connection.settimeout(2)
                connection.recv(4096)
                world.front_requests += 1
                location = f"Location: {world.location}\r\n"
                connection.sendall(f"HTTP/1.1 302 Found\r\n{location}Content-Length: 0\r\n\r\n".encode())

    for server in (*victims, front):
        server.settimeout(0.05)
        threads.append(threading.Thread(target=listen, args=(server,), daemon=True))
        threads[-1].start()
    yield world
    stop.set()
    for thread in threads:
        thread.join()
    for server in (*victims, front):
        server.close()
    assert not world.reached, "something connected to an address that is nobody's business"


def try_to_fetch(url: str, world: World) -> Exception:
    """What a request with this address as its picture fails with."""
    with pytest.raises((RequestError, FetchError)) as error:
        fill(refer(url, "image", "picture 1", world.settings, "messages[0].content[0].image_url.url"), world.access)
    return error.value


@pytest.mark.parametrize("form", FORMS)
def test_an_address_that_leads_inside_is_refused(form: str, world: World) -> None:
    url = form.replace("{port}", str(world.port))
    error = try_to_fetch(url, world)
    assert world.front_requests == 0
    found = [address for addresses in NAMES.values() for address in addresses if address not in url]
    assert not [address for address in found if address in str(error)], "what names resolve to is not told"


@pytest.mark.parametrize("target", REDIRECTS)
def test_a_redirect_that_leads_inside_is_refused(target: str, world: World) -> None:
    world.location = target.replace("{port}", str(world.port))
    try_to_fetch(f"http://front.example:{world.port}/picture.png", world)
    assert world.front_requests >= 1


def test_there_are_enough_of_them() -> None:
    assert len(set(FORMS)) == len(FORMS) >= 60 and len(set(REDIRECTS)) == len(REDIRECTS) >= 20


def test_a_name_that_changes_its_address_between_two_requests_is_refused(world: World) -> None:
    world.changes = True
    world.location = f"http://changing.example:{world.port}/again"
    try_to_fetch(f"http://changing.example:{world.port}/", world)
    assert world.asked == ["changing.example", "changing.example"] and world.front_requests == 1


def test_a_name_is_looked_up_once_for_one_request(world: World) -> None:
    world.location = "http://127.0.0.1/"
    try_to_fetch(f"http://front.example:{world.port}/", world)
    assert world.asked.count("front.example") == 1


def test_redirects_in_a_circle_end(world: World) -> None:
    world.location = f"http://front.example:{world.port}/again"
    try_to_fetch(f"http://front.example:{world.port}/", world)
    assert world.front_requests == 4


def test_what_a_name_resolves_to_is_not_told(world: World) -> None:
    for name in ("ten.example", "unknown.example"):
        error = try_to_fetch(f"http://{name}/", world)
        assert str(error) == "The picture 1 is not fetched: its address is not one of the open internet."


def test_hosts_off_the_list_are_refused_before_they_are_looked_up(world: World) -> None:
    listed = FetchPolicy(
        resolve=world.resolve, allowed_hosts=("front.example", ".good.example"), allowed_networks=(f"{FRONT}/32",)
    )
    refused = [
        "bad.example", "front.example.bad.example", "notfront.example", "good.example", "good.example.bad.example",
        "xgood.example", FRONT, "front.example@bad.example",
    ]  # fmt: skip
    for host in refused:
        with pytest.raises(FetchError):
            fill(
                Reference("image", "url", f"http://{host}:{world.port}/", "picture 1"),
                replace(world.access, policy=listed),
            )
    assert not world.asked
    for host in ("front.example", "FRONT.example.", "a.good.example", "a.b.good.example"):
        with pytest.raises(FetchError):
            fill(
                Reference("image", "url", f"http://{host}:{world.port}/", "picture 1"),
                replace(world.access, policy=listed),
            )
    assert len(world.asked) == 4


@pytest.mark.parametrize("url", ["http://front.example/x.png", "https://front.example/x.png", "HTTP://front.example/"])
def test_nothing_is_fetched_unless_it_is_allowed(url: str, world: World) -> None:
    with pytest.raises(RequestError) as error:
        refer(url, "image", "picture 1", Settings(), "url")
    assert (error.value.status, error.value.code) == (400, "url_not_allowed")
    with pytest.raises(FetchError):
        fill(Reference("image", "url", url, "picture 1"), replace(world.access, policy=None))
    assert not world.asked
