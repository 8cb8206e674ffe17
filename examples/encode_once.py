"""Look at a picture once and ask several questions about it: python examples/encode_once.py"""

from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

vlm = smolvlm.load()
features = vlm.encode(images=[DEMO / "picture.png"])
for question in ("How many diamonds are there?", "What colour is the triangle?", "Where is the orange diamond?"):
    print(question, vlm.ask(question, features=features))
print("Is there a circle?", vlm.decide("Is there a circle?", features=features).choice)
