"""SmolVLMProcessor: text and media in, model inputs out. It joins the kitchen's parts and holds no rules of its own.

Messages are chat.py's, ids tokenizer.py's, tiles image.py's and video.py's. `prepare` is our road (request.py);
`__call__` and `apply_chat_template` are the reference's (calls.py).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from .. import hub
from ..errors import InputError, PromptError
from ..media.limits import MediaLimits
from ..types import Detail, Features, Inputs, TokenReport
from .batch import BatchFeature
from .calls import OPTION_NAMES, CallOptions, assemble, call, load_media
from .chat import (
    DEFAULT_TEMPLATE,
    Block,
    TileTokens,
    fence,
    is_batch,
    media_blocks,
    normalise_messages,
    placeholders,
    protect,
    render,
)
from .image import SmolVLMImageProcessor
from .parts import DEFAULT_IMAGE_SEQ_LEN, Parts, read_parts, write_parts
from .request import Look, check_context, collate, compose, decode, measure, report, to_inputs
from .template import template_uses, template_variables
from .tokenizer import SmolVLMTokenizer
from .video import SmolVLMVideoProcessor
from .viewing import block_video

_IDLE_LOADING = ("use_fast", "trust_remote_code", "backend", "force_download")


class SmolVLMProcessor:
    """Turns text, pictures and videos into the inputs of a model.

    image_seq_len: image tokens a tile becomes, (image_size / patch_size / scale_factor) squared, as in the model.
    chat_template: a Jinja template; None is the family's. video_processor: None makes one with the image processor's
    settings. The parts are attributes that may be changed: `processor.image_processor.do_image_splitting = False`.
    """

    def __init__(
        self,
        image_processor: SmolVLMImageProcessor,
        tokenizer: SmolVLMTokenizer | None = None,
        video_processor: SmolVLMVideoProcessor | None = None,
        image_seq_len: int = DEFAULT_IMAGE_SEQ_LEN,
        chat_template: str | None = None,
    ) -> None:
        if tokenizer is None:
            raise InputError("A processor needs a tokenizer: SmolVLMTokenizer.from_pretrained(directory or hub id).")
        if not isinstance(image_seq_len, int) or image_seq_len < 1:
            raise InputError(f"image_seq_len={image_seq_len!r}: it must be a whole number of at least 1.")
        self.image_processor = image_processor
        self.tokenizer = tokenizer
        self.video_processor = video_processor or SmolVLMVideoProcessor.from_dict(image_processor.to_dict())
        self.image_seq_len = image_seq_len
        self.chat_template = chat_template

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
        **settings: Any,
    ) -> SmolVLMProcessor:
        """The processor of a directory, a hub id, or the bundled model (None or "nano"), of old and new file layouts.

        settings: arguments that override the files': the image processor's (size, do_image_splitting ...), and
        padding_side, image_seq_len, chat_template.
        Raises ModelNotFoundError, CheckpointError, InputError for a setting that is none.
        """
        directory = hub.resolve(
            name_or_path,
            revision=revision,
            local_files_only=local_files_only,
            token=token,
            cache_dir=cache_dir,
            patterns=hub.PROCESSOR_FILES,
        )
        own = {
            name: settings.pop(name) for name in ("padding_side", "image_seq_len", "chat_template") if name in settings
        }
        parts = read_parts(directory, {name: value for name, value in settings.items() if name not in _IDLE_LOADING})
        if "padding_side" in own:
            parts.tokenizer.padding_side = own["padding_side"]
        return cls(
            parts.image_processor,
            parts.tokenizer,
            parts.video_processor,
            own.get("image_seq_len", parts.image_seq_len),
            own.get("chat_template", parts.template),
        )

    def save_pretrained(self, directory: str | Path) -> None:
        """Write processor_config.json, chat_template.jinja and the tokenizer's files; transformers reads them too."""
        write_parts(Path(directory).expanduser(), self.parts)

    @property
    def parts(self) -> Parts:
        """The parts as they stand."""
        return Parts(self.image_processor, self.video_processor, self.tokenizer, self.image_seq_len, self.chat_template)

    # ---- names of tokens ----

    @property
    def tokens(self) -> TileTokens:
        return self.parts.tokens

    @property
    def image_token(self) -> str:
        return self.tokens.image

    @property
    def image_token_id(self) -> int:
        return int(self.tokenizer.image_token_id)

    @property
    def fake_image_token(self) -> str:
        return self.tokens.fake

    @property
    def global_image_token(self) -> str:
        return self.tokens.global_image

    @property
    def video_token(self) -> str:
        return self.tokens.video

    @property
    def end_of_utterance_token(self) -> str:
        return str(self.tokenizer.end_of_utterance_token)

    @property
    def model_input_names(self) -> list[str]:
        return ["input_ids", "attention_mask", "pixel_values", "pixel_attention_mask"]

    # ---- our road ----

    def prepare(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        allow_url: bool = False,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        prompt: str | None = None,
        prompt_is_text: bool = False,
        features: Sequence[Features] = (),
        context: int | None = None,
        approve: Callable[[int, int], None] | None = None,
        limits: MediaLimits | None = None,
    ) -> Inputs:
        """One conversation -> Inputs. Pictures and videos may be mixed freely; frames seen are reported in it.

        detail, max_image_tokens (of one picture or video), fps, max_frames, allow_url: see request.Look; blocks may
        carry their own detail, fps and max_frames. prompt: written already, with `<image>` and `<video>` in it; the
        messages only carry its media. prompt_is_text: control tokens in it are text, as in messages. features: what
        placeholders without a source stand for, encoded already; pixel_values is None then. context: tokens the model
        holds; None is the tokenizer's limit. approve: called with (tiles, tokens) before anything is decoded; what it
        raises ends the call. limits: of the media, each and all together; None is the door's own.
        Raises PromptError, MediaError and its kinds, ContextLengthError (saying how many pictures fit).
        """
        parts, turns = self.parts, normalise_messages(messages)
        ends: dict[str, Any] = {"add_generation_prompt": add_generation_prompt}
        ends["written"] = self._written(prompt, prompt_is_text)
        ends["continue_final_message"] = continue_final_message
        look = Look(detail, max_image_tokens, fps, max_frames, allow_url)
        planned = measure(parts, turns, look, features, limits)
        composed = compose(parts, turns, planned, **ends)
        check_context(parts, composed, context)
        if approve is not None:
            approve(sum(one.tiles for one in planned if one.source is not None), len(composed.ids))
        values, shown = decode(parts, planned)
        if shown != planned:  # the end of a video could not be decoded: tell the model what it is shown
            composed = compose(parts, turns, shown, **ends)
        return to_inputs(composed, values)

    def count(
        self,
        messages: Sequence[Mapping[str, object]],
        *,
        detail: Detail = "auto",
        max_image_tokens: int | None = None,
        fps: float | None = None,
        max_frames: int | None = None,
        allow_url: bool = False,
        add_generation_prompt: bool = True,
        prompt: str | None = None,
        prompt_is_text: bool = False,
        features: Sequence[Features] = (),
        context: int | None = None,
        limits: MediaLimits | None = None,
    ) -> TokenReport:
        """What `prepare` would make of the same arguments, from headers alone: no picture is decoded."""
        parts, turns = self.parts, normalise_messages(messages)
        look = Look(detail, max_image_tokens, fps, max_frames, allow_url)
        seen = measure(parts, turns, look, features, limits)
        written = self._written(prompt, prompt_is_text)
        composed = compose(parts, turns, seen, add_generation_prompt=add_generation_prompt, written=written)
        return report(parts, composed, context)

    def _written(self, prompt: str | None, is_text: bool) -> str | None:
        return fence(prompt, self.parts.control_tokens) if is_text and prompt is not None else prompt

    def collate(self, requests: Sequence[Inputs]) -> dict[str, np.ndarray]:
        """Requests -> one batch: input_ids and attention_mask (batch, tokens), padded on the left, and pixel_values."""
        pad = self.tokenizer.pad_token_id
        return collate(requests, 0 if pad is None else int(pad))

    # ---- the reference's road ----

    def __call__(
        self, images: Any = None, text: Any = None, videos: Any = None, audio: Any = None, **options: Any
    ) -> BatchFeature:
        """Texts with `<image>` and `<video>` in them, and their media -> input_ids, attention_mask, pixel_values ...

        text: a string or a list; with is_split_into_words, a list of words or a list of such lists.
        images: one, a list (of one text; or dealt out by the placeholders), or a list of lists. videos: the same; a
        list of frames is one video. options: padding, truncation, max_length, return_tensors ("np", "pt", "tf",
        "jax"; unset gives lists), the image and video processors' own arguments, or text_kwargs=, images_kwargs=,
        videos_kwargs=. Raises PromptError when counts don't fit, InputError for an unknown argument.
        """
        if audio is not None or options.pop("audios", None) is not None:
            raise InputError(
                "audio= can't be used: models of this family hear no sound. Write what is said into the text."
            )
        return call(self.parts, text, images, videos, CallOptions.of(options))

    def apply_chat_template(
        self,
        conversation: Sequence[Any],
        chat_template: str | None = None,
        *,
        add_generation_prompt: bool = False,
        continue_final_message: bool = False,
        tokenize: bool | None = None,
        return_dict: bool | None = None,
        return_tensors: str | None = None,
        padding: bool | str | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        **options: Any,
    ) -> Any:
        """One conversation or a batch -> the prompt text, or the inputs of the model.

        tokenize: True gives inputs, False the prompt text (a list for a batch). Not given, media with a source give
        inputs as PyTorch tensors, ready for `model.generate(**inputs)`; placeholders give the prompt, for
        `processor(text=prompt, images=[...])`, and so does plain text, unless return_tensors or return_dict is given.
        return_dict: False gives input_ids alone; not given, that is so for conversations without media. padding: not
        given, rows of different lengths are padded on the left when tensors are asked for. options: as of the call
        (also in processor_kwargs), or variables of the template.
        """
        batched = is_batch(conversation)
        talks = [normalise_messages(one) for one in (conversation if batched else [conversation])]
        media = [media_blocks(talk) for talk in talks]
        has_source = _all_have_sources(media)
        template = self._template(chat_template, media)
        variables, keywords = self._sort_options(template, {**options, **(processor_kwargs or {})})
        frame = {"add_generation_prompt": add_generation_prompt, "continue_final_message": continue_final_message}
        asked = not any(media) and (return_tensors is not None or bool(return_dict))  # of plain text
        if tokenize is False or (tokenize is None and not has_source and not asked):
            prompts = [render(talk, template, variables=variables, **frame) for talk in talks]
            return prompts if batched else prompts[0]
        if not has_source and any(media):
            raise PromptError(
                "tokenize=True needs something to look at: give each picture or video block a source ('image', "
                "'path', 'url' ...), or take the prompt text (tokenize=False) to processor(text=prompt, images=[...])."
            )
        if return_tensors is None and tokenize is None:
            return_tensors = "pt"
        control = self.parts.control_tokens
        prompts = [render(protect(talk, control), template, variables=variables, **frame) for talk in talks]
        keywords |= {"return_tensors": return_tensors, "padding": padding, "padding_side": keywords.get("padding_side")}
        batch = self._inputs(prompts, media, keywords)
        whole = any(media) if return_dict is None else return_dict
        return batch if whole else batch["input_ids"]

    def _inputs(self, prompts: list[str], media: list[list[Block]], keywords: dict[str, Any]) -> BatchFeature:
        keywords["padding_side"] = keywords["padding_side"] or "left"
        if keywords["padding"] is None:
            keywords["padding"] = keywords["return_tensors"] is not None
        options = CallOptions.of(keywords)
        images = [[block["source"] for block in blocks if block["type"] == "image"] for blocks in media]
        videos = [[block_video(block) for block in blocks if block["type"] == "video"] for blocks in media]
        loaded = load_media(self.parts, images, videos, options)
        wanted = [placeholders(prompt, self.tokens) for prompt in prompts]
        return assemble(self.parts, prompts, wanted, loaded, options, fenced=True)

    def _template(self, given: str | None, media: list[list[Block]]) -> str:
        if given is not None:
            return given
        template = self.chat_template or DEFAULT_TEMPLATE
        has_video = any(block["type"] == "video" for blocks in media for block in blocks)
        return DEFAULT_TEMPLATE if has_video and not template_uses(template, "video") else template

    def _sort_options(self, template: str, options: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        """(variables of the template, keywords of the call)."""
        known = template_variables(template)
        variables: dict[str, Any] = dict(self.tokenizer.special_tokens_map)
        keywords: dict[str, Any] = {}
        for name, value in options.items():
            if name in known or name in ("tools", "documents"):
                variables[name] = value
            elif name in OPTION_NAMES or value is not None:
                keywords[name] = value
        CallOptions.of(keywords)
        return variables, keywords

    # ---- ids to text ----

    def batch_decode(
        self, sequences: Any, skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = True
    ) -> list[str]:
        """Texts of a batch of ids: a tensor, an array, a list, nested or flat. Special tokens are left out."""
        return self.tokenizer.batch_decode(
            sequences,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )

    def decode(
        self, token_ids: Any, skip_special_tokens: bool = True, clean_up_tokenization_spaces: bool = True
    ) -> Any:
        """Text of one row of ids; a batch gives a list."""
        return self.tokenizer.decode(
            token_ids,
            skip_special_tokens=skip_special_tokens,
            clean_up_tokenization_spaces=clean_up_tokenization_spaces,
        )

    def post_process_image_text_to_text(self, generated_outputs: Any, skip_special_tokens: bool = True) -> list[str]:
        """batch_decode under another name of the reference."""
        return self.batch_decode(generated_outputs, skip_special_tokens)


def _all_have_sources(media: Sequence[Sequence[Block]]) -> bool:
    """Whether there are media to be opened. Raises PromptError when some blocks have a source and others none."""
    blocks = [block for sample in media for block in sample]
    with_source = sum("source" in block for block in blocks)
    if with_source not in (0, len(blocks)):
        raise PromptError(
            f"{with_source} of {len(blocks)} pictures and videos have a source ('image', 'path', 'url' ...) and the "
            "others none: give all of them one, or none and pass images= to the processor with the prompt."
        )
    return with_source > 0
