"""Compare two pictures, and mix text, pictures and a video in one conversation: python examples/two_pictures.py"""

from pathlib import Path

import smolvlm
from smolvlm.scenes import draw

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

first, second = draw("pair", seed=3, index=0, split="test").pictures
vlm = smolvlm.load()
print(vlm.ask("Which picture has more shapes?", images=[first, second]))

content = [
    {"type": "text", "text": "Here is a picture: "},
    {"type": "image", "image": first},
    {"type": "text", "text": " and a video: "},
    {"type": "video", "path": str(DEMO / "video.mp4"), "max_frames": 4},
    {"type": "text", "text": " What happens in the video?"},
]
answer = vlm.ask(messages=[{"role": "user", "content": content}])
print(answer, answer.frames[0].timestamps_s)
