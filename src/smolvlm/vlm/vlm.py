"""VLM: questions in, answers out. It joins the processor and a driver of the model.

Reading what callers pass is requests.py's, text coming out answers.py's, running the model driver.py's, looking once at
each tile tiles.py's, making a VLM loading.py's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from .. import hub
from ..config import SmolVLMConfig
from ..errors import InputError
from ..generation.scoring import Spelling
from ..processing.grammar import Grammar, Grammars
from ..processing.processor import SmolVLMProcessor
from ..types import Answer, Decision, Features, Inputs, OutputRule, SamplingParams, TokenReport
from .answers import AnswerStream, Writer
from .chat import Chat
from .driver import Driver, Prepared
from .memory import require_memory
from .requests import (
    AskOptions,
    AskRequest,
    DecideOptions,
    EncodeOptions,
    Request,
    as_list,
    media_blocks,
    read_request,
)
from .spelling import decision_of, spell
from .tiles import TileCache

if TYPE_CHECKING:
    from ..model import SmolVLMForConditionalGeneration
    from ..runtimes.motor import LiveAdapter


class VLM:
    """A loaded model. Safe to use from several threads: their answers take turns, token by token.

    name, runtime, device, dtype, config, context (tokens it holds) say what it is; processor and model are its parts.
    """

    def __init__(
        self,
        driver: Driver,
        processor: SmolVLMProcessor,
        *,
        name: str,
        end_ids: Sequence[int],
        seen_through: str = "",
    ) -> None:
        """end_ids: token ids that end an answer; the first is the one that the model itself writes.

        seen_through: a short name of an adapter that changes how pictures are seen.
        """
        self._driver = driver
        self._tiles = TileCache(driver.encode, driver.motor.join, at_once=driver.tiles_at_once)
        self.processor = processor
        self.name = name
        self._seen_through = seen_through
        self._adapters: dict[str, LiveAdapter] = {}
        self._end_id, self._end_ids = end_ids[0], frozenset(end_ids)
        self._grammars = Grammars(processor.tokenizer, self._end_ids, self.config.text_config.vocab_size)

    @property
    def runtime(self) -> str:
        """ "torch", "native" or "onnx"."""
        return self._driver.motor.name

    @property
    def model(self) -> SmolVLMForConditionalGeneration:
        """The PyTorch module. Raises InputError when another runtime answers."""
        model = getattr(self._driver.motor, "model", None)
        if model is None:
            raise InputError(f"The {self.runtime} runtime has no PyTorch module: load with runtime='torch' to get one.")
        return model

    @property
    def config(self) -> SmolVLMConfig:
        return self._driver.motor.config

    @property
    def device(self) -> str:
        """ "cpu", "cuda:0", ..."""
        return self._driver.motor.device

    @property
    def dtype(self) -> str:
        """ "float32", "bfloat16", ...; of the weights."""
        return self._driver.motor.dtype

    @property
    def context(self) -> int:
        """Tokens that a conversation may have, answers included."""
        return self.config.text_config.max_position_embeddings

    def __repr__(self) -> str:
        where = f"runtime={self.runtime!r}, device={self.device!r}, dtype={self.dtype!r}"
        return f"VLM({self.name!r}, {where}, context={self.context})"

    # ---- asking ----

    def ask(self, question: str | None = None, **options: Unpack[AskOptions]) -> Answer:
        """Answer a question about pictures and videos, or the last turn of messages.

        options: images, videos | messages | features, system, prompt (see MediaOptions); detail, max_image_tokens, fps,
        max_frames, allow_url (see LookOptions); max_new_tokens (256), temperature (0: always the likeliest), top_k,
        top_p, min_p, repetition_penalty, stop, seed, logprobs, loop_guard (see SamplingParams); schema, regex, choices
        (see RuleOptions); adapter, a name from add_adapter.
        Raises InputError and its kinds: MediaError, PromptError, ContextLengthError.
        """
        started = time.perf_counter()
        return self._finish([self._prepare(read_request("ask", question, options, AskOptions))], started)[0]

    def stream(self, question: str | None = None, **options: Unpack[AskOptions]) -> AnswerStream:
        """`ask`, piece by piece: iterate over the result, then read its `.answer`. Bad input raises here already."""
        started = time.perf_counter()
        prepared = self._prepare(read_request("stream", question, options, AskOptions))
        writer = self._writer(prepared, started)
        return AnswerStream(writer, self._driver.write([prepared], [writer]))

    def ask_batch(self, requests: Sequence[AskRequest], *, batch_size: int = 8) -> list[Answer]:
        """Answer many requests, `batch_size` at a time. Each is a dictionary of the arguments of `ask`.

        An answer is the one that `ask` gives alone; with a seed its samples are, too.
        """
        if batch_size < 1:
            raise InputError(f"batch_size={batch_size}: it must be at least 1.")
        read = []
        for request in requests:
            options = {name: value for name, value in request.items() if name != "question"}
            read.append(read_request("ask_batch", request.get("question"), options, AskRequest))
        answers: list[Answer] = []
        for start in range(0, len(read), batch_size):
            started = time.perf_counter()
            answers += self._finish([self._prepare(request) for request in read[start : start + batch_size]], started)
        return answers

    def check_rule(self, rule: OutputRule, params: SamplingParams | None = None) -> None:
        """Make an output rule ready, so that an answer needn't wait for it.

        params: of the answer. Raises InputError for a rule that can't be followed, MissingDependencyError.
        """
        self._grammar(rule, params or SamplingParams())

    def chat(self, system: str | None = None, *, adapter: str | None = None) -> Chat:
        """A conversation that remembers its turns. adapter: a name from add_adapter, for all of them."""
        self._adapter(adapter)
        return Chat(self, system, adapter)

    # ---- without writing ----

    def decide(
        self, question: str | None = None, *, choices: Sequence[str] = ("yes", "no"), **options: Unpack[DecideOptions]
    ) -> Decision:
        """Probabilities of given answers from the logits of one forward; nothing is generated.

        choices: at least two different texts. Every spelling that a model may use counts for a choice: with and
        without a leading space, in lower, upper and title case. Choices that begin with different tokens are judged
        by these; others whole. A low `label_mass` says that the model wanted to say something else.
        """
        spellings = self._spell(choices)
        prepared = self._prepare(read_request("decide", question, options, DecideOptions))
        return decision_of(choices, spellings, self._driver.read(prepared, spellings), prepared.frames)

    def encode(self, *, images: object = (), videos: object = (), **look: Unpack[EncodeOptions]) -> Features:
        """Look at pictures and videos once, to ask many questions: `ask(question, features=...)`.

        look: detail, max_image_tokens, fps, max_frames, allow_url; adapter.
        """
        blocks = media_blocks(as_list(images), as_list(videos))
        if not blocks:
            raise InputError("There is nothing to encode: give images= or videos=.")
        messages = [{"role": "user", "content": blocks}]
        request = read_request("encode", None, {**look, "messages": messages}, DecideOptions)
        adapter = self._adapter(request.adapter)
        approve = partial(require_memory, self._driver.motor, new_tokens=0)
        inputs = self.processor.prepare(request.messages, **request.look, context=self.context, approve=approve)
        assert inputs.pixel_values is not None, "pictures have pixels"
        return Features(
            values=self._tiles.encode(inputs.pixel_values, adapter),
            tile_rows_cols=inputs.tile_rows_cols,
            fingerprint=self._fingerprint(adapter),
            frames=inputs.frames,
        )

    def tokens(self, question: str | None = None, **options: Unpack[DecideOptions]) -> TokenReport:
        """What a request would cost: tiles and tokens of each picture and video, context left. Runs nothing."""
        if question is None and options.get("messages") is None and options.get("prompt") is None:
            question = ""
        request = read_request("tokens", question, options, DecideOptions)
        self._adapter(request.adapter)
        return count_tokens(self.processor, request, self.context)

    def fingerprint(self, *, adapter: str | None = None) -> str:
        """A short name of the weights that look at pictures, and of their dtype."""
        return self._fingerprint(self._adapter(adapter))

    # ---- adapters ----

    def add_adapter(self, name: str, directory: str | Path) -> None:
        """Hold a LoRA adapter beside the weights, for the requests that name it: `ask(..., adapter=name)`.

        directory: in PEFT's layout, or a hub id. It takes the memory of its own matrices; requests with different
        adapters, and without one, are answered side by side.
        Raises InputError for a name that is taken, for DoRA and in the onnx runtime; ModelNotFoundError;
        CheckpointError when it doesn't fit the model.
        """
        if not isinstance(name, str) or not name:
            raise InputError(f"An adapter can't be called {name!r}: give it a name, a text of at least one character.")
        taken = InputError(f"There is an adapter {name!r} already: remove_adapter it first, or choose another name.")
        if name in self._adapters:
            raise taken
        live = self._driver.load_adapter(hub.resolve_adapter(directory))
        if self._adapters.setdefault(name, live) is not live:  # another thread was faster
            raise taken

    def remove_adapter(self, name: str) -> None:
        """Forget an adapter. Requests that run with it are answered; its memory is free when they are."""
        self._adapter(name)
        self._adapters.pop(name, None)

    @property
    def adapters(self) -> tuple[str, ...]:
        """Names of the adapters that requests may ask for."""
        return tuple(self._adapters)

    def _adapter(self, name: str | None) -> LiveAdapter | None:
        """Raises InputError, listing those that are here, for a name that isn't known."""
        if name is None:
            return None
        live = self._adapters.get(name) if isinstance(name, str) else None
        if live is None:
            known = f"there are {', '.join(map(repr, self.adapters))}" if self._adapters else "there are none"
            raise InputError(f"There is no adapter {name!r}: {known}. VLM.add_adapter(name, directory) adds one.")
        return live

    def _fingerprint(self, adapter: LiveAdapter | None) -> str:
        own = self._driver.motor.fingerprint() + self._seen_through
        return own if adapter is None else own + adapter.seen_through

    # ---- the way to the model ----

    def _prepare(self, request: Request) -> Prepared:
        new_tokens = request.params.max_new_tokens
        self._grammar(request.rule, request.params)  # what can't be followed is refused before any work
        adapter = self._adapter(request.adapter)

        def approve(tiles: int, tokens: int) -> None:
            require_memory(self._driver.motor, tiles, tokens, min(new_tokens, self.context - tokens))

        inputs = self.processor.prepare(
            request.messages, **request.look, prompt=request.prompt, features=request.features, context=self.context,
            approve=approve,
        )  # fmt: skip
        features = self._joined(request.features, self._fingerprint(adapter))
        if inputs.pixel_values is not None:
            features = self._tiles.encode(inputs.pixel_values, adapter)
        prepared = self._prepared(inputs, features, request.params, request.rule, adapter)
        return dataclasses.replace(prepared, parse=request.parse)

    def _prepared(
        self,
        inputs: Inputs,
        features: Any,
        params: SamplingParams,
        rule: OutputRule | None,
        adapter: LiveAdapter | None,
    ) -> Prepared:
        """features: (tiles, image tokens, hidden), None without pictures."""
        grammar = self._grammar(rule, params)
        room = self.context - len(inputs.input_ids)
        if params.max_new_tokens > room:
            params = dataclasses.replace(params, max_new_tokens=room)
        return Prepared(
            input_ids=inputs.input_ids,
            features=features,
            image_tokens=0 if features is None else features.shape[0] * features.shape[1],
            frames=inputs.frames,
            params=params,
            grammar=grammar,
            adapter=adapter,
        )

    def _grammar(self, rule: OutputRule | None, params: SamplingParams) -> Grammar | None:
        if rule is None:
            return None
        if params.stop:
            raise InputError(
                f"stop={params.stop!r} could cut an answer that must follow a rule, which says where it ends: leave "
                "stop out."
            )
        return self._grammars.grammar(rule)

    def _joined(self, features: Sequence[Features], own: str) -> Any:
        """Features of earlier calls as one array. Raises InputError when they were made with other weights.

        own: the fingerprint that they must have.
        """
        if not features:
            return None
        for one in features:
            if one.fingerprint != own:
                raise InputError(
                    f"These features were made with other weights, another adapter or dtype ({one.fingerprint}) than "
                    f"this request's ({own}): encode the pictures again with this model and adapter."
                )
        return self._driver.motor.join([one.values for one in features])

    def _spell(self, choices: Sequence[str]) -> list[list[Spelling]]:
        return spell(choices, self.processor.tokenizer.encode, end_id=self._end_id)

    def _writer(self, prepared: Prepared, started: float, *, goes_on: bool = False) -> Writer:
        """goes_on: the answer is the rest of a text, and spaces at its beginning count."""
        free = "" if goes_on else None
        return Writer(
            self.processor.tokenizer,
            prepared.params.stop,
            self._end_ids,
            started=started,
            prompt_tokens=len(prepared.input_ids),
            image_tokens=prepared.image_tokens,
            frames=prepared.frames,
            strip=free if prepared.grammar is None else prepared.grammar.strip,
            parse=prepared.parse,
        )

    def _finish(self, prepared: Sequence[Prepared], started: float) -> list[Answer]:
        writers = [self._writer(one, started) for one in prepared]
        for _ in self._driver.write(prepared, writers):
            pass
        answers = [writer.answer for writer in writers]
        return [answer for answer in answers if answer is not None]


def count_tokens(processor: SmolVLMProcessor, request: Request, context: int) -> TokenReport:
    """The cost of a request, from headers of files alone."""
    return processor.count(
        request.messages, **request.look, prompt=request.prompt, features=request.features, context=context
    )
