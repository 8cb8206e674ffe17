"""One JSON line for each picture of a folder: python examples/batch.py [FOLDER]

Without a folder it draws four pictures into ./pictures first.
"""

import json
import sys
from pathlib import Path

import smolvlm
from smolvlm.scenes import draw

folder = Path(sys.argv[1] if len(sys.argv) > 1 else "pictures")
if len(sys.argv) == 1:
    folder.mkdir(exist_ok=True)
    for index in range(4):
        draw("scene", seed=1, index=index, split="test").pictures[0].save(folder / f"{index}.png")

vlm = smolvlm.load()
pictures = sorted(folder.glob("*.png"))
requests = [{"question": "Give a short caption.", "images": [picture]} for picture in pictures]
for picture, answer in zip(pictures, vlm.ask_batch(requests, batch_size=4), strict=True):
    print(json.dumps({"picture": picture.name, "caption": answer.text}))
