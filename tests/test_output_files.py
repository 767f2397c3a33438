import numpy as np
import pytest
from safetensors.numpy import load_file

from dnagpt_fast.output_files import FastaFile, VectorFile


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_vectors_come_back(tmp_path, ending, count):
    path = tmp_path / f"x.{ending}"
    vectors = [np.arange(5, dtype=np.float32) + i for i in range(count)]
    with VectorFile(path) as out:
        out.write(vectors[:2])
        out.write(vectors[2:])
        assert not path.exists()
    back = np.load(path) if ending == "npy" else load_file(path)["embeddings"]
    assert back.shape == (count, 5 if count else 0)
    assert back.dtype == np.float32
    assert np.array_equal(back, np.array(vectors, np.float32).reshape(back.shape))
    assert list(tmp_path.iterdir()) == [path]


def test_fasta_lines_and_titles(tmp_path):
    path = tmp_path / "x.fa"
    with FastaFile(path) as out:
        out.write("one more words", "ACGT" * 31)
        out.write("two", "")
    assert path.read_text() == ">one more words\n" + "ACGT" * 15 + "\n" + "ACGT" * 15 + "\nACGT\n>two\n"


@pytest.mark.parametrize("kind", [FastaFile, VectorFile])
def test_an_interrupted_file_leaves_the_old_one_and_no_half(tmp_path, kind):
    path = tmp_path / "x.npy"
    path.write_text("old")
    with pytest.raises(KeyboardInterrupt), kind(path):
        raise KeyboardInterrupt
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_wrong_input_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"\.npy or \.safetensors"):
        VectorFile(tmp_path / "x.txt")
    with pytest.raises(ValueError, match=r"wanted \(3,\)"), VectorFile(tmp_path / "x.npy") as out:
        out.write([np.zeros(3), np.zeros(4)])
    with pytest.raises(ValueError, match="one line"), FastaFile(tmp_path / "x.fa") as fasta:
        fasta.write("a\nb", "ACGT")
    assert not list(tmp_path.iterdir())
