"""VLM: questions in, answers out. It joins the processor and a driver of the model.

Reading what callers pass is requests.py's, text coming out answers.py's, running the model driver.py's, looking once at
each tile tiles.py's, making a VLM loading.py's.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, Unpack

import numpy as np

from ..config import SmolVLMConfig
from ..errors import InputError
from ..processing.processor import SmolVLMProcessor
from ..types import Answer, Decision, Features, TokenReport
from .answers import AnswerStream, Writer
from .chat import Chat
from .driver import Driver, Prepared
from .memory import require_memory
from .requests import (
    AskOptions,
    AskRequest,
    LookOptions,
    MediaOptions,
    Request,
    as_list,
    media_blocks,
    read_request,
)
from .spelling import spell
from .tiles import TileCache

if TYPE_CHECKING:
    from ..model import SmolVLMForConditionalGeneration


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
        self._tiles = TileCache(driver.encode, driver.motor.join)
        self.processor = processor
        self.name = name
        self._seen_through = seen_through
        self._end_id, self._end_ids = end_ids[0], frozenset(end_ids)

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
        top_p, min_p, repetition_penalty, stop, seed (see SamplingParams).
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

    def chat(self, system: str | None = None) -> Chat:
        """A conversation that remembers its turns."""
        return Chat(self, system)

    # ---- without writing ----

    def decide(
        self, question: str | None = None, *, choices: Sequence[str] = ("yes", "no"), **options: Unpack[MediaOptions]
    ) -> Decision:
        """Probabilities of given answers from the logits of one forward; nothing is generated.

        choices: at least two different texts. Every spelling that a model may use counts for a choice: with and
        without a leading space, in lower, upper and title case. Choices that begin with different tokens are judged
        by these; others whole. A low `label_mass` says that the model wanted to say something else.
        """
        spellings = spell(choices, self.processor.tokenizer.encode, end_id=self._end_id)
        prepared = self._prepare(read_request("decide", question, options, MediaOptions))
        scores = np.array(self._driver.score(prepared, spellings), dtype=np.float64)
        shares = np.exp(scores - scores.max())
        shares /= shares.sum()
        return Decision(
            choice=choices[int(shares.argmax())],
            probabilities={choice: float(share) for choice, share in zip(choices, shares, strict=True)},
            label_mass=min(float(np.exp(scores).sum()), 1.0),
            frames=prepared.frames,
        )

    def encode(self, *, images: object = (), videos: object = (), **look: Unpack[LookOptions]) -> Features:
        """Look at pictures and videos once, to ask many questions: `ask(question, features=...)`.

        look: detail, max_image_tokens, fps, max_frames, allow_url.
        """
        blocks = media_blocks(as_list(images), as_list(videos))
        if not blocks:
            raise InputError("There is nothing to encode: give images= or videos=.")
        messages = [{"role": "user", "content": blocks}]
        request = read_request("encode", None, {**look, "messages": messages}, MediaOptions)
        approve = partial(require_memory, self._driver.motor, new_tokens=0)
        inputs = self.processor.prepare(request.messages, **request.look, context=self.context, approve=approve)
        assert inputs.pixel_values is not None, "pictures have pixels"
        return Features(
            values=self._tiles.encode(inputs.pixel_values),
            tile_rows_cols=inputs.tile_rows_cols,
            fingerprint=self.fingerprint(),
            frames=inputs.frames,
        )

    def tokens(self, question: str | None = None, **options: Unpack[MediaOptions]) -> TokenReport:
        """What a request would cost: tiles and tokens of each picture and video, context left. Runs nothing."""
        if question is None and options.get("messages") is None and options.get("prompt") is None:
            question = ""
        return count_tokens(self.processor, read_request("tokens", question, options, MediaOptions), self.context)

    def fingerprint(self) -> str:
        """A short name of the weights that look at pictures, and of their dtype."""
        return self._driver.motor.fingerprint() + self._seen_through

    # ---- the way to the model ----

    def _prepare(self, request: Request) -> Prepared:
        new_tokens = request.params.max_new_tokens

        def approve(tiles: int, tokens: int) -> None:
            require_memory(self._driver.motor, tiles, tokens, min(new_tokens, self.context - tokens))

        inputs = self.processor.prepare(
            request.messages, **request.look, prompt=request.prompt, features=request.features, context=self.context,
            approve=approve,
        )  # fmt: skip
        features = self._joined(request.features)
        if inputs.pixel_values is not None:
            features = self._tiles.encode(inputs.pixel_values)
        room = self.context - len(inputs.input_ids)
        params = request.params
        if params.max_new_tokens > room:
            params = dataclasses.replace(params, max_new_tokens=room)
        return Prepared(
            input_ids=inputs.input_ids,
            features=features,
            image_tokens=0 if features is None else features.shape[0] * features.shape[1],
            frames=inputs.frames,
            params=params,
        )

    def _joined(self, features: Sequence[Features]) -> Any:
        """Features of earlier calls as one array. Raises InputError when they were made with other weights."""
        if not features:
            return None
        own = self.fingerprint()
        for one in features:
            if one.fingerprint != own:
                raise InputError(
                    f"These features were made with other weights or another dtype ({one.fingerprint}) than this "
                    f"model's ({own}): encode the pictures again with this model."
                )
        return self._driver.motor.join([one.values for one in features])

    def _writer(self, prepared: Prepared, started: float) -> Writer:
        return Writer(
            self.processor.tokenizer.token_bytes,
            prepared.params.stop,
            self._end_ids,
            started=started,
            prompt_tokens=len(prepared.input_ids),
            image_tokens=prepared.image_tokens,
            frames=prepared.frames,
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
