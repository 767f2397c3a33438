"""A corpus of 216 Gbp, 54 GB packed, in sparse files: it opens quickly, and drawing from its end needs little
memory."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome.genome import Genome
from dnagpt_fast.genome.records import PackedRecord
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.ops import dispatch
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.pretrain.mix import GenomeMix
from dnagpt_fast.pretrain.settings import DataSettings
from dnagpt_fast.vocab import Vocabulary, reserved_id
from tests.genome.large_corpus import CONTIG_BP, CONTIG_NAMES, PATCH_BP, PATCH_START, patch, write_sparse

GENOMES = 10
ROOT = Path(__file__).resolve().parents[2]
SPECIES = ("human", "mouse", "bovine", "W", "Y", "X", "Z", "zebrafish", "drosophila", "yeast")


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    for seed in range(GENOMES):
        write_sparse(folder / f"{seed}.2bit", seed)
    assert sum(path.stat().st_size for path in folder.iterdir()) > 50 * 10**9
    return folder


def write_table(folder: Path, name: str, genomes: int, held_out: str = "") -> Path:
    """With weights 1, 2, 3, ...; held_out for each."""
    rows = [f"{seed}.2bit\t{SPECIES[seed]}\t{seed + 1}\t{held_out}" for seed in range(genomes)]
    path = folder / name
    path.write_text("\n".join(["path\tspecies\tweight\theld_out", *rows]) + "\n")
    return path


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="memory is read from /proc")
def test_opened_in_under_a_second_each_in_memory_that_does_not_grow_with_the_corpus(corpus):
    grown = {}
    for genomes in (1, GENOMES):
        table = write_table(corpus, f"of_{genomes}.tsv", genomes)
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
        done = subprocess.run(
            [sys.executable, "-m", "tests.genome.large_corpus", str(table)],
            capture_output=True, text=True, cwd=ROOT, env=environment, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        result = json.loads(done.stdout)
        assert len(result["seconds"]) == genomes
        assert max(result["seconds"]) < 1
        assert result["packed_bytes"] > genomes * 5.4e9
        grown[genomes] = result["grown_bytes"]
    # 4,000 windows touch one or two pages of 4 kB each; read-ahead would make that 128 kB and more. Ten times the
    # corpus may not add a thousandth of its size.
    assert grown[GENOMES] < 80 * 10**6, grown
    assert grown[GENOMES] - grown[1] < 48 * 10**6, grown


@pytest.mark.parametrize("implementation", ["reference", "native"])
def test_windows_from_beyond_four_gigabytes_hold_the_right_bases(corpus, tmp_path, implementation):
    """Everything except the patch at the end of each file is held out; the patches alone give the same
    windows."""
    held_out = ",".join([*CONTIG_NAMES[:-1], f"{CONTIG_NAMES[-1]}:0-{PATCH_START}"])
    mix = GenomeMix.open(DataSettings(genome_table=str(write_table(corpus, "far.tsv", GENOMES, held_out))))
    genomes = [genome.arrays for genome in mix.genomes]
    assert all(int(genome.byte_offset[-1]) > 2**32 for genome in genomes)
    vocabulary = Vocabulary()
    maker = BatchMaker(genomes, mix.species, 507, vocabulary, Template.build(vocabulary))
    sampler = WindowSampler(genomes, maker.length_bp, seed=3, weights=mix.weights, held_out=mix.held_out)
    # Sample indices late in a long run as well: 2^33 samples are 2.6e13 bp.
    with dispatch.using(sample_batch=implementation):
        batches = [maker.sampled(sampler, first, 256) for first in (0, 2**33)]
    small = []
    for seed in range(GENOMES):
        path = tmp_path / f"{seed}.2bit"
        none = np.zeros((0, 2), np.int64)
        write_twobit(path, [PackedRecord("patch", PATCH_BP, patch(seed), none, none)])
        small.append(Genome.open(path))
    of_patch = BatchMaker(
        [genome.arrays for genome in small], mix.species, 507, vocabulary, Template.build(vocabulary)
    )
    for batch in batches:
        windows = batch.windows
        assert set(windows.contig.tolist()) == {len(CONTIG_NAMES) - 1}
        assert windows.start_bp.min() >= PATCH_START
        assert windows.start_bp.max() + maker.length_bp <= CONTIG_BP
        assert set(windows.orientation.tolist()) == {0, 1, 2, 3}
        shifted = Windows(
            windows.genome, windows.contig * 0, windows.start_bp - PATCH_START, windows.orientation
        )
        expected = of_patch(shifted)
        for name in ("token_ids", "targets", "row_kind", "gc_target", "gc_mask"):
            assert torch.equal(getattr(batch, name), getattr(expected, name)), name
        assert set(batch.token_ids[:, 0].tolist()) <= set(mix.species)
    drawn = torch.cat([batch.windows.genome for batch in batches]).bincount(minlength=GENOMES)
    expected_share = torch.arange(1, GENOMES + 1) / 55
    # 512 draws: five standard deviations of a share of at most 10 / 55
    assert ((drawn / 512 - expected_share).abs() < 5 * (0.18 * 0.82 / 512) ** 0.5).all()
    assert reserved_id("S") in batches[0].token_ids[:, 0]
    letters = mix.genomes[2].sequence(CONTIG_NAMES[-1], PATCH_START, PATCH_START + 1000)
    assert letters == small[2].sequence("patch", 0, 1000)
