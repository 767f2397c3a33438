"""`dnagpt-fast generate`, `embed`, `score`, `convert`: their output and their errors."""

import sys

import numpy as np
import pandas as pd
import pytest
import torch
from safetensors.numpy import load_file

from dnagpt_fast import KmerTokenizer, cli
from dnagpt_fast.evaluation.controls import score_with_controls
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.marginals import base_probabilities
from dnagpt_fast.model.score import score
from dnagpt_fast.ops import traits
from dnagpt_fast.training.row_journal import RowJournal
from dnagpt_fast.vocab import reverse_complement
from dnagpt_fast.weights.forms import load_model, save_model
from tests.tiny import load_tiny

SEQUENCES = {"one": "ACGTNNACGTTTG" * 9, "two": "GGGGC", "empty": "", "three": "ACGTTGCA"}


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of one command in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return left.value.code, out.out, out.err


@pytest.fixture
def model(tmp_path):
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "model", "folder")
    return tmp_path / "model"


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text("".join(f">{name}\n{bases}\n" for name, bases in SEQUENCES.items() if bases))
    return path


def records(text):
    return [
        (part.split("\n", 1)[0], part.split("\n", 1)[1].replace("\n", "")) for part in text.split(">")[1:]
    ]


def test_generate_writes_what_generate_sequences_makes(capsys, model, tmp_path):
    arguments = ["--prompt", "<R>ACG", "--prompt", "<R>TT", "--samples", 3, "--max-tokens", 30, "--seed", 4]
    arguments += [
        "--temperature",
        0.9,
        "--top-k",
        60,
        "--top-p",
        0.8,
        "--batch-size",
        2,
        "--bases-only",
        "--crop-to",
        9,
    ]
    code, out, err = run(capsys, "generate", model, "-o", tmp_path / "out.fa", *arguments)
    assert (code, out) == (0, f"{tmp_path / 'out.fa'}: 6 sequences\n")
    assert err.startswith("dnagpt-fast: warning: 1 prompt(s) end inside a 3-mer")
    assert err.count("\n") == 1
    found = records((tmp_path / "out.fa").read_text())
    tokenizer = KmerTokenizer(3)
    made = generate_sequences(
        load_tiny("tiny_bias").model(), tokenizer, ["<R>ACG", "<R>TT"], max_tokens=30, num_samples=3, seed=4,
        temperature=0.9, top_k=60, top_p=0.8, bases_only=True, crop_to=9,
    )  # fmt: skip
    wanted = [
        (
            f"prompt{one.prompt + 1}_sample{one.sample + 1} prompt_bp={3 - one.prompt} new_tokens=28",
            tokenizer.decode(one.prompt_ids + one.new_ids).removeprefix("<R>"),
        )
        for one in made
    ]
    assert found == wanted
    code, out, _ = run(capsys, "generate", model, *arguments)
    assert (code, records(out)) == (0, wanted)


def test_tokens_that_are_no_bases_are_counted_in_the_title(capsys, model):
    code, out, _ = run(
        capsys, "generate", model, "--samples", 20, "--temperature", 3, "--top-p", 0, "--crop-to", 8
    )
    assert code == 0
    assert set("".join(bases for _, bases in records(out))) <= set("NAGCT")
    assert "left_out_tokens=" in out


@pytest.mark.parametrize("ending", ["npy", "safetensors"])
def test_embed(capsys, model, fasta, tmp_path, ending):
    path = tmp_path / f"x.{ending}"
    code, out, err = run(
        capsys,
        "embed",
        model,
        fasta,
        "-o",
        path,
        "--layer",
        1,
        "--pooling",
        "max",
        "--both-strands",
        "--window-bp",
        50,
    )
    assert (code, out, err) == (0, f"{path}: 5 vectors of 64\n", "")
    names = ["one:0-50", "one:50-100", "one:100-117", "two:0-5", "three:0-8"]
    assert (tmp_path / f"x.{ending}.names").read_text().split() == names
    found = np.load(path) if ending == "npy" else load_file(path)["embeddings"]
    texts = [SEQUENCES[name.split(":")[0]][slice(*map(int, name.split(":")[1].split("-")))] for name in names]
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    assert np.array_equal(
        found, list(embed(tiny, tokenizer, texts, layer=1, pooling="max", both_strands=True))
    )


def test_several_layers_are_embedded_in_one_pass(capsys, model, fasta, tmp_path):
    """.npy and .safetensors have the layers as the second axis, .parquet a column for each."""
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    texts = [bases for bases in SEQUENCES.values() if bases]
    wanted = np.stack(list(embed(tiny, tokenizer, texts, layer=[0, -1])))
    layers = ("--layer", 0, "--layer", -1)
    for ending in ("npy", "safetensors", "parquet"):
        path = tmp_path / f"x.{ending}"
        code, out, err = run(capsys, "embed", model, fasta, "-o", path, *layers)
        assert (code, out, err) == (0, f"{path}: {len(texts)} vectors of 2 x 64\n", "")
    assert np.array_equal(np.load(tmp_path / "x.npy"), wanted)
    assert np.array_equal(load_file(tmp_path / "x.safetensors")["embeddings"], wanted)
    table = pd.read_parquet(tmp_path / "x.parquet")
    for number, layer in enumerate((0, -1)):
        assert np.array_equal(np.stack(table[f"embedding_{layer}"]), wanted[:, number])


def test_score(capsys, model, fasta, tmp_path):
    code, out, err = run(capsys, "score", model, fasta, "--overlap", 7)
    assert (code, err) == (0, "")
    texts = [bases for bases in SEQUENCES.values() if bases]
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0] == ["name", "length_bp", "scored_bp", "log_likelihood", "log_likelihood_per_bp"]
    for row, one in zip(rows[1:], score(tiny, tokenizer, texts, overlap=7), strict=True):
        assert row[1:3] == [str(one.length_bp), str(one.scored_bp)]
        assert [float(value) for value in row[3:]] == pytest.approx(
            [one.log_likelihood, one.per_bp], abs=1e-5
        )
    assert run(capsys, "score", model, fasta, "--overlap", 7, "-o", tmp_path / "s.tsv")[0] == 0
    assert (tmp_path / "s.tsv").read_text() == out


def test_score_beside_shuffles_is_the_same_from_a_stopped_job(capsys, model, fasta, tmp_path, monkeypatch):
    """Of the windows of one contig, with columns of the shuffles and the columns of a plain score unchanged."""
    where = [fasta, "--region", "one", "--window-bp", 25]
    controls = ["--shuffles", 3, "--seed", 5]
    code, out, err = run(capsys, "score", model, *where, *controls)
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0][-3:] == ["control_mean", "control_sd", "z"]
    plain = [line.split("\t") for line in run(capsys, "score", model, *where)[1].splitlines()]
    assert [row[:-3] for row in rows] == plain
    bases = SEQUENCES["one"]
    texts = [bases[i : i + 25] for i in range(0, len(bases), 25)]
    found = score_with_controls(load_tiny("tiny_bias").model(), KmerTokenizer(3), texts, controls=3, seed=5)
    for row, one in zip(rows[1:], found, strict=True):
        wanted = [one.mean, one.sd, one.z]
        assert [float(value) for value in row[-3:]] == pytest.approx(wanted, abs=1e-3, nan_ok=True)
    append = RowJournal.append

    def stopping(self, row):
        if self.count == 2:
            raise KeyboardInterrupt
        append(self, row)

    with monkeypatch.context() as patch:
        patch.setattr(RowJournal, "append", stopping)
        run(capsys, "score", model, *where, *controls, "-o", tmp_path / "s.tsv")
    code, _, err = run(capsys, "score", model, *where, "--shuffles", 3, "--resume", "-o", tmp_path / "s.tsv")
    assert (code, "seed" in err) == (1, True), err
    assert run(capsys, "score", model, *where, *controls, "--resume", "-o", tmp_path / "s.tsv")[0] == 0
    assert (tmp_path / "s.tsv").read_text() == out
    for options, message in (
        (["--shuffles", 1], "wanted 2 or more"),
        (["--seed", 3], "goes with --shuffles"),
    ):
        assert message in run(capsys, "score", model, fasta, *options)[2]


@pytest.fixture
def bed(tmp_path):
    path = tmp_path / "x.bed"
    path.write_text("#chrom\tstart\tend\none\t3\t40\tpeak 1\t0\t-\nchrthree\t0\t8\n")
    return path


def test_regions_and_bed_intervals_are_embedded_and_scored(capsys, model, fasta, bed, tmp_path):
    """On their strand and with their names; parquet has the places as columns."""
    where = ["--region", "one:5-60", "--bed", bed]
    one, minus = SEQUENCES["one"], reverse_complement(SEQUENCES["one"][3:40])
    texts = [one[5:60], minus, SEQUENCES["three"]]
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    vectors = list(embed(tiny, tokenizer, texts))
    assert run(capsys, "embed", model, fasta, "-o", tmp_path / "x.npy", *where)[0] == 0
    assert np.array_equal(np.load(tmp_path / "x.npy"), vectors)
    assert (tmp_path / "x.npy.names").read_text().splitlines() == ["one:5-60", "peak 1", "three:0-8"]
    code, out, err = run(capsys, "embed", model, fasta, "-o", tmp_path / "x.parquet", *where)
    assert (code, out) == (0, f"{tmp_path / 'x.parquet'}: 3 vectors of 64\n"), err
    table = pd.read_parquet(tmp_path / "x.parquet")
    assert table.iloc[1, :5].tolist() == ["peak 1", "one", 3, 40, "-"]
    assert np.array_equal(np.stack(table["embedding"]), vectors)
    code, out, _ = run(capsys, "score", model, fasta, *where, "--window-bp", 30)
    rows = [line.split("\t") for line in out.splitlines()]
    assert rows[0][:5] == ["name", "contig", "start_bp", "end_bp", "strand"]
    assert [row[0] for row in rows[1:]] == [
        "one:5-35", "one:35-60", "one:3-33(-)", "one:33-40(-)", "three:0-8"
    ]  # fmt: skip
    wanted = score(tiny, tokenizer, [one[5:35], one[35:60], minus[7:], minus[:7], texts[2]])
    found = [float(row[7]) for row in rows[1:]]
    assert found == pytest.approx([s.log_likelihood for s in wanted], abs=1e-5)


@pytest.mark.filterwarnings("ignore:The 'future.infer_string' option")  # anndata 0.13 with pandas 3.1
def test_vectors_and_regions_as_anndata(capsys, model, fasta, bed, tmp_path):
    anndata = pytest.importorskip("anndata", reason="anndata is not installed: pip install '.[h5ad]'")
    where = ["--bed", bed, "--region", "one:5-60", "--region", "one:5-60"]
    layers = ["--layer", "1", "--layer", "0", "--layer", "-1"]
    code, out, err = run(capsys, "embed", model, fasta, "-o", tmp_path / "x.h5ad", *where, *layers)
    assert (code, out, err) == (0, f"{tmp_path / 'x.h5ad'}: 4 vectors of 3 x 64\n", "")
    found = anndata.read_h5ad(tmp_path / "x.h5ad")
    one = SEQUENCES["one"]
    texts = [one[5:60], one[5:60], reverse_complement(one[3:40]), SEQUENCES["three"]]
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    vectors = np.stack(list(embed(tiny, tokenizer, texts, layer=[1, 0, -1])))
    assert found.X.dtype == np.float32
    assert np.array_equal(found.X, vectors[:, 0])
    assert set(found.layers) - {None} == {"layer_0", "layer_-1"}  # anndata 0.13 counts X as the layer None
    assert np.array_equal(found.layers["layer_0"], vectors[:, 1])
    assert np.array_equal(found.layers["layer_-1"], vectors[:, 2])
    assert found.obs_names.tolist() == ["one:5-60", "one:5-60-1", "peak 1", "three:0-8"]
    assert list(found.obs.columns) == ["name", "contig", "start_bp", "end_bp", "strand", "length_bp"]
    assert found.obs["name"].tolist() == ["one:5-60", "one:5-60", "peak 1", "three:0-8"]
    assert found.obs.iloc[2].tolist() == ["peak 1", "one", 3, 40, "-", 37]
    about = found.uns["dnagpt_fast"]
    assert (about["model"], about["model_sha256"]) == (str(model), tiny.content_hash())
    assert (about["pooling"], about["prefix"], bool(about["both_strands"])) == ("mean", "<R>", False)
    assert about["layer"].tolist() == [1, 0, -1]
    # one layer, and nothing but X
    assert run(capsys, "embed", model, fasta, "-o", tmp_path / "y.h5ad", *where)[0] == 0
    found = anndata.read_h5ad(tmp_path / "y.h5ad")
    assert np.array_equal(found.X, vectors[:, 2])
    assert not set(found.layers) - {None}


def test_without_anndata_the_extra_is_named_before_any_work(capsys, model, fasta, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "anndata", None)
    code, _, err = run(capsys, "embed", model, fasta, "-o", tmp_path / "x.h5ad")
    assert (code, err) == (
        1,
        "dnagpt-fast: error: anndata is not installed: install the extra, `pip install 'dnagpt-fast[h5ad]'`\n",
    )


@pytest.mark.parametrize("command", ["score", "embed", "generate"])
def test_an_output_does_not_replace_its_interval_file(capsys, model, fasta, bed, tmp_path, command):
    (tmp_path / "link.bed").symlink_to(bed)
    source = ["--genome", fasta] if command == "generate" else [fasta]
    code, _, err = run(capsys, command, model, *source, "--bed", bed, "-o", tmp_path / "link.bed")
    assert (code, "would replace its own input" in err) == (1, True)
    assert bed.read_text().startswith("#chrom")


@pytest.mark.parametrize("command", ["score", "embed"])
def test_a_contig_too_short_for_a_fixed_vocabulary_is_named(capsys, tmp_path, command):
    tokenizer = KmerTokenizer(3, dynamic_kmer=False)
    small = DNAGPT(len(tokenizer), max_len=16, num_layers=1, num_heads=1, embedding_dim=8)
    save_model(small, tokenizer, tmp_path / "fixed", "folder")
    (tmp_path / "x.fa").write_text(">a\nACGTACGT\n>tiny\nAC\n")
    code, _, err = run(capsys, command, tmp_path / "fixed", tmp_path / "x.fa", "-o", tmp_path / "x.npy")
    assert (code, "x.fa: tiny: 2 bp: this vocabulary has k-mers of length 3 only" in err) == (1, True)
    assert not (tmp_path / "x.npy").exists()


def test_generation_continues_regions(capsys, model, fasta, bed):
    where = ["--genome", fasta, "--bed", bed, "--max-tokens", 20, "--greedy", "--crop-to", 9]
    code, out, err = run(capsys, "generate", model, *where)
    assert code == 0, err
    (title, bases), (other, _) = records(out)
    assert title.startswith("peak_1_sample1 prompt_bp=37 ")
    assert bases.startswith(reverse_complement(SEQUENCES["one"][3:40]))
    assert other.startswith("three:0-8_sample1 prompt_bp=8 ")


def test_score_of_substitutions(capsys, model, fasta):
    """one:100:A has more bases before it than the model's context; three:4:C is the second base of a k-mer."""
    code, out, err = run(
        capsys, "score", model, fasta, "--substitution", "one:100:A", "--substitution", "three:4:C"
    )
    assert (code, err) == (0, "")
    rows = [line.split("\t") for line in out.splitlines()[1:]]
    tiny, tokenizer = load_tiny("tiny_bias").model(), KmerTokenizer(3)
    one = SEQUENCES["one"]
    assert rows[0][:4] == ["one", "100", one[100], "A"]
    assert rows[1][:4] == ["three", "4", "T", "C"]
    p = base_probabilities(tiny, tokenizer, "CGTT")[3]
    assert float(rows[1][4]) == pytest.approx(float((p[1] / p[3]).log()), abs=1e-5)
    with torch.no_grad():
        ids = tokenizer.encode("<R>" + one[100 - 33 * 3 : 100], to_tensor=False)
        logits = tiny(torch.tensor([ids]))[0, -1]
    first = [
        [
            i
            for i, t in enumerate(tokenizer.idx_to_token)
            if len(t) == 3 and set(t) <= set("ACGT") and t[0] == b
        ]
        for b in "ACGT"
    ]
    share = torch.stack([logits[i].logsumexp(0) for i in first])
    wanted = float(share[0] - share["ACGT".index(one[100])])
    assert float(rows[0][4]) == pytest.approx(wanted, abs=1e-5)


def test_convert(capsys, model, tmp_path):
    for form in ("official", "hf", "folder"):
        target = tmp_path / form
        code, out, err = run(capsys, "convert", model, target, "--to", form)
        assert (code, out, err) == (0, f"{target}: {form}\n", "")  # nor bars of transformers
        state = load_model(target, num_heads=4)[0].state_dict()
        assert all(state[name].equal(value) for name, value in load_tiny("tiny_bias").state.items())


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["generate", "{model}", "--temperature", "0"], 1, "temperature = 0"),
        (["generate", "{model}/none"], 1, "none is no file, no folder and no packaged model"),
        (["generate", "{model}", "--dtype", "int8"], 1, "--dtype = 'int8'"),
        (["embed", "{model}", "{fasta}", "-o", "x.txt"], 1, ".npy, .safetensors, .parquet, .h5ad"),
        (["embed", "{model}", "{fasta}", "-o", "{model}/x.npy", "--pooling", "sum"], 1, "pooling = 'sum'"),
        (["embed", "{model}", "{fasta}", "-o", "{model}/x.npy", "--window-bp", "0"], 1, "window_bp = 0"),
        (["score", "{model}", "{fasta}", "--substitution", "one:A:3"], 1, "CONTIG:POSITION:BASE"),
        (["score", "{model}", "{fasta}", "--substitution", "one:3:A", "--overlap", "3"], 2, "--prefix only"),
        (["score", "{model}", "{fasta}", "--substitution", "one:4000:A"], 1, "4001"),
        (["score", "{model}", "{fasta}", "--region", "one:5-4000"], 1, "wanted 0 <= start < end <= 117"),
        (
            ["score", "{model}", "{fasta}", "--bed", "{fasta}"],
            1,
            "x.fa:1: '>one': wanted contig, start and end",
        ),
        (["score", "{model}", "{fasta}", "-o", "{fasta}"], 1, "would replace its own input"),
        (["score", "{model}", "{fasta}", "-o", "{model}"], 1, "would replace its own input"),
        (["embed", "{model}", "{fasta}", "-o", "{fasta}"], 1, "would replace its own input"),
        (["generate", "{model}", "-o", "{model}"], 1, "would replace its own input"),
        (["generate", "{model}", "--region", "one:5-40"], 2, "--genome"),
        (["generate", "{model}", "--length-bp", "9", "--max-tokens", "9"], 2, "--length-bp"),
        (["generate", "{model}", "--forbid-both-strands"], 2, "--forbid-both-strands"),
        (["generate", "{model}", "--fix", "TATA"], 1, "wanted POSITION:LETTERS"),
        (["generate", "{model}", "--fix", "3:A", "--fix", "3:C"], 1, "position 3 is given twice"),
        (["generate", "{model}", "--length-bp", "9", "--gc", "0.6", "0.5"], 1, "gc = (0.6, 0.5)"),
        (["generate", "{model}", "--length-bp", "9", "--forbid", "N"], 1, "forbid every sequence"),
        (["generate", "{model}", "--genome", "{fasta}"], 2, "--genome"),
        (["convert", "{model}", "{fasta}", "--to", "hf"], 1, "there already"),
        (["convert", "{model}", "{model}2", "--to", "onnx"], 1, "form 'onnx'"),
    ],
)
def test_an_error_is_one_line(capsys, model, fasta, arguments, code, message):
    before = sorted(model.parent.rglob("*"))
    got, _, err = run(capsys, *(argument.format(model=model, fasta=fasta) for argument in arguments))
    assert got == code
    assert message in " ".join(err.replace("│", " ").split())
    assert sorted(model.parent.rglob("*")) == before
    if code == 1:
        assert len(err.splitlines()) == 1


def test_products_are_taken_by_every_command_and_score_says_what_they_change(
    capsys, model, fasta, tmp_path, monkeypatch
):
    option, short = ["--products", "int8"], tmp_path / "short.fa"
    short.write_text(">one\n" + "ACGTTGCAAC" * 9 + "\n>two\nACGTTGC\n")
    monkeypatch.setattr(traits, "processor_flags", lambda: frozenset({"avx2"}))
    code, out, err = run(capsys, "score", model, short, *option)
    assert (code, out) == (1, "")
    assert "--products = 'int8': this processor lacks avx512_vnni or amx_int8" in err
    assert err.count("\n") == 1
    monkeypatch.setenv("DNAGPT_FAST_IMPL", "linear_int8=torch")
    _, exact, _ = run(capsys, "score", model, short)
    code, out, err = run(capsys, "score", model, short, *option)
    assert code == 0, err
    tiny, tokenizer = load_model(model, products="int8")
    texts = ["ACGTTGCAAC" * 9, "ACGTTGC"]
    scores = list(score(tiny, tokenizer, texts))
    for line, one in zip(out.splitlines()[1:], scores, strict=True):
        assert float(line.split("\t")[3]) == pytest.approx(one.log_likelihood, abs=1e-6)
    rounded, before = (
        -sum(float(line.split("\t")[3]) for line in text.splitlines()[1:]) / 97 for text in (out, exact)
    )
    assert err.splitlines()[0] == (
        f"--products int8: {rounded:.5f} nats/bp, float32 {before:.5f}, a change of {rounded - before:+.5f} "
        "over the first 97 bases"
    )
    run(capsys, "embed", model, short, "-o", tmp_path / "v.npy", *option)
    assert np.load(tmp_path / "v.npy").tolist() == [v.tolist() for v in embed(tiny, tokenizer, texts)]
    code, out, _ = run(capsys, "generate", model, "--prompt", "<R>ACG", "--max-tokens", 12, *option)
    made = generate_sequences(tiny, tokenizer, ["<R>ACG"], max_tokens=12, top_p=0.95)
    assert [bases for _, bases in records(out)] == [
        tokenizer.decode_bases(one.prompt_ids + one.new_ids) for one in made
    ]
