"""The vocabulary of DNAGPT (arXiv 2307.05628): reserved tokens first, then k-mers as base-5 numbers.

id of a reserved token = its index in RESERVED.
id of a k-mer of length L = N_RESERVED + (5^1 + ... + 5^(L-1) if dynamic else 0) + base5(kmer), digits N A G C T = 0..4,
most significant base first. The dynamic vocabulary holds all lengths 1..k, the fixed one length k only.
"""

from dataclasses import dataclass

RESERVED = (*"0123456789", *"+-*/=&|!", "M", "B", "P", *"RIKLOQSUV", *"WYXZ")
N_RESERVED = len(RESERVED)
UNKNOWN_ID = 0
PAD_ID = RESERVED.index("P")
BASES = "NAGCT"
DIGIT = {base: digit for digit, base in enumerate(BASES)}
MAX_K = 6

SPECIES = {
    "human": "R",
    "arabidopsis": "I",
    "c_elegans": "K",
    "zebrafish": "L",
    "drosophila": "O",
    "e_coli": "Q",
    "mouse": "S",
    "yeast": "U",
    "bovine": "V",
}


def reserved_id(name: str) -> int:
    """Id of a reserved token given without brackets, `"R"` -> 21. Raises KeyError for an unknown name."""
    if name not in RESERVED:
        raise KeyError(f"{name!r} is no reserved token; they are {' '.join(RESERVED)}")
    return RESERVED.index(name)


@dataclass(frozen=True)
class Vocabulary:
    """k: length of the longest k-mer, 1..6. dynamic: all lengths 1..k (19,564 entries for k=6), or only k (15,659)."""

    k: int = 6
    dynamic: bool = True

    def __post_init__(self) -> None:
        if not 1 <= self.k <= MAX_K:
            raise ValueError(f"k = {self.k}: wanted 1..{MAX_K}")

    def __len__(self) -> int:
        return self.first_id(self.k) + 5**self.k

    def first_id(self, length: int) -> int:
        """Id of the all-N k-mer of this length, the first of its kind."""
        if not (1 if self.dynamic else self.k) <= length <= self.k:
            raise ValueError(
                f"no k-mers of length {length} in a {'dynamic' if self.dynamic else 'fixed'} k={self.k} vocabulary"
            )
        return N_RESERVED + (sum(5**i for i in range(1, length)) if self.dynamic else 0)

    def kmer_id(self, kmer: str) -> int:
        """Id of an upper-case k-mer over N A G C T. Raises ValueError for another letter or length."""
        value = 0
        for base in kmer:
            if base not in DIGIT:
                raise ValueError(f"{base!r} in {kmer!r} is no base: wanted letters of {BASES}")
            value = value * 5 + DIGIT[base]
        return self.first_id(len(kmer)) + value

    def piece(self, token_id: int) -> str:
        """Text of a token, reserved names in brackets: 21 -> `<R>`, 38 -> `T`. Raises IndexError out of range."""
        if not 0 <= token_id < len(self):
            raise IndexError(f"token id {token_id}: the vocabulary has ids 0..{len(self) - 1}")
        if token_id < N_RESERVED:
            return f"<{RESERVED[token_id]}>"
        length = self.k
        if self.dynamic:
            length = next(n for n in range(self.k, 0, -1) if token_id >= self.first_id(n))
        value = token_id - self.first_id(length)
        letters = []
        for _ in range(length):
            value, digit = divmod(value, 5)
            letters.append(BASES[digit])
        return "".join(reversed(letters))


IUPAC = "RYSWKMBDHVX"
LETTERS = frozenset("ACGTUN" + IUPAC)
_TO_BASES = str.maketrans("U" + IUPAC, "T" + "N" * len(IUPAC))
BASES_OF = {
    **{base: base for base in "ACGT"},
    "U": "T", "R": "AG", "Y": "CT", "S": "CG", "W": "AT", "K": "GT", "M": "AC",
    "B": "CGT", "D": "AGT", "H": "ACT", "V": "ACG", "N": "ACGT",
}  # fmt: skip
"""The bases that an IUPAC code means in a pattern; in a sequence all codes except U are unknown bases."""
_COMPLEMENT_OF_CODES = str.maketrans("ACGTURYSWKMBDHVN", "TGCAAYRSWMKVHDBN")
_COMPLEMENT = str.maketrans("ACGTNacgtn", "TGCANtgcan")


def to_bases(text: str) -> tuple[str, int]:
    """(Upper-case text over A C G T N, count of IUPAC letters that became N). U is T; other letters do not change.

    >>> to_bases("acguRN")
    ('ACGTNN', 1)
    """
    upper = text.upper()
    bases = upper.translate(_TO_BASES)
    return bases, bases.count("N") - upper.count("N")


def reverse_complement(sequence: str) -> str:
    """The reverse complement of text over ACGTN; lower case stays lower case."""
    return sequence.translate(_COMPLEMENT)[::-1]


def reverse_complement_of_codes(pattern: str) -> str:
    """The reverse complement of an upper-case pattern of IUPAC codes.

    >>> reverse_complement_of_codes("GGTNRA")
    'TYNACC'
    """
    return pattern.translate(_COMPLEMENT_OF_CODES)[::-1]


def species_token(name: str) -> str:
    """`human`, `Human` or `R` -> `R`: the case of a species name is ignored. Raises ValueError for another name."""
    token = SPECIES.get(name.lower(), name)
    try:
        reserved_id(token)
    except KeyError:
        raise ValueError(
            f"species {name!r}: wanted one of {', '.join(SPECIES)}, or a reserved token without brackets"
        ) from None
    return token
