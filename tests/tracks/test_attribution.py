"""Maps of a fine-tuned model: every substitution asked again, and its answer attributed to the bases."""

import numpy as np
import pandas as pd
import pytest

from dnagpt_fast.cli.app import main
from dnagpt_fast.finetune.answer import Answer
from dnagpt_fast.genome import Genome
from dnagpt_fast.genome.selection import Place
from dnagpt_fast.tracks.attribution import attribute, points
from dnagpt_fast.tracks.mutate import mutate_answer
from dnagpt_fast.vocab import reverse_complement
from tests.finetune.labelled import config_for, quick_finetune, write_motif_table

BASES = "ACGT"


@pytest.fixture(scope="module")
def tuned(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tuned")
    config = config_for(write_motif_table(folder), "task.positive=yes", "run.epochs=1")
    quick_finetune(config, folder / "run")
    return folder / "run"


@pytest.fixture
def fasta(tmp_path):
    letters = np.random.default_rng(3).choice(list(BASES), 200)
    letters[60] = "N"
    (tmp_path / "g.fa").write_text(">one\n" + "".join(letters) + "\n")
    return tmp_path / "g.fa"


@pytest.mark.parametrize("strand", ["+", "-"])
def test_every_substitution_is_asked_again(tuned, fasta, strand):
    answer = Answer(tuned, device="cpu")
    with Genome.open(fasta) as genome:
        found = mutate_answer(answer, genome, Place("x", "one", 50, 70, strand))
        bases = genome.sequence("one", 50, 70)
    bases = reverse_complement(bases) if strand == "-" else bases
    assert found.bases == bases
    reference = answer.values([bases])[0]
    for i in range(20):
        for b, base in enumerate(BASES):
            if bases[i] == "N":
                assert np.isnan(found.scores[i, b])
                continue
            mutated = answer.values([bases[:i] + base + bases[i + 1 :]])[0]
            assert found.scores[i, b] == pytest.approx(mutated - reference, abs=1e-5)


def test_mutated_sequences_are_asked_in_batches(tuned, fasta, monkeypatch):
    """19 bases with 3 substitutions: the same scores, to rounding, in batches of one, 7 and 32 sequences."""
    asked, done = [], []
    values = Answer.values

    def counted(self, sequences, **given):
        asked.append(len(sequences))
        return values(self, sequences, **given)

    monkeypatch.setattr(Answer, "values", counted)
    maps = []
    for size, batches in ((1, [1, *[3] * 19]), (7, [1, *[6] * 5, 3, *[6] * 4]), (32, [1, 30, 27])):
        answer = Answer(tuned, device="cpu", batch_size=size)
        with Genome.open(fasta) as genome:
            maps.append(mutate_answer(answer, genome, Place("x", "one", 50, 70), progress=done.append).scores)
        assert asked == batches
        assert sum(done) == 20
        asked.clear(), done.clear()
    for other in maps[1:]:
        np.testing.assert_allclose(other, maps[0], atol=1e-5)
    assert np.isnan(maps[0][10]).all()


@pytest.mark.parametrize("strand", ["+", "-"])
def test_the_gradient_is_a_bases_share_of_its_k_mer(tuned, fasta, strand):
    """A base's attribution is what its k-mer's embedding has beside the mean of the four, along the gradient."""
    answer, place = Answer(tuned, device="cpu"), Place("x", "one", 50, 70, strand)
    done: list[int] = []
    with Genome.open(fasta) as genome:
        found = attribute(answer, genome, place, method="gradient", progress=done.append)
    assert sum(done) == points("gradient", 64)
    gradients = answer.gradients(found.bases, [1.0])
    at = 0
    for piece, gradient in zip(gradients.pieces, gradients.gradients[0].numpy(), strict=True):
        for i, base in enumerate(piece):
            if base == "N":
                assert np.isnan(found.values[at])
            else:
                four = [answer.embedding_of(piece[:i] + other + piece[i + 1 :]).numpy() for other in BASES]
                wanted = (answer.embedding_of(piece).numpy() - np.mean(four, axis=0)) @ gradient
                assert found.values[at] == pytest.approx(wanted, rel=1e-3, abs=1e-6)
            at += 1
    assert found.answer == pytest.approx(answer.values([found.bases])[0], abs=1e-5)


def test_integrated_gradients_are_complete(tuned, fasta):
    """The sum over the tokens approaches the difference from the baseline, the more steps the closer."""
    answer, place = Answer(tuned, device="cpu"), Place("x", "one", 80, 128)
    done: list[int] = []
    with Genome.open(fasta) as genome:
        few = attribute(answer, genome, place, steps=2, progress=done.append)
        many = attribute(answer, genome, place, steps=64)
    assert sum(done) == points("integrated", 2)
    difference = many.answer - many.baseline
    assert abs(many.gap) < 1e-3 + 0.01 * abs(difference)
    assert abs(many.gap) <= abs(few.gap) + 1e-4
    assert np.isfinite(many.values).all()


def test_the_commands(capsys, tuned, fasta, tmp_path):
    for command, column, rows in (("mutate", "difference", 3 * 19), ("attribute", "attribution", 19)):
        table, figure = tmp_path / f"{command}.tsv", tmp_path / f"{command}.svg"
        with pytest.raises(SystemExit) as ended:
            main([command, str(tuned), str(fasta), "one:50-70", "-o", str(table), "--plot", str(figure)])
        out, err = capsys.readouterr()
        assert not ended.value.code, err
        assert str(table) in out
        assert figure.read_text().startswith("<?xml")
        found = pd.read_csv(table, sep="\t")
        assert len(found) == rows
        assert np.isfinite(found[column]).all()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["mutate", "{tuned}", "{fasta}", "one:50-70", "--score", "llr"], "is a fine-tuning run"),
        (["mutate", "{tuned}", "{fasta}", "one:50-70", "--context-bp", "3"], "pre-trained models"),
        (["mutate", "dna_gpt6m_m", "{fasta}", "one:50-70", "--score", "difference"], "no fine-tuning run"),
        (["mutate", "dna_gpt6m_m", "{fasta}", "one:50-70", "--label", "yes"], "no fine-tuning run"),
        (["attribute", "{tuned}", "{fasta}", "one:50-70", "--label", "maybe"], "wanted one of no, yes"),
        (
            ["attribute", "{tuned}", "{fasta}", "one:50-70", "--method", "magic"],
            "wanted gradient or integrated",
        ),
        (["attribute", "{tuned}", "{fasta}", "one:50-70", "--steps", "0"], "steps = 0"),
        (["attribute", "{tuned}", "{fasta}", "one:50-70", "--plot", "x.gif"], "wanted a name that ends in"),
    ],
)
def test_what_cannot_be_is_refused(capsys, tuned, fasta, tmp_path, arguments, message):
    given = [text.format(tuned=tuned, fasta=fasta) for text in arguments]
    with pytest.raises(SystemExit) as ended:
        main([*given, "-o", str(tmp_path / "x.tsv")])
    assert ended.value.code in (1, 2)
    assert message in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert not (tmp_path / "x.tsv").exists()
