"""Answers that follow a rule: JSON of a schema, a regular expression, choices; on tiny models with random weights.

A random model says anything that its mask lets pass. The oracles are json, Pydantic and re, which know no masks.
"""

from __future__ import annotations

import json
import re
from enum import Enum
from pathlib import Path
from typing import Annotated, Any, Literal, Union

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, Field, create_model, field_validator

import smolvlm
from smolvlm.errors import InputError
from smolvlm.processing.schema import followable
from smolvlm.types import OutputRule
from smolvlm.vlm import VLM
from tests.tiny import tiny_checkpoint

pytest.importorskip("llguidance", reason="pip install 'smolvlm[structured]'")
WILD: dict[str, Any] = {"temperature": 2.0, "max_new_tokens": 300}
ANYTHING: dict[str, Any] = {"temperature": 100.0, "max_new_tokens": 300}  # hardly a preference is left


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_checkpoint(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def vlm(directory: Path) -> VLM:
    return smolvlm.load(directory)


@pytest.fixture(scope="module")
def nano() -> VLM:
    return smolvlm.load()


# ---- what comes out is what the rule says ----


def fields() -> st.SearchStrategy[Any]:
    """Types of a Pydantic field whose JSON ends soon."""
    ends = st.tuples(st.integers(-100, 0), st.integers(1, 10**6))
    words = st.lists(st.text('abcé "\\\n/0', max_size=4), min_size=1, max_size=4, unique=True)
    plain = st.one_of(
        st.sampled_from([bool, None, float, Annotated[str, Field(pattern="^[A-Z]{2}[0-9]{1,3}$")]]),
        ends.map(lambda pair: Annotated[int, Field(ge=pair[0], le=pair[1])]),
        st.integers(0, 8).map(lambda most: Annotated[str, Field(max_length=most)]),
        words.map(lambda names: Literal[tuple(names)]),
        words.map(lambda names: Enum("Kind", {f"k{number}": name for number, name in enumerate(names)})),
    )

    def grow(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
        return st.one_of(
            inner.map(lambda kind: Annotated[list[kind], Field(max_length=3)]),
            inner.map(maybe),
            st.tuples(inner, inner).map(lambda kinds: tuple[kinds]),
            models(inner),
        )

    return st.recursive(plain, grow, max_leaves=4)


def maybe(kind: Any) -> Any:
    return None if kind is None else kind | None if isinstance(kind, type) else Union[kind, None]  # noqa: UP007


def models(inner: st.SearchStrategy[Any]) -> st.SearchStrategy[type[BaseModel]]:
    names = st.text("abcdeé_", min_size=1, max_size=5).filter(lambda name: name.isidentifier() and name[0] != "_")

    def make(kinds: dict[str, Any], required: list[bool]) -> type[BaseModel]:
        pairs = zip(kinds.items(), required, strict=False)
        columns = {name: (kind, ...) if must else (maybe(kind), None) for (name, kind), must in pairs}
        return create_model("Thing", __config__=ConfigDict(extra="forbid"), **columns)  # type: ignore[call-overload, no-any-return]

    kinds = st.dictionaries(names, inner, min_size=1, max_size=3)
    return st.builds(make, kinds, st.lists(st.booleans(), min_size=3, max_size=3))


def test_json_fits_its_schema_whatever_the_model_says(vlm: VLM) -> None:
    reasons = []

    @settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow])
    @given(wanted=models(fields()), seed=st.integers(0, 10**6))
    def check(wanted: type[BaseModel], seed: int) -> None:
        answer = vlm.ask("Go", schema=wanted, seed=seed, **WILD)
        reasons.append(answer.finish_reason)
        if answer.finish_reason == "length":
            assert answer.parsed is None
        else:
            json.loads(answer.text)
            assert wanted.model_validate_json(answer.text) == answer.parsed is not None

    check()
    assert reasons.count("stop") > len(reasons) / 2


class Thing(BaseModel):
    model_config = ConfigDict(extra="forbid")
    name: str = Field(min_length=1, max_length=6)
    size: Literal["small", "large"]
    count: int = Field(ge=0, le=999)
    parts: list[bool] = Field(max_length=3)
    of: Thing | None = None


@pytest.mark.parametrize("seed", range(15))
def test_a_class_becomes_its_instance(vlm: VLM, seed: int) -> None:
    answer = vlm.ask("Go", schema=Thing, seed=seed, temperature=2.0, max_new_tokens=900)
    assert answer.finish_reason == "stop" and isinstance(answer.parsed, Thing)
    assert answer.parsed == Thing.model_validate_json(answer.text)
    assert answer.text == json.dumps(json.loads(answer.text), ensure_ascii=False), "as json.dumps writes it"


@pytest.mark.parametrize("seed", range(10))
def test_any_object_is_an_object(vlm: VLM, seed: int) -> None:
    options = {"seed": seed, "temperature": 2.0, "max_new_tokens": 400}
    answer = vlm.ask("Go", schema={"type": "object", "additionalProperties": {"type": "boolean"}}, **options)
    assert answer.finish_reason == "length" or isinstance(answer.parsed, dict)
    answer = vlm.ask("Go", schema='{"type": "array", "items": {"enum": [1, null, "x"]}}', **options)
    assert answer.finish_reason == "stop" and answer.parsed == json.loads(answer.text)


BOOLEAN = {"type": "boolean"}


@pytest.mark.parametrize(
    ("given", "closed"),
    [
        ({"properties": {"a": BOOLEAN}}, 1),
        ({"properties": {"a": BOOLEAN}, "required": ["a"]}, 1),
        ({"properties": {"a": BOOLEAN}, "required": ["b"]}, 0),
        ({"properties": {"a": BOOLEAN}, "additionalProperties": True}, 0),
        ({"properties": {"a": BOOLEAN}, "patternProperties": {"^b$": BOOLEAN}}, 0),
        ({"properties": {"a": BOOLEAN}, "anyOf": [{"properties": {"b": BOOLEAN}}]}, 0),
        ({"allOf": [{"properties": {"a": BOOLEAN}}, {"properties": {"b": BOOLEAN}}]}, 0),
        ({"$defs": {"d": {"properties": {"a": BOOLEAN}}}, "$ref": "#/$defs/d", "properties": {"b": BOOLEAN}}, 0),
        ({"$defs": {"d": {"properties": {"a": BOOLEAN}}}, "$ref": "#/$defs/d"}, 1),
        ({"anyOf": [{"properties": {"a": BOOLEAN}}, {"type": "null"}]}, 1),
        ({"properties": {"properties": {"properties": {"a": BOOLEAN}}}}, 2),
        ({"enum": [{"properties": {"a": 1}}]}, 0),
    ],
)
def test_objects_have_the_named_properties_only_where_a_schema_leaves_that_open(given: dict, closed: int) -> None:
    written = json.loads(followable(json.dumps(given)))
    del written["x-guidance"]
    assert json.dumps(written).replace(', "additionalProperties": false', "") == json.dumps(given)
    assert json.dumps(written).count('"additionalProperties": false') == closed


@pytest.mark.parametrize("seed", range(10))
def test_a_property_is_named_once_and_by_no_other_spelling(vlm: VLM, seed: int) -> None:
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 0, "maximum": 9}}, "required": ["a"]}
    assert set(vlm.ask("Go", schema=schema, seed=seed, **ANYTHING).parsed) == {"a"}  # type: ignore[call-overload]
    rule = OutputRule(json_schema=json.dumps({**schema, "additionalProperties": {"type": "string"}}))
    for text in ('{"a": 1, "a": "x"}', '{"a": 1, "\\u0061": "x"}', '{"a": 1, "a\\u0000": "x"}', '{"a":1}', '{ "a": 1}'):
        assert not follows(vlm, rule, text)
    assert follows(vlm, rule, '{"a": 1, "aa": "x", "A": "\\n"}')


def follows(vlm: VLM, rule: OutputRule, text: str) -> bool:
    mask = vlm._grammars.grammar(rule).mask()
    for token_id in vlm.processor.tokenizer.encode(text):
        if token_id not in mask.allowed():
            return False
        mask.accept(token_id)
    return mask.complete


def expressions() -> st.SearchStrategy[str]:
    """Regular expressions that Python and llguidance both know."""
    pieces = st.one_of(
        st.text('abXé0 _-/"\\n', min_size=1, max_size=3).map(re.escape),
        st.sampled_from(
            [".", r"\d", r"\w", r"\s", r"\D", r"\W", r"\S", "[a-c]", "[^a-z]", r"[\w-]", r"[^\d\s]", "[é-ü]", "/"]
        ),
    )

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        repeats = st.sampled_from(["?", "{2}", "{1,3}", "{0,2}", "*?", "+", "*"])
        return st.one_of(
            st.tuples(inner, repeats).map(lambda pair: f"(?:{pair[0]}){pair[1]}"),
            st.tuples(inner, inner).map("".join),
            st.tuples(inner, inner).map(lambda pair: f"({pair[0]}|{pair[1]})"),
        )

    return st.recursive(pieces, grow, max_leaves=6)


def test_the_whole_text_matches_a_regular_expression(vlm: VLM) -> None:
    ended = []

    @settings(max_examples=80)
    @given(regex=expressions(), seed=st.integers(0, 10**6))
    def check(regex: str, seed: int) -> None:
        try:
            answer = vlm.ask("Go", regex=regex, seed=seed, temperature=2.0, max_new_tokens=60)
        except InputError as error:
            assert "nothing but an empty text fits" in str(error)
            return
        ended.append(answer.finish_reason == "stop")
        if ended[-1]:
            assert re.fullmatch(regex, answer.text, re.ASCII), answer.text

    check()
    assert sum(ended) > len(ended) / 2


texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12)  # all that UTF-8 has


@settings(max_examples=40)
@given(choices=st.lists(texts, min_size=1, max_size=5), seed=st.integers(0, 10**6))
def test_the_answer_is_one_of_the_choices(vlm: VLM, choices: list[str], seed: int) -> None:
    answer = vlm.ask("Go", choices=choices, seed=seed, **WILD)
    assert answer.finish_reason == "stop" and answer.text in choices


def test_every_choice_can_be_said_and_one_may_begin_another(vlm: VLM) -> None:
    choices = ["red", "red circle", "blue"]
    said = {vlm.ask("Go", choices=choices, seed=seed, **ANYTHING).text for seed in range(60)}
    assert said == set(choices)


def test_a_space_of_the_text_itself_stays(vlm: VLM) -> None:
    assert {vlm.ask("Go", choices=[" a", "  b"], seed=seed, **ANYTHING).text for seed in range(20)} == {" a", "  b"}
    assert {vlm.ask("Go", regex=" ?x", seed=seed, **ANYTHING).text for seed in range(20)} == {" x", "x"}
    assert vlm.ask("Go", regex="\ny", **ANYTHING).text == "\ny"


# ---- in the hall ----


def test_streams_batches_and_chats_follow_rules(vlm: VLM) -> None:
    options = {"schema": Thing, "seed": 4, "temperature": 2.0, "max_new_tokens": 900}
    alone = vlm.ask("Go", **options)  # type: ignore[arg-type]
    stream = vlm.stream("Go", **options)  # type: ignore[arg-type]
    assert "".join(stream) == stream.answer.text == alone.text and stream.answer.parsed == alone.parsed
    batch = vlm.ask_batch(
        [{"question": "Go", **options}, {"question": "Go", "choices": ["a", "b"]}, {"question": "Go"}]  # type: ignore[typeddict-item]
    )
    assert batch[0].text == alone.text and batch[1].text in "ab" and batch[2].parsed is None
    chat = vlm.chat()
    assert re.fullmatch("[0-9]{3}", chat.ask("Go", regex="[0-9]{3}").text)
    assert isinstance(chat.ask("And?", **options).parsed, Thing)  # type: ignore[arg-type]
    assert chat.transcript()[1]["text"] == chat.transcript()[1]["text"].strip()


def test_an_answer_that_is_cut_says_so_and_stands_for_nothing(vlm: VLM) -> None:
    answer = vlm.ask("Go", schema=Thing, max_new_tokens=5)
    assert answer.finish_reason == "length" and answer.parsed is None
    with pytest.raises(ValueError, match="Expecting|Unterminated|delimiter"):
        json.loads(answer.text)


def test_a_rule_can_end_with_the_last_token(vlm: VLM) -> None:
    whole = vlm.ask("Go", regex="[ab]{7}")
    again = vlm.ask("Go", regex="[ab]{7}", max_new_tokens=len(whole.token_ids))
    assert whole.finish_reason == again.finish_reason == "stop" and whole.text == again.text


def test_what_a_class_refuses_beyond_its_schema_is_not_parsed(vlm: VLM) -> None:
    class Never(BaseModel):
        count: Literal[1, 2]

        @field_validator("count")
        @classmethod
        def refuse(cls, count: int) -> int:
            raise ValueError(f"{count} is no count")

    answer = vlm.ask("Go", schema=Never)
    assert answer.finish_reason == "stop" and answer.parsed is None and answer.text.startswith('{"count": ')


def test_a_bundled_model_answers_what_it_would_say_freely(nano: VLM) -> None:
    """It was trained to begin with a space: a rule that forbade it would get other answers."""
    picture = Path(smolvlm.__file__).parent / "assets" / "demo" / "picture.png"
    question = "What size is the orange diamond?"
    free = nano.ask(question, images=[picture])
    chosen = nano.ask(question, images=[picture], choices=["large", "small"], logprobs=0)
    assert chosen.text == free.text == "small" and chosen.logprobs[0].token == " small"
    assert nano.ask("How many diamonds are there?", images=[picture], regex=r"\d+").text == "2"
