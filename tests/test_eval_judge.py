"""The judge: an endpoint on loopback that answers, one that doesn't, and the prompts it is sent."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from smolvlm.errors import InputError
from smolvlm.evaluation.judge import MOST_FAILURES, JudgeEndpoint, NoVerdict
from smolvlm.evaluation.runner import answer
from smolvlm.evaluation.scorers import Score, multiple_choice
from smolvlm.evaluation.summary import summarise
from smolvlm.evaluation.task import Row, Task
from tests.parrot import asking, task_of

ROW = Row("7", "What is it?", ("B",), fields={"A": "a cat", "B": "a dog", "C": None})


class Server(ThreadingHTTPServer):
    """An OpenAI-compatible endpoint that always says the same."""

    said: Any = "B"
    status = 200

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None, dict[str, Any]]] = []

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, self.headers.get("Authorization"), body))
        self.send_response(self.server.status)
        self.end_headers()
        self.wfile.write(json.dumps({"choices": [{"message": {"content": self.server.said}}]}).encode())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    one = Server()
    thread = threading.Thread(target=one.serve_forever, args=(0.01,))
    thread.start()
    yield one
    one.shutdown()
    thread.join()
    one.server_close()


def choice_task(rows: list[Row]) -> Task:
    def score(prediction: str, row: Row, mode: str, judge: Any) -> Score:
        return multiple_choice(prediction, ["a cat", "a dog"], "B", judge=judge)

    return replace(task_of(rows), score=score)  # type: ignore[arg-type]


def test_a_judge_is_told_the_question_and_its_word_is_read_by_the_scorer(server: Server) -> None:
    judge = JudgeEndpoint(server.url + "/", "gpt", "secret")
    ((record,),) = answer(asking(judge=judge), choice_task([ROW]), [ROW])
    assert (record.output, record.parsed, record.score, record.status) == ("What is it?", "B", 1.0, "ok")
    ((path, key, body),) = server.requests
    assert (path, key, body["model"], body["temperature"]) == ("/v1/chat/completions", "Bearer secret", "gpt", 0)
    (message,) = body["messages"]
    assert message["content"].endswith(
        "Question: What is it??\nOptions: There are several options: \nA. a cat\nB. a dog\n\nAnswer: What is it?\n"
        "Your output: "
    )


def test_what_a_rule_can_read_is_not_asked(server: Server) -> None:
    row = replace(ROW, question="B")
    ((record,),) = answer(asking(judge=JudgeEndpoint(server.url, "gpt")), choice_task([row]), [row])
    assert record.score == 1.0 and server.requests == []


@pytest.mark.parametrize("fault", ["status", "said", "gone"])
def test_a_judge_that_does_not_answer_leaves_the_score_undecided_and_says_so(fault: str, server: Server) -> None:
    if fault == "status":
        server.status = 503
    if fault == "said":
        server.said = {"no": "text"}
        server.status = 200
    url = "http://127.0.0.1:9/v1" if fault == "gone" else server.url
    rows = [replace(ROW, key=f"{number}") for number in range(6)]
    judge = JudgeEndpoint(url, "gpt", timeout_s=5)
    task = choice_task(rows)
    batches = list(answer(asking(judge=judge, batch_size=9), task, rows))
    records = [record for batch in batches for record in batch]
    if fault == "said":  # it is an answer, only none that can be read: that is for the scorer
        assert {record.status for record in records} == {"undecided"} and not records[0].reason
        return
    assert {(record.status, record.score) for record in records} == {("undecided", 0.0)}
    assert "The judge gpt at http://127.0.0.1:" in records[0].reason and "didn't answer" in records[0].reason
    assert "is down" in records[-1].reason
    assert len(server.requests) == (MOST_FAILURES if fault == "status" else 0)
    summary = summarise(task, records, rows, "vlmevalkit")
    assert (summary.unjudged, summary.figure.undecided) == (6, 6)


def test_an_answer_ends_a_row_of_failures(server: Server) -> None:
    judge = JudgeEndpoint(server.url, "gpt")
    for status in (503, 503, 200, 503, 503, 200):
        server.status = status
        if status == 200:
            assert judge.of("mmmu", ROW)("a dog") == "B"
        else:
            with pytest.raises(NoVerdict, match="503"):
                judge.of("mmmu", ROW)("a dog")


def test_an_address_that_is_none_is_refused() -> None:
    with pytest.raises(InputError, match="must begin with http"):
        JudgeEndpoint("localhost:8000", "gpt")


HARNESS_PROMPTS = [
    ("mmstar", "", "7b014ebcba6d26eb"),
    ("mathvista", "", "903530fe213f317b"),
    ("tempcompass", "multi-choice", "5a4f5f546fab1a09"),
    ("tempcompass", "caption_matching", "7e5d2acc064baac9"),
    ("tempcompass", "yes_no", "642bae101bfa32a0"),
    ("tempcompass", "captioning", "f8018ca41214d22e"),
    ("mlvu-sub-scene", "", "983d71ffd6128c8c"),
    ("mlvu-summary", "", "75578b6ad64e2200"),
]


@pytest.mark.parametrize(("task", "form", "digest"), HARNESS_PROMPTS)
def test_prompts_are_those_of_the_harness(task: str, form: str, digest: str, server: Server) -> None:
    """Digests of what VLMEvalKit e8e78f0 itself writes for this row, its functions called with these values."""
    fields = {"A": "a cat", "B": "a dog {prediction}", "mc_question": "Which?\nA. x\nB. y", "form": form or None}
    row = Row("1", "What is {answer}?", ("B. a dog", "two"), fields=fields)
    JudgeEndpoint(server.url, "gpt").of(task, row)("It is {question} \\1.")
    text = server.requests[0][2]["messages"][0]["content"]
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == digest
