"""Constraints on generated bases, against all sequences of a small length: exactly those that satisfy them are made."""

import re
from itertools import product

import numpy as np
import pytest
import torch

from dnagpt_fast import KmerTokenizer, generate_sequences
from dnagpt_fast.model.constraints import MOST_STATES, Constraints, Motifs, Walks
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.vocab import BASES_OF, reverse_complement
from tests.tiny import load_tiny

TOKENIZERS = [KmerTokenizer(1), KmerTokenizer(2), KmerTokenizer(3), KmerTokenizer(2, dynamic_kmer=False)]
CASES = {
    "nothing": Constraints(),
    "one motif": Constraints(forbidden=("CG",)),
    "its other strand too": Constraints(forbidden=("GGT",), both_strands=True),
    "a motif that overlaps itself": Constraints(forbidden=("ACA", "AAA")),
    "codes": Constraints(forbidden=("RYN", "TNA", "WSW")),
    "motifs of every length": Constraints(forbidden=("G", "TAT", "CAAC", "TTNTT")),
    "share": Constraints(gc=(0.4, 0.6)),
    "no G and C": Constraints(gc=(0, 0)),
    "fixed": Constraints(fixed={1: "TA", 5: "R"}),
    "fixed over others": Constraints(fixed={0: "NNRN", 2: "WYN"}),
    "all": Constraints(gc=(0.3, 0.55), fixed={2: "GS"}, forbidden=("GGA", "TT", "CNC"), both_strands=True),
}


def satisfies(text, constraints):
    """By regular expressions and counting: another way than the automaton's."""
    motifs = list(constraints.forbidden)
    found = [
        re.search("".join(f"[{BASES_OF[letter]}]" for letter in motif), strand)
        for motif in motifs
        for strand in ([text, reverse_complement(text)] if constraints.both_strands else [text])
    ]
    if any(found):
        return False
    known = [base for base in text if base != "N"]
    share = sum(base in "GC" for base in known) / max(len(known), 1)
    if constraints.gc and not constraints.gc[0] - 1e-9 <= share <= constraints.gc[1] + 1e-9:
        return False
    return all(
        text[position + i] in BASES_OF[letter]
        for position, letters in constraints.fixed.items()
        for i, letter in enumerate(letters)
    )


def everything_made(walks, walk, text, tokenizer):
    """All texts to which allowed tokens lead. Every place before the end has one: there are no dead ends."""
    if walk.place == walk.length_bp:
        return {text}
    tokens = np.flatnonzero(walks.allowed(walk))
    assert len(tokens)
    found = set()
    for token in tokens.tolist():
        further = type(walk)(**vars(walk))
        kept = walks.kept_bases(walk)
        walks.advance(further, token)
        found |= everything_made(walks, further, text + tokenizer.id_to_piece(token)[:kept], tokenizer)
    return found


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize(
    "tokenizer", TOKENIZERS, ids=lambda t: f"{t.k}-{'dynamic' if t.dynamic_kmer else 'fixed'}"
)
def test_exactly_the_sequences_that_satisfy_the_constraints_are_made(tokenizer, case):
    constraints = CASES[case]
    for prompt, length in (("", 6), ("A", 7), ("TC", 7), ("NAT", 6), ("", 5)):
        if prompt and any(position < len(prompt) for position in constraints.letters):
            continue  # of the prompts below
        new = ["".join(letters) for letters in product("ACGT", repeat=length - len(prompt))]
        if constraints.letters and max(constraints.letters) >= length:
            continue
        wanted = {prompt + text for text in new if satisfies(prompt + text, constraints)}
        if not wanted:
            with pytest.raises(ValueError, match=r"no sequence of \d bp"):
                Walks(constraints, tokenizer, {prompt: length})
            continue
        walks = Walks(constraints, tokenizer, {prompt: length})
        assert everything_made(walks, walks.walk(prompt), prompt, tokenizer) == wanted


def test_prompts_of_different_lengths_in_one_call():
    tokenizer, constraints = KmerTokenizer(3), CASES["its other strand too"]
    prompts = ("", "A", "TG", "ACCT")
    with pytest.raises(ValueError, match="the prompt contains the forbidden motif ACC"):
        Walks(constraints, tokenizer, dict.fromkeys(prompts, 6))
    walks = Walks(constraints, tokenizer, dict.fromkeys(prompts[:3], 6))
    for prompt in prompts[:3]:
        wanted = {
            text
            for text in map("".join, product("ACGT", repeat=6))
            if text.startswith(prompt) and satisfies(text, constraints)
        }
        assert everything_made(walks, walks.walk(prompt), prompt, tokenizer) == wanted


@pytest.fixture(scope="module")
def model():
    return load_tiny("tiny_bias").model()


SETTINGS = {"num_samples": 12, "seed": 4, "batch_size": 5}


@pytest.mark.parametrize("greedy", [False, True])
@pytest.mark.parametrize("length", [31, 33])
def test_what_a_model_makes_satisfies_the_constraints(model, length, greedy):
    tokenizer = KmerTokenizer(3)
    constraints = Constraints((0.45, 0.5), {10: "TATAWA"}, ("GGN", "CTAG", "AAAA"), True)
    prompts = ["<R>", "<R>acgt", "<R>TC<M>A"]
    made = list(
        generate_sequences(
            model,
            tokenizer,
            prompts,
            length_bp=length,
            constraints=constraints,
            do_sample=not greedy,
            **SETTINGS,
        )
    )
    assert len(made) == 36
    for one in made:
        text = one.bases(tokenizer)
        assert len(text) == length
        assert satisfies(text, constraints)
        assert text.startswith(tokenizer.decode_bases(one.prompt_ids))
    assert len({one.bases(tokenizer) for one in made}) == (3 if greedy else 36)


def test_the_same_seed_gives_the_same_sequence_in_every_batch(model):
    tokenizer = KmerTokenizer(3)
    settings = {"length_bp": 20, "constraints": Constraints(forbidden=("CG",)), "num_samples": 4, "seed": 7}
    prompts = ["<R>", "<R>AGG", "<R>T"]
    runs = [
        {(prompts[one.prompt], one.sample): one.new_ids for one in made}
        for made in (
            generate_sequences(model, tokenizer, prompts, batch_size=size, **settings) for size in (1, 5, 12)
        )
    ]
    assert runs[0] == runs[1] == runs[2]


def test_the_probabilities_are_the_models_renormalised(model):
    """Drawn bases are counted against softmax over the allowed k-mers, from a pass of its own, summed over those that
    begin with the base: one base of the last k-mer is kept."""
    tokenizer, constraints = KmerTokenizer(3), Constraints((0.5, 0.5), {}, ("GC",))
    prompt, count = "<R>ACG", 3000
    walks = Walks(constraints, tokenizer, {"ACG": 4})
    allowed = torch.from_numpy(walks.allowed(walks.walk("ACG")))
    inference = Inference(model)
    logits = inference.logits(inference.hidden_states([tokenizer.encode(prompt).tolist()])[0][-1:])
    p = logits.masked_fill(~allowed, float("-inf")).softmax(-1)[0].numpy()
    of_base = {
        base: sum(p[i] for i in np.flatnonzero(p) if tokenizer.id_to_piece(i)[0] == base) for base in "ACGT"
    }
    assert of_base["G"] == of_base["C"] == 0
    made = generate_sequences(
        model, tokenizer, [prompt], length_bp=4, constraints=constraints, num_samples=count, batch_size=500
    )
    last = [one.bases(tokenizer)[3] for one in made]
    for base in "AT":
        assert abs(last.count(base) / count - of_base[base]) < 4 * np.sqrt(0.25 / count)


def test_a_length_alone(model):
    """Only whole k-mers are drawn, of which the last one may be cut."""
    tokenizer = KmerTokenizer(3)
    made = list(generate_sequences(model, tokenizer, ["<R>", "<R>ACG"], seed=2, num_samples=3, length_bp=13))
    assert [len(one.new_ids) for one in made] == [5, 5, 5, 4, 4, 4]
    assert [one.cut_bp for one in made] == [2] * 6
    assert {len(tokenizer.id_to_piece(token)) for one in made for token in one.new_ids} == {3}
    assert {len(one.bases(tokenizer)) for one in made} == {13}
    (whole,) = generate_sequences(model, tokenizer, ["<R>ACG"], length_bp=3)
    assert (whole.new_ids, whole.bases(tokenizer)) == ([], "ACG")


@pytest.mark.parametrize(
    ("constraints", "message"),
    [
        ({"gc": (0.6, 0.5)}, "gc = "),
        ({"forbidden": ("AC-",)}, "'AC-': wanted letters"),
        ({"forbidden": "GATC"}, "one text"),
        ({"forbidden": ("NN",)}, "forbid every sequence"),
        ({"fixed": {-1: "A"}}, r"fixed\[-1\]"),
        ({"fixed": {3: "AC", 4: "RT"}}, "position 4 is C by one text and R by another"),
        ({"fixed": {40: "A"}}, "position 40: the sequence has 0..19"),
        ({"fixed": {0: "T"}}, r"position 0 is A in the prompt: wanted T"),
        ({"forbidden": ("CG",)}, "the prompt contains the forbidden motif CG"),
        ({"forbidden": ("A", "C", "G", "T")}, "the prompt contains the forbidden motif A"),
        ({"forbidden": ("TN", "AN", "CN", "GNN")}, "the prompt contains the forbidden motif AN"),
        ({"gc": (0.0, 0.05)}, r"has 0 to 1 G\+C .* it has 2 to 19 of 20, a share of 0.1000 to 0.9500"),
        ({"gc": (0.51, 0.54)}, r"has 11 to 10 G\+C"),
        ({"fixed": {6: "GAATTC"}, "forbidden": ("GAATTC",)}, "no sequence of 20 bp has the fixed positions"),
    ],
)
def test_what_cannot_be_satisfied_is_refused_before_any_work(model, constraints, message):
    with pytest.raises(ValueError, match=message):
        generate_sequences(
            model, KmerTokenizer(3), ["<R>ACG"], length_bp=20, constraints=Constraints(**constraints)
        )


def test_lengths_that_contradict_each_other_are_refused(model):
    for settings, message in (
        ({"length_bp": 2}, r"prompts\[0\] has 3 bases"),
        ({"length_bp": 9, "max_tokens": 9}, "wanted one of max_new_tokens, max_tokens and length_bp"),
        ({"length_bp": 9, "stop_ids": [1]}, "stop_ids with length_bp"),
    ):
        with pytest.raises(ValueError, match=message):
            generate_sequences(model, KmerTokenizer(3), ["<R>ACG"], **settings)


def test_limits_of_the_automaton():
    assert Motifs(["GAATTC"]).broken == 6
    assert Motifs([]).broken == 1
    with pytest.raises(ValueError, match=f"more than {MOST_STATES:,} states"):
        Motifs(["A" + "N" * 18 + "C"])
    with pytest.raises(ValueError, match="GB: wanted shorter texts"):
        Walks(Constraints((0.4, 0.6), {}, ("ANNNNNNNNC",)), KmerTokenizer(6), {"": 60_000})


@pytest.mark.slow
def test_a_long_sequence(model):
    """1 kb with a share of G + C and six-cutters: no place is too far from the end to be decided."""
    tokenizer = KmerTokenizer(3)
    constraints = Constraints((0.41, 0.42), {500: "TATAAA"}, ("GAATTC", "GGTCTC", "AAAAAA"), True)
    (one,) = generate_sequences(
        model, tokenizer, ["<R>"], length_bp=1000, constraints=constraints, crop_to=10
    )
    assert satisfies(one.bases(tokenizer), constraints)
