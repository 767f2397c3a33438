"""Scores of alleles against whole windows through the model and closed forms, and their invariances."""

import math

import numpy as np
import pytest
import torch

from dnagpt_fast import DNAGPT, KmerTokenizer, score
from dnagpt_fast.evaluation.markov import MarkovChain
from dnagpt_fast.model.alleles import AlleleRule, AlleleScore, allele_scores
from dnagpt_fast.model.haplotypes import Site, difference, in_short_repeat, pair_of
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.vocab import reverse_complement
from tests.tiny import NAMES, load_tiny

RNG = np.random.default_rng(8)
LEFT, RIGHT = ("".join(RNG.choice(list("ACGT"), 700)) for _ in range(2))
SITES = [
    Site(LEFT, "A", "G", RIGHT),
    Site(LEFT[:-1] + "C", "ACT", "GCA", RIGHT),
    Site(LEFT, "A", "ATTG", RIGHT),
    Site(LEFT, "ACGTA", "A", RIGHT),
    Site(LEFT, "AC", "TTTGA", RIGHT),
    Site(LEFT[:-4] + "NACN", "T", "C", "GN" + RIGHT),
]


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param).model()


@pytest.fixture
def tokenizer():
    return KmerTokenizer(3)


def scores(model, tokenizer, sites, max_tokens=4096, **settings):
    rule = AlleleRule.of(model, tokenizer, **settings)
    return allele_scores(Inference(model), tokenizer, sites, rule, max_tokens=max_tokens)


def directly_computed(model, tokenizer, site, phase, rule):
    """ALT minus REF of sums of log P over whole windows, one pass of the model each, with windows cut here."""
    found, k, reach = difference(site), tokenizer.k, rule.reach
    tokens = math.ceil((phase + found.longest + reach.after_bp) / k)
    boundary = found.first - phase
    # tokens are counted from the first base of the contig, and windows begin at multiples of the stride
    earliest = (site.left_bp + boundary) // k - reach.context_bp // k
    before = reach.context_bp // k + earliest % reach.stride
    assert before + tokens <= reach.max_tokens
    sums = []
    for allele in (site.reference, site.alternative):
        start = boundary - before * k
        text = (site.left + allele + site.right)[start : start + (before + tokens) * k]
        ids = tokenizer.encode("<R>" + text)
        with torch.no_grad():
            logs = model(ids[None])[0].double().log_softmax(-1)
        sums.append(float(logs[:-1].gather(1, ids[1:, None])[before:].sum()))
    return sums[1] - sums[0]


@pytest.mark.parametrize("site", SITES)
@pytest.mark.parametrize("phases", [1, 3])
def test_scores_are_differences_of_whole_windows(tiny, tokenizer, site, phases):
    settings = {"phases": phases, "context_bp": 45, "after_bp": 30}
    (found,) = scores(tiny, tokenizer, [site], **settings)
    rule = AlleleRule.of(tiny, tokenizer, **settings)
    by_strand = [
        [directly_computed(tiny, tokenizer, side, phase, rule) for phase in range(0, 3, 3 // phases)]
        for side in (site, site.reverse_complement())
    ]
    wanted = np.array(by_strand)
    assert rule.reach.stride == 7
    assert found.llr == pytest.approx(wanted.mean(), abs=1e-5)
    assert found.llr_forward == pytest.approx(wanted[0].mean(), abs=1e-5)
    assert found.llr_reverse == pytest.approx(wanted[1].mean(), abs=1e-5)
    assert found.sd == pytest.approx(wanted.std(), abs=1e-5)
    assert not found.flags


def test_the_published_rules(tiny, tokenizer):
    site = SITES[0]
    (full,) = scores(tiny, tokenizer, [site], name="full-ll", context_bp=48)
    rule = AlleleRule.of(tiny, tokenizer, "full-ll", context_bp=48)
    assert (rule.strands, rule.phases, rule.reach.after_bp) == (1, 1, 48)
    assert full.llr == pytest.approx(directly_computed(tiny, tokenizer, site, 0, rule), abs=1e-5)
    assert (full.llr_reverse, full.sd) == (None, 0.0)
    (next_token,) = scores(tiny, tokenizer, [site], name="next-token", context_bp=48)
    with torch.no_grad():
        p = tiny(tokenizer.encode("<R>" + site.left[-48:])[None])[0, -1].double().softmax(-1)
    kmers = [
        i for i, piece in enumerate(tokenizer.idx_to_token) if len(piece) == 3 and set(piece) <= set("ACGT")
    ]
    of = {base: sum(float(p[i]) for i in kmers if tokenizer.idx_to_token[i][0] == base) for base in "AG"}
    assert next_token.conditional == pytest.approx(math.log(of["G"] / of["A"]), abs=1e-5)
    assert next_token.llr is None
    both = scores(tiny, tokenizer, [site], context_bp=48, stride_bp=3)[0].conditional
    other = scores(tiny, tokenizer, [site.reverse_complement()], name="next-token", context_bp=48)[0]
    assert both == pytest.approx((next_token.conditional + other.conditional) / 2)
    assert scores(tiny, tokenizer, [SITES[2]], name="next-token") == [AlleleScore(flags=("LENGTH",))]


def test_full_ll_is_the_difference_of_the_scores_of_two_sequences(tiny, tokenizer):
    """Of `dnagpt-fast score` on the window with each allele."""
    for site in SITES[:2]:
        (found,) = scores(tiny, tokenizer, [site], name="full-ll", context_bp=45)
        texts = [site.left[-45:] + allele + site.right for allele in (site.reference, site.alternative)]
        tokens = math.ceil((difference(site).longest + 45) / 3)
        wanted = [one.log_likelihood for one in score(tiny, tokenizer, [t[: 45 + 3 * tokens] for t in texts])]
        assert found.llr == pytest.approx(wanted[1] - wanted[0], abs=1e-5)


def test_a_score_does_not_depend_on_the_batch(tiny, tokenizer):
    """The same bits alone, in other orders, in batches of other sizes, with other alleles of the site."""
    sites = [*SITES, Site(LEFT, "A", "T", RIGHT), Site(LEFT, "A", "C", RIGHT), Site(LEFT, "G", "G", RIGHT)]
    together = scores(tiny, tokenizer, sites)
    assert scores(tiny, tokenizer, sites, max_tokens=70) == together
    assert scores(tiny, tokenizer, sites[::-1], max_tokens=300)[::-1] == together
    assert [scores(tiny, tokenizer, [site])[0] for site in sites] == together


def test_neighbours_share_their_windows(tiny, tokenizer, monkeypatch):
    """48 neighbouring bases need the reference windows of 3 phases and 2 strands once, not 48 times; each score is that
    of the site alone, in parts of a window too."""
    text, first = LEFT + RIGHT, 684
    sites = [
        Site(text[: first + i], text[first + i], other, text[first + i + 1 :])
        for i in range(0, 48, 3)
        for other in "ACGT"
        if other != text[first + i]
    ]
    settings = {"context_bp": 45, "after_bp": 30, "stride_bp": 24}
    alone = [scores(tiny, tokenizer, [site], **settings)[0] for site in sites]
    seen = []
    continuations = Inference.continuations

    def counted(self, windows, kept, branches):
        seen.extend(windows)
        return continuations(self, windows, kept, branches)

    monkeypatch.setattr(Inference, "continuations", counted)
    assert scores(tiny, tokenizer, sites, **settings) == alone
    # 45 bases in strides of 24: they touch at most 3 windows
    assert len(set(seen)) == len(seen) <= 3 * 2 * 3
    assert {len(window) for window in seen} == {1 + 15 + 8 - 1 + 11}
    few, seen[:] = len(seen), []
    assert scores(tiny, tokenizer, sites, max_tokens=100, **settings) == alone
    assert len(set(seen)) == few < len(seen)


def test_the_grid_is_that_of_the_contig_whatever_was_read(tiny, tokenizer):
    """A site in the middle, with only the sequence that is needed beside it, has the score of the whole contig."""
    settings = {"context_bp": 45, "after_bp": 30}
    reach = AlleleRule.of(tiny, tokenizer, **settings).reach
    for site in SITES:
        needed = reach.needed_bp(tokenizer.k) + 5
        cut = Site(
            site.left[-needed:], site.reference, site.alternative, site.right[:needed],
            len(site.left) - needed, len(site.right) - needed,
        )  # fmt: skip
        assert cut.left_bp > 0
        assert scores(tiny, tokenizer, [cut], **settings) == scores(tiny, tokenizer, [site], **settings)
        shifted = Site(
            *(getattr(site, name) for name in ("left", "reference", "alternative", "right")), 3 * 7
        )
        assert scores(tiny, tokenizer, [shifted], **settings) == scores(tiny, tokenizer, [site], **settings)


@pytest.mark.parametrize("site", SITES)
def test_symmetries(tiny, tokenizer, site):
    """Those of the strands to the last bit. Swapped alleles to rounding: the reference is part of a longer window."""
    forward, reverse, swapped, same = scores(
        tiny,
        tokenizer,
        [
            site,
            site.reverse_complement(),
            Site(site.left, site.alternative, site.reference, site.right),
            Site(site.left, site.reference, site.reference, site.right),
        ],
    )
    assert (reverse.llr, reverse.llr_forward, reverse.llr_reverse, reverse.sd, reverse.conditional) == (
        forward.llr, forward.llr_reverse, forward.llr_forward, forward.sd, forward.conditional
    )  # fmt: skip
    for got, wanted in (
        (swapped.llr, -forward.llr),
        (swapped.llr_forward, -forward.llr_forward),
        (swapped.llr_reverse, -forward.llr_reverse),
        (swapped.sd, forward.sd),
    ):
        assert got == pytest.approx(wanted, abs=2e-5)
    assert (same.llr, same.llr_forward, same.llr_reverse, same.sd) == (0.0, 0.0, 0.0, 0.0)
    assert (
        (swapped.conditional is None)
        == (forward.conditional is None)
        == (len(site.reference + site.alternative) > 2)
    )


def test_all_ways_to_write_an_indel_agree(tiny, tokenizer):
    left, right = LEFT[:-1] + "G", "C" + RIGHT
    repeat = "CACACACA"
    deletions = [Site(left + repeat[:i], repeat[i : i + 2], "", repeat[i + 2 :] + right) for i in range(7)]
    deletions += [Site(left[:-1], left[-1] + repeat, left[-1] + repeat[2:], right)]
    insertions = [
        Site(left + repeat[:i], "", repeat[i % 2 : i % 2 + 2], repeat[i:] + right) for i in range(7)
    ]
    for ways in (deletions, insertions):
        found = scores(tiny, tokenizer, ways)
        assert found == [found[0]] * len(ways)
        assert found[0].llr != 0.0
        assert all(in_short_repeat(site) for site in ways)
        assert all(in_short_repeat(site.reverse_complement()) for site in ways)


def chain_as_model(tokenizer, transition):
    """A k = 1 model whose next token depends only on the last one: the blocks add 0, the positions are 0."""
    torch.manual_seed(0)
    model = DNAGPT(len(tokenizer), max_len=100, num_layers=2, num_heads=2, embedding_dim=64).eval()
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "c_proj" in name or "wpe" in name:
                parameter.zero_()
        rows = model.head_rows(model.transformer.ln_f(model.transformer.wte.weight)).double()
        logs = torch.full((len(tokenizer), len(tokenizer)), -30.0, dtype=torch.float64)
        at = [tokenizer.piece_to_id(base) for base in "ACGT"]
        logs[:, at] = math.log(1 / 4)
        for row, base in enumerate(at):
            logs[base, at] = torch.tensor(transition[row]).log()
        model.last_projection.weight.copy_(torch.linalg.lstsq(rows, logs, driver="gelsd").solution.T)
        if model.last_projection.bias is not None:
            model.last_projection.bias.zero_()
    return model


def codes_of(text):
    """A 0, G 1, C 2, T 3, as in evaluation.markov."""
    return np.array(["AGCT".index(base) for base in text])


def test_a_markov_chain_gives_its_closed_form():
    """A chain that is fitted to a sequence, and a k = 1 model that computes it: the score is the chain's own."""
    tokenizer = KmerTokenizer(1)
    uneven = np.random.default_rng(1).choice(list("ACGT"), 4000, p=[0.4, 0.1, 0.2, 0.3])
    chain = MarkovChain(1).fit([codes_of("".join(uneven)), codes_of("ACCGT" * 90)])
    transition = np.exp([[chain.log_probs(codes_of(a + b))[1] for b in "ACGT"] for a in "ACGT"])
    np.testing.assert_allclose(transition.sum(1), 1)
    model = chain_as_model(tokenizer, transition)
    left, right = LEFT[-60:], RIGHT[:60]
    sites = [Site(left, "A", "G", right), Site(left, "AC", "G", right), Site(left, "T", "TCGG", right)]

    def log_p(text):
        return chain.log_probs(codes_of(text))[1:].sum()

    for site, found in zip(sites, scores(model, tokenizer, sites, context_bp=8, after_bp=12), strict=True):
        wanted = []
        for side in (site, site.reverse_complement()):
            where = difference(side)
            texts = [side.left + a + side.right for a in (side.reference, side.alternative)]
            first, stop = where.first - 1, where.first + where.longest + 12
            wanted.append(log_p(texts[1][first:stop]) - log_p(texts[0][first:stop]))
        assert found.llr == pytest.approx(np.mean(wanted), abs=1e-4)
        assert found.llr_forward == pytest.approx(wanted[0], abs=1e-4)
    first = [transition["ACGT".index(left[-1])], transition["ACGT".index(reverse_complement(right)[-1])]]
    conditional = np.log(first[0][2] / first[0][0]) + np.log(first[1][1] / first[1][3])
    assert scores(model, tokenizer, sites[:1])[0].conditional == pytest.approx(conditional / 2, abs=1e-4)


@pytest.mark.parametrize(
    ("site", "flag"),
    [
        (Site(LEFT[:20], "A", "G", RIGHT), "EDGE"),
        (Site(LEFT, "A", "G", RIGHT[:20]), "EDGE"),
        (Site(LEFT, "A", "A" + "ACGT" * 30, RIGHT), "LONG"),
        (Site(LEFT, "A", "AA", "A" * 700 + RIGHT), "LONG"),
    ],
)
def test_what_cannot_be_scored_says_why(tiny, tokenizer, site, flag):
    assert scores(tiny, tokenizer, [site]) == [AlleleScore(flags=(flag,))]


def test_short_contigs_are_scored_with_the_bases_that_they_have(tiny, tokenizer):
    (cut,) = scores(tiny, tokenizer, [Site(LEFT[-40:], "A", "G", RIGHT[:40])])
    assert cut.llr is not None
    assert cut.llr != scores(tiny, tokenizer, SITES[:1])[0].llr


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "llr"}, "rule = 'llr'"),
        ({"name": "full-ll", "strands": 2}, "strands = 2"),
        ({"strands": 3}, "strands = 3"),
        ({"phases": 2}, "divisor of k = 3"),
        ({"context_bp": 90, "after_bp": 60}, "context_bp \\+ after_bp = 150: this model reads"),
        ({"context_bp": -1}, "context_bp = -1"),
        ({"stride_bp": -1}, "stride_bp = -1"),
        ({"name": "full-ll", "stride_bp": 9}, "stride_bp = 9: the rule 'full-ll' has stride_bp = 3"),
        ({"prefix": ""}, "has no token"),
    ],
)
def test_settings_that_do_not_fit_are_named(tiny, tokenizer, settings, message):
    with pytest.raises(ValueError, match=message):
        AlleleRule.of(tiny, tokenizer, **settings)


def test_both_continuations_have_the_same_length_and_differ_in_the_first_token_of_phase_0(tokenizer):
    rule = AlleleRule.of(load_tiny("tiny_bias").model(), tokenizer)
    for site in SITES:
        for phase in range(3):
            pair = pair_of(tokenizer, site, phase, rule.reach)
            assert len(pair.reference) == len(pair.alternative)
            if phase == 0:
                assert pair.reference[0] != pair.alternative[0]
