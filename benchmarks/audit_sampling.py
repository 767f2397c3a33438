"""The sampling kernels that benchmarks.compile_audit compiles: each choice over the published vocabulary, with and
without its filters."""

from collections.abc import Callable, Iterator

import torch

from dnagpt_fast.ops.sampling.settings import HOWS, Choice
from dnagpt_fast.ops.sampling.token_kernels import advance_lanes_triton, next_tokens_triton

LANES, VOCAB = 10, 19_564


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """Every choice in bf16 with and without filters, and one in fp32; the bookkeeping of a step."""
    filters = {
        "plain": Choice(),
        "filtered": Choice(0.9, 50, 0.95, allowed=torch.ones(VOCAB, dtype=torch.bool)),
    }
    for name, choice in filters.items():
        for how in HOWS:
            yield f"{how} {name} bfloat16", _call(choice._replace(how=how), torch.bfloat16)
    yield "uniform filtered float32", _call(filters["filtered"]._replace(how="uniform"), torch.float32)
    yield "lanes", _advance


def _call(choice: Choice, dtype: torch.dtype) -> Callable[[], object]:
    def call() -> None:
        logits = torch.empty(LANES, VOCAB, dtype=dtype)
        numbers = {"uniform": torch.empty(LANES, dtype=torch.float64), "race": logits}.get(choice.how)
        next_tokens_triton(logits, choice, numbers)

    return call


def _advance() -> None:
    lanes = [torch.zeros(LANES, dtype=torch.int64) for _ in range(4)]
    made, turn = torch.zeros(16, LANES, dtype=torch.int64), torch.zeros(1, dtype=torch.int64)
    advance_lanes_triton(lanes[0], torch.tensor([3, 20]), *lanes[1:], made, turn)
