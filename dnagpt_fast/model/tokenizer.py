"""Text <-> token ids, as in the official KmerTokenizer (arXiv 2307.05628, TencentAILabHealthcare/DNAGPT).

Text is split at `<` and `>`. A piece that is a reserved name becomes that token (even if it was written without
brackets: the official behaviour is kept), an empty piece is dropped, any other piece is cut from the left into chunks
of k. A chunk that is not in the vocabulary (lower case, IUPAC letters, a short tail in the fixed vocabulary) becomes
the unknown token, id 0. The official code does this silently; this tokenizer logs one warning, through `logging`.
"""

import logging
import re
from collections.abc import Iterable, Sequence
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np
import torch

from dnagpt_fast.model.sequences import Source, check_is_list, sequence_of, sequences_of, text_of
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.ops.text_encode import TextEncoder
from dnagpt_fast.packed import PackedGenome, PackedRange
from dnagpt_fast.vocab import BASES, RESERVED, UNKNOWN_ID, Vocabulary

_BRACKETS = re.compile("[<>]")
BLOCK_TOKENS = 64
"""Of ranges of different lengths, so many tokens at a time are encoded as a row, and the others one by one."""

logger = logging.getLogger(__name__)


def indices_of(begin: np.ndarray, count: np.ndarray) -> np.ndarray:
    """begin[0], begin[0] + 1 ... of count[0] numbers, then those from begin[1] on, and so on: int64 (sum of count,)."""
    return np.repeat(begin - (np.cumsum(count) - count), count) + np.arange(count.sum())


class KmerTokenizer:
    """k-mer tokenizer over N A G C T with reserved tokens before the k-mers.

    k                1..6 in the published vocabularies; longest k-mer
    reserved_tokens  names without brackets, in id order, `P` (padding) among them; None: the 34 published ones
    dynamic_kmer     True: k-mers of all lengths 1..k, short ones first; False: length k only

    Raises ValueError for duplicate reserved tokens, a missing P, or a k out of range.

    Called with one sequence it is `encode`, with a list of them `encode_batch`.

    >>> tokenizer = KmerTokenizer(k=3)
    >>> tokenizer
    KmerTokenizer(k=3, dynamic_kmer=True): 189 tokens, 34 of them reserved
    >>> tokenizer("<R>ACGTTT").tolist()
    [21, 106, 188]
    >>> tokenizer(["<R>ACGTTT", "ACG"]).tolist()
    [[21, 106, 188], [106, 20, 20]]
    >>> tokenizer.decode([21, 106, 188])
    '<R>ACGTTT'
    """

    def __init__(
        self, k: int = 6, reserved_tokens: Sequence[str] | None = None, dynamic_kmer: bool = True
    ) -> None:
        names = list(RESERVED if reserved_tokens is None else reserved_tokens)
        if len(set(names)) != len(names):
            twice = sorted({name for name in names if names.count(name) > 1})
            raise ValueError(f"reserved tokens given twice: {', '.join(twice)}")
        if "P" not in names:
            raise ValueError("the reserved tokens lack P, the padding token")
        self.vocabulary = Vocabulary(k, dynamic_kmer)
        self.k = k
        self.dynamic_kmer = dynamic_kmer
        self.bases = BASES
        self.reserved_tokens = [f"<{name}>" for name in names]
        self._reserved_ids = {name: i for i, name in enumerate(names)}
        # The ids of `Vocabulary` assume the published reserved tokens; with others, the ids of the k-mers shift.
        self._shift = len(names) - len(RESERVED)
        self._encoder = TextEncoder(self.vocabulary, names, UNKNOWN_ID)
        self.pad_id = self._reserved_ids["P"]
        self.unk_id = UNKNOWN_ID
        self._unknown_reported = False

    @classmethod
    def of(cls, vocabulary: Vocabulary) -> "KmerTokenizer":
        """The published tokenizer of a vocabulary."""
        return cls(vocabulary.k, dynamic_kmer=vocabulary.dynamic)

    @classmethod
    def from_vocab_size(cls, vocab_size: int) -> "KmerTokenizer":
        """The published tokenizer with this many entries (19,564: dynamic k=6; 15,659: fixed k=6). Raises ValueError
        for another number."""
        every = [Vocabulary(k, dynamic) for dynamic in (False, True) for k in range(1, 7)]
        sizes = {len(vocabulary): vocabulary for vocabulary in every}
        if vocab_size not in sizes:
            known = ", ".join(str(size) for size in sorted(sizes))
            raise ValueError(f"no k-mer vocabulary has {vocab_size} entries; the known sizes are {known}")
        return cls.of(sizes[vocab_size])

    def __len__(self) -> int:
        return len(self.vocabulary) + self._shift

    def __repr__(self) -> str:
        names = [token.strip("<>") for token in self.reserved_tokens]
        given = "" if names == list(RESERVED) else f"reserved_tokens={names!r}, "
        return (
            f"KmerTokenizer(k={self.k}, {given}dynamic_kmer={self.dynamic_kmer}): {len(self):,} tokens, "
            f"{len(names)} of them reserved"
        )

    def __call__(
        self, sequences: Any, max_len: int = -1, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Token ids of one sequence, int64 (T,), or of a list of them, int64 (B, T) padded with `<P>`.

        sequences  see `encode`; a list, array, column or iterator of such. Raises as `encode` and `encode_batch` do.
        """
        try:
            check_is_list(sequences)
        except TypeError:
            ids = self.encode(sequences, max_len, device=device)
            assert isinstance(ids, torch.Tensor)
            return ids
        return self.encode_batch(sequences, max_len, device)

    def __reduce__(self) -> tuple[type, tuple[int, list[str], bool]]:
        """Copied and pickled as its arguments: the compiled encoder cannot be pickled."""
        return type(self), (self.k, list(self._reserved_ids), self.dynamic_kmer)

    @cached_property
    def idx_to_token(self) -> list[str]:
        """Every piece in id order."""
        lengths = range(1 if self.dynamic_kmer else self.k, self.k + 1)
        kmers = ["".join(letters) for length in lengths for letters in product(BASES, repeat=length)]
        return self.reserved_tokens + kmers

    @cached_property
    def token_to_idx(self) -> dict[str, int]:
        return {token: i for i, token in enumerate(self.idx_to_token)}

    def piece_to_id(self, token: str) -> int:
        """Id of a piece as `tokenize` gives it; the unknown id for any other text."""
        return self.token_to_idx.get(token, self.unk_id)

    def id_to_piece(self, token_id: int) -> str:
        """Raises IndexError for an id outside 0..len-1."""
        if not 0 <= token_id < len(self):
            raise IndexError(f"token id {token_id}: the vocabulary has ids 0..{len(self) - 1}")
        return self.idx_to_token[token_id]

    def tokenize(self, text: Source) -> list[str]:
        """The pieces of the text: reserved tokens in brackets, and chunks of up to k letters, known or not."""
        pieces: list[str] = []
        for part in _BRACKETS.split(text_of(text)):
            if part in self._reserved_ids:
                pieces.append(f"<{part}>")
            else:
                pieces += [part[i : i + self.k] for i in range(0, len(part), self.k)]
        return pieces

    def encode(
        self,
        text: Source,
        max_len: int = -1,
        pad: bool = False,
        device: torch.device | str | None = None,
        to_tensor: bool = True,
    ) -> torch.Tensor | list[int]:
        """Token ids of the text: int64 (T,), or a list without `to_tensor`.

        text     a str in which reserved tokens may occur, or a sequence in another form: model/sequences.py
        max_len  > 0: keep the first max_len tokens; with `pad`, fill up to max_len with `<P>`
        """
        ids = self._ids(text)
        if max_len > 0:
            ids = ids[:max_len]
            if pad and len(ids) < max_len:
                ids = torch.cat([ids, torch.full((max_len - len(ids),), self.pad_id)])
        if not to_tensor:
            return ids.tolist()
        return ids.to(device) if device is not None else ids

    def encode_packed(self, bases: PackedRange) -> torch.Tensor:
        """Token ids int64 (T,) of a range of a packed genome: the ids of its text, but without making the text.

        A tail shorter than k is a token in the dynamic vocabulary; the fixed one has no token for it and drops it.
        Raises IndexError for a range that leaves its contig.
        """
        row = ([bases.contig], [bases.start_bp], [len(bases)], [bases.reverse])
        return self.encode_ranges(bases.genome, *(np.array(one, np.int64) for one in row))

    def encode_ranges(
        self,
        genome: PackedGenome,
        contig: np.ndarray,
        start_bp: np.ndarray,
        length_bp: np.ndarray,
        reverse: np.ndarray,
    ) -> torch.Tensor:
        """The ids of B ranges of a genome as of `encode_packed`, concatenated: int64, on the genome's device.

        contig, start_bp, length_bp, reverse: int64 (B,); start_bp on the forward strand, reverse 1 for the reverse
        complement. Raises IndexError for a range that leaves its contig.
        """
        k = self.k
        n, tail = length_bp // k, length_bp % k if self.dynamic_kmer else np.zeros_like(length_bp)
        counts = n + (tail > 0)
        begin = np.cumsum(counts) - counts

        def ids(owner: np.ndarray, token: np.ndarray, tokens: int, k: int) -> torch.Tensor:
            """Rows of tokens of these ranges, each from one of its tokens on."""
            skipped = self.k * token
            start = np.where(
                reverse[owner],
                start_bp[owner] + length_bp[owner] - skipped - k * tokens,
                start_bp[owner] + skipped,
            )
            found = kmer_tokenize(
                genome, contig[owner], start, tokens, 3 * reverse[owner],
                k=k, dynamic=self.dynamic_kmer, dtype=torch.int64,
            )  # fmt: skip
            return found.add_(self._shift) if self._shift else found

        every = np.arange(len(n))
        same = len(n) > 0 and n.min() == n.max()
        if same and not tail.any():
            return ids(every, np.zeros_like(n), int(n[0]), k).view(-1)
        found = torch.empty(int(counts.sum()), dtype=torch.int64, device=genome.device)
        # one row of a call has one number of tokens: ranges of different lengths are cut into blocks and single tokens
        width = int(n[0]) if same else BLOCK_TOKENS
        blocks = n // width if width else n
        pieces = [(indices_of(np.zeros_like(n), blocks) * width, blocks, width, k)]
        pieces.append((indices_of(blocks * width, n - blocks * width), n - blocks * width, 1, k))
        pieces += [(n[tail == bases], (tail == bases).astype(np.int64), 1, bases) for bases in range(1, k)]
        for token, count, tokens, bases in pieces:
            if len(token) and tokens:
                owner = np.repeat(every, count)
                place = (begin[owner] + token)[:, None] + np.arange(tokens)
                found[torch.from_numpy(place).to(found.device)] = ids(owner, token, tokens, bases)
        return found

    def encode_batch(
        self, texts: Iterable[Source], max_len: int = -1, device: torch.device | str | None = None
    ) -> torch.Tensor:
        """Token ids of the texts: int64 (B, T), rows padded with `<P>` to the longest one.

        max_len  > 0: T is max_len, and of longer texts the first max_len tokens are kept
        """
        rows = [self._ids(text) for _, text in sequences_of(texts, "texts")]
        T = max_len if max_len > 0 else max((len(row) for row in rows), default=0)
        ids = torch.full((len(rows), T), self.pad_id)
        for padded, row in zip(ids, rows, strict=True):
            padded[: len(row)] = row[:T]
        return ids.to(device) if device is not None else ids

    def decode(self, token_ids: torch.Tensor | np.ndarray | Iterable[int]) -> str:
        """The text of the ids, reserved tokens in brackets. Raises IndexError for an id out of range."""
        if isinstance(token_ids, (torch.Tensor, np.ndarray)):
            token_ids = token_ids.tolist()
        return "".join([self.id_to_piece(token_id) for token_id in token_ids])

    def decode_bases(self, token_ids: torch.Tensor | np.ndarray | Iterable[int]) -> str:
        """The letters of the k-mers among the ids; reserved tokens are left out. Raises IndexError as `decode` does.

        >>> KmerTokenizer().decode_bases(KmerTokenizer().encode("<R>ACGTACGT"))
        'ACGTACGT'
        """
        return self.decode([i for i in map(int, token_ids) if not 0 <= i < len(self.reserved_tokens)])

    def _ids(self, given: Source) -> torch.Tensor:
        text = sequence_of(given)
        if isinstance(text, PackedRange):
            return self.encode_packed(text).cpu()
        ids, unknown = self._encoder(text)
        if unknown and not self._unknown_reported:
            self._unknown_reported = True
            logger.warning(
                "%d chunk(s) of a text are not in the vocabulary and became <%s> (id %d): it has upper-case %s, "
                "and %s. This warning is logged once per tokenizer.",
                unknown,
                self.reserved_tokens[self.unk_id].strip("<>"),
                self.unk_id,
                " ".join(BASES),
                f"tails of 1..{self.k - 1} letters"
                if self.dynamic_kmer
                else f"no tails shorter than {self.k}",
            )
        return ids
