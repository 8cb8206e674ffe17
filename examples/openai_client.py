"""Serve the bundled model and ask it with OpenAI's own client: python examples/openai_client.py"""

import base64
import subprocess
import sys
from pathlib import Path

from openai import OpenAI

import smolvlm

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"
command = [sys.executable, "-m", "smolvlm", "serve", "--port", "0"]  # or `smolvlm serve` in a shell of its own

with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as server:
    url = server.stderr.readline().split()[1]
    while "ready" not in server.stderr.readline():
        pass
    client = OpenAI(base_url=f"{url}/v1", api_key="none")
    picture = "data:image/png;base64," + base64.b64encode((DEMO / "picture.png").read_bytes()).decode()
    part = {"type": "image_url", "image_url": {"url": picture}}
    messages = [{"role": "user", "content": [part, {"type": "text", "text": "What is this?"}]}]
    for chunk in client.chat.completions.create(model="nano", messages=messages, stream=True):
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    asked = {"type": "predicate", "instructions": "Is there a diamond?"}
    seen = [{"role": "user", "content": [{"type": "input_image", "image_url": picture}]}]
    (answer,) = client.decisions.create(model="nano", input=seen, questions=[asked]).answers
    print(f"\n{asked['instructions']} {answer.probability:.0%}")
    server.terminate()
