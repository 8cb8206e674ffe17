"""Several ranks for tests: processes with the environment of torchrun, over gloo on loopback, one thread each."""

from __future__ import annotations

import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.multiprocessing as multiprocessing
from torch.distributed import TCPStore

from smolvlm.config import SmolVLMConfig
from smolvlm.model import SmolVLMForConditionalGeneration
from smolvlm.training import parallel
from smolvlm.training.collate import Batch, collate
from smolvlm.training.objectives import Trainee, answer_loss
from smolvlm.training.samples import Branch, Sample
from tests.tiny import tiny_config, tiny_token_ids

TILE, IMAGE_TOKENS, PATCHES = 32, 16, 64  # of the tiny model


def run_ranks(work: Callable[..., Any], ranks: int, *given: Any) -> list[Any]:
    """What work(*given), a function of a module, returns on each rank: tensors and numbers, in lists and dicts."""
    store = TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)  # as torchrun has one, on a port it found
    with tempfile.TemporaryDirectory() as folder:
        multiprocessing.spawn(_one, (work, ranks, store.port, folder, given), nprocs=ranks)
        return [torch.load(Path(folder) / f"{rank}.pt", weights_only=True) for rank in range(ranks)]


def _one(rank: int, work: Callable[..., Any], ranks: int, port: int, folder: str, given: tuple[Any, ...]) -> None:
    place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in place.items()} | {"TORCHELASTIC_USE_AGENT_STORE": "True"}
    if "lo" in [name for _, name in socket.if_nameindex()]:
        os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    with parallel.ranks("cpu") as own:
        assert (own.rank, own.ranks, own.local_rank, own.device) == (rank, ranks, rank, "cpu")
        torch.save(work(*given), Path(folder) / f"{rank}.pt")


def tiny_model(seed: int = 0, **text: Any) -> SmolVLMForConditionalGeneration:
    """In training mode. text: changes to its text config, or tie_word_embeddings."""
    values = tiny_config(tie_word_embeddings=text.pop("tie_word_embeddings", False))
    config = SmolVLMConfig.from_dict({**values, "text_config": {**values["text_config"], **text}})  # type: ignore[dict-item]
    torch.manual_seed(seed)
    model = SmolVLMForConditionalGeneration(config)
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name and name.endswith("weight")), std=0.15)
    return model.train()


def sample(seed: int, tiles: int = 1, words: int = 9, answers: tuple[int, ...] = (5,)) -> Sample:
    """Random: tiles, words of a question, and as many branches as answers, of so many tokens."""
    rng, ids = np.random.default_rng(seed), tiny_token_ids()
    prefix = (ids["<|im_start|>"], *[ids["<image>"]] * (tiles * IMAGE_TOKENS), *rng.integers(10, 500, words).tolist())
    branches = []
    for answer in answers:
        learned = (False, False, *[True] * answer)
        branches.append(Branch(tuple(rng.integers(10, 500, len(learned)).tolist()), learned, ("one",)))
    pixels = rng.integers(0, 256, (tiles, TILE, TILE, 3)).astype(np.uint8)
    labels = np.full((tiles, PATCHES, 3), -1, np.int16)
    return Sample("test", prefix, tuple(branches), pixels, labels, f"sample {seed}")


def batch_of(*rows: Sample | list[Sample]) -> Batch:
    return collate(rows, tiny_token_ids()["<|im_end|>"])


def whole_of(batches: list[Batch]) -> float:
    return sum(float(batch.weight.sum()) for batch in batches)


def loss_of(model: SmolVLMForConditionalGeneration, batch: Batch, whole: float) -> torch.Tensor:
    return answer_loss(Trainee(model, torch.float32), batch, whole)


def gradients(model: torch.nn.Module) -> dict[str, torch.Tensor | None]:
    return {name: None if one.grad is None else one.grad.clone() for name, one in model.named_parameters()}
