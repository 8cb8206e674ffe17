"""Code written for transformers, with one import line changed: python examples/reference_names.py"""

from pathlib import Path

import torch

import smolvlm
from smolvlm import AutoModelForImageTextToText, AutoProcessor

DEMO = Path(smolvlm.__file__).parent / "assets" / "demo"
NAME = "nano"  # or "HuggingFaceTB/SmolVLM2-500M-Video-Instruct"

processor = AutoProcessor.from_pretrained(NAME)
model = AutoModelForImageTextToText.from_pretrained(NAME, dtype=torch.float32)
content = [{"type": "image", "path": str(DEMO / "picture.png")}, {"type": "text", "text": "Describe the picture."}]
inputs = processor.apply_chat_template(
    [{"role": "user", "content": content}],
    add_generation_prompt=True,
    tokenize=True,
    return_dict=True,
    return_tensors="pt",
).to(model.device, dtype=model.dtype)
generated_ids = model.generate(**inputs, do_sample=False, max_new_tokens=64)
print(processor.batch_decode(generated_ids, skip_special_tokens=True)[0])
