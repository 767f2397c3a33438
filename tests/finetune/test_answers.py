"""What a fine-tuned model answers, for files and for sequences in memory, and what its model card says."""

import json

import numpy as np
import pytest
from rich.console import Console

from dnagpt_fast.cli import main
from dnagpt_fast.finetune.predict import predict, predict_sequences
from dnagpt_fast.finetune.rivals import only_class
from dnagpt_fast.finetune.run import finetune
from dnagpt_fast.finetune.settings import ConfigError
from tests.finetune.labelled import config_for, write_motif_table


@pytest.fixture(scope="module")
def motif_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("motif")
    table = write_motif_table(folder)
    config = config_for(table, "task.positive=yes", "run.epochs=1")
    finetune(config, folder / "run", console=Console(quiet=True))
    return table, folder / "run"


def test_answers_carry_the_names_and_places_of_the_file(motif_run, tmp_path):
    _, folder = motif_run
    (tmp_path / "g.fa").write_text(">chr1\nACGTTTGACATTACGGACCA\n")
    (tmp_path / "x.bed").write_text("chr1\t2\t14\tgene one\t0\t-\n1\t0\t12\t.\t0\t+\n")
    (tmp_path / "x.fa").write_text(">first more words\nACGTTTGACATT\n>second\nACGTTTGACATTA\n")
    (tmp_path / "x.csv").write_text("id,sequence\nrow A,ACGTTTGACATT\n")
    rows = {}
    for name, more in (("x.bed", [f"data.genome={tmp_path / 'g.fa'}"]), ("x.fa", []), ("x.csv", [])):
        data = config_for(tmp_path / name, *more).data
        predict(folder, data, tmp_path / "p.tsv", device="cpu")
        rows[name] = [line.split("\t")[:-3] for line in (tmp_path / "p.tsv").read_text().splitlines()]
    assert rows["x.bed"] == [
        ["name", "where", "contig", "start_bp", "end_bp", "strand"],
        ["gene one", "x.bed:1", "chr1", "2", "14", "-"],
        [".", "x.bed:2", "chr1", "0", "12", "+"],
    ]
    assert rows["x.fa"] == [
        ["name", "where"],
        ["first", "x.fa: record 0 (first)"],
        ["second", "x.fa: record 1 (second)"],
    ]
    assert rows["x.csv"] == [["name", "where"], ["row A", "x.csv:2"]]


def test_sequences_in_memory_are_predicted_as_those_of_a_file(motif_run, tmp_path):
    table, folder = motif_run
    texts = [line.split(",")[0] for line in table.read_text().splitlines()[1:9]]
    in_file, _ = predict(folder, config_for(table).data, tmp_path / "p.tsv", device="cpu")
    forms = ([texts[0].lower(), texts[1].encode(), np.array(list(texts[2])), *texts[3:]], iter(texts))
    for given in forms:
        found = predict_sequences(folder, given, device="cpu")
        np.testing.assert_allclose(found.values, in_file.values[:8], atol=1e-6)
        assert found.classes == ("no", "yes")
        assert found.where[1] == "sequences[1]"
    assert predict_sequences(folder, []).values.shape == (0, 2)
    for given, message in (
        (["ACGT", "AC-T"], r"sequences\[1\]: base 2 is '-'"),
        (["ACGT", ""], r"sequences\[1\]: the sequence is empty"),
        (["ACGT", None], r"sequences\[1\]: NoneType"),
        (["ACGT" * 200], r"sequences\[0\]: 800 bases"),
    ):
        with pytest.raises((TypeError, ValueError), match=message):
            predict_sequences(folder, given)
    with pytest.raises(ConfigError, match=r"numbers is \(1, 2\): wanted \(1, 0\)"):
        predict_sequences(folder, ["ACGT"], numbers=[[1, 2]])


def test_the_hub_reads_the_head_of_the_model_card(motif_run):
    hub = pytest.importorskip("huggingface_hub")
    _, folder = motif_run
    card = hub.ModelCard((folder / "README.md").read_text(), ignore_metadata_errors=False)
    assert (card.data.library_name, card.data.pipeline_tag) == ("dnagpt-fast", "text-classification")
    results = json.loads((folder / "results.json").read_text())["test"]
    found = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert found == {name: value[0] for name, value in results.items()}
    assert hub.ModelCard(str(card)).data.to_dict() == card.data.to_dict()
    assert card.text.lstrip().startswith("# A DNAGPT fine-tuned for classification")


def test_a_model_that_answers_one_class_is_named(motif_run, tmp_path, capsys):
    table, _ = motif_run
    assert only_class(np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 1])) == 0
    assert only_class(np.array([[0.7, 0.3], [0.4, 0.6]]), np.array([0, 1])) is None
    assert only_class(np.array([[0.7, 0.3], [0.6, 0.4]]), np.array([0, 0])) is None
    settings = ("run.epochs=1", "optimizer.lr=0", "task.positive=yes")
    finetune(config_for(table, *settings), tmp_path / "r")
    said = " ".join(capsys.readouterr().err.split())
    rows = (tmp_path / "r" / "predictions.tsv").read_text().splitlines()[1:]
    answers = {row.split("\t")[2] for row in rows}
    assert ("test rows are predicted as" in said) == (len(answers) == 1)


def test_the_command_line(tmp_path, capsys):
    from tests.finetune.labelled import SMALL

    table = write_motif_table(tmp_path, 40)
    options = [text for setting in (*SMALL, "run.epochs=1") for text in ("--set", setting)]
    with pytest.raises(SystemExit) as exit_:
        main(
            [
                "finetune",
                "--task",
                "classification",
                "--data",
                str(table),
                "--out",
                str(tmp_path / "r"),
                *options,
            ]
        )
    assert not exit_.value.code
    with pytest.raises(SystemExit) as exit_:
        main(["predict", str(tmp_path / "r"), str(table), "-o", str(tmp_path / "p.tsv"), "--device", "cpu"])
    assert not exit_.value.code
    assert capsys.readouterr().out.endswith(f"{tmp_path / 'p.tsv'}: 40 answers\n")
    with pytest.raises(SystemExit) as exit_:
        main(["predict", str(tmp_path / "r"), str(tmp_path / "no.csv"), "-o", str(tmp_path / "p.tsv")])
    assert exit_.value.code == 1
    assert capsys.readouterr().err.startswith("dnagpt-fast: error: no file")
    with pytest.raises(SystemExit) as exit_:
        main(["predict", str(tmp_path), str(table), "-o", str(tmp_path / "p.tsv")])
    assert exit_.value.code == 1
    assert "holds no run: it has no config.json" in capsys.readouterr().err
