"""Draw pictures with known answers, ask, and count what is exactly right: python examples/check_answers.py [SCENES]"""

import sys

import smolvlm
from smolvlm.scenes import draw

scenes = [draw("scene", seed=5, index=index, split="test") for index in range(int((sys.argv + ["10"])[1]))]
turns = [(scene, turn) for scene in scenes for turn in scene.turns]
requests = [{"question": turn.question, "images": scene.pictures, "max_new_tokens": 64} for scene, turn in turns]
answers = smolvlm.load().ask_batch(requests)
right = [answer.text == turn.answer for answer, (_, turn) in zip(answers, turns, strict=True)]
misses = [(turn, answer) for answer, (_, turn), ok in zip(answers, turns, right, strict=True) if not ok]
for turn, answer in misses[:5]:
    print(f"{turn.question}\n    said:  {answer}\n    right: {turn.answer}")
print(f"{sum(right)} of {len(right)} exactly right")
