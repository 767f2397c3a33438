"""Tagging from end to end: features of a genome in, spans out; every k-mer's loss, windows, strands, refusals."""

import csv
import json
import random

import numpy as np
import pytest
import torch
from rich.console import Console

from dnagpt_fast.cli import main
from dnagpt_fast.finetune import job
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.finetune.predict import load_finetuned, predict
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import ConfigError
from dnagpt_fast.vocab import reverse_complement
from tests.finetune.data.genomes import put
from tests.finetune.labelled import config_for

LENGTH_BP, FEATURES = 6_000, range(10, 5_950, 60)
TAGGING = ("task.kind=tagging", "split.kind=block", "split.block_bp=600")


def write_genome(folder):
    """A `site` is CG GG GG GG on the grid of the 2-mers; G comes nowhere else: whether it learns where more must be
    seen is asked of the other tasks."""
    bases = "".join(random.Random(0).choices("ACT", k=LENGTH_BP))
    lines = []
    for start in FEATURES:
        bases = put(bases, start, "CGGGGGGG")
        lines.append(f"chr1\tx\tsite\t{start + 1}\t{start + 8}\t.\t+\t.\tID=s{start}")
        lines.append(f"chr1\tx\tgene\t{start + 1}\t{start + 40}\t.\t+\t.\tID=g{start}")
    (folder / "g.fa").write_text(f">chr1\n{bases}\n")
    (folder / "a.gff3").write_text("##gff-version 3\n" + "\n".join(lines) + "\n")
    (folder / "a.bed").write_text("".join(f"chr1\t{s}\t{s + 8}\tsite\n" for s in FEATURES))
    return bases


def settings(folder, name="a.gff3", *more):
    return config_for(folder / name, *TAGGING, f'data.genome="{folder / "g.fa"}"', *more)


def run(config, out, resume=False):
    (outcome,) = finetune(config, out, resume=resume, console=Console(quiet=True))
    return outcome


def rows(path):
    return list(csv.DictReader(path.read_text().splitlines(), delimiter="\t"))


@pytest.fixture(scope="module")
def genome(tmp_path_factory):
    folder = tmp_path_factory.mktemp("genome")
    return folder, write_genome(folder)


@pytest.fixture(scope="module")
def tagged(genome):
    folder, _ = genome
    outcome = run(
        settings(
            folder, "a.gff3", "task.classes=['site']", "run.epochs=5", "run.batch_size=4", "optimizer.lr=2e-2"
        ),
        folder / "run",
    )
    return folder / "run", outcome.report


def test_it_learns_sites_and_leaves_a_whole_report(tagged):
    folder, report = tagged
    scores = report["test"]
    assert scores["span_f1"][0] > 0.9
    assert scores["f1_B-site"][0] > 0.9
    assert {
        "accuracy",
        "macro_f1",
        "f1_O",
        "f1_I-site",
        "span_precision",
        "span_recall",
        "span_f1_site",
    } < set(scores)
    assert {p.name for p in folder.iterdir()} == {
        "README.md", "checkpoints", "config.json", "loss.png", "loss.svg", "metrics.jsonl", "model.safetensors",
        "predictions.tsv", "results.json", "test.png", "test.svg",
    }  # fmt: skip
    counts = json.loads((folder / "config.json").read_text())["counts"]
    assert set(counts["test"]["labels"]) == {"O", "B-site", "I-site"}
    spans = rows(folder / "predictions.tsv")
    labelled = [r for r in spans if r["label"] == "site"]
    whole = [r for r in labelled if int(r["end_bp"]) - int(r["start_bp"]) == 8]
    assert {int(r["start_bp"]) for r in whole} <= set(FEATURES)
    assert sum(r["predicted"] == "site" for r in labelled) > 0.9 * len(labelled)
    assert "fine-tuned for tagging" in (folder / "README.md").read_text()
    assert "bootstrap over the test windows" in (folder / "README.md").read_text()


def test_bed_and_gff3_and_what_may_be_left_out_say_the_same(genome):
    folder, _ = genome
    both = [
        job.FinetuneRun(config, 0).train.examples
        for config in (settings(folder, "a.bed"), settings(folder, "a.gff3", "task.classes=['site']"))
    ]
    assert both[0].kinds == both[1].kinds == ("site",)
    assert both[0].sequence == both[1].sequence
    assert all((a == b).all() for a, b in zip(both[0].tags, both[1].tags, strict=True))


def test_every_kmer_of_a_batch_has_its_class_and_weight(genome):
    folder, _ = genome
    made = job.FinetuneRun(settings(folder, "a.bed", "task.class_weights=[0.5, 2.0, 3.0]"), 0)
    train = made.train
    short = int(np.argmin(train.length))
    batch = train.batch([0, short])
    seen = torch.zeros(LENGTH_BP // 2, dtype=torch.int64)
    for start in FEATURES:
        seen[start // 2] = 1
        seen[start // 2 + 1 : start // 2 + 4] = 2
    for i, row in enumerate((0, short)):
        start, end = (int(x[row]) // 2 for x in (train.examples.loci.start_bp, train.examples.loci.end_bp))
        kmers = end - start
        assert batch.target[i, 0] == -100
        assert (batch.target[i, 1 + kmers :] == -100).all()
        assert batch.target[i, 1 : 1 + kmers].equal(seen[start:end])
        assert batch.weight[i, 1 : 1 + kmers].equal(torch.tensor([0.5, 2, 3])[seen[start:end]])
        assert batch.weight[i].count_nonzero() == kmers
    model, answers = made.model.double(), made.losses.answers
    logits = model(batch.token_ids)[..., answers]
    each = torch.nn.functional.cross_entropy(logits.transpose(1, 2), batch.target, reduction="none")
    torch.testing.assert_close(made.losses.row_losses(batch).double(), each.sum(1), rtol=1e-6, atol=1e-6)
    weight = batch.weight.double()
    torch.testing.assert_close(
        made.losses(batch)["loss"].double(), (each * weight).sum() / weight.sum(), rtol=1e-6, atol=1e-6
    )
    balanced = job.FinetuneRun(settings(folder, "a.bed", "task.balanced=true"), 0).train
    counts = np.bincount(np.concatenate(balanced.examples.tags))
    totals = counts * balanced.tag_weights
    assert totals == pytest.approx(totals[:1].repeat(3), rel=1e-5)


def test_predict_finds_the_spans_of_sequences_longer_than_the_model_on_both_strands(genome, tagged, tmp_path):
    _, bases = genome
    folder, _ = tagged
    piece = bases[600:1200]
    (tmp_path / "new.fa").write_text(f">one\n{piece}\n>two\n{piece[:31]}\n")
    config = settings(genome[0], "a.gff3", f'data.path="{tmp_path / "new.fa"}"')
    found, _ = predict(folder, config.data, tmp_path / "new.tsv", device="cpu")
    written = rows(tmp_path / "new.tsv")
    assert list(written[0]) == ["contig", "start_bp", "end_bp", "strand", "predicted", "probability"]
    assert len(written) == len(found.where)
    one = {(int(r["start_bp"]), int(r["end_bp"])) for r in written if "(one)" in r["contig"]}
    assert one == {(s - 600, s - 592) for s in FEATURES if s >= 600 and s + 8 <= 1200}
    assert all(0.3 < float(r["probability"]) <= 1 for r in written)
    # the same bases as intervals of a genome, read forwards and backwards
    (tmp_path / "r.fa").write_text(f">r\n{reverse_complement(piece)}\n>f\n{piece}\n")
    (tmp_path / "x.bed").write_text("r\t0\t600\ta\t0\t-\nf\t0\t600\tb\t0\t+\n")
    config = settings(tmp_path, "x.bed", f'data.genome="{tmp_path / "r.fa"}"')
    predict(folder, config.data, tmp_path / "bed.tsv", device="cpu")
    by_contig = {name: [] for name in "rf"}
    for r in rows(tmp_path / "bed.tsv"):
        by_contig[r["contig"]].append((int(r["start_bp"]), int(r["end_bp"]), r["strand"]))
    assert {(s, e) for s, e, _ in by_contig["f"]} == one
    assert {(600 - e, 600 - s) for s, e, _ in by_contig["r"]} == one
    assert {strand for *_, strand in by_contig["r"]} == {"-"}


def test_the_command_line_goes_on_where_it_stopped(genome, tmp_path, capsys):
    folder, _ = genome
    options = [text for setting in (*settings_text(folder), "run.epochs=1") for text in ("--set", setting)]
    command = ["finetune", "--task", "tagging", "--data", str(folder / "a.bed"), "--out", str(tmp_path / "r")]
    for arguments in (
        [*command, *options],
        ["finetune", "--out", str(tmp_path / "r"), "--resume"],
        [
            "predict",
            str(tmp_path / "r"),
            str(folder / "g.fa"),
            "-o",
            str(tmp_path / "p.tsv"),
            "--device",
            "cpu",
        ],
    ):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert not exit_.value.code
    assert capsys.readouterr().out.endswith("answers\n")
    assert (
        (tmp_path / "p.tsv")
        .read_text()
        .startswith("contig\tstart_bp\tend_bp\tstrand\tpredicted\tprobability\n")
    )
    _, language, _ = load_finetuned(tmp_path / "r")
    assert language.classes == ("O", "B-site", "I-site")
    assert len(set(language.answers)) == 3


def settings_text(folder):
    from tests.finetune.labelled import SMALL

    return (*SMALL, *TAGGING[1:], f'data.genome="{folder / "g.fa"}"')


@pytest.mark.parametrize(
    ("name", "more", "error", "said"),
    [
        ("a.gff3", (), LabelError, r"features of 2 kinds \(gene, site\): name the kinds to tag in task.classes"),
        ("a.gff3", ("task.classes=['exon']",), LabelError, r"has no feature 'exon'; there are gene, site"),
        ("a.bed", ("data.genome=''",), LabelError, r"a.bed: features need their genome: set data.genome"),
        ("g.fa", (), LabelError, r"g.fa: tagging needs features: wanted a file .gff3"),
        ("a.bed", ("task.kind=classification", "data.path='{}/a.gff3'"), LabelError, r"make-task"),
        ("a.bed", ("data.window_bp=15",), LabelError, r"data.window_bp = 15: wanted a multiple of 2"),
        ("a.bed", ("data.window_bp=64",), LabelError, r"up to 62, the limit of this model"),
        ("a.bed", ("data.region='chr9'",), ValueError, r"chr9"),
        ("a.bed", ("data.region='chr1:0-6'",), LabelError, r"no validation rows|no rows|leave no rows"),
        ("a.bed", ("split.kind=column",), LabelError, r"set split.kind = 'block'"),
        ("a.bed", ("task.positive='site'",), ConfigError, r"tagging has no positive class"),
        ("a.bed", ("task.class_weights=[1.0, 2.0]",), LabelError, r"wanted 3 positive numbers"),
        ("a.bed", ("data.number_columns=['x']",), LabelError, r"is for regression"),
        ("off.bed", (), LabelError, r"off.bed:1: ends at 20000: chr1 has 6000"),
        ("rare.bed", (), LabelError, r"no \w+ window has a feature 'rare'"),
        ("many.bed", ("task.classes=['a','b','c','d','e','f','g','h','i','j']",), LabelError, r"10 kinds"),
    ],
)  # fmt: skip
def test_what_cannot_be_tagged_is_refused_before_any_work(genome, tmp_path, name, more, error, said):
    folder, _ = genome
    (folder / "off.bed").write_text("chr1\t5\t20000\tsite\n")
    (folder / "rare.bed").write_text("chr1\t5\t10\trare\n")
    kinds = "abcdefghij"
    many = (f"chr1\t{i}\t{i + 5}\t{kinds[i // 50 % 10]}\n" for i in range(0, 5_900, 50))
    (folder / "many.bed").write_text("".join(many))
    with pytest.raises(error, match=said):
        run(settings(folder, name, *(text.format(folder) for text in more)), tmp_path / "r")
    assert not (tmp_path / "r").exists()


def test_a_run_for_tagging_is_asked_about_sequences(genome, tagged, tmp_path):
    with pytest.raises(LabelError, match=r"a.gff3: features of a genome are for training .*wanted sequences"):
        predict(tagged[0], settings(genome[0]).data, tmp_path / "p.tsv")
