"""The masked share of each k-mer against counting lower-case letters."""

import numpy as np
import pytest
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.soft_mask import SoftMask


def letters(rng, length):
    return "".join(rng.choice(list("ACGTacgtN"), size=length))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_share_of_every_window_and_orientation(tmp_path, k):
    rng = np.random.default_rng(k)
    texts = [[letters(rng, 60), letters(rng, 41)], [letters(rng, 50)], ["ACGT" * 12]]
    genomes = []
    for g, contigs in enumerate(texts):
        path = tmp_path / f"{g}.fa"
        path.write_text("".join(f">c{c}\n{text}\n" for c, text in enumerate(contigs)))
        genomes.append(Genome.open(path))
    rows, wanted = [], []
    n_kmers = 4
    for g, contigs in enumerate(texts):
        for c, text in enumerate(contigs):
            for start in range(len(text) - n_kmers * k + 1):
                for orientation in range(4):
                    rows.append((g, c, start, orientation))
                    kmers = [text[start + i * k : start + (i + 1) * k] for i in range(n_kmers)]
                    shares = [sum(letter.islower() for letter in kmer) / k for kmer in kmers]
                    wanted.append(shares[::-1] if orientation & 1 else shares)
    windows = Windows(*torch.tensor(rows).unbind(1))
    assert torch.equal(SoftMask(genomes).share(windows, n_kmers, k), torch.tensor(wanted))


def test_a_genome_without_a_mask(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">a\nACGTACGT\n")
    zero = torch.zeros(1, dtype=torch.int64)
    assert not SoftMask([Genome.open(path)]).share(Windows(zero, zero, zero, zero), 2, 3).any()
