"""Text <-> token ids, over the `tokenizers` library and the files of a checkpoint.

Knows no pictures; see chat.py for tile tags. Padding and truncation are done here, so that the shared tokenizer object
never changes. Source: transformers' PreTrainedTokenizerFast; ids equal in tests/reference/test_processor.py.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from .. import hub
from ..errors import CheckpointError, InputError
from .batch import BatchFeature
from .chat import fenced_pieces
from .rows import as_batch, as_lists, keeper, pad, pad_width

VERY_LARGE = int(1e30)  # what the reference writes for "no limit"
_ROLES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
_FAMILY = {  # for a bare tokenizer.json: the family's roles, where the vocabulary has them
    "bos_token": "<|im_start|>",
    "eos_token": "<end_of_utterance>",
    "pad_token": "<|im_end|>",
    "unk_token": "<|endoftext|>",
    "image_token": "<image>",
    "fake_image_token": "<fake_token_around_image>",
    "global_image_token": "<global-img>",
    "end_of_utterance_token": "<end_of_utterance>",
}


def _byte_letters() -> dict[str, int]:
    """letter -> byte of byte-level vocabularies: printable Latin-1 stands for itself, the rest comes from U+0100 on."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(others)}


_BYTES = _byte_letters()


class SmolVLMTokenizer:
    """The tokenizer of one checkpoint.

    padding_side: "right", as the family's files leave it; the processor pads prompts for generation on the left.
    `image_token`, `fake_image_token`, `global_image_token`, `end_of_utterance_token` are texts; each `*_id` is an id.
    """

    def __init__(self, backend: Any, settings: dict[str, Any] | None = None) -> None:
        """backend: a `tokenizers.Tokenizer`. settings: the content of tokenizer_config.json."""
        backend.no_padding()
        backend.no_truncation()
        self.backend = backend
        self._plain: Any = None
        self.init_kwargs: dict[str, Any] = dict(settings or {})
        self._add_missing_tokens(self.init_kwargs.get("added_tokens_decoder") or {})
        self._roles = self._read_roles(self.init_kwargs)
        self._special_ids = frozenset(self.all_special_ids)
        self.padding_side: str = self.init_kwargs.get("padding_side", "right")
        self.truncation_side: str = self.init_kwargs.get("truncation_side", "right")
        self.model_max_length = int(self.init_kwargs.get("model_max_length") or VERY_LARGE)
        self.chat_template: str | None = self.init_kwargs.get("chat_template")

    # ---- files ----

    @classmethod
    def from_pretrained(
        cls,
        name_or_path: str | Path | None = None,
        *,
        revision: str | None = None,
        local_files_only: bool = False,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
        **settings: object,
    ) -> SmolVLMTokenizer:
        """Read tokenizer.json and its companions from a directory or hub id. settings override the file's, by name."""
        directory = hub.resolve(
            name_or_path,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            patterns=hub.PROCESSOR_FILES,
        )
        return cls.from_directory(directory, **settings)

    @classmethod
    def from_directory(cls, directory: Path, **settings: object) -> SmolVLMTokenizer:
        """Read a local directory; touches no network."""
        from tokenizers import Tokenizer

        path = directory / "tokenizer.json"
        if not path.is_file():
            raise CheckpointError(f"{directory} has no tokenizer.json: save the tokenizer of the model there first.")
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as error:  # the library raises plain Exception for any damage
            raise CheckpointError(f"{path} is not a tokenizer file that can be read: {error}.") from error
        written = read_json(directory / "special_tokens_map.json") | read_json(directory / "tokenizer_config.json")
        return cls(backend, written | settings)

    def save_pretrained(self, directory: str | Path) -> None:
        """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
        directory = Path(directory)
        directory.mkdir(parents=True, exist_ok=True)
        self.backend.save(str(directory / "tokenizer.json"))
        settings = {key: value for key, value in self.init_kwargs.items() if key != "chat_template"}
        settings |= self._roles | {
            "model_max_length": self.model_max_length,
            "padding_side": self.padding_side,
            "truncation_side": self.truncation_side,
        }
        settings.setdefault("tokenizer_class", "PreTrainedTokenizerFast")
        write_json(directory / "tokenizer_config.json", settings)
        write_json(directory / "special_tokens_map.json", self.special_tokens_map)

    # ---- special tokens ----

    def _add_missing_tokens(self, decoder: dict[str, Any]) -> None:
        """Old files list added tokens in tokenizer_config.json only; give them their ids."""
        from tokenizers import AddedToken

        for key, entry in sorted(decoder.items(), key=lambda item: int(item[0])):
            text = _text(entry)
            if self.backend.token_to_id(text) is None:
                special = bool(entry.get("special", True)) if isinstance(entry, dict) else True
                self.backend.add_tokens([AddedToken(text, special=special, normalized=False)])
            if self.backend.token_to_id(text) != int(key):
                raise CheckpointError(
                    f"tokenizer_config.json gives {text!r} the id {key}, but tokenizer.json gives it "
                    f"{self.backend.token_to_id(text)}: the two files are of different models."
                )

    def _read_roles(self, settings: dict[str, Any]) -> dict[str, str]:
        found: dict[str, Any] = {}
        for key in ("extra_special_tokens", "model_specific_special_tokens"):  # layouts of transformers 4.5x and 5
            if isinstance(settings.get(key), dict):
                found |= settings[key]
        found |= {key: settings[key] for key in (*_ROLES, *_FAMILY) if settings.get(key)}
        roles = {key: _text(value) for key, value in found.items()}
        for key, text in _FAMILY.items():
            if key not in roles and (key not in _ROLES or self.backend.token_to_id(text) is not None):
                roles[key] = text
        return roles

    def __getattr__(self, name: str) -> Any:
        """`pad_token`, `pad_token_id`, `image_token`, `image_token_id` ... of every role the files name."""
        roles = self.__dict__.get("_roles", {})
        role = name.removesuffix("_id")
        if role in roles:
            return roles[role] if name == role else self.backend.token_to_id(roles[role])
        if role in _ROLES:
            return None
        raise AttributeError(f"SmolVLMTokenizer has no attribute {name!r}.")

    @property
    def special_tokens_map(self) -> dict[str, str]:
        return dict(self._roles)

    @property
    def all_special_tokens(self) -> list[str]:
        return [token.content for token in self.backend.get_added_tokens_decoder().values() if token.special]

    @property
    def all_special_ids(self) -> list[int]:
        return [index for index, token in self.backend.get_added_tokens_decoder().items() if token.special]

    @property
    def additional_special_tokens(self) -> list[str]:
        """Special tokens without a general role, such as `<image>` and the tags of tiles."""
        general = {self._roles.get(role) for role in _ROLES}
        return [token for token in self.all_special_tokens if token not in general]

    @property
    def additional_special_tokens_ids(self) -> list[int]:
        return [int(self.backend.token_to_id(token)) for token in self.additional_special_tokens]

    @property
    def vocab_size(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=False))

    def __len__(self) -> int:
        return int(self.backend.get_vocab_size(with_added_tokens=True))

    def get_vocab(self) -> dict[str, int]:
        return dict(self.backend.get_vocab(with_added_tokens=True))

    # ---- text -> ids ----

    def encode(self, text: str | Sequence[str], *, add_special_tokens: bool = True) -> list[int]:
        """Ids of one text, or of one text given as a list of words."""
        return list(self._encode(text, add_special_tokens, not isinstance(text, str)).ids)

    def encode_prompt(self, prompt: str) -> list[int]:
        """Ids of a rendered prompt; pieces that chat.protect fenced are encoded as plain text, tags and all."""
        ids: list[int] = []
        for text, fenced in fenced_pieces(prompt):
            backend = self.plain_backend() if fenced else self.backend
            ids.extend(backend.encode(text, add_special_tokens=False).ids)
        return ids

    def plain_backend(self) -> Any:
        """A `tokenizers.Tokenizer` to which control tokens in a text are plain text."""
        if self._plain is None:
            from tokenizers import Tokenizer

            plain = Tokenizer.from_str(self.backend.to_str())
            plain.encode_special_tokens = True
            self._plain = plain
        return self._plain

    def tokenize(self, text: str) -> list[str]:
        return list(self.backend.encode(text, add_special_tokens=False).tokens)

    def _encode(self, text: str | Sequence[str], add_special_tokens: bool, split: bool) -> Any:
        return self.backend.encode(
            text if isinstance(text, str) else list(text), is_pretokenized=split, add_special_tokens=add_special_tokens
        )

    def __call__(
        self,
        text: str | Sequence[str] | Sequence[Sequence[str]],
        *,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        is_split_into_words: bool = False,
        add_special_tokens: bool = True,
        return_tensors: object = None,
        return_attention_mask: bool = True,
        return_offsets_mapping: bool = False,
    ) -> BatchFeature:
        """Encode one text or a batch: `input_ids` and `attention_mask`, as lists unless return_tensors says otherwise.

        padding: False, True or "longest", "max_length". truncation: False, or True to cut at max_length (else at
        model_max_length). is_split_into_words: each text is a list of words. One text gives flat lists.
        """
        texts, batched = as_batch(text, is_split_into_words)
        encodings = [self._encode(one, add_special_tokens, is_split_into_words) for one in texts]
        columns = {"offset_mapping": [list(one.offsets) for one in encodings]} if return_offsets_mapping else {}
        result = self.finish(
            [list(one.ids) for one in encodings],
            columns=columns,
            padding=padding,
            truncation=truncation,
            max_length=max_length,
            pad_to_multiple_of=pad_to_multiple_of,
            padding_side=padding_side,
            truncation_side=truncation_side,
            return_attention_mask=return_attention_mask,
        )
        if not batched and return_tensors is None:
            result = BatchFeature({key: value[0] for key, value in result.items()})
        return result.convert_to_tensors(return_tensors)

    def finish(
        self,
        rows: list[list[int]],
        *,
        columns: dict[str, list[list[tuple[int, int]]]] | None = None,
        padding: bool | str = False,
        truncation: bool | str | None = False,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        truncation_side: str | None = None,
        return_attention_mask: bool = True,
    ) -> BatchFeature:
        """Rows of ids -> `input_ids` and `attention_mask` as lists, cut and filled up as a call says.

        columns: what else goes with the ids, filled up with (0, 0).
        """
        limit = self._limit(truncation, max_length)
        keep = keeper(limit, truncation_side or self.truncation_side)
        rows = [keep(row) for row in rows]
        width = pad_width([len(row) for row in rows], padding, max_length or limit, pad_to_multiple_of)
        side = padding_side or self.padding_side
        result = BatchFeature(input_ids=[pad(row, width, self._pad_id(width, row), side) for row in rows])
        if return_attention_mask:
            result["attention_mask"] = [pad([1] * len(row), width, 0, side) for row in rows]
        for name, values in (columns or {}).items():
            result[name] = [pad(keep(list(row)), width, (0, 0), side) for row in values]
        return result

    def _limit(self, truncation: bool | str | None, max_length: int | None) -> int | None:
        if truncation in (False, None, "do_not_truncate"):
            return None
        if truncation not in (True, "longest_first", "only_first"):
            raise InputError(f"truncation={truncation!r} is not known: use True or False.")
        limit = max_length if max_length is not None else self.model_max_length
        return None if limit >= VERY_LARGE else limit

    def _pad_id(self, width: int, row: Sequence[int]) -> int:
        if width > len(row) and self.pad_token_id is None:
            raise InputError(
                "Padding needs a pad token, and this tokenizer names none. Set one: tokenizer_config.json."
            )
        return self.pad_token_id if self.pad_token_id is not None else 0

    # ---- ids -> text ----

    def decode(
        self, token_ids: Any, *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> Any:
        """Text of one row of ids (a number, list, array or tensor); a batch gives a list of texts.

        clean_up_tokenization_spaces is accepted and has nothing to do: a byte-level vocabulary adds no spaces.
        """
        rows = as_lists(token_ids)
        if isinstance(rows, int):
            rows = [rows]
        if rows and isinstance(rows[0], list):
            return [self._decode(row, skip_special_tokens) for row in rows]
        return self._decode(rows, skip_special_tokens)

    def batch_decode(
        self, sequences: Any, *, skip_special_tokens: bool = False, clean_up_tokenization_spaces: bool | None = None
    ) -> list[str]:
        """A list of texts, from a tensor, an array, a list of lists, or one flat list of ids."""
        text = self.decode(sequences, skip_special_tokens=skip_special_tokens)
        return [text] if isinstance(text, str) else text

    def _decode(self, ids: list[int], skip_special_tokens: bool) -> str:
        if any(index < 0 for index in ids):
            raise InputError(
                f"Token ids start at 0; got {min(ids)}. Labels masked with -100 have no text: leave them out."
            )
        return str(self.backend.decode(ids, skip_special_tokens=skip_special_tokens))

    def token_bytes(self, index: int) -> bytes:
        """The UTF-8 bytes that a token stands for, maybe part of a character; none for special tokens."""
        if index in self._special_ids:
            return b""
        token = self.backend.id_to_token(index)
        if token is None:
            raise InputError(f"Token id {index} is not in the vocabulary of {len(self)} entries.")
        if all(letter in _BYTES for letter in token):
            return bytes(_BYTES[letter] for letter in token)
        return str(token).encode()

    def token_text(self, index: int) -> str:
        """What a token reads like: its text, with U+FFFD for a part of a character; of a special token its name.

        Nothing for an id beyond the vocabulary, which a model's logits may have.
        """
        token = self.backend.id_to_token(index)
        if token is None or index in self._special_ids:
            return token or ""
        return self.token_bytes(index).decode("utf-8", "replace")

    def convert_tokens_to_ids(self, tokens: str | Sequence[str]) -> Any:
        """Id of a token, or ids of a list; a text that is no token gives the id of the unknown token."""
        if isinstance(tokens, str):
            index = self.backend.token_to_id(tokens)
            return self.unk_token_id if index is None else index
        return [self.convert_tokens_to_ids(token) for token in tokens]

    def convert_ids_to_tokens(self, ids: Any) -> Any:
        """Token of an id, or tokens of a list, array or tensor."""
        ids = as_lists(ids)
        return self.backend.id_to_token(ids) if isinstance(ids, int) else [self.backend.id_to_token(i) for i in ids]

    def convert_tokens_to_string(self, tokens: Sequence[str]) -> str:
        return str(self.backend.decoder.decode(list(tokens)))


def _text(entry: Any) -> str:
    return str(entry["content"] if isinstance(entry, dict) else entry)


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file, or {} when there is no such file. Raises CheckpointError for anything else."""
    if not path.is_file():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, OSError) as error:
        raise CheckpointError(f"{path} is not valid JSON: {error}.") from error
    if not isinstance(content, dict):
        raise CheckpointError(f"{path} must hold a JSON object, but holds a {type(content).__name__}.")
    return content


def write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
