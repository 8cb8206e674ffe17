"""`smolvlm serve`: what is typed becomes the settings of the server. Starting and stopping is test_server_life.py's."""

from __future__ import annotations

import dataclasses
import re
import sys
from pathlib import Path

import pytest

from smolvlm.cli import main, serve
from smolvlm.cli.arguments import Parser
from smolvlm.server.settings import Limits, Settings

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"


def settings(*typed: str) -> Settings:
    parser = Parser(prog="serve", description=None)
    serve.add_arguments(parser)
    return serve.read_settings(parser.parse_args(typed))


def test_what_is_not_typed_is_as_the_settings_have_it() -> None:
    assert settings() == Settings()


def test_every_limit_has_an_option() -> None:
    assert serve.LIMITS.keys() == {field.name for field in dataclasses.fields(Limits)}
    for number, name in enumerate(serve.LIMITS, 2):
        assert getattr(settings(f"--{name.replace('_', '-')}", str(number)).limits, name) == number


def test_defaults_of_the_page_are_those_of_the_limits() -> None:
    rows = re.findall(r"^\| `--([a-z-]+) [NS]` \| ([^|]+) \| [^|]+ \|$", PAGE.read_text(), re.MULTILINE)
    told = {name.replace("-", "_"): default.strip() for name, default in rows}
    for name in serve.LIMITS:
        default = getattr(Limits(), name)
        if name == "workers":
            assert told[name] == "cores, at most 4"
        elif default is None:
            assert told[name] == "what the model holds"
        else:
            assert float(told[name].replace(",", "")) == default, name


def test_access_is_what_is_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(serve.KEYS_VARIABLE, "from-the-environment, another-key-there")
    read = settings(
        "--host", "0.0.0.0", "--port", "0", "--name", "mine", "--api-key", "first-key-typed", "--api-key", "second-key",
        "--allowed-host", "me.example", "--cors-origin", "https://a.example", "--allow-url", "--allowed-url-host",
        "b.example", "--url-port", "8443", "--allowed-network", "10.1.0.0/16", "--media-root", str(tmp_path),
        "--no-page", "--new-tokens", "7", "--grace-s", "2.5", "--leave-s", "1.5",
    )  # fmt: skip
    assert read == Settings(
        host="0.0.0.0", port=0, name="mine",
        api_keys=("first-key-typed", "second-key", "from-the-environment", "another-key-there"),
        hosts=("me.example",), cors_origins=("https://a.example",), allow_url=True, allowed_url_hosts=("b.example",),
        url_ports=(8443,), allowed_networks=("10.1.0.0/16",), media_root=tmp_path, page=False, new_tokens=7,
        grace_s=2.5, leave_s=1.5,
    )  # fmt: skip
    assert not any(key in repr(read) for key in read.api_keys)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--images", "-1"], "images=-1"),
        (["--queue", "0"], "queue=0"),
        (["--port", "99999"], "port=99999"),
        (["--api-key", "short"], "at least 8"),
        (["--media-root", "/no/such/place"], "no directory"),
        (["--allowed-url-host", "a.example"], "--allow-url"),
        (["--lora", "receipts"], "NAME=DIRECTORY"),
        (["--body-s", "0"], "above 0"),
        (["--pizza"], "unrecognized"),
    ],
)
def test_what_cannot_be_used_is_said_in_a_line(
    typed: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["serve", *typed]) == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert message in line


def test_without_the_extra_its_name_is_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for module in [name for name in sys.modules if name.startswith("smolvlm.server.")]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, "uvicorn", None)
    assert main(["serve", "--port", "0"]) == 1
    assert "pip install 'smolvlm[server]'" in capsys.readouterr().err
