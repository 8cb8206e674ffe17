"""A language model that reads answers no rule can read, behind any OpenAI-compatible address.

It is told the question, so that it knows what it judges. What it says goes back through the scorer that asked. When it
can't be reached the score is undecided, never wrong. Texts and their source: judge_prompts.toml.
"""

from __future__ import annotations

import json
import re
import tomllib
import urllib.error
import urllib.request
from functools import lru_cache
from importlib.resources import files
from string import ascii_uppercase
from threading import Lock

from ..errors import InputError
from .scorers import Judge
from .task import Row

TIMEOUT_S = 60.0
MOST_FAILURES = 3  # in a row, after which it counts as down and isn't asked again
MAX_TOKENS = 1024  # a judge may reason first


class NoVerdict(Exception):
    """The judge was needed and didn't answer."""


class JudgeEndpoint:
    """A model behind an address such as "http://localhost:8000/v1". Several threads may use it."""

    def __init__(self, url: str, model: str, key: str = "", timeout_s: float = TIMEOUT_S) -> None:
        """Raises InputError for an address that isn't http or https."""
        if not url.startswith(("http://", "https://")):
            raise InputError(f"The judge's address {url!r} must begin with http:// or https://, and end before /chat.")
        self.url, self.model = url.rstrip("/"), model
        self._key, self._timeout_s = key, timeout_s
        self._lock = Lock()
        self._failures = 0

    def __str__(self) -> str:
        return f"{self.model} at {self.url}"

    def of(self, task: str, row: Row) -> Judge:
        """What a scorer asks about predictions of this row. It raises NoVerdict when there is no answer."""
        return lambda prediction: self._ask(_prompt(task, row, prediction))

    def _ask(self, prompt: str) -> str:
        if self._failures >= MOST_FAILURES:
            raise NoVerdict(f"The judge {self} is down.")
        body = {
            "model": self.model,
            "messages": [{"role": "user", "content": prompt}],
            "temperature": 0,
            "max_tokens": MAX_TOKENS,
        }
        headers = {
            "Content-Type": "application/json",
            **({"Authorization": f"Bearer {self._key}"} if self._key else {}),
        }
        request = urllib.request.Request(f"{self.url}/chat/completions", json.dumps(body).encode(), headers)
        try:
            with urllib.request.urlopen(request, timeout=self._timeout_s) as response:
                said = json.load(response)["choices"][0]["message"]["content"]
        except (OSError, ValueError, LookupError, TypeError) as error:  # also HTTP errors and timeouts
            self._count(failed=True)
            raise NoVerdict(f"The judge {self} didn't answer: {error}.") from error
        self._count(failed=False)
        return str(said or "").strip()

    def _count(self, failed: bool) -> None:
        with self._lock:
            self._failures = self._failures + 1 if failed else 0


def _prompt(task: str, row: Row, prediction: str) -> str:
    """The text for this kind of question with its places filled."""
    texts, form = _texts(), row.fields.get("form")
    text = texts.get(f"{task}/{form}" if form else task, texts["choice"])
    options = [f"{letter}. {row.fields[letter]}" for letter in ascii_uppercase if row.fields.get(letter) is not None]
    places = {
        "question": row.question,
        "mc_question": str(row.fields.get("mc_question")),
        "options": "There are several options: \n" + "".join(f"{option}\n" for option in options),
        "answer": row.answers[0] if row.answers else "",
        "answers": str(list(row.answers)),
        "prediction": prediction,
    }
    # in one pass, so that braces in what is filled in stay
    return re.sub(r"\{(\w+)\}", lambda place: places.get(place[1], place[0]), text)


@lru_cache(maxsize=1)
def _texts() -> dict[str, str]:
    return tomllib.loads(files(__package__).joinpath("judge_prompts.toml").read_text(encoding="utf-8"))
