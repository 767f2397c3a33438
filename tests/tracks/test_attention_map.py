"""`dnagpt-fast attention`: arrays with coordinates of the genome, and figures."""

import numpy as np
import pytest

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.cli import main
from dnagpt_fast.model.attention_maps import attention_weights
from dnagpt_fast.vocab import reverse_complement
from dnagpt_fast.weights.forms import save_model
from tests.tiny import load_tiny
from tests.variants.cohort import CONTIGS, write_genome


@pytest.fixture
def inputs(tmp_path):
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "m", "folder")
    write_genome(tmp_path)
    return tmp_path


def run(capsys, *arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(one) for one in arguments])
    return stopped.value.code, capsys.readouterr()


@pytest.mark.parametrize("strand", ["+", "-"])
def test_arrays_have_places_in_the_contig(capsys, inputs, strand):
    code, said = run(
        capsys, "attention", inputs / "m", inputs / "genome.fa", "1:100-140", "-o", inputs / "x.npz", "--strand", strand
    )  # fmt: skip
    assert code == 0, said.err
    bases = CONTIGS["chr1"][100:140]
    wanted = attention_weights(
        load_tiny("tiny_bias").model(),
        KmerTokenizer(3),
        bases if strand == "+" else reverse_complement(bases),
    )
    with np.load(inputs / "x.npz") as file:
        found = dict(file)
    assert np.array_equal(found["weights"], wanted.weights)
    assert (str(found["contig"]), str(found["strand"])) == ("chr1", strand)
    assert (found["start_bp"][0], found["end_bp"][0], found["tokens"][0]) == (-1, -1, "<R>")
    with Genome.open(inputs / "genome.fa") as genome:
        for token, start, end in zip(found["tokens"], found["start_bp"], found["end_bp"], strict=True):
            if start >= 0:
                here = genome.sequence("chr1", start, end)
                assert token == (here if strand == "+" else reverse_complement(here))


@pytest.mark.parametrize("ending", ["png", "pdf", "svg"])
def test_figures_have_the_positions_of_the_tokens(capsys, inputs, ending):
    output = inputs / f"x.{ending}"
    one_layer = ["--layer", "1", "--head", "0"] if ending == "svg" else []
    code, said = run(
        capsys, "attention", inputs / "m", inputs / "genome.fa", "chr1:100-160", "-o", output, *one_layer
    )
    assert code == 0, said.err
    assert "chr1:100-160, 21 tokens, 1 layer(s)" in said.out
    content = output.read_bytes()
    assert content.startswith({"png": b"\x89PNG", "pdf": b"%PDF", "svg": b"<?xml"}[ending])
    if ending == "svg":  # matplotlib writes each text as a comment beside its outlines
        text = content.decode()
        assert "layer 1, head 0" in text
        texts = [one.strip() for one in text.replace("<!--", "-->").split("-->")]
        assert {"&lt;R&gt;", "110", "120", "140", "160"} & set(texts) >= {"120", "140", "160"}


@pytest.mark.parametrize(
    ("more", "code", "message"),
    [
        (["chr1:100-160", "-o", "x.jpg"], 1, "x.jpg: wanted a name that ends in .png, .pdf, .svg, .npz"),
        (["chr1:0-900", "-o", "x.png"], 1, "attention maps need the whole sequence in the model"),
        (["chr1:100-160", "-o", "x.png", "--head", "9"], 1, "head = 9: wanted 0.."),
        (["chr1:100-160", "-o", "x.png", "--layer", "0"], 1, "layer 0 has no attention"),
        (["chr1:100-160", "-o", "x.npz", "--head", "0"], 2, "is for figures"),
        (["chr9:100-160", "-o", "x.png"], 1, "no contig 'chr9'"),
    ],
)
def test_what_cannot_be_drawn_is_named(capsys, inputs, monkeypatch, more, code, message):
    monkeypatch.chdir(inputs)
    found, said = run(capsys, "attention", "m", "genome.fa", *more)
    assert (found, message in " ".join(said.err.replace("│", " ").split())) == (code, True), said.err
    assert not [path for path in inputs.iterdir() if path.name.startswith(("x.", "."))]
