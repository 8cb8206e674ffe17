"""The tokens that a text model's vocabulary lacks: an image token, its tags, the end of a turn.

Their order, with 88 places kept free before the last, gives SmolLM2's vocabulary the released models' ids: 49190 is
`<image>`, 49279 `<end_of_utterance>`. Source: the tokenizer.json of SmolVLM-256M-Instruct and SmolVLM2.
"""

from __future__ import annotations

from .tokenizer import SmolVLMTokenizer

TAGGED_SIDE = 6  # tiles a side that have tags; beyond, a tag is spelled out as text
RESERVED = 88
TEXT_TOKENS = ("<|im_start|>", "<|im_end|>")  # the chat template's; SmolLM2 has them
PICTURE_TOKENS = (
    "<global-img>",
    *(f"<row_{row}_col_{column}>" for row in range(1, TAGGED_SIDE + 1) for column in range(1, TAGGED_SIDE + 1)),
    "<fake_token_around_image>",
    "<image>",
    *(f"<|reserved_special_token_{index}|>" for index in range(RESERVED)),
    "<end_of_utterance>",
)


def add_picture_tokens(tokenizer: SmolVLMTokenizer) -> SmolVLMTokenizer:
    """A text model's tokenizer with the family's tokens and settings; those that it has keep their ids."""
    from tokenizers import AddedToken, Tokenizer

    backend = Tokenizer.from_str(tokenizer.backend.to_str())
    missing = [text for text in (*TEXT_TOKENS, *PICTURE_TOKENS) if backend.token_to_id(text) is None]
    backend.add_special_tokens([AddedToken(text, special=True, normalized=False) for text in missing])
    settings = {
        "tokenizer_class": tokenizer.init_kwargs.get("tokenizer_class", "PreTrainedTokenizerFast"),
        "model_max_length": tokenizer.model_max_length,
        "truncation_side": "left",
        "clean_up_tokenization_spaces": False,
    }
    return SmolVLMTokenizer(backend, settings)
