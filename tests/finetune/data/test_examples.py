"""Sequences and labels: cleaning, refused input, and error messages."""

from pathlib import Path

import numpy as np
import pytest

from dnagpt_fast.finetune.data.examples import (
    Examples,
    LabelError,
    class_of,
    clean_sequence,
    filter_n,
    find_classes,
    fit_length,
    target_values,
)
from dnagpt_fast.vocab import reverse_complement


def examples(*sequences, label=None):
    return Examples(
        path=Path("x.csv"),
        where=[f"x.csv:{i + 2}" for i in range(len(sequences))],
        sequence=list(sequences),
        label=label,
        numbers=np.zeros((len(sequences), 0)),
    )


def test_reverse_complement():
    assert reverse_complement("AACGTN") == "NACGTT"


def test_soft_masked_u_and_iupac_letters():
    assert clean_sequence("acguRN", "x:1") == ("ACGTNN", 1)


@pytest.mark.parametrize(
    ("text", "said"),
    [("", r"x:1: the sequence is empty"), ("AC-T", r"x:1: base 2 is '-'"), ("AC*", r"base 2 is '\*'")],
)
def test_what_is_no_sequence_is_refused(text, said):
    with pytest.raises(LabelError, match=said):
        clean_sequence(text, "x:1")


def test_lower_case_can_be_refused():
    with pytest.raises(LabelError, match=r"x:1: base 2 is 'g', lower case: set data.on_lower_case"):
        clean_sequence("ACgT", "x:1", "error")


def test_many_n_error_drop_keep(caplog):
    rows = examples("ACGT", "ANNT", "ACGN")
    with pytest.raises(
        LabelError, match=r"x.csv:3: 50% of the bases are N.*\(1 row\(s\).*data.on_n = 'drop'"
    ):
        filter_n(rows, 0.3, "error")
    assert filter_n(rows, 0.3, "drop").where == ["x.csv:2", "x.csv:4"]
    assert "dropped 1 row(s)" in caplog.text
    assert len(filter_n(rows, 0.3, "keep")) == 3


def test_a_sequence_too_long_is_an_error_by_default():
    with pytest.raises(LabelError, match=r"x.csv:3: 5 bases; this model with this template takes 4"):
        fit_length(examples("ACGT", "ACGTA"), 4, "error")


@pytest.mark.parametrize(
    ("how", "wanted"), [("crop_end", "AACC"), ("crop_start", "GGTT"), ("crop_both", "CCGG")]
)
def test_cropping(how, wanted):
    assert fit_length(examples("ACG", "AACCGGTT"), 4, how).sequence == ["ACG", wanted]


def test_windows_cover_the_sequence_and_share_its_parent():
    windowed = fit_length(examples("ACG", "AACCGGTTA"), 4, "window")
    assert windowed.sequence == ["ACG", "AACC", "CCGG", "GTTA"]
    assert windowed.parent.tolist() == [0, 1, 1, 1]


def test_unknown_labels_name_the_line_and_the_classes():
    rows = examples("A", "C", "G", label=["yes", "no", "maybe"])
    assert find_classes(rows) == ("maybe", "no", "yes")
    with pytest.raises(LabelError, match=r"x.csv:4: label 'maybe' is not one of the classes no, yes"):
        class_of(rows, ["no", "yes"])
    assert class_of(rows, ["no", "yes", "maybe"]).tolist() == [1, 0, 2]


def test_numeric_classes_are_sorted_as_numbers():
    assert find_classes(examples("A", "C", "G", label=["10", "9", "2"])) == ("2", "9", "10")


def test_one_class_only_is_an_error():
    with pytest.raises(LabelError, match=r"every label is 'yes'"):
        find_classes(examples("A", "C", label=["yes", "yes"]))


@pytest.mark.parametrize("text", ["nan", "inf", "high", ""])
def test_targets_must_be_finite_numbers(text):
    with pytest.raises(LabelError, match=r"x.csv:3: label = "):
        target_values(examples("A", "C", label=["1.5", text]))


def test_missing_labels():
    with pytest.raises(LabelError, match=r"no labels"):
        target_values(examples("A"))
