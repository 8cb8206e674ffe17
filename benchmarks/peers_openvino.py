"""The rows of OpenVINO in peers.py: optimum-intel's export and its model class, through generate().

int8: weights in 8 bits, as optimum does it by default. int4: those of the text model in 4 bits.
Its transformers is an older one, which wants processor files in their older form: a copy of the checkpoint has them.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from inference import answer_times, processor_of_transformers
from peer import PICTURE, QUESTION, drive, row, settings, timed

FOLDER = "openvino"
GROUP = 64  # divides every width of the family; optimum's 128 doesn't


def prepare(directory: Path, dtype: str) -> None:
    from optimum.intel import OVModelForVisualCausalLM, OVWeightQuantizationConfig

    target, source = directory / f"{FOLDER}-{dtype}", directory / FOLDER
    if target.exists():
        return
    write_older_checkpoint(directory, source)
    bits = int(dtype.removeprefix("int"))
    options = OVWeightQuantizationConfig(bits=bits, group_size=GROUP if bits == 4 else None)
    model = OVModelForVisualCausalLM.from_pretrained(
        source, export=True, quantization_config=options, compile=False, local_files_only=True
    )
    model.save_pretrained(target)
    load_processor(directory).save_pretrained(target)


def write_older_checkpoint(directory: Path, target: Path) -> None:
    """The checkpoint with preprocessor_config.json, and as idefics3, the name under which optimum exports it."""
    target.mkdir(exist_ok=True)
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja", "generation_config.json"):
        shutil.copyfile(directory / name, target / name)
    if not (target / "model.safetensors").exists():
        (target / "model.safetensors").symlink_to(directory / "model.safetensors")
    whole = settings(directory, "processor_config.json")
    pictures = {**whole["image_processor"], "image_processor_type": "Idefics3ImageProcessor",
                "processor_class": "Idefics3Processor"}  # fmt: skip
    (target / "preprocessor_config.json").write_text(json.dumps(pictures))
    own = {"processor_class": "Idefics3Processor", "image_seq_len": whole["image_seq_len"]}
    (target / "processor_config.json").write_text(json.dumps(own))
    (target / "config.json").write_text(json.dumps(settings(directory)))


def load_processor(directory: Path) -> Any:
    import transformers

    return processor_of_transformers(directory, transformers.Idefics3ImageProcessor)


def answer(directory: Path, dtype: str, threads: int, cold: bool) -> dict[str, float]:
    from optimum.intel import OVModelForVisualCausalLM
    from PIL import Image

    model = OVModelForVisualCausalLM.from_pretrained(
        directory / f"{FOLDER}-{dtype}", ov_config={"INFERENCE_NUM_THREADS": threads}, local_files_only=True
    )
    processor = load_processor(directory)
    content = [{"type": "image"}, {"type": "text", "text": QUESTION}]
    prompt = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)

    def preprocess() -> Any:
        return processor(text=prompt, images=[Image.open(directory / PICTURE)], return_tensors="pt")

    answer_times(model, preprocess)
    if cold:
        return {}
    inputs = preprocess()
    vision = timed(
        lambda: model.get_vision_embeddings(
            inputs["pixel_values"], input_ids=inputs["input_ids"], pixel_attention_mask=inputs["pixel_attention_mask"]
        )
    )
    return row(vision, *answer_times(model, preprocess))


if __name__ == "__main__":
    drive(answer, prepare)
