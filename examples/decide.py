"""Probabilities of given answers from one look, not a text to search for "yes": python examples/decide.py"""

from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

vlm = smolvlm.load()
for question, choices in (
    ("Is there a pink diamond?", ("yes", "no")),
    ("What colour is the triangle?", ("red", "yellow", "blue")),
):
    decision = vlm.decide(question, choices=choices, images=[DEMO / "picture.png"])
    shares = ", ".join(f"{choice} {100 * share:.0f} %" for choice, share in decision.probabilities.items())
    print(f"{question} {decision.choice} ({shares}; {100 * decision.label_mass:.0f} % on these words at all)")
