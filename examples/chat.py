"""A conversation that remembers its turns; the picture is looked at once: python examples/chat.py"""

from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

chat = smolvlm.load().chat()
chat.ask("Describe the picture.", images=[DEMO / "picture.png"])
chat.ask("How many diamonds are there?")
chat.ask("Is the triangle yellow?")
for turn in chat.transcript():
    print(f"{turn['role']:>9}: {turn['text']}")
