"""Ask vLLM, which takes pictures alone, about a video: python examples/vllm_video.py VIDEO QUESTION URL MODEL"""

import base64
import io
import sys
from re import split

from openai import OpenAI
from PIL import Image

import smolvlm


def video_parts(processor: smolvlm.SmolVLMProcessor, video: object, question: str) -> list[dict]:
    """Each frame as a picture of one tile, after the words that this family reads before it, and the question."""
    inputs = processor.prepare([{"role": "user", "content": [{"type": "video", "video": video}]}])
    words = split("<fake_token_around_image>.+?<fake_token_around_image>", processor.tokenizer.decode(inputs.input_ids))
    parts = [{"type": "text", "text": words[0].partition("User: ")[2]}]
    for pixels, text in zip((inputs.pixel_values + 1) * 127.5, [*words[1:-1], "\n\n" + question], strict=True):
        Image.fromarray(pixels.transpose(1, 2, 0).round().astype("uint8")).save(file := io.BytesIO(), "PNG")
        url = "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
        parts += [{"type": "image_url", "image_url": {"url": url, "detail": "low"}}, {"type": "text", "text": text}]
    return parts


if __name__ == "__main__":
    video, question, url, model = sys.argv[1:]
    parts = video_parts(smolvlm.AutoProcessor.from_pretrained(model), video, question)
    client, messages = OpenAI(base_url=url, api_key="none"), [{"role": "user", "content": parts}]
    print(client.chat.completions.create(model=model, messages=messages).choices[0].message.content)
