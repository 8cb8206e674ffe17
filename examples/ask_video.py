"""Ask about a video, and see which frames at which seconds the answer rests on: python examples/ask_video.py [VIDEO]"""

import sys
from pathlib import Path

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"

video = sys.argv[1] if len(sys.argv) > 1 else DEMO / "video.mp4"
vlm = smolvlm.load()
for question in ("What happens in the video?", "What happens first?"):
    answer = vlm.ask(question, videos=[video], fps=1)
    print(question, answer)
for seen in answer.frames:
    seconds = ", ".join(f"{second:.1f}" for second in seen.timestamps_s)
    print(f"{seen.source}: {seen.duration_s:g} s long, shown at {seconds} s")
