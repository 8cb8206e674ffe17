"""A conversation -> prompt text through the Jinja chat template of a checkpoint, in a sandbox.

Templates come with checkpoints, so they are strangers' code: they see plain values only. See chat.py for messages.
Source: the template in SmolVLM's checkpoints; transformers' rules for its environment.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, NoReturn

from ..errors import PromptError

if TYPE_CHECKING:
    import jinja2
    import jinja2.ext

Block = dict[str, object]
Message = dict[str, object]

# The checkpoints' template, as published, with the video branch that the reference adds when a message holds a video.
DEFAULT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% elif line['type'] == 'video' %}{{ '<video>' }}{% endif %}"
    "{% endfor %}<end_of_utterance>\n{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def render(
    messages: Iterable[Message],
    template: str | None = None,
    *,
    add_generation_prompt: bool = False,
    continue_final_message: bool = False,
    variables: Mapping[str, object] | None = None,
) -> str:
    """The prompt text of one normalised conversation, with `<image>` and `<video>` where the media go.

    template: a Jinja chat template; None is the family's. It runs in a sandbox and sees plain values only.
    continue_final_message: end inside the last message, for the model to go on with it.
    Raises PromptError when the template fails.
    """
    import jinja2

    if add_generation_prompt and continue_final_message:
        raise PromptError(
            "add_generation_prompt opens a new turn and continue_final_message goes on with the last: pass one of them."
        )
    plain = [_plain_message(message) for message in messages]
    try:
        prompt = _compile(template or DEFAULT_TEMPLATE).render(
            **(variables or {}), messages=plain, add_generation_prompt=add_generation_prompt
        )
    except (jinja2.TemplateError, TypeError, KeyError, IndexError, AttributeError) as error:
        raise PromptError(f"The chat template can't render these messages: {error}.") from error
    return _cut_after_last_text(prompt, plain) if continue_final_message else prompt


def _plain_message(message: Message) -> Message:
    """Only plain values reach a template: a decoded picture has methods that a sandbox doesn't know."""
    others = {key: value for key, value in message.items() if isinstance(value, str | int | float | bool)}
    blocks = [dict(block) if block["type"] == "text" else {"type": block["type"]} for block in blocks_of(message)]
    return {**others, "content": blocks}


def _cut_after_last_text(prompt: str, messages: Sequence[Message]) -> str:
    texts = [str(block["text"]) for block in blocks_of(messages[-1]) if block["type"] == "text"]
    last = texts[-1] if texts else ""
    for text in (last, last.strip()):
        if text and text in prompt:
            return prompt[: prompt.rindex(text) + len(text)]
    raise PromptError("continue_final_message needs a last message that ends in a text, and a template that keeps it.")


@lru_cache(maxsize=16)
def _compile(template: str) -> jinja2.Template:
    import jinja2

    try:
        return _environment().from_string(template)
    except jinja2.TemplateSyntaxError as error:
        raise PromptError(f"The chat template is not valid Jinja: {error}.") from error


@lru_cache(maxsize=1)
def _environment() -> jinja2.Environment:
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols", _generation_tag()]
    )
    environment.filters["tojson"] = _to_json
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = lambda form: datetime.now().strftime(form)
    return environment


@lru_cache(maxsize=16)
def template_variables(template: str) -> frozenset[str]:
    """Names that a template expects from outside, besides the messages."""
    from jinja2 import meta

    _compile(template)  # tells what is wrong with it
    return frozenset(meta.find_undeclared_variables(_environment().parse(template))) - {
        "messages",
        "add_generation_prompt",
    }


def _generation_tag() -> type[jinja2.ext.Extension]:
    """`{% generation %}` marks the model's turns in templates made for training; here its body is simply rendered."""
    from jinja2 import nodes
    from jinja2.ext import Extension
    from jinja2.parser import Parser

    class GenerationTag(Extension):
        tags = {"generation"}

        def parse(self, parser: Parser) -> list[nodes.Node]:
            next(parser.stream)
            return parser.parse_statements(("name:endgeneration",), drop_needle=True)

    return GenerationTag


def _raise_exception(message: str) -> NoReturn:
    import jinja2

    raise jinja2.TemplateError(message)


def _to_json(value: object, indent: int | None = None) -> str:
    return json.dumps(value, ensure_ascii=False, indent=indent)


def template_uses(template: str, name: str) -> bool:
    """Whether a chat template mentions a word at all, such as 'video'."""
    return re.search(rf"\b{re.escape(name)}\b", template) is not None


def blocks_of(message: Message) -> list[Block]:
    """The blocks of one normalised message."""
    content = message["content"]
    assert isinstance(content, list), "messages are normalised first"
    return content
