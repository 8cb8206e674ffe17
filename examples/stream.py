"""Print an answer while it is written, at a temperature, with a seed: python examples/stream.py"""

from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

vlm = smolvlm.load()
stream = vlm.stream("Tell a story about the picture.", images=[DEMO / "picture.png"], temperature=0.7, seed=1)
for piece in stream:
    print(piece, end="", flush=True)
print(f"\n(first token after {stream.answer.first_token_s:.2f} s, ended by {stream.answer.finish_reason!r})")
