"""`dnagpt-fast variants`, `track` and `mutate` on the command line, as one process and as two."""

import numpy as np
import pyBigWig
import pytest

from dnagpt_fast import Genome, KmerTokenizer
from dnagpt_fast.model.base_tracks import BaseTracks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.weights.forms import save_model
from tests.cli.test_model_commands import run
from tests.pretrain.torchrun_jobs import finish, torchrun
from tests.tiny import load_tiny
from tests.variants.cohort import line, other, write_genome, write_vcf_text
from tests.variants.test_annotate import base, body, many


@pytest.fixture
def model(tmp_path):
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "model", "folder")
    return tmp_path / "model"


def test_variants(capsys, model, tmp_path):
    genome, source = write_genome(tmp_path), write_vcf_text(tmp_path / "in.vcf")
    output = tmp_path / "out.vcf.gz"
    code, out, err = run(capsys, "variants", model, genome, source, "-o", output, "--phases", 3)
    assert code == 0, err
    assert out.startswith(f"{output}: 12 records, 15 alternatives, 1 EDGE, 1 LONG, 2 N, 1 STR, 2 SYMBOLIC, ")
    assert not err  # short work shows no progress
    assert all("DG_" in row for row in body(output) if row.split("\t")[4] != ".")
    for option, value, rest in (
        ("--rule", "full-ll", "1 strand(s), 1 phase(s)"),
        ("--strands", "1", "rule dnagpt, 1 strand(s)"),
    ):
        plain = tmp_path / f"out{option}.vcf"
        code, _, err = run(capsys, "variants", model, genome, source, "-o", plain, option, value)
        assert code == 0, err
        assert rest in plain.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["-o", "{tmp}/x.txt"], ".vcf, .vcf.gz, .bcf, .tsv or .parquet"),
        (["-o", "{tmp}/x.vcf", "--rule", "best"], "rule = 'best'"),
        (["-o", "{tmp}/x.vcf", "--on-mismatch", "skip"], "on_mismatch = 'skip'"),
        (["-o", "{tmp}/x.vcf", "--context-bp", "5000"], "this model reads"),
        (["-o", "{tmp}/in.vcf"], "would replace its own input"),
        (["-o", "{tmp}/x.vcf", "--resume"], "no unfinished job"),
        (["-o", "-", "--resume"], "wanted a file"),
    ],
)
def test_an_error_is_one_line(capsys, model, tmp_path, arguments, message):
    genome, source = write_genome(tmp_path), write_vcf_text(tmp_path / "in.vcf")
    before = sorted(tmp_path.rglob("*"))
    given = [argument.format(tmp=tmp_path) for argument in arguments]
    code, _, err = run(capsys, "variants", model, genome, source, *given)
    assert code == 1
    assert message in err
    assert len(err.splitlines()) == 1
    assert sorted(tmp_path.rglob("*")) == before


def test_track(capsys, model, tmp_path):
    genome = write_genome(tmp_path)
    arguments = ["--region", "20:100-150", "--values", "bases", "--both-strands", "--name", "hg19"]
    figure = tmp_path / "track.svg"
    code, _, err = run(
        capsys,
        "track",
        model,
        genome,
        "-o",
        tmp_path / "two",
        "--plot",
        figure,
        *arguments,
        "--region",
        "chr1",
    )
    assert (code, "2 ranges: a figure shows one" in err, (tmp_path / "two").exists()) == (1, True, False)
    arguments += ["--plot", figure]
    code, out, err = run(capsys, "track", model, genome, "-o", tmp_path / "tracks", *arguments)
    assert code == 0, err
    assert out.startswith(f"{tmp_path / 'tracks'}: 50 bases, ")
    assert out.endswith(f"drawn in {figure}\n")
    assert figure.read_text().startswith("<?xml")
    with pyBigWig.open(str(tmp_path / "tracks" / "G.bw")) as file:
        found = np.array(file.values("chr20", 100, 150), np.float32)
    with Genome.open(genome) as opened:
        tracks = BaseTracks(Inference(load_tiny("tiny_bias").model()), KmerTokenizer(3))
        assert np.array_equal(found, tracks.both_strands(opened.range("chr20"), 100, 150)[:, 2].numpy())
    assert "genome hg19" in (tmp_path / "tracks" / "hub.txt").read_text()
    code, _, err = run(capsys, "track", model, genome, "-o", tmp_path / "tracks", *arguments)
    assert (code, "is there already" in err) == (1, True)


def test_mutate(capsys, model, tmp_path):
    genome, table, figure = write_genome(tmp_path), tmp_path / "map.tsv", tmp_path / "map.svg"
    arguments = ["20:200-206", "-o", table, "--plot", figure, "--score", "conditional", "--strand=-"]
    code, out, err = run(capsys, "mutate", model, genome, *arguments)
    assert code == 0, err
    assert out == f"{table}: 18 substitutions of 20:200-206, drawn in {figure}\n"
    rows = [row.split("\t") for row in table.read_text().splitlines()]
    assert rows[1][:3] == ["chr20", "205", "-"]
    assert len(rows) == 19
    assert figure.read_text().startswith("<?xml")
    code, _, err = run(capsys, "mutate", model, genome, "20:200-206", "-o", table, "--plot", "x.jpg")
    assert (code, ".png, .pdf, .svg" in err) == (1, True)


@pytest.mark.slow
def test_two_processes_write_the_bytes_of_one(capsys, model, tmp_path):
    """300 records are three blocks; process 0 scores the third one."""
    genome, source = write_genome(tmp_path), write_vcf_text(tmp_path / "in.vcf", many(300))
    for ending in ("vcf", "tsv"):
        alone, two = tmp_path / f"one.{ending}", tmp_path / f"two.{ending}"
        run(capsys, "variants", model, genome, source, "-o", alone, "--device", "cpu")
        arguments = ["variants", str(model), str(genome), str(source), "-o", str(two), "--device", "cpu"]
        process = torchrun(2, *arguments, module=["dnagpt_fast"])
        output = finish(process)
        assert process.returncode == 0, output
        assert output.count("300 records") == 1
        rows = [row for row in two.read_text().splitlines() if "dnagpt_fastCommand" not in row]
        assert rows == [row for row in alone.read_text().splitlines() if "dnagpt_fastCommand" not in row]
        assert not list(tmp_path.glob(".*"))


@pytest.mark.slow
def test_a_hundred_thousand_variants(capsys, model, tmp_path):
    """In bounded memory: the peak is that of a few blocks. Many variants share a position, so few windows differ."""
    import resource

    genome = write_genome(tmp_path)
    rows = [line("chr1", pos, 1, other(base("chr1", pos))) for pos in range(100, 300) for _ in range(500)]
    source = write_vcf_text(tmp_path / "in.vcf", rows)
    few = write_vcf_text(tmp_path / "few.vcf", rows[:2000])
    settings = ["--phases", 1, "--strands", 1]
    assert run(capsys, "variants", model, genome, few, "-o", tmp_path / "few.bcf", *settings)[0] == 0
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code, out, err = run(capsys, "variants", model, genome, source, "-o", tmp_path / "out.vcf.gz", *settings)
    assert code == 0, err
    assert "100,000 records, 100,000 alternatives" in out
    assert len(body(tmp_path / "out.vcf.gz")) == 100_000
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 64 * 1024
