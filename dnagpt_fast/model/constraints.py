"""Constraints on generated bases: G+C share, fixed positions, forbidden motifs; every sequence made satisfies them all.

A finite automaton reads the bases one by one. Its states are the partial matches of the motifs, as in Aho and Corasick
(1975), here as sets of positions in the motifs (shift-and, Baeza-Yates and Gonnet 1992), so that IUPAC letters need no
list of words. With the place in the sequence and the number of G and C so far, a state decides which bases may follow.

Backwards from the end, `Ways` computes for each place t and state q the set F(t, q) of the numbers of G + C that the
rest of a sequence can have (a bit for each number):

    F(length, q) = {0}      F(t, q) = union over the bases b that t allows and that complete no motif
                                      of F(t + 1, next(q, b)) + [b is G or C]

A k-mer is allowed if it keeps all constraints itself and F after it contains a number that leads into the window of
G + C. So a sequence never reaches a dead end, and motifs may lie across k-mers, in any phase. The probability of an
allowed k-mer is the model's, renormalised over the allowed ones; it is not the model's probability given that the whole
sequence satisfies the constraints, which would need all continuations.

Where the length leaves r < k bases for the last k-mer, a whole k-mer is drawn and its first r bases are kept: their
probability is the sum over all k-mers that begin with them.
"""

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch

from dnagpt_fast.model.kmer_table import BASE_ORDER, KmerTable
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import BASES_OF, reverse_complement_of_codes

MOST_STATES = 20_000
MOST_BYTES = 2 << 30
"""Limits of one automaton, and of the sets F of one length."""
_GC = np.array([base in "GC" for base in BASE_ORDER])


@dataclass(frozen=True)
class Constraints:
    """What generated sequences satisfy, counted with the bases of the prompt.

    gc            (least, most) share of G and C among the bases that are not N; None: any
    fixed         letters at positions: {0-based position: letters from there on}, IUPAC codes allowed
    forbidden     motifs that do not occur, IUPAC codes allowed. An N of the prompt is part of no motif
    both_strands  their reverse complements are forbidden too

    Raises ValueError for a setting that is malformed.
    """

    gc: tuple[float, float] | None = None
    fixed: Mapping[int, str] = field(default_factory=dict)
    forbidden: tuple[str, ...] = ()
    both_strands: bool = False

    def __post_init__(self) -> None:
        if self.gc is not None and not 0 <= self.gc[0] <= self.gc[1] <= 1:
            raise ValueError(f"gc = {self.gc}: wanted two shares, 0 <= least <= most <= 1")
        if isinstance(self.forbidden, str):
            raise ValueError(
                f"forbidden is one text: wanted a tuple of motifs, such as ({self.forbidden!r},)"
            )
        for motif in self.forbidden:
            if not motif or set(motif.upper()) - set(BASES_OF):
                raise ValueError(f"forbidden motif {motif!r}: wanted letters {''.join(BASES_OF)}")
            if set(motif.upper()) == {"N"}:
                raise ValueError(f"forbidden motif {motif!r}: it would forbid every sequence")
        for position, letters in self.fixed.items():
            if position < 0 or not letters or set(letters.upper()) - set(BASES_OF):
                raise ValueError(
                    f"fixed[{position}] = {letters!r}: wanted a position of 0 or more, and letters {''.join(BASES_OF)}"
                )
        _ = self.letters  # two texts that contradict each other are refused here

    def __bool__(self) -> bool:
        return self.gc is not None or bool(self.fixed) or bool(self.forbidden)

    @cached_property
    def letters(self) -> dict[int, str]:
        """The bases that each fixed position allows. Raises ValueError where two texts leave none."""
        found: dict[int, str] = {}
        for start, letters in self.fixed.items():
            for position, letter in enumerate(letters.upper(), start):
                bases = BASES_OF[letter]
                both = "".join(base for base in found.get(position, BASE_ORDER) if base in bases)
                if not both:
                    raise ValueError(
                        f"fixed: position {position} is {found[position]} by one text and {letter} by another"
                    )
                found[position] = both
        return found

    @cached_property
    def motifs(self) -> tuple[str, ...]:
        own = [motif.upper() for motif in self.forbidden]
        others = [reverse_complement_of_codes(motif) for motif in own] if self.both_strands else []
        return tuple(dict.fromkeys([*own, *others]))


class Motifs:
    """The automaton of the motifs. `next`: int32 (Q + 1, 4) in the order A C G T; Q, and what follows it, means that a
    motif is complete. State 0 is the start."""

    def __init__(self, motifs: Iterable[str]) -> None:
        """Raises ValueError for motifs that need more than MOST_STATES states."""
        starts, ends, length = 0, 0, 0
        of_base = dict.fromkeys(BASE_ORDER, 0)
        for motif in motifs:
            starts |= 1 << length
            for letter in motif:
                for base in BASES_OF[letter]:
                    of_base[base] |= 1 << length
                length += 1
            ends |= 1 << (length - 1)
        number, rows = {0: 0}, []
        for state in (queue := [0]):
            row = []
            for base in BASE_ORDER:
                # the last letter of a motif leads to no other: complete motifs are no states
                after = ((state << 1) | starts) & of_base[base]
                if after & ends:
                    row.append(-1)
                    continue
                if after not in number:
                    number[after] = len(number)
                    queue.append(after)
                row.append(number[after])
            rows.append(row)
            if len(number) > MOST_STATES:
                raise ValueError(
                    f"the forbidden motifs need more than {MOST_STATES:,} states: wanted fewer motifs, or fewer codes "
                    "such as N in the middle of them"
                )
        table = np.array(rows, np.int32)
        table[table < 0] = len(rows)
        self.next = np.concatenate([table, np.full((1, 4), len(rows), np.int32)])

    @property
    def broken(self) -> int:
        """The state after a motif was complete."""
        return len(self.next) - 1

    def after(self, bases: str, state: int = 0) -> int:
        """The state after these bases; an N belongs to no motif."""
        for base in bases:
            state = int(self.next[state, BASE_ORDER.index(base)]) if base in BASE_ORDER else 0
            if state == self.broken:
                break
        return state

    def after_kmers(self, state: int, length: int) -> np.ndarray:
        """int32 (4^length,): the state after each k-mer of A, C, G and T."""
        states = np.array([state], np.int32)
        for _ in range(length):
            states = self.next[states].reshape(-1)
        return states


class Ways:
    """The sets F of sequences of `length_bp` bases, at the places that are asked for (see the top of the file)."""

    def __init__(
        self,
        motifs: Motifs,
        letters: Mapping[int, str],
        length_bp: int,
        places: set[int],
        with_gc: bool,
    ) -> None:
        """Raises ValueError where the sets would need more than MOST_BYTES."""
        first, states = min(places, default=length_bp), motifs.broken
        need = states * len(places) * (40 + (length_bp // 8 if with_gc else 0))
        if need > MOST_BYTES:
            raise ValueError(
                f"{length_bp:,} bp with {states:,} states of motifs need {need / 1e9:.1f} GB: wanted shorter texts, "
                "fewer motifs, or no share of G+C"
            )
        after = [1] * states
        after.append(0)
        self._kept = {length_bp: after} if length_bp in places else {}
        table = motifs.next.tolist()
        for place in range(length_bp - 1, first - 1, -1):
            allowed = letters.get(place, BASE_ORDER)
            steps = [
                (i, int(with_gc and base in "GC")) for i, base in enumerate(BASE_ORDER) if base in allowed
            ]
            before = []
            for row in table[:states]:
                found = 0
                for i, gc in steps:
                    found |= after[row[i]] << gc
                before.append(found)
            after = [*before, 0]
            if place in places:
                self._kept[place] = after

    def counts(self, place: int, state: int) -> int:
        """F(place, state) as bits."""
        return self._kept[place][state]


@dataclass
class Walk:
    """One sequence on its way: `place` bases so far, the state of the motifs, and its G + C."""

    ways: Ways
    length_bp: int
    least_gc: int
    most_gc: int
    place: int
    state: int
    gc: int


class Walks:
    """The constraints on the sequences of one call of generation. `walk` begins one; `allowed` are the tokens that may
    follow, `advance` follows one."""

    def __init__(
        self, constraints: Constraints, tokenizer: KmerTokenizer, lengths: Mapping[str, int]
    ) -> None:
        """lengths: bases of each prompt -> length of its sequences, both with the prompt.

        Raises ValueError, with what would be possible, where no sequence satisfies the constraints.
        """
        self.constraints, self.k = constraints, tokenizer.k
        self.motifs = Motifs(constraints.motifs)
        self._ids = KmerTable(tokenizer).ids.numpy()
        self._number = {int(token): i for i, token in enumerate(self._ids)}
        self._size = len(tokenizer)
        self._after: dict[tuple[int, int], np.ndarray] = {}
        digits = np.indices((4,) * self.k).reshape(self.k, -1)
        # (k + 1, 4^k): G + C among the first bases of each k-mer
        self._gc_of = np.concatenate([np.zeros((1, 4**self.k), np.int64), np.cumsum(_GC[digits], 0)])
        self._digits = digits
        places: dict[int, set[int]] = {}
        for bases, length in lengths.items():
            # the places of a prompt may be in another phase than those of others
            places.setdefault(length, set()).update([*range(len(bases), length, self.k), length])
        self._ways = {
            length: Ways(self.motifs, constraints.letters, length, some, constraints.gc is not None)
            for length, some in places.items()
        }
        self._begun = {bases: self._begin(bases, length) for bases, length in lengths.items()}

    def walk(self, prompt_bases: str) -> Walk:
        begun = self._begun[prompt_bases]
        return Walk(**vars(begun))

    def _begin(self, bases: str, length: int) -> Walk:
        for position, allowed in self.constraints.letters.items():
            if position >= length:
                raise ValueError(f"fixed: position {position}: the sequence has 0..{length - 1}")
            if position < len(bases) and bases[position] not in allowed:
                raise ValueError(
                    f"fixed: position {position} is {bases[position]} in the prompt: wanted {' or '.join(allowed)}"
                )
        state = self.motifs.after(bases)
        if state == self.motifs.broken:
            motif = next(
                one for one in self.constraints.motifs if Motifs([one]).after(bases) == Motifs([one]).broken
            )
            raise ValueError(f"the prompt contains the forbidden motif {motif}")
        known = length - bases.count("N")
        least, most = 0, known
        if self.constraints.gc is not None:
            least = math.ceil(self.constraints.gc[0] * known - 1e-9)
            most = math.floor(self.constraints.gc[1] * known + 1e-9)
        ways, gc = self._ways[length], sum(base in "GC" for base in bases)
        walk = Walk(ways, length, least, most, len(bases), state, gc)
        if not self._reaches(walk, len(bases), state, gc):
            counts = ways.counts(len(bases), state)
            if not counts:
                raise ValueError(
                    f"no sequence of {length:,} bp has the fixed positions and none of the forbidden motifs"
                )
            possible = [gc + i for i in range(counts.bit_length()) if counts >> i & 1]
            raise ValueError(
                f"no sequence of {length:,} bp has {least} to {most} G+C (gc = {self.constraints.gc}): with this "
                f"prompt and the other constraints it has {possible[0]} to {possible[-1]} of {known:,}, a share of "
                f"{possible[0] / max(known, 1):.4f} to {possible[-1] / max(known, 1):.4f}"
            )
        return walk

    def _reaches(self, walk: Walk, place: int, state: int, gc: int) -> bool:
        counts = walk.ways.counts(place, state)
        if self.constraints.gc is None:
            return bool(counts)
        low, high = max(walk.least_gc - gc, 0), walk.most_gc - gc
        return high >= low and bool(counts >> low & ((1 << (high - low + 1)) - 1))

    def kept_bases(self, walk: Walk) -> int:
        """How many bases of the next k-mer belong to the sequence."""
        return min(self.k, walk.length_bp - walk.place)

    def allowed(self, walk: Walk) -> np.ndarray:
        """bool (V,): the tokens that may follow. At least one is, unless the sequence is complete."""
        length = self.kept_bases(walk)
        after = self._after_kmers(walk.state, length)
        fits = after != self.motifs.broken
        for i in range(length):
            bases = self.constraints.letters.get(walk.place + i)
            if bases is not None:
                fits &= np.isin(self._digits[i], [BASE_ORDER.index(base) for base in bases])
        counted = self._gc_of[length] if self.constraints.gc is not None else 0
        code = after.astype(np.int64) * (self.k + 1) + counted
        codes, of_kmer = np.unique(code[fits], return_inverse=True)
        end = walk.place + length
        reaches = [
            self._reaches(walk, end, *(state, walk.gc + gc))
            for state, gc in (divmod(c, self.k + 1) for c in codes.tolist())
        ]
        fits[fits] = np.array(reaches, bool)[of_kmer]
        found = np.zeros(self._size, bool)
        found[self._ids[fits]] = True
        return found

    def advance(self, walk: Walk, token: int) -> None:
        """The token is one of `allowed`."""
        kmer, length = self._number[token], self.kept_bases(walk)
        walk.state = int(self._after_kmers(walk.state, length)[kmer])
        walk.gc += int(self._gc_of[length, kmer])
        walk.place += length

    def _after_kmers(self, state: int, length: int) -> np.ndarray:
        """(4^k,): the state after the first `length` bases of each k-mer."""
        if (state, length) not in self._after:
            after = self.motifs.after_kmers(state, length)
            self._after[state, length] = np.repeat(after, 4 ** (self.k - length))
        return self._after[state, length]


class ConstrainedDraws:
    """Draws of other draws, each from the tokens that its sequence's constraints allow."""

    def __init__(
        self,
        draws: Callable[[torch.Tensor, list[int]], torch.Tensor],
        walks: Walks,
        of_sequence: list[Walk],
    ) -> None:
        self._draws, self._walks, self._of_sequence = draws, walks, of_sequence

    def allowed(self, sequences: list[int]) -> torch.Tensor:
        """bool (B, V)"""
        return torch.from_numpy(np.stack([self._walks.allowed(self._of_sequence[i]) for i in sequences]))

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor:
        """Raises RuntimeError where the probabilities are not finite."""
        tokens = self._draws(probabilities, sequences)
        drawn = probabilities.gather(1, tokens[:, None])[:, 0]
        for i, token, p in zip(sequences, tokens.tolist(), drawn.tolist(), strict=True):
            if not p > 0:
                raise RuntimeError(
                    f"the next token of sequence {i} cannot be drawn: its logits are not finite"
                )
            self._walks.advance(self._of_sequence[i], token)
        return tokens
