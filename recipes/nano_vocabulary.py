"""Train the vocabulary of smolvlm-nano: byte-level BPE, 1024 entries.

Command:   python recipes/nano_vocabulary.py [DIRECTORY]      (default: the package's assets/nano)
Hardware:  one CPU core.  Minutes: below one.  Expected: with the same version of tokenizers, the same bytes; the script
           prints the sha256 of tokenizer.json and whether it equals the one that was there before.

nano_words.json holds the words it is trained on and their counts. They were counted once in the questions and answers
of the drawn skills, their paraphrases and the prompts of the family, and stay as they are when the drawn material
grows: a vocabulary that has been trained with is never changed.

Like the family's: digits one by one, GPT-2's regex, no added space. Unlike it, every capital letter is a token of its
own and is never merged with anything, so that reading letters is spelling: " LAMP" is the token of the space, then
L, A, M, P. A space before a small letter belongs to the word, as usual.
"""

from __future__ import annotations

import hashlib
import json
import sys
from collections.abc import Iterator
from itertools import repeat
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

SIZE = 1024
FIRST = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
LAST = (
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, 7) for column in range(1, 7)),
    "<fake_token_around_image>",
    "<image>",
    "<end_of_utterance>",
)
WORDS = Path(__file__).with_name("nano_words.json")
MODEL_MAX_LENGTH = 4096
CHAT_TEMPLATE = (
    "<|im_start|>{% for message in messages %}{{message['role'] | capitalize}}"
    "{% if message['content'][0]['type'] == 'image' %}{{':'}}{% else %}{{': '}}{% endif %}"
    "{% for line in message['content'] %}{% if line['type'] == 'text' %}{{line['text']}}"
    "{% elif line['type'] == 'image' %}{{ '<image>' }}{% endif %}{% endfor %}<end_of_utterance>\n"
    "{% endfor %}{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)


def corpus() -> Iterator[str]:
    """Every counted word, as often as it was counted. Capitals and digits are single tokens and need no counting."""
    for word, count in json.loads(WORDS.read_text(encoding="utf-8")).items():
        yield from repeat(word, count)


def train() -> Tokenizer:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.Split(Regex("[A-Z]"), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True, trim_offsets=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=SIZE - len(LAST),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=[special(token) for token in FIRST],
        show_progress=False,
    )
    tokenizer.train_from_iterator(corpus(), trainer)
    tokenizer.add_special_tokens([special(token) for token in LAST])
    assert tokenizer.get_vocab_size() == SIZE, f"{tokenizer.get_vocab_size()} entries instead of {SIZE}"
    return tokenizer


def special(token: str) -> AddedToken:
    return AddedToken(token, single_word=False, lstrip=False, rstrip=False, normalized=False, special=True)


def write(tokenizer: Tokenizer, directory: Path) -> None:
    """The files beside the weights, as a Hugging Face checkpoint directory has them."""
    tokenizer.save(str(directory / "tokenizer.json"), pretty=True)
    named = {
        "bos_token": "<|im_start|>",
        "eos_token": "<end_of_utterance>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "image_token": "<image>",
        "fake_image_token": "<fake_token_around_image>",
        "global_image_token": "<global-img>",
        "end_of_utterance_token": "<end_of_utterance>",
    }
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    added = {str(tokenizer.token_to_id(token)): {"content": token, **flags} for token in (*FIRST, *LAST)}
    config = {
        "add_prefix_space": False,
        "added_tokens_decoder": added,
        "additional_special_tokens": ["<fake_token_around_image>", "<image>", "<end_of_utterance>"],
        "clean_up_tokenization_spaces": False,
        "extra_special_tokens": {key: named[key] for key in list(named)[4:]},
        "legacy": False,
        "model_max_length": MODEL_MAX_LENGTH,
        "processor_class": "SmolVLMProcessor",
        "tokenizer_class": "GPT2Tokenizer",
        "truncation_side": "left",
        "vocab_size": SIZE,
        **named,
    }
    write_json(directory / "tokenizer_config.json", config)
    special_map = {"additional_special_tokens": config["additional_special_tokens"], **named}
    write_json(directory / "special_tokens_map.json", special_map)
    (directory / "chat_template.jinja").write_text(CHAT_TEMPLATE, encoding="utf-8", newline="\n")


def write_json(path: Path, content: dict[str, object]) -> None:
    text = json.dumps(content, indent=2, sort_keys=True, ensure_ascii=False) + "\n"
    path.write_text(text, encoding="utf-8", newline="\n")


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.exists() else "absent"


def main() -> None:
    default = Path(__file__).resolve().parents[1] / "src" / "smolvlm" / "assets" / "nano"
    directory = Path(sys.argv[1]) if len(sys.argv) > 1 else default
    directory.mkdir(parents=True, exist_ok=True)
    before = digest(directory / "tokenizer.json")
    write(train(), directory)
    after = digest(directory / "tokenizer.json")
    print(f"tokenizer.json sha256 {after} ({'the same as before' if before == after else f'before: {before}'})")  # noqa: T201


if __name__ == "__main__":
    main()
