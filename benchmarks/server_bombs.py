"""Files and bodies that are made to hurt whoever opens them: small, cheap to make, the same each time.

Used by server_faults.py and server_fuzz.py; not a benchmark by itself.
"""

from __future__ import annotations

import base64
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path

from PIL import Image

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"
PICTURE, VIDEO = (DEMO / "picture.png").read_bytes(), (DEMO / "video.mp4").read_bytes()


def data_uri(content: bytes, kind: str = "image/png") -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"


def png_chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png(width: int, height: int, rows: bytes, *more: bytes) -> bytes:
    """A grey picture whose header says what it likes. rows: the pixels, packed. more: chunks before them."""
    start = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + start + b"".join(more) + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")


@lru_cache
def zeros(count: int) -> bytes:
    """Packed zeros: a thousandth of them."""
    packer = zlib.compressobj(9)
    parts = [packer.compress(b"\0" * min(1 << 20, count - start)) for start in range(0, count, 1 << 20)]
    return b"".join(parts) + packer.flush()


@lru_cache
def huge_png() -> bytes:
    """40,000 x 40,000 pixels, all there: 1.6 GB in 1.6 MB."""
    return png(40_000, 40_000, zeros(40_001 * 40_000))


def promising_png() -> bytes:
    """As large by its header, and nothing behind it."""
    return png(40_000, 40_000, zeros(100_000))


@lru_cache
def overflowing_png() -> bytes:
    """16 x 16 pixels, and half a gigabyte of rows that it has no place for."""
    return png(16, 16, zeros(500_000_000))


@lru_cache
def talkative_png() -> bytes:
    """Packed texts that unpack to 200 MB each."""
    text = png_chunk(b"zTXt", b"Comment\0\0" + zeros(200_000_000))
    return png(16, 16, zlib.compress(b"\0" * 17 * 16), text, text, text)


@lru_cache
def gif(side: int, frames: int) -> bytes:
    """The same frame again and again: made in no time, and taking long to decode."""
    file = io.BytesIO()
    Image.new("P", (side, side), 1).save(file, "GIF")
    content = file.getvalue()
    table = 13 + 3 * 2 ** ((content[10] & 7) + 1) if content[10] & 0x80 else 13
    body = content[table:-1]
    return content[:table] + body * frames + b";"


def tiff_circle() -> bytes:
    """A TIFF whose first directory says that the next one is itself."""
    return b"II*\0\x08\0\0\0" + struct.pack("<H", 1) + struct.pack("<HHII", 256, 3, 1, 9) + struct.pack("<I", 8)


def huge_bmp() -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 2**30, 2**30, 1, 24, 0, 0, 0, 0, 0, 0)


def jpeg(width: int, height: int) -> bytes:
    """A small JPEG whose header says another size."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16), "red").save(file, "JPEG")
    content = bytearray(file.getvalue())
    place = content.index(b"\xff\xc0") + 5
    content[place : place + 4] = struct.pack(">HH", height, width)
    return bytes(content)


def boxes_in_boxes(depth: int = 100_000) -> bytes:
    """An MP4 whose boxes hold boxes."""
    inner = b""
    for _ in range(min(depth, 20_000)):
        inner = struct.pack(">I", len(inner) + 8) + b"moov" + inner if len(inner) < 1 << 17 else inner
    return b"\0\0\0\x18ftypisom\0\0\2\0isomiso2" + inner


def long_film() -> bytes:
    """The demo's film, and its header says that it lasts for days."""
    place = VIDEO.index(b"mvhd") + 4 + 4 + 8
    content = bytearray(VIDEO)
    content[place + 4 : place + 8] = b"\x7f\xff\xff\xff"
    track = VIDEO.index(b"mdhd") + 4 + 4 + 8
    content[track + 4 : track + 8] = b"\x7f\xff\xff\xff"
    return bytes(content)


PICTURES: dict[str, Callable[[], bytes]] = {
    "png of 1.6 gigapixels": huge_png,
    "png that promises them": promising_png,
    "png with too many rows": overflowing_png,
    "png with packed texts": talkative_png,
    "bmp of an exapixel": huge_bmp,
    "jpeg that says 65535 x 65535": lambda: jpeg(65535, 65535),
    "jpeg that says 7000 x 7000": lambda: jpeg(7000, 7000),
    "gif of 65535 x 65535": lambda: gif(64, 1)[:6] + b"\xff\xff\xff\xff" + gif(64, 1)[10:],
    "tiff in a circle": tiff_circle,
    "svg": lambda: b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
    "eps": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/etc/passwd) (r) file\n",
    "cut picture": lambda: PICTURE[: len(PICTURE) // 2],
    "a film as a picture": lambda: VIDEO,
    "text": lambda: b"no picture at all " * 9,
}
VIDEOS: dict[str, Callable[[], bytes]] = {
    "gif of 5,000 frames": lambda: gif(16, 5000),
    "gif of frames beyond the limit": lambda: gif(4000, 3),
    "boxes in boxes": boxes_in_boxes,
    "film of many days": long_film,
    "cut film": lambda: VIDEO[: len(VIDEO) // 3],
    "film without its tables": lambda: VIDEO.replace(b"moov", b"free"),
    "film of noise": lambda: VIDEO[:2000] + bytes(range(256)) * 40,
    "playlist": lambda: b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n",
    "concat script": lambda: b"ffconcat version 1.0\nfile /etc/passwd\n",
    "a picture as a film": lambda: PICTURE,
}


def slow_film() -> bytes:
    """An animation of 500 frames of 9 megapixels: half a minute of work in four megabytes."""
    return gif(3000, 500)


BODIES: dict[str, Callable[[], bytes]] = {
    "empty": lambda: b"",
    "cut": lambda: b'{"messages": [{"role": "us',
    "not json": lambda: b"messages=hello",
    "latin-1": lambda: '{"messages": "\xe9"}'.encode("latin-1"),
    "lone surrogate": lambda: b'{"messages": [{"role": "user", "content": "\\ud83d"}]}',
    "nan": lambda: b'{"messages": [{"role": "user", "content": "x"}], "temperature": NaN}',
    "infinity": lambda: b'{"messages": [{"role": "user", "content": "x"}], "temperature": 1e999}',
    "a number of 100,000 digits": lambda: b'{"seed": ' + b"9" * 100_000 + b"}",
    "deep lists": lambda: b'{"messages": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "deep objects": lambda: b'{"a":' * 50_000 + b"1" + b"}" * 50_000,
    "a million empty lists": lambda: b'{"messages": [' + b"[]," * 1_000_000 + b"[]]}",
    "half a million keys": lambda: b"{" + b",".join(b'"%d":0' % number for number in range(500_000)) + b"}",
    "zip bomb": lambda: gzip.compress(b" " * 50_000_000),
    "nul bytes": lambda: b"\0" * 1000,
    "a list": lambda: b"[1, 2, 3]",
    "a string": lambda: b'"hello"',
}


# Without names: what they resolve to is another test's business (tests/test_server_ssrf.py), and a look-up takes time.
ADDRESSES = [
    "http://127.0.0.1:{port}/", "http://localhost:{port}/", "http://127.1:{port}/", "http://2130706433:{port}/",
    "http://0x7f000001:{port}/", "http://017700000001:{port}/", "http://0:{port}/", "http://0.0.0.0:{port}/",
    "http://127.0.0.1:80/", "http://127.0.0.1/", "http://localhost/", "https://localhost/", "http://[::1]/",
    "http://[::ffff:127.0.0.1]/", "http://[::]/", "http://[64:ff9b::7f00:1]/", "http://[2002:7f00:1::]/",
    "http://[fe80::1%25lo]/", "http://[fd00:ec2::254]/", "http://169.254.169.254/latest/meta-data/",
    "http://168.63.129.16/", "http://100.100.100.200/", "http://192.168.0.1/", "http://10.0.0.1/", "http://172.16.0.1/",
    "http://0xa9fea9fe/", "http://2852039166/", "http://user:word@127.0.0.1/", "http://a@127.0.0.1:{port}/",
    "http://127.0.0.1:{port}\\@a/", "http://127。0。0。1/", "http://①②⑦.⓪.⓪.①/", "http://127.0.0.1/\r\nX: y",
    "http://127.0.0.1 /", "http://127.0.0.1%00.a/", "http://localhost%2e/", "http://127.0.0.1:22/",
    "http://127.0.0.1:0/",
    "http://127.0.0.1:99999/", "http:///x", "http://", "http:127.0.0.1", "//127.0.0.1/", "file:///etc/passwd",
    "file:x.png",
    "FILE:///etc/passwd", "ftp://127.0.0.1/x", "gopher://127.0.0.1/_x", "dict://127.0.0.1/x", "ldap://127.0.0.1/x",
    "jar:http://127.0.0.1!/x", "unix:///var/run/docker.sock", "concat:http://127.0.0.1/|x", "crypto:http://127.0.0.1/",
    "subfile,,start,0,end,9,,:/etc/passwd", "pipe:0", "javascript:alert(1)", "/etc/passwd", "../../etc/passwd", "x.png",
    "C:\\x.png", "\\\\127.0.0.1\\x", "~/.ssh/id_rsa", "data:", "data:image/png,x", "data:;base64,",
    "data:image/png;base64,!!",
    "data:text/plain;base64,aGVsbG8=", "A" * 100, "/" * 300, "%2fetc%2fpasswd", "\u0000", "💥", "-",
    "http://[", "http://]",
]  # fmt: skip
