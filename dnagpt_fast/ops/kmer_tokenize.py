"""Windows of a packed genome -> k-mer token ids."""

from typing import Any

import torch

from dnagpt_fast.ops import dispatch, native
from dnagpt_fast.ops.kmer_tokenize_reference import kmer_tokenize as reference
from dnagpt_fast.vocab import MAX_K

TOKEN_BYTES = {torch.uint16: 2, torch.int32: 4, torch.int64: 8}


def kmer_tokenize(
    genome: Any,
    contig: Any,
    start_bp: Any,
    n_tokens: int,
    orientation: Any = 0,
    *,
    k: int = 6,
    dynamic: bool = True,
    dtype: torch.dtype = torch.int32,
) -> torch.Tensor:
    """Ids (B, n_tokens) of the k-mers of B windows, on the genome's device.

    genome       a Genome or its PackedGenome
    contig       integers (B,): index into the genome's contigs
    start_bp     integers (B,): first base of each window on the forward strand; a window spans n_tokens * k bases
    orientation  int or integers (B,): bit 0 reads the window backwards, bit 1 complements it, 3 = reverse complement
    k, dynamic   the vocabulary (dnagpt_fast/vocab.py), k in 1..6
    dtype        torch.uint16, int32 or int64

    Bases under N blocks are the digit N. Raises IndexError for an unknown contig or a window that leaves its contig,
    ValueError for any other bad argument.
    """
    arrays = getattr(genome, "arrays", genome)
    device = arrays.packed.device
    if dtype not in TOKEN_BYTES:
        raise ValueError(f"dtype {dtype}: wanted torch.uint16, torch.int32 or torch.int64")
    if type(k) is not int or not 1 <= k <= MAX_K:
        raise ValueError(f"k = {k!r}: wanted an integer 1..{MAX_K}")
    if type(n_tokens) is not int or not 0 <= n_tokens < 1 << 48:
        raise ValueError(f"n_tokens = {n_tokens!r}: wanted an integer >= 0")
    contig = native.int64_row("contig", contig, device)
    start_bp = native.int64_row("start_bp", start_bp, device)
    count = contig.numel()
    if start_bp.numel() != count:
        raise ValueError(
            f"contig has {count} entries, start_bp {start_bp.numel()}: wanted one of each a window"
        )
    if type(orientation) is int:
        same, each = orientation, None
    else:
        same, each = 0, native.int64_row("orientation", orientation, device)
        if each.numel() != count:
            raise ValueError(
                f"contig has {count} entries, orientation {each.numel()}: wanted one of each a window"
            )

    view = native.genome_view(arrays)
    orientation_address = 0 if each is None else each.data_ptr()
    windows = (view, contig.data_ptr(), start_bp.data_ptr(), orientation_address, same, count)
    native._native.check_windows(*windows, 0, n_tokens * k)
    if dispatch.choose("kmer_tokenize", device.type) == "native":
        tokens = torch.empty((count, n_tokens), dtype=dtype, device=device)
        native._native.kmer_tokenize(
            *windows, n_tokens, k, dynamic, TOKEN_BYTES[dtype], tokens.data_ptr(), torch.get_num_threads()
        )
        return tokens
    if each is None:
        each = torch.full_like(contig, same)
    return reference(arrays, contig, start_bp, n_tokens, each, k, dynamic, dtype)
