"""Ask a question about pictures: python examples/ask_picture.py [PICTURE ... QUESTION]

Without arguments it asks about the demo's picture. The bundled model knows drawn material only; for photographs pass
the name of a released checkpoint to load().
"""

import sys
from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

*pictures, question = sys.argv[1:] or [str(DEMO / "picture.png"), "Describe the picture."]
vlm = smolvlm.load()
answer = vlm.ask(question, images=pictures)
print(answer)
print(f"{answer.prompt_tokens} tokens read, {len(answer.token_ids)} written, {answer.total_s:.2f} s")
