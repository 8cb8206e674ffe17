"""Does smolvlm-nano say that it doesn't understand photographs? It was trained on drawn imitations of them alone.

    python benchmarks/nano_photographs.py FOLDER [FOLDER ...] [--model DIRECTORY]

Each picture of the folders is asked about eight times, whole and in four crops. Right is the refusal, to the letter.
Prints a line for each picture that it was wrong about, then the share.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from PIL import Image

import smolvlm
from smolvlm.scenes.photograph import REFUSAL

QUESTIONS = (
    "What is in the picture?", "Describe the image.", "What animal is this?", "How many shapes are there?",
    "What colour is the circle?", "What does it say?", "Is there a red square?", "Where was this taken?",
)  # fmt: skip
FILES = (".jpg", ".jpeg", ".png", ".webp")


def views(image: Image.Image) -> Iterator[Image.Image]:
    """The whole, and a half of each side at every corner."""
    yield image
    width, height = image.size
    for x in (0, width // 2):
        for y in (0, height // 2):
            yield image.crop((x, y, x + width // 2, y + height // 2))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    parser.add_argument("--model", help="directory or hub id (default: the bundled nano)")
    options = parser.parse_args()
    files = sorted(file for folder in options.folders for file in folder.iterdir() if file.suffix.lower() in FILES)
    if not files:
        parser.error("There is no picture in these folders.")
    vlm, right, total = smolvlm.load(options.model), 0, 0
    for file in files:
        asked = [(view, question) for view in views(Image.open(file).convert("RGB")) for question in QUESTIONS]
        answers = vlm.ask_batch([{"question": text, "images": [view], "max_new_tokens": 60} for view, text in asked])
        wrong = [str(one) for one in answers if str(one).strip() != REFUSAL]
        right, total = right + len(answers) - len(wrong), total + len(answers)
        if wrong:
            print(f"{file.name}: {len(wrong)} of {len(answers)} wrong, such as {wrong[0]!r}")
    print(f"{len(files)} pictures, {total} questions: {100 * right / total:.1f} % say {REFUSAL!r}")


if __name__ == "__main__":
    main()
