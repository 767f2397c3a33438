"""The published prompts, token by token."""

import pytest

from dnagpt_fast.finetune.templates import TaskTemplate, answer_tokens, arrange_classes
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import PAD_ID, Vocabulary, reserved_id, species_token

DYNAMIC, FIXED = Vocabulary(6, True), Vocabulary(6, False)
SEQUENCE = "ACGTNACG"


def pieces(template, sequence=SEQUENCE):
    tokenizer = KmerTokenizer(template.vocabulary.k, dynamic_kmer=template.vocabulary.dynamic)
    return [template.vocabulary.piece(i) for i in template.encode(sequence, tokenizer)]


def test_classification_asks_as_published():
    assert pieces(TaskTemplate("classification", "R", DYNAMIC)) == ["<R>", "ACGTNA", "CG", "<=>", "<R>"]


def test_regression_asks_as_published():
    assert pieces(TaskTemplate("regression", "R", DYNAMIC, numbers=8)) == [
        "<R>", "ACGTNA", "CG", "<+>", "<M>", "<=>", "<M>",
    ]  # fmt: skip
    assert pieces(TaskTemplate("regression", "I", DYNAMIC)) == ["<I>", "ACGTNA", "CG", "<=>", "<M>"]


def test_generation_ends_with_the_pad_token():
    assert pieces(TaskTemplate("generation", "R", DYNAMIC)) == ["<R>", "ACGTNA", "CG", "<P>"]
    assert reserved_id("P") == PAD_ID


def test_the_fixed_vocabulary_has_no_tail():
    assert pieces(TaskTemplate("classification", "R", FIXED)) == ["<R>", "ACGTNA", "<=>", "<R>"]


@pytest.mark.parametrize(
    ("kind", "numbers", "wanted"),
    [("classification", 0, 509), ("regression", 8, 499), ("regression", 0, 509), ("generation", 0, 511)],
)
def test_the_longest_sequence_just_fits(kind, numbers, wanted):
    template = TaskTemplate(kind, "R", DYNAMIC, numbers)
    assert template.longest_bp(512) == 6 * wanted
    inputs = len(pieces(template, "A" * 6 * wanted)) - (kind == "generation")
    assert inputs + numbers == 512


def test_answers():
    assert answer_tokens(DYNAMIC, 2) == [DYNAMIC.kmer_id("A"), DYNAMIC.kmer_id("N")]
    assert answer_tokens(FIXED, 2) == [reserved_id("-"), reserved_id("+")]
    assert answer_tokens(DYNAMIC, 3) == [reserved_id("1"), reserved_id("2"), reserved_id("3")]
    many = answer_tokens(DYNAMIC, 19)
    assert len(set(many)) == 19
    assert reserved_id("0") not in many  # the unknown token
    with pytest.raises(ValueError, match="20 classes: wanted 2 to 19"):
        answer_tokens(DYNAMIC, 20)


def test_the_positive_class_answers_n():
    assert arrange_classes(["no", "yes"], "no") == ("yes", "no")
    assert arrange_classes(["a", "b", "c"], "") == ("a", "b", "c")
    with pytest.raises(
        ValueError, match=r"task.positive = 'maybe': wanted one of two classes; the classes are"
    ):
        arrange_classes(["no", "yes"], "maybe")


def test_species():
    assert species_token("Arabidopsis") == "I"
    assert species_token("W") == "W"
    with pytest.raises(ValueError, match="species 'martian': wanted one of human"):
        species_token("martian")
