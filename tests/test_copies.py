"""All objects with native parts can be copied and pickled, as DataLoader workers and `datasets.map` do."""

import copy
import pickle

import numpy as np
import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.finetune.data.token_tags import Feature, TaggedWindows
from dnagpt_fast.genome import Genome, GenomeFileError
from dnagpt_fast.genome.fasta import read_fasta
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.genome.twobit import write_twobit
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.ops import BatchSampler, gc_count
from tests.tiny import NAMES, load_tiny

COPIES = {
    "deepcopy": copy.deepcopy,
    "copy": copy.copy,
    "pickle": lambda thing: pickle.loads(pickle.dumps(thing)),
}


@pytest.fixture(params=COPIES.values(), ids=COPIES)
def copied(request):
    return request.param


@pytest.mark.parametrize("dynamic", [True, False])
def test_a_tokenizer(copied, dynamic):
    tokenizer = KmerTokenizer(3, dynamic_kmer=dynamic)
    for thing in (tokenizer, copied(tokenizer)):  # before and after its tables are built
        other = copied(thing)
        assert other.encode("<R>ACGTACGTT").tolist() == tokenizer.encode("<R>ACGTACGTT").tolist()
        assert other.decode([40, 41]) == tokenizer.decode([40, 41])


@pytest.fixture(params=["fasta", "twobit"])
def genome(request, tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(">one\nACGTNNacgtACGT\n>two\nGGGGC\n")
    if request.param == "twobit":
        write_twobit(tmp_path / "x.2bit", read_fasta(path))
        path = tmp_path / "x.2bit"
    return Genome.open(path)


def test_a_genome(copied, genome):
    gc_count(
        genome, np.array([0]), np.array([0]), np.array([14])
    )  # its native view is kept beside the arrays
    other = copied(genome)
    for name in genome.names:
        assert other.sequence(name, soft_mask=True) == genome.sequence(name, soft_mask=True)
    counts = [gc_count(g, np.array([0, 1]), np.array([0, 1]), np.array([14, 4])) for g in (genome, other)]
    assert all(torch.equal(a, b) for a, b in zip(*counts, strict=True))
    packed = copied(genome.arrays)
    assert torch.equal(packed.n_block_start_bp, genome.arrays.n_block_start_bp)


def test_a_copy_outlives_the_genome(genome):
    other = copy.deepcopy(genome)
    genome.close()
    assert other.sequence("two") == "GGGGC"
    with pytest.raises(ValueError, match="is closed"):
        pickle.dumps(genome)


def test_a_pickled_genome_whose_file_was_replaced(tmp_path):
    for i, text in enumerate((">one\nACGT\n", ">two\nACGT\n")):
        (tmp_path / f"{i}.fa").write_text(text)
        write_twobit(tmp_path / f"{i}.2bit", read_fasta(tmp_path / f"{i}.fa"))
    data = pickle.dumps(Genome.open(tmp_path / "0.2bit"))
    (tmp_path / "1.2bit").replace(tmp_path / "0.2bit")
    with pytest.raises(GenomeFileError, match="not those of the genome that was pickled"):
        pickle.loads(data)


def test_a_batch_sampler(copied, genome):
    sampler = BatchSampler(
        [genome.arrays], WindowSampler([genome.arrays], 4, seed=3, max_n_share=1).tables, 3, 2, k=2
    )
    other = copied(sampler)
    for mine, theirs in zip(sampler(5, 8)[1:], other(5, 8)[1:], strict=True):
        assert torch.equal(mine, theirs)


def test_rows_of_a_genome(copied, genome):
    """What a DataLoader's workers get of `TaggedWindows`."""
    features = [Feature("one", 2, 7, "exon", "here")]
    rows = TaggedWindows(genome, features, ["exon"], KmerTokenizer(2), kmers=2)
    assert list(copied(rows)) == list(rows)
    assert len(rows) == 6


@pytest.mark.parametrize("name", NAMES)
def test_a_model(copied, name):
    model = load_tiny(name).model()
    ids = [[21, 40, 50, 60]]
    Inference(model).hidden_states(ids)
    other = copied(model)
    assert torch.equal(Inference(other).hidden_states(ids)[0], Inference(model).hidden_states(ids)[0])
