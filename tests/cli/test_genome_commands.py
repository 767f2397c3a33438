"""`dnagpt-fast pack` and `info`: their output and their errors."""

import io
import json
import random
import re
import subprocess
import sys

import pytest

from dnagpt_fast import cli, input_files, progress
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.inventory import Counts, contig_counts, place_counts
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.vocab import reverse_complement

FASTA = ">one\nACGTNNacgtnnTTg\n>two\nGGGGC\n>gap\nNNNN\n"


def run(capsys, *arguments):
    """(exit code, stdout, stderr) of one command in this process."""
    with pytest.raises(SystemExit) as left:
        cli.main([str(argument) for argument in arguments])
    out = capsys.readouterr()
    return left.value.code, out.out, out.err


@pytest.fixture
def fasta(tmp_path):
    path = tmp_path / "x.fa"
    path.write_text(FASTA)
    return path


def test_names_are_written_as_utf8_whatever_the_locale(monkeypatch, tmp_path):
    """Commands that write to sys.stdout themselves, such as score, failed at `β` in the C locale."""
    (tmp_path / "x.fa").write_text(">β\nACGT\n", encoding="utf-8")
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    with pytest.raises(SystemExit):
        cli.main(["info", str(tmp_path / "x.fa")])
    sys.stdout.write("β\n")
    out.flush()
    text = out.buffer.getvalue().decode("utf-8")
    assert [line.split()[0] for line in text.splitlines()] == ["contig", "β", "β"]


@pytest.mark.parametrize("command", ["pack", "info"])
def test_how_far_a_large_file_is_read(capsys, monkeypatch, fasta, tmp_path, command):
    monkeypatch.setattr(input_files, "WATCHED_BYTES", 16)
    monkeypatch.setattr(progress, "SECONDS_TO_FIRST_LINE", 0.0)
    arguments = [command, fasta, *([tmp_path / "x.2bit"] if command == "pack" else [])]
    code, _, err = run(capsys, *arguments)
    assert code == 0
    size = fasta.stat().st_size
    assert err.splitlines()[-1] == f"byte {size}/{size}  reading x.fa  left 0:00"
    assert run(capsys, *arguments, "-q")[2] == ""


def test_pack_then_info(capsys, fasta, tmp_path):
    output = tmp_path / "x.2bit"
    code, out, err = run(capsys, "pack", fasta, output)
    assert (code, err) == (0, "")
    assert out.startswith(f"{output}: 3 contigs, 24 bp in {output.stat().st_size} bytes")
    code, out, err = run(capsys, "info", output)
    assert (code, err) == (0, "")
    rows = [line.split() for line in out.splitlines()]
    assert rows[0] == ["contig", "length_bp", "N_bp", "N_blocks", "masked_bp", "GC"]
    assert rows[1:] == [
        ["one", "15", "4", "2", "7", "0.4545"],
        ["two", "5", "0", "0", "0", "1.0000"],
        ["gap", "4", "4", "1", "0", "-"],
        ["total", "24", "8", "3", "7", "0.6250"],
    ]
    code, out, _ = run(capsys, "info", "--json", fasta)
    first = json.loads(out.splitlines()[0])
    assert first == {
        "name": "one", "contig": "one", "start_bp": 0, "end_bp": 15, "strand": "+",
        "length_bp": 15, "n_bp": 4, "n_blocks": 2, "masked_bp": 7, "gc_bp": 5, "gc": 5 / 11,
    }  # fmt: skip


def test_info_of_ranges_and_of_a_bed_file(capsys, fasta, tmp_path):
    """one is ACGTNNacgtnnTTg: two runs of N, and the lower case and its N are masked."""
    run(capsys, "pack", fasta, tmp_path / "x.2bit")
    (tmp_path / "x.bed").write_text("one\t4\t11\tpeak\t0\t-\ngap\t1\t3\n")
    for genome in (fasta, tmp_path / "x.2bit"):
        code, out, err = run(capsys, "info", genome, "--region", "one:2-5", "--region", "two(-)")
        assert (code, err) == (0, "")
        assert [line.split() for line in out.splitlines()] == [
            ["name", "range", "length_bp", "N_bp", "N_blocks", "masked_bp", "GC"],
            ["one:2-5", "one:2-5", "3", "1", "1", "0", "0.5000"],
            ["two(-)", "two:0-5(-)", "5", "0", "0", "0", "1.0000"],
            ["total", "8", "1", "1", "0", "0.8571"],
        ]
        code, out, err = run(capsys, "info", genome, "--bed", tmp_path / "x.bed", "--json")
        assert (code, err) == (0, "")
        assert [json.loads(line) for line in out.splitlines()] == [
            {
                "name": "peak", "contig": "one", "start_bp": 4, "end_bp": 11, "strand": "-", "length_bp": 7,
                "n_bp": 3, "n_blocks": 2, "masked_bp": 5, "gc_bp": 2, "gc": 0.5,
            },
            {
                "name": "gap:1-3", "contig": "gap", "start_bp": 1, "end_bp": 3, "strand": "+", "length_bp": 2,
                "n_bp": 2, "n_blocks": 1, "masked_bp": 0, "gc_bp": 0, "gc": None,
            },
        ]  # fmt: skip
    code, out, _ = run(capsys, "info", fasta, "--region", "one:2-5")
    assert out.splitlines()[0].split()[0] == "range"
    code, _, err = run(capsys, "info", fasta, "--region", "one:2-16")
    assert (code, "one:2-16" in err, "15" in err) == (1, True, True)


def test_counts_of_ranges_are_those_of_their_letters(tmp_path):
    """Random contigs, with ranges that begin and end inside, between and at the ends of runs, and empty ones."""
    draw = random.Random(0)
    texts = {
        f"c{number}": "".join(draw.choice(["N", "n", "ACG", "t", "acgt", "G", "TT"]) for _ in range(size))
        for number, size in enumerate((1, 40, 300))
    }
    (tmp_path / "r.fa").write_text("".join(f">{name}\n{text}\n" for name, text in texts.items()))
    with Genome.open(tmp_path / "r.fa") as genome:
        places = []
        for _ in range(300):
            name = draw.choice(list(texts))
            start, end = sorted(draw.choices(range(len(texts[name]) + 1), k=2))
            places.append(Place(f"{name}:{start}-{end}", name, start, end))
        for place, counts in place_counts(genome, places):
            text = texts[place.contig][place.start_bp : place.end_bp]
            known = text.upper().replace("N", "")
            assert counts == Counts(
                len(text),
                len(text) - len(known),
                len(re.findall("N+", text.upper())),
                sum(letter.islower() for letter in text),
                known.count("G") + known.count("C"),
            )
        whole = [Place(name, name, 0, len(text)) for name, text in texts.items()]
        assert list(place_counts(genome, whole)) == list(contig_counts(genome))


def test_pack_several_files_with_the_output_as_an_option(capsys, fasta, tmp_path):
    other = tmp_path / "y.fa"
    other.write_text(">three\nCC\n")
    assert run(capsys, "pack", fasta, other, "-o", tmp_path / "z.2bit")[0] == 0
    assert Genome.open(tmp_path / "z.2bit").names == ["one", "two", "gap", "three"]
    code, _, err = run(capsys, "pack", fasta, fasta, tmp_path / "w.2bit")
    assert code == 1
    assert "'one' comes from two files" in err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x.fa", "y.fa", "z.2bit"]


def program(*arguments):
    command = [sys.executable, "-m", "dnagpt_fast", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True)


def test_a_warning_is_one_line(tmp_path):
    (tmp_path / "r.fa").write_text(">a\nACGR\n")
    done = program("pack", tmp_path / "r.fa", tmp_path / "r.2bit")
    assert done.returncode == 0
    line = f"dnagpt-fast: warning: {tmp_path}/r.fa: 1 letter other than A C G T U N became N (IUPAC codes)\n"
    assert done.stderr == line


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["pack", "{bad}", "{out}"], 1, "line 2, offset 7: b'1' in contig 'a' is no sequence letter"),
        (["pack", "{missing}", "{out}"], 1, "no such file"),
        (["pack", "{fasta}", "{fasta}"], 1, "would replace its own input"),
        (["pack", "{fasta}", "{missing}/out.2bit"], 1, "does not exist"),
        (["info", "{missing}"], 1, "No such file"),
        (["info", "{folder}"], 1, "Is a directory"),
        (["pack", "{fasta}"], 2, "the .2bit file"),
        (["pack", "--fast", "{fasta}", "{out}"], 2, "--fast"),
        (["info"], 2, "Missing argument"),
        (["inform", "{fasta}"], 2, "inform"),
    ],
)
def test_bad_input_is_an_exit_code_and_no_traceback(capsys, fasta, tmp_path, arguments, code, words):
    (tmp_path / "bad.fa").write_text(">a\nACGT1\n")
    names = {"bad": tmp_path / "bad.fa", "fasta": fasta, "out": tmp_path / "out.2bit"}
    names |= {"missing": tmp_path / "missing", "folder": tmp_path}
    got, out, err = run(capsys, *(argument.format(**names) for argument in arguments))
    assert got == code
    assert words in err
    assert out == ""
    assert "Traceback" not in err
    if code == 1:
        assert err.startswith("dnagpt-fast: error: ")
        assert err.count("\n") == 1
    assert not (tmp_path / "out.2bit").exists()
    assert fasta.read_text() == FASTA


def test_the_module_runs_as_a_program(fasta):
    done = subprocess.run(
        [sys.executable, "-m", "dnagpt_fast", "info", fasta], capture_output=True, text=True
    )
    assert done.returncode == 0
    assert "total" in done.stdout


def test_a_twobit_becomes_the_fasta_that_it_was_packed_from(capsys, fasta, tmp_path):
    run(capsys, "pack", fasta, tmp_path / "x.2bit")
    code, out, _ = run(capsys, "extract", tmp_path / "x.2bit", "-o", tmp_path / "y.fa")
    assert (code, out) == (0, f"{tmp_path / 'y.fa'}: 3 records, 24 bp\n")
    assert (tmp_path / "y.fa").read_text() == FASTA
    run(capsys, "pack", tmp_path / "y.fa", tmp_path / "y.2bit")
    assert (tmp_path / "y.2bit").read_bytes() == (tmp_path / "x.2bit").read_bytes()
    assert run(capsys, "extract", fasta, "--upper")[1] == FASTA.replace("acgtnn", "ACGTNN").replace(
        "TTg", "TTG"
    )


def test_extract_gives_places_on_their_strand(capsys, fasta, tmp_path):
    bed = tmp_path / "x.bed"
    bed.write_text("one\t2\t9\tmy gene\t0\t-\ntwo\t0\t3\n")
    wanted = ">one:2-9(-)\ncgtNNAC\n>two\nGGGGC\n>my_gene one:2-9(-)\ncgtNNAC\n>two:0-3\nGGG\n"
    code, out, err = run(capsys, "extract", fasta, "--region", "one:2-9(-)", "--region", "two", "--bed", bed)
    assert (code, out, err) == (0, wanted, "")
    code, _, err = run(capsys, "extract", fasta, "--region", "one:2-99", "-o", tmp_path / "y.fa")
    assert code == 1
    assert "'one:2-99': wanted 0 <= start < end <= 15" in err
    assert not (tmp_path / "y.fa").exists()
    assert run(capsys, "extract", fasta, "-o", fasta)[0] == 1
    assert fasta.read_text() == FASTA


@pytest.mark.parametrize("strand", ["+", "-"])
def test_long_places_are_written_in_pieces_without_a_seam(monkeypatch, tmp_path, strand):
    from dnagpt_fast.genome import extract
    from dnagpt_fast.genome.selection import Place

    rng = random.Random(3)
    letters = "".join(rng.choice("ACGTNacgtn") for _ in range(700))
    path = tmp_path / "x.fa"
    path.write_text(f">one\n{letters}\n")
    monkeypatch.setattr(extract, "PIECE_LINES", 2)
    with Genome.open(path) as genome:
        blocks = list(
            extract.fasta_blocks(genome, [Place("p", "one", 7, 695, strand)], [extract.Extracted(0, 0)])
        )
    assert len(blocks) == 7
    title, *lines = "\n".join(blocks).split("\n")
    assert title == f">p one:7-695{'(-)' if strand == '-' else ''}"
    assert {len(line) for line in lines[:-1]} == {60}
    assert "".join(lines) == (reverse_complement(letters[7:695]) if strand == "-" else letters[7:695])


def test_pack_takes_the_contigs_that_are_named(capsys, fasta, tmp_path):
    other = tmp_path / "z.fa"
    other.write_text(">three\nACG\n")
    code, _, _ = run(
        capsys, "pack", fasta, other, tmp_path / "x.2bit", "--contig", "three", "--contig", "one"
    )
    assert code == 0
    assert Genome.open(tmp_path / "x.2bit").names == ["one", "three"]
    code, _, err = run(capsys, "pack", fasta, tmp_path / "y.2bit", "--contig", "two", "--contig", "2")
    assert code == 1
    assert "no contig '2'; the first names are one, two, gap" in err
    assert not (tmp_path / "y.2bit").exists()
