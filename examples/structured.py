"""Answers in a given form: a choice, an expression, an object of a class: python examples/structured.py"""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field

import smolvlm

PICTURE = Path(smolvlm.__file__).parent / "assets" / "demo" / "picture.png"


class Diamond(BaseModel):
    colour: Literal["orange", "pink", "yellow", "blue"]
    size: Literal["small", "large"]


class Diamonds(BaseModel):
    diamonds: list[Diamond] = Field(max_length=2)


vlm = smolvlm.load()  # the bundled nano knows the words, but has never seen JSON: what it says in it is often wrong
seen = vlm.encode(images=[PICTURE])
print(vlm.ask("What size is the orange diamond?", features=seen, choices=["small", "large"]))
print(vlm.ask("How many diamonds are there?", features=seen, regex="[0-9]+"))
answer = vlm.ask("Which diamonds are there?", features=seen, schema=Diamonds)
print(answer.finish_reason, repr(answer.parsed))
