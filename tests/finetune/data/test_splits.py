"""Splits without leaks: blocks keep neighbours together, and overlaps are counted."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci
from dnagpt_fast.finetune.data.splits import overlapping, split_examples
from dnagpt_fast.vocab import reverse_complement


def at(starts, length_bp=100, contig=None, split=None, sequence=None, parent=None):
    n = len(starts)
    starts = np.array(starts, np.int64)
    return Examples(
        path=Path("x.csv"),
        where=[f"x.csv:{i + 2}" for i in range(n)],
        sequence=sequence
        or [f"{'ACGT'[i % 4]}{np.base_repr(i + 1, 2).replace('0', 'A').replace('1', 'C')}" for i in range(n)],
        label=["1"] * n,
        numbers=np.zeros((n, 0)),
        split=split,
        loci=Loci(contig or ["c"] * n, starts, starts + length_bp, ["+"] * n),
        parent=np.arange(n) if parent is None else np.array(parent),
    )


def test_blocks_go_to_one_set_each_and_nothing_overlaps():
    rows = at(range(0, 10_000, 30))
    sets = split_examples(rows, "block", block_bp=500, shares=(0.6, 0.2, 0.2), seed=3)
    block = (rows.loci.start_bp + 50) // 500
    for name in ("validation", "test"):
        assert 0.1 < len(sets[name]) / len(rows) < 0.3
    held_out = np.concatenate([sets["validation"], sets["test"]])
    assert not set(block[sets["train"]]) & set(block[held_out])
    assert not set(block[sets["validation"]]) & set(block[sets["test"]])
    assert not overlapping(rows.loci, sets["train"], held_out).any()


def test_a_block_split_says_how_many_windows_it_left_out(caplog):
    rows = at(range(0, 10_000, 30))
    sets = split_examples(rows, "block", block_bp=500, seed=3)
    kept = sum(len(rows) for rows in sets.values())
    assert kept < len(rows)
    assert f"left out {len(rows) - kept} training window(s)" in caplog.text


def test_a_random_split_warns_with_the_count_of_overlaps(caplog):
    rows = at(range(0, 3000, 30))
    sets = split_examples(rows, "random", seed=1)
    held_out = np.concatenate([sets["validation"], sets["test"]])
    leaking = sum(
        any(abs(int(rows.loci.start_bp[i] - rows.loci.start_bp[j])) < 100 for j in held_out)
        for i in sets["train"]
    )
    assert leaking > 0
    assert f"{leaking} of {len(sets['train'])} training windows overlap" in caplog.text
    assert [len(sets[name]) for name in ("train", "validation", "test")] == [70, 10, 20]


def test_copies_of_a_sequence_in_two_sets_are_counted(caplog):
    rows = at([0, 1000, 2000], sequence=["ACGT", "ACGT", "GGGG"], split=["train", "test", "train"])
    split_examples(rows, "column")
    assert "1 of 2 training sequences are also in the validation or test set" in caplog.text


def test_windows_of_one_sequence_stay_together():
    rows = at(range(0, 100_000, 1000), parent=np.repeat(np.arange(25), 4))
    sets = split_examples(rows, "random", seed=5)
    parents = [set(rows.parent[index]) for index in sets.values()]
    assert sum(map(len, parents)) == 25


def test_a_split_column_is_used_and_checked():
    rows = at([0, 500, 1000], split=["train", "Val", "test"])
    assert {k: v.tolist() for k, v in split_examples(rows, "column").items()} == {
        "train": [0], "validation": [1], "test": [2],
    }  # fmt: skip
    with pytest.raises(LabelError, match=r"x.csv:3: split 'maybe': wanted train, validation, test"):
        split_examples(at([0, 500], split=["train", "maybe"]), "column")


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"split": None}, "column", r"no split column"),
        ({"loci": None}, "block", r"has no positions of its sequences"),
    ],
)
def test_what_the_file_lacks(change, kind, said):
    from dataclasses import replace

    with pytest.raises(LabelError, match=said):
        split_examples(replace(at([0, 500]), **change), kind)


def test_too_few_blocks_say_so():
    with pytest.raises(LabelError, match=r"1 block\(s\) of 1,000,000 bp leave no rows for .*: set a smaller"):
        split_examples(at([0, 500]), "block")


@given(
    st.lists(st.tuples(st.integers(0, 300), st.integers(1, 60), st.booleans()), min_size=1, max_size=40),
)
def test_overlaps_are_those_of_the_definition(windows):
    starts = np.array([w[0] for w in windows])
    ends = starts + np.array([w[1] for w in windows])
    mine = np.array([i for i, w in enumerate(windows) if w[2]], np.int64)
    others = np.array([i for i, w in enumerate(windows) if not w[2]], np.int64)
    loci = Loci(["c"] * len(windows), starts, ends, ["+"] * len(windows))
    wanted = [any(starts[i] < ends[j] and starts[j] < ends[i] for j in others) for i in mine]
    assert overlapping(loci, mine, others).tolist() == wanted


def test_only_ranges_that_the_start_model_did_not_see_are_held_out():
    rows = at(range(0, 10_000, 30))
    ranges = ["chrC:2000-4000", "c:6990-9000"]  # the second begins inside a block
    sets = split_examples(rows, "block", block_bp=500, shares=(0.6, 0.2, 0.2), seed=3, held_out=ranges)
    assert len(sets["validation"])
    for row in np.concatenate([sets["validation"], sets["test"]]).tolist():
        start, end = rows.loci.start_bp[row], rows.loci.end_bp[row]
        assert (start >= 2000 and end <= 4000) or (start >= 6990 and end <= 9000)
        assert (start + end) // 2 // 500 != 6990 // 500  # other windows of this block were seen
    held_out = np.concatenate([sets["validation"], sets["test"]])
    assert not overlapping(rows.loci, sets["train"], held_out).any()


def test_near_copies_of_a_later_set_are_left_out(caplog):
    rng = np.random.default_rng(4)
    texts = ["".join(rng.choice(list("ACGT"), 60)) for _ in range(6)]
    texts[1] = reverse_complement(texts[5][:40]) + texts[1][:20]  # of a test row
    texts[2] = texts[4]  # a validation row
    texts[3] = texts[5][10:] + texts[3][:10]  # a validation row, of a test row
    split = ["train", "train", "train", "val", "val", "test"]
    rows = at(range(0, 600, 100), split=split, sequence=texts)
    kept = split_examples(rows, "column")
    assert [len(part) for part in kept.values()] == [3, 2, 1]
    sets = split_examples(rows, "column", drop_copies=True)
    assert {name: part.tolist() for name, part in sets.items()} == {
        "train": [0],
        "validation": [4],
        "test": [5],
    }
    assert "left out 2 of 3 train row(s) that are near copies" in caplog.text
