"""Rules for an answer's text, as masks over tokens: JSON that fits a schema, a regular expression, one of given texts.

The grammars are llguidance's, of the extra `structured`; what is decided here is how much a rule may cost, and which
regular expressions are refused because others read them otherwise. JSON schemas are schema.py's.
"""

from __future__ import annotations

import json
import re
import threading
from collections import OrderedDict
from collections.abc import Collection
from typing import TYPE_CHECKING

import numpy as np

from ..errors import InputError, MissingDependencyError
from ..types import OutputRule
from .schema import followable
from .tokenizer import SmolVLMTokenizer

if TYPE_CHECKING:
    from llguidance import LLMatcher, LLTokenizer

MOST_CHARACTERS = 50_000  # of a rule
LEXER_FUEL = 100_000  # for llguidance to begin with; ten times as much lets (a{1000}){1000} take a second, for nothing
LEXER_STATES = 100_000  # of one rule, while answers are written: 15 MB
MOST_KEPT = 32
MEANINGS = {  # part of what llguidance says, in lower case -> what a caller can use
    "noextensionbias": "nothing fits",
    "oneof constraints": "oneOf whose alternatives may overlap isn't known: use anyOf, or give each a const of its own",
    "too many": "it has too many cases",
    "fuel": "it has too many cases",
    "too big": "it is too large",
    "items; max is": "too many alternatives or optional properties are open at the same time",
}


class Grammars:
    """The rules for one tokenizer, each made ready once. For several threads."""

    def __init__(self, tokenizer: SmolVLMTokenizer, end_ids: Collection[int], vocabulary: int) -> None:
        """end_ids: ids that end an answer. vocabulary: how many logits the model has."""
        self._tokenizer = tokenizer
        self._end_ids = sorted(end_ids)
        self._size = min(vocabulary, len(tokenizer))
        self._lock = threading.Lock()
        self._tokens: LLTokenizer | None = None
        self._kept: OrderedDict[OutputRule, Grammar] = OrderedDict()

    def grammar(self, rule: OutputRule) -> Grammar:
        """Raises InputError for a rule that can't be kept or costs too much, MissingDependencyError."""
        with self._lock:
            known = self._kept.get(rule)
            if known is not None and not known.broken:
                self._kept.move_to_end(rule)
                return known
            if self._tokens is None:
                self._tokens = _read_tokens(self._tokenizer, self._end_ids, self._size)
            tokens = self._tokens
        made = Grammar(rule, tokens, self._end_ids)
        with self._lock:
            self._kept[rule] = made
            while len(self._kept) > MOST_KEPT:
                self._kept.popitem(last=False)
        return made


class Grammar:
    """A rule made ready. broken: it grew too complex while an answer was written, so it must be made anew.

    strip: what the output may begin with and the text doesn't: the space that models write first, unless the text may
    begin with one of its own.
    """

    def __init__(self, rule: OutputRule, tokens: LLTokenizer, end_ids: Collection[int]) -> None:
        self.broken = False
        self._name, text = _write(rule)
        self._end_ids = np.array(end_ids)
        self._size = tokens.vocab_size
        self.strip = " "
        self._matcher = _compile(self._name, f'start: " "? text\n{text}', tokens)
        two_spaces = tokens.tokenize_str("  ")
        if self._matcher.validate_tokens(two_spaces) == len(two_spaces):
            self.strip = ""
            self._matcher = _compile(self._name, f"start: text\n{text}", tokens)
        for start in ("", self.strip):
            first = self._matcher.deep_copy()
            first.consume_tokens(tokens.tokenize_str(start))
            if np.isin(self.next_ids(first), self._end_ids).all():
                reason = _reason(first.get_error()) or "nothing but an empty text fits"
                raise InputError(f"{self._name} can't be a rule for answers: {reason}.")

    def mask(self) -> Mask:
        """For one answer."""
        return Mask(self, self._matcher.deep_copy())

    def next_ids(self, matcher: LLMatcher) -> np.ndarray:
        """(tokens,) ids, ascending, that may come next; none where the rule can't be kept any more."""
        bits = np.frombuffer(matcher.compute_bitmask(), np.uint8)
        if matcher.is_error():
            return np.zeros(0, np.int64)
        fits = np.unpackbits(bits, count=self._size, bitorder="little").view(bool)  # (vocabulary,)
        if not matcher.is_accepting():  # llguidance ends an answer behind which nothing fits, complete or not
            fits[self._end_ids] = False
        return np.flatnonzero(fits)

    def failure(self, matcher: LLMatcher) -> InputError:
        """What to raise when an answer can't go on."""
        self.broken = True
        reason = _reason(matcher.get_error()) or "nothing that it allows fits behind what was written"
        return InputError(
            f"{self._name} couldn't be followed to the end of the answer: {reason}. Make it simpler: fewer "
            "alternatives, fewer repetitions, no pattern that nothing can match."
        )


class Mask:
    """What one answer may go on with, see generation/sampling.py. Raises InputError where the rule can't be kept."""

    def __init__(self, grammar: Grammar, matcher: LLMatcher) -> None:
        self._grammar = grammar
        self._matcher = matcher

    def allowed(self) -> np.ndarray:
        """(tokens,) ids, ascending, at least one."""
        ids = self._grammar.next_ids(self._matcher)
        if not len(ids):
            raise self._grammar.failure(self._matcher)
        return ids

    def accept(self, token_id: int) -> None:
        if not self._matcher.consume_token(token_id) or (self.complete and not self._matcher.is_accepting()):
            raise self._grammar.failure(self._matcher)

    def forced(self) -> list[int]:
        """Ids of the text that must come next, as the tokenizer cuts it."""
        return list(self._matcher.compute_ff_tokens())

    @property
    def complete(self) -> bool:
        return bool(self._matcher.is_stopped())


def _compile(name: str, grammar: str, tokens: LLTokenizer) -> LLMatcher:
    from llguidance import LLMatcher, LLParserLimits

    limits = LLParserLimits(initial_lexer_fuel=LEXER_FUEL, max_lexer_states=LEXER_STATES, verbose_errors=False)
    matcher = LLMatcher(tokens, grammar, log_level=0, limits=limits)
    if matcher.is_error():
        raise InputError(f"{name} can't be a rule for answers: {_reason(matcher.get_error())}.")
    return matcher


def _reason(message: str) -> str:
    """What llguidance has to say, in a line."""
    for known, meaning in MEANINGS.items():
        if known in message.lower():
            return meaning
    found = re.search(r"^error: (.*)", message, re.MULTILINE)
    line = found[1] if found else message.partition("\n")[0]
    line = re.sub(r'^(at \d+\(\d+\): )?(failed to compile JSON schema: |invalid regex ".*" \(in regex\): )?', "", line)
    return line.strip().rstrip(".")


def _read_tokens(tokenizer: SmolVLMTokenizer, end_ids: list[int], size: int) -> LLTokenizer:
    """The vocabulary as llguidance takes it. Raises MissingDependencyError."""
    try:
        from llguidance import LLTokenizer, TokenizerWrapper
    except ImportError as error:
        raise MissingDependencyError(
            "Answers that follow a schema, a regular expression or choices need llguidance: "
            "pip install 'smolvlm[structured]'"
        ) from error
    return LLTokenizer(TokenizerWrapper(_Vocabulary(tokenizer, end_ids, size)), eos_token=end_ids)


class _Vocabulary:
    """A tokenizer under the names that llguidance reads."""

    def __init__(self, tokenizer: SmolVLMTokenizer, end_ids: list[int], size: int) -> None:
        self.eos_token_id = end_ids[0]
        self.bos_token_id = None
        # a token without text is named behind a byte that UTF-8 doesn't have, so that no rule can ask for it
        self.tokens = [tokenizer.token_bytes(index) or b"\xff<%d>" % index for index in range(size)]
        self.special_token_ids = [index for index, token in enumerate(self.tokens) if token[0] == 0xFF]
        self._backend = tokenizer.plain_backend()

    def __call__(self, text: bytes) -> list[int]:
        return list(self._backend.encode(text.decode(), add_special_tokens=False).ids)


# ---- what a rule may be ----


def _write(rule: OutputRule) -> tuple[str, str]:
    """What an error calls the rule, and the part of the grammar that defines `text`."""
    if rule.choices:
        choices = " | ".join(map(_quoted, _shorter("The choices", rule.choices)))
        return "The choices", f"text: CHOICE\nCHOICE: {choices}"
    if rule.regex is not None:
        return f"The regular expression {rule.regex[:60]!r}", f"text: /{_expression(rule.regex)}/"
    schema = '{"type": "object"}' if rule.json_object else rule.json_schema or ""
    return "The JSON schema", f"text: %json {followable(*_shorter('JSON schemas', (schema,)))}"


def _shorter(name: str, texts: tuple[str, ...]) -> tuple[str, ...]:
    """The texts, if they aren't too long and can be written."""
    length = sum(map(len, texts))
    if length > MOST_CHARACTERS:
        raise InputError(f"{name} of {length:,} characters are too long for a rule: {MOST_CHARACTERS:,} are allowed.")
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise InputError(f"{name} hold half a character, which no text can: {error.reason}.") from error
    return texts


def _quoted(choice: str) -> str:
    return json.dumps(choice, ensure_ascii=False).replace("\x7f", r"\u007f")


def _expression(regex: str) -> str:
    """A regular expression for the grammar. What means something else to Python's re, with re.ASCII, is refused."""
    from llguidance import regex_to_lark

    _shorter("Regular expressions", (regex,))
    sets = r"\[\^?\]?(?:\\.|[^]\\])*\]"
    bare = re.sub(rf"\\.|{sets}", "", regex, flags=re.DOTALL)
    if bare.endswith("\\"):
        raise InputError(f"regex={regex!r} ends with a backslash that nothing follows: write two for one.")
    if re.search(r"[*+?}]\+", bare):
        raise InputError(
            f"regex={regex!r} has a possessive repetition such as a*+, which isn't known: leave the + out."
        )
    for found in re.findall(rf"\\.|({sets})", regex, flags=re.DOTALL):
        if re.search(r"(?<!\\)\[|&&|--|~~", found[1:]):
            raise InputError(
                f"regex={regex!r} can be read in two ways: {found!r} holds a set or an operation of sets. Write a "
                "backslash before [, &, - and ~ that mean themselves."
            )
    return str(regex_to_lark(regex, "dws"))
