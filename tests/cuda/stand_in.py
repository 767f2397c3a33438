"""Builds the CUDA sources as C++ under stand_in.h with ASan and UBSan, and runs cases through them."""

import os
import shutil
import struct
import subprocess
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from dnagpt_fast.packed import PackedGenome

HERE = Path(__file__).parent
CSRC = HERE.parents[1] / "csrc"
FIELDS = ("packed", "byte_offset", "length_bp", "n_block_index", "n_block_start_bp", "n_block_end_bp")
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-g", "-O1"]
FLAGS = ["-std=c++17", *SANITIZE, "-DDNAGPT_STAND_IN", "-Wall", "-Wextra", "-Werror", "-Wno-unknown-pragmas"]
TOKENIZE, GC_COUNT, SAMPLE_BATCH = 0, 1, 2


def build(folder: Path) -> Path:
    """The path of the program; skips the test without a compiler with sanitizers."""
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    program = folder / "stand_in"
    sources = [*sorted(CSRC.glob("cuda/*.cu")), HERE / "stand_in_main.cpp"]
    includes = [f"-I{CSRC}", f"-I{CSRC / 'cuda'}", f"-I{HERE}"]
    command = [compiler, *FLAGS, *includes, "-x", "c++", *map(str, sources), "-o", str(program)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return program


def _array(values: np.ndarray | torch.Tensor) -> bytes:
    data = np.ascontiguousarray(values).tobytes()
    return struct.pack("<q", len(data)) + data


def _words(*values: int) -> bytes:
    return struct.pack(f"<{len(values)}q", *values)


def _row(values: Sequence[int]) -> bytes:
    return _array(np.array(values, np.int64))


def genome_bytes(genome: PackedGenome, packed_shift: int, lead: int = 0) -> bytes:
    """The arrays of a genome; its packed bases begin `packed_shift` bytes after a multiple of 16.

    With `lead`, so many unused bytes come before them, and byte_offset must count them.
    """
    return _words(packed_shift, lead) + b"".join(_array(getattr(genome, field).numpy()) for field in FIELDS)


def tokenize_case(
    genome,
    contig,
    start_bp,
    orientation,
    n_tokens,
    k,
    dynamic,
    token_bytes,
    *,
    shift=0,
    packed_shift=0,
    lead=0,
):
    """`orientation` is an int or one per window; the ids begin `shift` ids after a multiple of 16 bytes."""
    each = [orientation] if isinstance(orientation, int) else orientation
    return (
        _words(TOKENIZE)
        + genome_bytes(genome, packed_shift, lead)
        + _row(contig)
        + _row(start_bp)
        + _row(each)
        + _words(n_tokens, k, dynamic, token_bytes, shift * token_bytes)
    )


def gc_case(genome, contig, start_bp, length_bp, *, packed_shift=0, lead=0):
    return (
        _words(GC_COUNT)
        + genome_bytes(genome, packed_shift, lead)
        + _row(contig)
        + _row(start_bp)
        + _row(length_bp)
    )


def sample_case(
    genomes, tables, seed, first_index, count, n_tokens, k, dynamic, token_bytes, *, by_address=False
):
    arrays = (
        *(tables.genome_threshold, tables.orientation_threshold, tables.interval_index, tables.rank_before),
        *(tables.contig, tables.start_bp, tables.ranks_per_start),
        *(np.array([seed], np.uint64), np.array([first_index], np.uint64)),
    )
    return (
        _words(SAMPLE_BATCH, len(genomes))
        + b"".join(genome_bytes(genome, 3 * g) for g, genome in enumerate(genomes))
        + b"".join(map(_array, arrays))
        + _words(by_address, count, n_tokens, k, dynamic, token_bytes)
    )


def answers(program: Path, folder: Path, cases: Sequence[bytes], seed: int = 0) -> list[bytes]:
    """All output arrays of all cases, in order. Fails if a sanitizer reports an error."""
    (folder / "cases").write_bytes(b"".join(cases))
    environment = {**os.environ, "STAND_IN_SEED": str(seed), "ASAN_OPTIONS": "detect_leaks=0"}
    command = [str(program), str(folder / "cases"), str(folder / "answers")]
    done = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-4000:]
    data = (folder / "answers").read_bytes()
    arrays, at = [], 0
    while at < len(data):
        (size,) = struct.unpack_from("<q", data, at)
        arrays.append(data[at + 8 : at + 8 + size])
        at += 8 + size
    return arrays
