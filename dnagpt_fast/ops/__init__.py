"""The ops, each with a plain reference and its kernels behind one public function."""

from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.op import attention, attention_decode, attention_packed
from dnagpt_fast.ops.combined_loss.op import CombinedLoss, combined_loss
from dnagpt_fast.ops.fasta_pack import FastaPacker
from dnagpt_fast.ops.gc_count import gc_count
from dnagpt_fast.ops.gc_track import gc_track
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.ops.native import synchronize
from dnagpt_fast.ops.report import report
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
