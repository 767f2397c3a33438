"""What each k-mer weighs in the loss, against adding up base by base."""

import numpy as np
import pytest
import torch

from dnagpt_fast.batch import Windows
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.base_weights import BaseWeights
from dnagpt_fast.genome.places import disjoint, read_places, soft_masked


def letters(rng, length):
    return "".join(rng.choice(list("ACGTacgtN"), size=length))


@pytest.mark.parametrize("k", [1, 3, 6])
def test_the_mask_in_every_window_and_orientation(tmp_path, k):
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
                    means = [sum(0.25 if letter.islower() else 1.0 for letter in kmer) / k for kmer in kmers]
                    wanted.append(means[::-1] if orientation & 1 else means)
    windows = Windows(*torch.tensor(rows).unbind(1))
    weights = BaseWeights([g.arrays for g in genomes], [soft_masked(g, 0.25) for g in genomes])
    found = weights.of_kmers(windows, n_kmers, k)
    torch.testing.assert_close(found, torch.tensor(wanted), rtol=1e-6, atol=0)


def test_places_of_several_weights_and_exactly_one_outside(tmp_path):
    text = "ACGT" * 30
    (tmp_path / "g.fa").write_text(f">a\n{text}\n>b\n{text}\n")
    (tmp_path / "w.bed").write_text(
        "a\t7\t20\tx\t0.1\na\t20\t21\tx\t1000003\nb\t0\t9\tx\t0\nb\t50\t120\tx\t3.3\n"
    )
    genome = Genome.open(tmp_path / "g.fa")
    places = disjoint(read_places(genome, str(tmp_path / "w.bed"), weight_column=5))
    of_base = np.ones((2, 120))
    of_base[0, 7:20], of_base[0, 20], of_base[1, :9], of_base[1, 50:] = 0.1, 1000003, 0, 3.3
    rows = [(0, c, start, 0) for c in range(2) for start in range(120 - 6 + 1)]
    found = BaseWeights([genome.arrays], [places]).of_kmers(Windows(*torch.tensor(rows).unbind(1)), 2, 3)
    means = np.stack([of_base[c, s : s + 6].reshape(2, 3).mean(1) for _, c, s, _ in rows])
    wanted = torch.from_numpy(means).float()
    torch.testing.assert_close(found, wanted, rtol=1e-6, atol=1e-9)
    untouched = wanted == 1
    assert untouched.any()
    assert (found[untouched] == 1).all()


def test_a_genome_without_a_place(tmp_path):
    path = tmp_path / "g.fa"
    path.write_text(">a\nACGTACGT\n")
    zero, genome = torch.zeros(1, dtype=torch.int64), Genome.open(path)
    found = BaseWeights([genome.arrays], [soft_masked(genome, 0.5)]).of_kmers(
        Windows(zero, zero, zero, zero), 2, 3
    )
    assert torch.equal(found, torch.ones(1, 2))
