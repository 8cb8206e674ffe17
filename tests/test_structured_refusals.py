"""Rules that can't be followed are refused and say why, hostile ones cost little; and the command that takes rules."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydantic import create_model

import smolvlm
from smolvlm.errors import InputError, MissingDependencyError
from smolvlm.processing.grammar import Grammars
from smolvlm.processing.processor import SmolVLMProcessor
from smolvlm.types import OutputRule, SamplingParams
from smolvlm.vlm import VLM
from tests import commands
from tests.test_structured import Thing
from tests.tiny import tiny_checkpoint, tiny_token_ids

pytest.importorskip("llguidance", reason="pip install 'smolvlm[structured]'")
END = tiny_token_ids()["<end_of_utterance>"]


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return smolvlm.load(directory)


@pytest.fixture(scope="module")
def grammars(directory: Path) -> Grammars:
    return Grammars(SmolVLMProcessor.from_pretrained(directory).tokenizer, [END], tiny_token_ids()["size"])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"schema": '{"type": "pizza"}'}, "The JSON schema can't be a rule for answers: Invalid type: pizza"),
        ({"schema": {"type": "array", "uniqueItems": True}}, 'Unimplemented keys: ["uniqueItems"]'),
        ({"schema": {"not": {}}}, 'Unimplemented keys: ["not"]'),
        ({"schema": {"oneOf": [{"type": "number"}, {"type": "integer"}]}}, "oneOf whose alternatives may overlap"),
        ({"schema": {"type": "object", "x-guidance": {"lenient": True}, "if": {}}}, 'Unimplemented keys: ["if"]'),
        ({"schema": {"type": "integer", "minimum": 5, "maximum": 3}}, "minimum (5) is greater than maximum (3)"),
        ({"schema": {"$ref": "#"}}, "nothing fits"),
        ({"schema": {"$ref": "http://example.com/schema"}}, "'http://example.com/schema' is not present"),
        ({"schema": {"type": "string", "format": "zip"}}, "Unknown format: zip"),
        ({"schema": {"type": "string", "pattern": "(?=a)b"}}, "look-around"),
        ({"schema": {"type": "object", "minProperties": 2}}, "minProperties=2 of any name"),
        ({"schema": {"type": "integer", "multipleOf": 0}}, "multipleOf=[0]: it must be above 0"),
        ({"schema": {"const": "\x01"}}, r"the control character '\x01'"),
        ({"schema": '{"const": "\\ud800"}'}, "unexpected end of hex escape"),
        ({"schema": "["}, "can't be read as JSON: Expecting value"),
        ({"schema": "[]"}, "must be an object"),
        ({"schema": {"const": object()}}, "has no JSON form: Object of type object is not JSON serializable"),
        ({"schema": 3}, "schema=3 can't be used: give a Pydantic class, or a JSON Schema"),
        ({"schema": create_model("Odd", call=(Callable[[int], int], ...))}, "has no JSON form"),
        ({"regex": "(a"}, "unclosed group"),
        ({"regex": r"(a)\1"}, "backreferences are not supported"),
        ({"regex": r"\bword\b"}, "lookarounds not supported"),
        ({"regex": ""}, "nothing but an empty text fits"),
        ({"regex": r"[^\s\S]"}, "nothing fits"),
        ({"regex": "[a&&b]"}, "read in two ways"),
        ({"regex": "a*+"}, "possessive"),
        ({"regex": "a\\"}, "backslash that nothing follows"),
        ({"regex": "\ud800"}, "half a character"),
        ({"regex": 3}, "regex=3 can't be used: it must be a text"),
        ({"choices": "red"}, "choices='red' can't be used: give a list"),
        ({"choices": []}, "choices=[] leaves nothing to say"),
        ({"choices": ["red", ""]}, "texts that aren't empty"),
        ({"choices": ["red", 3]}, "texts that aren't empty"),
        ({"choices": ["\udc00"]}, "half a character"),
        ({"regex": "a", "choices": ["a"]}, "regex and choices are given"),
        ({"regex": "a", "stop": "b"}, "stop=('b',) could cut an answer that must follow a rule"),
    ],
)
def test_what_cannot_be_a_rule_is_refused_and_says_why(vlm: VLM, options: dict, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        vlm.ask("Go", **options)


def test_a_rule_can_be_checked_before_anything_is_asked(vlm: VLM) -> None:
    rule = OutputRule(regex="[a-z]{3}")
    vlm.check_rule(rule)
    assert vlm._grammars.grammar(rule) is vlm._grammars._kept[rule]
    with pytest.raises(InputError, match="leave stop out"):
        vlm.check_rule(rule, SamplingParams(stop=("a",)))
    with pytest.raises(InputError, match="unclosed group"):
        vlm.check_rule(OutputRule(regex="("))


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({}, "got none of them"),
        ({"regex": "a", "json_object": True}, "got json_object and regex"),
        ({"json_schema": {}}, "json_schema={} can't be used: it must be a text"),
        ({"choices": ["a"]}, "choices=['a'] can't be used"),
    ],
)
def test_an_output_rule_is_exactly_one_thing(fields: dict, says: str) -> None:
    with pytest.raises(InputError, match=re.escape(says)):
        OutputRule(**fields)


def nested(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "integer"}
    for _ in range(depth):
        schema = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    return schema


def laughs(levels: int) -> dict[str, Any]:
    parts = {f"l{n}": {"type": "array", "prefixItems": [{"$ref": f"#/$defs/l{n + 1}"}] * 10} for n in range(levels)}
    return {"$defs": parts | {f"l{levels}": {"type": "integer"}}, "$ref": "#/$defs/l0"}


HOSTILE = {
    "a deep schema": OutputRule(json_schema=json.dumps(nested(300))),
    "a schema too deep for Python": OutputRule(json_schema='{"items":' * 4500 + "{}" + "}" * 4500),
    "a huge enumeration": OutputRule(json_schema=json.dumps({"enum": [f"value {n}" for n in range(3000)]})),
    "a long schema": OutputRule(json_schema=json.dumps({"enum": [f"value {n}" for n in range(50_000)]})),
    "a long constant": OutputRule(json_schema=json.dumps({"const": "x y" * 16_000})),
    "many optional properties": OutputRule(json_schema=json.dumps({"properties": {f"p{n}": {} for n in range(3500)}})),
    "many alternatives": OutputRule(
        json_schema=json.dumps({"anyOf": [{"properties": {f"k{n}": {"const": n}}} for n in range(1000)]})
    ),
    "exploding combinations": OutputRule(
        json_schema=json.dumps(
            {"allOf": [{"anyOf": [{"properties": {f"{x}{n}": {}}} for x in "abcd"]} for n in range(12)]}
        )
    ),
    "references that multiply": OutputRule(json_schema=json.dumps(laughs(9))),
    "a large multiple": OutputRule(json_schema='{"type": "integer", "multipleOf": 999983}'),
    "multiples that multiply": OutputRule(
        json_schema='{"allOf": [{"type": "integer", "multipleOf": 997}, {"multipleOf": 991}]}'
    ),
    "many items": OutputRule(json_schema='{"type": "array", "minItems": 1000000000, "items": {"type": "null"}}'),
    "a long string": OutputRule(json_schema='{"type": "string", "minLength": 1000000000}'),
    "a pattern with many states": OutputRule(json_schema='{"type": "string", "pattern": "(.*a.{100})+"}'),
    "a giant repetition": OutputRule(regex="a{1000000}"),
    "nested repetitions": OutputRule(regex="((a{0,100}){0,100}){0,100}"),
    "the classical bomb": OutputRule(regex="(a?){2000}a{2000}"),
    "many states": OutputRule(regex="(?s).*a.{100}.*"),
    "deep groups": OutputRule(regex="(" * 24_000 + "a" + ")" * 24_000),
    "a long expression": OutputRule(regex="|".join(f"word{n}" for n in range(5000))),
    "many choices": OutputRule(choices=tuple(f"choice {n}" for n in range(4000))),
    "long choices": OutputRule(choices=("x" * 24_000, "y" * 24_000)),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_rule_is_refused_or_costs_little(grammars: Grammars, name: str) -> None:
    """Made ready and followed for 40 tokens. Processor time, since the machine may have other things to do."""
    started, largest = time.process_time(), 0.0
    rng = np.random.default_rng(0)
    try:
        mask = grammars.grammar(HOSTILE[name]).mask()
        for _ in range(40):
            before = time.process_time()
            mask.accept(int(rng.choice(mask.allowed())))
            largest = max(largest, time.process_time() - before)
            if mask.complete:
                break
    except InputError as error:
        assert str(error)[:4] in ("The ", "JSON", "Regu")
    assert largest < 1 and time.process_time() - started < 4


def test_a_missing_package_names_its_cure(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "llguidance", None)
    vlm = smolvlm.load(directory)
    with pytest.raises(MissingDependencyError, match=r"pip install 'smolvlm\[structured\]'"):
        vlm.ask("Go", choices=["a", "b"])
    assert vlm.ask("Go", max_new_tokens=1).token_ids


# ---- the command ----


def test_the_command_follows_a_schema_an_expression_and_choices(
    directory: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "thing.json").write_text(json.dumps(Thing.model_json_schema()))
    words = ["ask", "Go", "--model", str(directory), "--max-new-tokens", "900"]
    outcome = commands.run(capsys, [*words, "--schema", str(tmp_path / "thing.json")])
    assert outcome.code == 0 and Thing.model_validate_json(outcome.out)
    assert re.fullmatch("[a-c]{4}\n", commands.run(capsys, [*words, "--regex", "[a-c]{4}"]).out)
    told = commands.run(capsys, [*words, "--choice", "red one", "--choice", "blue one", "--json"])
    assert json.loads(told.out)["answer"] in ("red one", "blue one")


@pytest.mark.parametrize(
    ("words", "code", "error"),
    [
        (["--schema", "nowhere.json"], 2, "--schema nowhere.json can't be read"),
        (["--regex", "("], 2, "unclosed group"),
        (["--regex", "a", "--choice", "a"], 2, "regex and choices are given"),
        (["--choice", "a", "--stop", "b"], 2, "leave stop out"),
        (["--choice", "a", "--long"], 2, "leave --schema, --regex and --choice out"),
    ],
)
def test_the_command_says_what_cannot_be_followed(
    directory: Path, capsys: pytest.CaptureFixture[str], words: list[str], code: int, error: str
) -> None:
    outcome = commands.run(capsys, ["ask", "Go", "--model", str(directory), *words])
    assert outcome.code == code and error in outcome.error


def test_a_command_whose_answer_is_cut_fails(directory: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["ask", "Go", "--model", str(directory), "--regex", "[a-c]{40}", "--max-new-tokens", "5"]
    outcome = commands.run(capsys, words)
    assert outcome.code == 1 and re.fullmatch("[a-c]{5,30}\n", outcome.out)
    assert outcome.err == (
        "smolvlm: error: The answer was cut after 5 tokens and isn't what it must be; --max-new-tokens allows more.\n"
    )
