"""The ops, each with a plain reference and its kernels behind one public function.

A public name is loaded when it is first asked for, so that packing a genome does not import torch.
"""

import importlib
import sys
from types import ModuleType
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dnagpt_fast.ops import dispatch
    from dnagpt_fast.ops.attention.op import attention, attention_decode, attention_packed
    from dnagpt_fast.ops.combined_loss.op import CombinedLoss, combined_loss
    from dnagpt_fast.ops.compiled import report
    from dnagpt_fast.ops.fasta_pack import FastaPacker
    from dnagpt_fast.ops.gc_count import gc_count, gc_track
    from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
    from dnagpt_fast.ops.native import synchronize
    from dnagpt_fast.ops.sample_batch import BatchSampler, SampledBatch
    from dnagpt_fast.ops.sequence_text import sequence_text
    from dnagpt_fast.ops.text_encode import TextEncoder

__all__ = [
    "BatchSampler",
    "CombinedLoss",
    "FastaPacker",
    "SampledBatch",
    "TextEncoder",
    "attention",
    "attention_decode",
    "attention_packed",
    "combined_loss",
    "dispatch",
    "gc_count",
    "gc_track",
    "kmer_tokenize",
    "report",
    "sequence_text",
    "synchronize",
]

# Public name -> the module that defines it.
_HOMES = {
    "BatchSampler": "sample_batch",
    "CombinedLoss": "combined_loss.op",
    "FastaPacker": "fasta_pack",
    "SampledBatch": "sample_batch",
    "TextEncoder": "text_encode",
    "attention": "attention.op",
    "attention_decode": "attention.op",
    "attention_packed": "attention.op",
    "combined_loss": "combined_loss.op",
    "gc_count": "gc_count",
    "gc_track": "gc_count",
    "kmer_tokenize": "kmer_tokenize",
    "report": "compiled",
    "sequence_text": "sequence_text",
    "synchronize": "native",
}
_MODULES = ("dispatch", "native")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"{__name__}.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


class _Package(ModuleType):
    """Keeps the public functions in place: importing the module ops.gc_count would set it as `ops.gc_count`."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (name in _HOMES and isinstance(value, ModuleType)):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Package
