"""Two alleles in their sequence as token windows: the context that both share, and the continuation of each.

The windows are defined by the two haplotypes, the sequence with one allele and with the other, read in one direction.
Let f be the first base at which they differ. Phase p in 0..k-1 puts a token boundary p bases before f. The tokens
before this boundary are the same for both alleles: the context. The tokens after it are the continuations, the same
number for both, up to `after_bp` bases after the longer allele. So all ways to write a variant give the same windows:
an indel in a repeat may be left- or right-aligned, and the reverse strand uses the same definition in the other
direction.

Windows begin on a grid: the tokens of a phase are counted from the first base of the contig (on its strand), and a
context begins at a multiple of `stride` tokens. Neighbouring variants therefore have the same window of the reference,
which is computed once for all of them and also contains their reference continuations. The grid does not depend on
which variants are scored together, so a score does not either.
"""

from dataclasses import dataclass

from dnagpt_fast.model.token_windows import kmer_ids
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import reverse_complement

LEAST_BP = 30
"""An allele is not scored with fewer bases than this before or after it."""
MOST_SHIFT_BP = 512
"""The largest distance by which an indel may move within a repeat."""


class NotScorable(Exception):
    """Two alleles that cannot be compared; the message is the flag."""


@dataclass(frozen=True)
class Site:
    """One strand of a variant: `left` + allele + `right`, upper-case over ACGTN. left and right are the sequence around
    it, as far as it was read; see `needed_bp`. left_bp and right_bp: bases of the contig before `left` and after
    `right`."""

    left: str
    reference: str
    alternative: str
    right: str
    left_bp: int = 0
    right_bp: int = 0

    def reverse_complement(self) -> "Site":
        left, reference, alternative, right = (
            reverse_complement(side) for side in (self.right, self.reference, self.alternative, self.left)
        )
        return Site(left, reference, alternative, right, self.right_bp, self.left_bp)


@dataclass(frozen=True)
class Reach:
    """How much of the sequence is used.

    context_bp  fewest bases before the variant
    after_bp    bases after it whose probabilities count
    max_tokens  most tokens of a window, without the prefix
    stride      windows begin at multiples of so many tokens; 1: each variant has `context_bp` and a window of its own
    """

    context_bp: int
    after_bp: int
    max_tokens: int
    stride: int = 1

    def needed_bp(self, k: int) -> int:
        """Bases to read on each side of an allele (on the right side plus its own length), enough for every window."""
        return max(self.context_bp, self.after_bp) + k * (self.stride + 3) + MOST_SHIFT_BP


@dataclass(frozen=True)
class Pair:
    """Token ids of a window of the reference, and of a continuation with the alternative.

    The first `context` tokens of the window are common to both alleles; as many tokens as `alternative` has follow with
    the reference, then the rest of the window, which other variants may need.
    """

    window: list[int]
    context: int
    alternative: list[int]

    @property
    def reference(self) -> list[int]:
        return self.window[self.context : self.context + len(self.alternative)]


@dataclass(frozen=True)
class Difference:
    """Where two haplotypes differ.

    first    the first base of `left + allele + right` at which they differ
    longest  bases of the longer allele, without the bases that both share
    indel    the bases inserted or deleted, in the order from `first` on; "" if bases are replaced too
    """

    first: int
    longest: int
    indel: str


def difference(site: Site) -> Difference | None:
    """None if the alleles are the same. Raises NotScorable for an indel that can move further than MOST_SHIFT_BP.

    >>> difference(Site("AC", "A", "ATT", "TTTG"))
    Difference(first=6, longest=2, indel='TT')
    """
    reference, alternative = site.reference, site.alternative
    shared = 0
    while shared < min(len(reference), len(alternative)) and reference[shared] == alternative[shared]:
        shared += 1
    reference, alternative = reference[shared:], alternative[shared:]
    while reference and alternative and reference[-1] == alternative[-1]:
        reference, alternative = reference[:-1], alternative[:-1]
    if not reference and not alternative:
        return None
    first = len(site.left) + shared
    if reference and alternative:
        return Difference(first, max(len(reference), len(alternative)), "")
    # a pure insertion or deletion moves right while its first base equals the base after it
    indel = reference or alternative
    rest = site.reference[shared + len(reference) :] + site.right
    moved = 0
    while moved < len(rest) and indel[moved % len(indel)] == rest[moved]:
        moved += 1
    if moved > MOST_SHIFT_BP:
        raise NotScorable("LONG")
    rotation = moved % len(indel)
    return Difference(first + moved, len(indel), indel[rotation:] + indel[:rotation])


def in_short_repeat(site: Site) -> bool:
    """Whether an indel changes the length of a tandem repeat: at least 3 copies, and 6 bases, of a unit of 1..3 bases.

    >>> in_short_repeat(Site("G", "A", "AA", "AAAAAC")), in_short_repeat(Site("G", "A", "AA", "AAC"))
    (True, False)
    """
    found = difference(site)
    if found is None or not found.indel:
        return False
    text = site.left + site.reference + site.right
    for size in (1, 2, 3):
        unit, first = found.indel[:size], found.first
        if unit * (len(found.indel) // size) != found.indel:
            continue
        start = end = first
        while start > 0 and text[start - 1] == unit[(start - 1 - first) % size]:
            start -= 1
        while end < len(text) and text[end] == unit[(end - first) % size]:
            end += 1
        if end - start >= max(6, 3 * size):
            return True
    return False


def pair_of(tokenizer: KmerTokenizer, site: Site, phase: int, reach: Reach) -> Pair:
    """The windows of one strand and phase. Raises NotScorable: EDGE if a side has too little sequence, LONG for alleles
    that do not fit; ValueError for equal alleles."""
    found = difference(site)
    if found is None:
        raise ValueError("the alleles are the same")
    longest, k, boundary = found.longest, tokenizer.k, found.first - phase
    haplotypes = [site.left + allele + site.right for allele in (site.reference, site.alternative)]
    tokens = -(-(phase + longest + reach.after_bp) // k)
    if -(-(phase + longest + LEAST_BP) // k) + -(-LEAST_BP // k) > reach.max_tokens:
        raise NotScorable("LONG")
    available = [(len(haplotype) - boundary) // k for haplotype in haplotypes]
    tokens = min(tokens, *available, reach.max_tokens - -(-LEAST_BP // k))
    if tokens * k < phase + longest + min(LEAST_BP, reach.after_bp):
        raise NotScorable("EDGE")
    # all phases and single bases have windows of one length, or they could not share them
    usual = max(tokens, -(-(k + reach.after_bp) // k)) if reach.stride > 1 else tokens
    least = min(reach.context_bp // k, reach.max_tokens - tokens)
    stride = max(min(reach.stride, reach.max_tokens - usual - least + 1), 1)
    before = (site.left_bp + boundary) // k  # tokens from the first base of the contig
    if before > least:
        before = least + (before - least) % stride
    if before * k < min(LEAST_BP, reach.context_bp // k * k):
        raise NotScorable("EDGE")
    length = min(least + stride - 1 + usual, before + available[0], reach.max_tokens)
    start = boundary - before * k
    window, alternative = (
        kmer_ids(tokenizer, bases).tolist() if bases else []
        for bases in (
            haplotypes[0][start : start + length * k],
            haplotypes[1][boundary : boundary + tokens * k],
        )
    )
    return Pair(window, before, alternative)
