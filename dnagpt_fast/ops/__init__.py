"""The ops: each is one public function over a plain reference and its kernels.

A public name is loaded when it is first used, so that packing a genome does not import torch.
"""

from typing import TYPE_CHECKING

from dnagpt_fast.lazy_names import load_on_first_use
from dnagpt_fast.ops import dispatch

if TYPE_CHECKING:
    from dnagpt_fast.ops.attention.op import attention, attention_decode, attention_packed
    from dnagpt_fast.ops.combined_loss.op import CombinedLoss, combined_loss
    from dnagpt_fast.ops.compiled import report
    from dnagpt_fast.ops.fasta_pack import FastaPacker
    from dnagpt_fast.ops.gc_count import gc_count, gc_track
    from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
    from dnagpt_fast.ops.mlp.op import mlp
    from dnagpt_fast.ops.native import synchronize
    from dnagpt_fast.ops.residual_norm.op import residual_norm
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
    "mlp",
    "report",
    "residual_norm",
    "sequence_text",
    "synchronize",
]

HOMES = {
    "BatchSampler": "dnagpt_fast.ops.sample_batch",
    "CombinedLoss": "dnagpt_fast.ops.combined_loss.op",
    "FastaPacker": "dnagpt_fast.ops.fasta_pack",
    "SampledBatch": "dnagpt_fast.ops.sample_batch",
    "TextEncoder": "dnagpt_fast.ops.text_encode",
    "attention": "dnagpt_fast.ops.attention.op",
    "attention_decode": "dnagpt_fast.ops.attention.op",
    "attention_packed": "dnagpt_fast.ops.attention.op",
    "combined_loss": "dnagpt_fast.ops.combined_loss.op",
    "gc_count": "dnagpt_fast.ops.gc_count",
    "gc_track": "dnagpt_fast.ops.gc_count",
    "kmer_tokenize": "dnagpt_fast.ops.kmer_tokenize",
    "mlp": "dnagpt_fast.ops.mlp.op",
    "report": "dnagpt_fast.ops.compiled",
    "residual_norm": "dnagpt_fast.ops.residual_norm.op",
    "sequence_text": "dnagpt_fast.ops.sequence_text",
    "synchronize": "dnagpt_fast.ops.native",
}
load_on_first_use(__name__, HOMES)
