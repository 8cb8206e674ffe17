"""Download one address under guard. The only place of the package that opens a connection to a host a user named.

A picture's address often comes from a stranger (a chat message, a data set), so it must not reach what only this
machine can reach: addresses are looked up once, checked, and connected to as checked; every redirect starts again.
Size and time are limited while the answer comes in. What the bytes are is decided by the door, never by the server's
headers. Standard library only; proxies of the environment are not used, because a proxy would look up the name again.
"""

from __future__ import annotations

import http.client
import io
import ipaddress
import queue
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, quote, urljoin, urlsplit

from ..errors import FetchError, HostError

Resolver = Callable[[str, int], list[str]]
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_PORTS = {"http": 80, "https": 443}
_REDIRECTS = (301, 302, 303, 307, 308)
_CHUNK_BYTES = 1 << 16
_HOST = re.compile(r"[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?(\.[a-z0-9_]([a-z0-9_-]*[a-z0-9_])?)*\.?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # a last label that makes resolvers read a name as an IPv4 address
# Where an IPv6 address carries an IPv4 one inside, the inner one is what gets reached: NAT64 and "compatible".
_CARRIES_IPV4 = (ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96"))
# Public by number, private by use: cloud metadata services, NAT64 inside a site, old site-local addresses.
_REFUSED = tuple(
    ipaddress.ip_network(network)
    for network in ("168.63.129.16/32", "192.0.0.0/24", "192.88.99.0/24", "64:ff9b:1::/48", "fec0::/10", "100::/64")
)


@dataclass(frozen=True)
class FetchPolicy:
    """What a download may reach. allowed_networks: private ones that are fine here, such as "10.1.0.0/16".

    allowed_hosts: the only ones to fetch from ("example.org"; ".example.org" is every host below it); () is all.
    ports: the only ones to connect to; () is all. resolve: (host, port) -> addresses, in the order to try them.
    """

    max_redirects: int = 3
    allowed_networks: tuple[str, ...] = ()
    allowed_hosts: tuple[str, ...] = ()
    ports: tuple[int, ...] = ()
    resolve: Resolver | None = None
    permitted: tuple[Network, ...] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "permitted", tuple(ipaddress.ip_network(net) for net in self.allowed_networks))


def fetch(
    url: str, *, max_bytes: int = 50_000_000, timeout_s: float = 30.0, policy: FetchPolicy | None = None
) -> bytes:
    """Download a URL of http or https and return its body.

    max_bytes: largest body. timeout_s: for everything together, look-up and redirects included. Raises FetchError when
    the scheme, the host's address or a redirect is refused, when a limit is passed, and when the server fails.
    """
    policy = policy or FetchPolicy()
    deadline = time.monotonic() + timeout_s
    try:
        for _ in range(policy.max_redirects + 1):
            answer = _request(url, policy, deadline, max_bytes)
            if isinstance(answer, bytes):
                return answer
            url = _follow(url, answer)
    except TimeoutError as error:
        raise FetchError(
            f"{_name(url)} didn't answer completely within {timeout_s:g} s. Download it yourself and give the path."
        ) from error
    except (OSError, http.client.HTTPException, ValueError) as error:
        if isinstance(error, FetchError):
            raise
        reason = str(error) or type(error).__name__
        raise FetchError(f"{_name(url)} can't be downloaded: {reason}. Check the address and the network.") from error
    raise FetchError(f"{_name(url)} redirects more than {policy.max_redirects} times. Give the final address.")


def is_public(address: Address) -> bool:
    """True for an address of the open internet; IPv4 inside IPv6 (mapped, 6to4, Teredo, NAT64) is looked through."""
    if any(address in network for network in _REFUSED if network.version == address.version):
        return False
    inner = _inner_ipv4(address)
    if inner is not None:
        return all(is_public(one) for one in inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def _inner_ipv4(address: Address) -> tuple[ipaddress.IPv4Address, ...] | None:
    if isinstance(address, ipaddress.IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return (address.ipv4_mapped,)
    if address.sixtofour is not None:
        return (address.sixtofour,)
    if address.teredo is not None:
        return address.teredo
    if any(address in network for network in _CARRIES_IPV4):
        return (ipaddress.IPv4Address(int(address) & 0xFFFFFFFF),)
    return None


def _request(url: str, policy: FetchPolicy, deadline: float, max_bytes: int) -> bytes | str:
    """One request: the body, or the address of a redirect."""
    parts = _check_url(url)
    host = _check_host(parts, url, policy)
    port = _PORTS[parts.scheme] if parts.port is None else parts.port
    if not port or (policy.ports and port not in policy.ports):
        allowed = ", ".join(map(str, policy.ports)) or "1 to 65535"
        raise FetchError(f"{_name(url)} names the port {port}; allowed are {allowed}.")
    addresses = _look_up(host, port, policy, deadline, url)
    with _connect(addresses, port, host, parts.scheme == "https", deadline) as connection:
        connection.sendall(_request_head(parts, host))
        response = http.client.HTTPResponse(_TimedSocket(connection, deadline), method="GET")  # type: ignore[arg-type]
        response.begin()
        location = response.getheader("Location")
        if response.status in _REDIRECTS and location:
            return location
        if response.status != 200:
            raise FetchError(f"{_name(url)} answered {response.status} {response.reason}. Check the address.")
        return _read_body(response, url, max_bytes)


def _read_body(response: http.client.HTTPResponse, url: str, max_bytes: int) -> bytes:
    encoding = (response.getheader("Content-Encoding") or "identity").lower()
    if encoding != "identity":
        raise FetchError(f"{_name(url)} is sent compressed ({encoding}), although that was not asked for. Give a file.")
    too_large = f"{_name(url)} is larger than the limit of {max_bytes:,} bytes. Use a smaller file."
    if response.length is not None and response.length > max_bytes:
        raise FetchError(too_large)
    body = bytearray()
    while chunk := response.read(_CHUNK_BYTES):
        body += chunk
        if len(body) > max_bytes:
            raise FetchError(too_large)
    if response.length:  # what the header promised beyond what came
        raise FetchError(f"{_name(url)} broke off {response.length:,} bytes before its end. Try again.")
    return bytes(body)


def _check_url(url: str) -> SplitResult:
    if any(ord(character) <= 32 or character in "\\\x7f" for character in url):
        raise FetchError(f"{_name(url)} holds a space, a backslash or a control character. Encode it as %20 and so on.")
    parts = urlsplit(url)
    if parts.scheme not in _PORTS:
        raise FetchError(f"{_name(url)} has the scheme {parts.scheme!r}; only http and https addresses are fetched.")
    if not parts.hostname:
        raise FetchError(f"{_name(url)} names no host.")
    if parts.username is not None or parts.password is not None:
        raise FetchError(f"The address of {parts.hostname} holds a user name or password; those are not sent.")
    return parts


def _follow(url: str, location: str) -> str:
    target = urljoin(url, location)
    if url.startswith("https:") and not target.startswith("https:"):
        raise FetchError(f"{_name(url)} redirects from https to {_name(target)}, which is refused.")
    return target


def _check_host(parts: SplitResult, url: str, policy: FetchPolicy) -> str:
    """The host in ASCII. Raises FetchError for one that isn't allowed or has more than one reading."""
    host = (parts.hostname or "").lower()
    if not host.isascii():  # full-width and circled characters become plain ones here, and are checked as such
        host = host.encode("idna").decode("ascii").lower()
    if "[" in parts.netloc:
        ipaddress.IPv6Address(host)  # a ValueError for anything else
    elif not _HOST.fullmatch(host) or len(host) > 253:
        raise FetchError(f"{_name(url)} has the host {host[:80]!r}, which is no name of a host.")
    elif _NUMBER.fullmatch(host.rstrip(".").rpartition(".")[2]) and not _is_dotted_quad(host):
        raise FetchError(
            f"{_name(url)} writes its host as a number, {host[:80]!r}, which programs read differently. Write it as "
            "four numbers with dots, such as 203.0.113.7, or as a name."
        )
    bare = host.rstrip(".")
    allowed = (one.lower().rstrip(".") for one in policy.allowed_hosts)
    if policy.allowed_hosts and not any(bare == one or (one[:1] == "." and bare.endswith(one)) for one in allowed):
        raise FetchError(f"{_name(url)} is on the host {bare[:80]!r}, which is not on the list of allowed hosts.")
    return host


def _is_dotted_quad(host: str) -> bool:
    try:
        ipaddress.IPv4Address(host)  # refuses leading zeros, which some read as octal
    except ValueError:
        return False
    return True


def _look_up(host: str, port: int, policy: FetchPolicy, deadline: float, url: str) -> list[str]:
    """The addresses to connect to, in order, after all of them passed the guard."""
    resolve = policy.resolve or _system_resolver
    found = _within(deadline, lambda: resolve(host, port))
    if not found:
        raise HostError(f"{_name(url)} can't be downloaded: the host {host!r} is unknown. Check the spelling.")
    for text in found:
        address = ipaddress.ip_address(text.partition("%")[0])
        permitted = any(address in network for network in policy.permitted if network.version == address.version)
        if not permitted and not is_public(address):
            raise HostError(
                f"{_name(url)} leads to {address}, which is not an address of the open internet; such downloads are "
                "refused. Download the file yourself and give its path."
            )
    return found


def _system_resolver(host: str, port: int) -> list[str]:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (socket.gaierror, UnicodeError):
        return []
    return [str(entry[4][0]) for entry in found]


def _within(deadline: float, work: Callable[[], list[str]]) -> list[str]:
    """Run a look-up, which takes no time limit of its own, and stop waiting at the deadline."""
    results: queue.Queue[list[str] | BaseException] = queue.Queue()

    def run() -> None:
        try:
            results.put(work())
        except BaseException as error:  # handed to the waiting thread, which raises it
            results.put(error)

    threading.Thread(target=run, daemon=True, name="smolvlm-dns").start()
    try:
        result = results.get(timeout=max(deadline - time.monotonic(), 0))
    except queue.Empty:
        raise TimeoutError("the host's address") from None
    if isinstance(result, BaseException):
        raise result
    return result


@contextmanager
def _connect(addresses: list[str], port: int, host: str, secure: bool, deadline: float) -> Iterator[socket.socket]:
    """A connection to the first checked address that answers; the certificate is checked against the host's name."""
    with closing(_first_open(addresses, port, deadline)) as plain:
        if not secure:
            plain.settimeout(_left(deadline))
            yield plain
            return
        plain.settimeout(_left(deadline))  # holds for the whole handshake
        with ssl.create_default_context().wrap_socket(plain, server_hostname=host) as encrypted:
            encrypted.settimeout(_left(deadline))
            yield encrypted


def _first_open(addresses: list[str], port: int, deadline: float) -> socket.socket:
    for number, address in enumerate(addresses):
        try:
            return socket.create_connection((address, port), timeout=_left(deadline) / (len(addresses) - number))
        except OSError:
            if number == len(addresses) - 1:
                raise
    raise OSError("the host has no address")


def _request_head(parts: SplitResult, host: str) -> bytes:
    path = quote(parts.path or "/", safe="/%:@!$&'()*+,;=~-._")
    query = f"?{quote(parts.query, safe='/%:@!$&()*+,;=~-._?')}" if parts.query else ""
    name = f"[{host}]" if ":" in host else host
    port = f":{parts.port}" if parts.port else ""
    lines = (
        f"GET {path}{query} HTTP/1.1",
        f"Host: {name}{port}",
        "User-Agent: smolvlm",
        "Accept: image/*, video/*;q=0.9, */*;q=0.5",
        "Accept-Encoding: identity",
        "Connection: close",
    )
    return ("\r\n".join(lines) + "\r\n\r\n").encode("ascii")


class _TimedSocket:
    """What HTTPResponse needs of a socket, with every single read cut off at the deadline."""

    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._reader = _TimedReader(connection, deadline)

    def makefile(self, _mode: str) -> io.BufferedReader:
        return io.BufferedReader(self._reader, _CHUNK_BYTES)


class _TimedReader(io.RawIOBase):
    def __init__(self, connection: socket.socket, deadline: float) -> None:
        self._connection = connection
        self._deadline = deadline

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(_left(self._deadline))
        return self._connection.recv_into(buffer)


def _left(deadline: float) -> float:
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError("the deadline has passed")
    return left


def _name(url: str) -> str:
    """A URL as messages show it: without user, password and query, and not endless."""
    try:
        parts = urlsplit(url)
        shown = f"{parts.scheme}://{parts.hostname or ''}{f':{parts.port}' if parts.port else ''}{parts.path}"
    except ValueError:
        shown = url
    return repr(shown if len(shown) <= 100 else shown[:97] + "...")
