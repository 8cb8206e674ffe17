"""Frames of your own as a video, such as pictures of a camera with their times: python examples/frames.py"""

import smolvlm
from smolvlm.scenes import render_clip

clip = render_clip(seed=2026, index=25, split="test", fps=2)
frames = list(clip.frames)[::2]
times = list(clip.timestamps_s)[::2]

vlm = smolvlm.load()
content = [
    {"type": "video", "video": frames, "timestamps_s": times},
    {"type": "text", "text": "What happens in the video?"},
]
answer = vlm.ask(messages=[{"role": "user", "content": content}])
print(answer)
print("shown:", answer.frames[0].timestamps_s)
