"""Prompts of generation: text with tokens in brackets, whose bases are read as those of all other commands."""

import logging
import re
from collections.abc import Iterable

from dnagpt_fast.model.sequences import Source, naming_row, sequences_of
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.packed import PackedRange
from dnagpt_fast.vocab import BASES, to_bases

_PARTS = re.compile("(<[^<>]*>)")

logger = logging.getLogger(__name__)


def prompt_ids(tokenizer: KmerTokenizer, prompts: Iterable[Source]) -> list[list[int]]:
    """The token ids of each prompt. Raises ValueError, with the prompt's number, for an empty one and for letters that
    are neither bases nor tokens; TypeError for one prompt where a list is wanted.

    A prompt that ends inside a k-mer is given with one warning for all: the model has seen such tokens at the end of a
    sequence, never before others.
    """
    found, short = [], []
    for row, prompt in sequences_of(prompts, "prompts"):
        with naming_row(row, "prompts"):
            text = prompt if isinstance(prompt, PackedRange) else prompt_text(tokenizer, prompt)
            ids = [int(i) for i in tokenizer.encode(text, to_tensor=False)]
            if not ids:
                raise ValueError(
                    "the prompt has no token: generation needs at least one, such as <R> for human"
                )
        last = "" if ids[-1] < len(tokenizer.reserved_tokens) else tokenizer.id_to_piece(ids[-1])
        if 0 < len(last) < tokenizer.k:
            short.append((row, last))
        found.append(ids)
    if short:
        k, (row, last) = tokenizer.k, short[0]
        logger.warning(
            "%d prompt(s) end inside a %d-mer; the first is prompts[%d], whose last %d base(s), %s, become a short "
            "token. Models have seen those only at the end of a sequence: cut the prompt to a multiple of %d bases",
            len(short), k, row, len(last), last, k,
        )  # fmt: skip
    return found


def prompt_text(tokenizer: KmerTokenizer, prompt: str) -> str:
    """The prompt with its bases in upper case, U as T and IUPAC letters as N. Raises ValueError for what is neither a
    base nor a token of the vocabulary.

    >>> prompt_text(KmerTokenizer(), "<R>acguRY")
    '<R>ACGTNN'
    """
    parts, ambiguous = [], 0
    for part in _PARTS.split(prompt):
        if part.startswith("<") and part.endswith(">"):
            if part not in tokenizer.reserved_tokens and part != "<>":
                raise ValueError(
                    f"{part} is no token of this vocabulary: wanted one of {' '.join(tokenizer.reserved_tokens)}"
                )
            parts.append(part)
            continue
        if f"<{part}>" in tokenizer.reserved_tokens:
            parts.append(part)  # a reserved name without brackets is that token, as in the official tokenizer
            continue
        bases, count = to_bases(part)
        ambiguous += count
        foreign = next((i for i, letter in enumerate(bases) if letter not in BASES), None)
        if foreign is not None:
            raise ValueError(
                f"{bases[foreign]!r} in {part[max(foreign - 10, 0) : foreign + 10]!r} is no base: wanted letters of "
                "ACGTUN or IUPAC codes, and tokens in brackets, such as <R>"
            )
        tail = 0 if tokenizer.dynamic_kmer else len(bases) % tokenizer.k
        if tail:
            raise ValueError(
                f"...{bases[-20:]!r} has {len(bases)} bases, and this vocabulary has k-mers of {tokenizer.k} only: cut "
                f"{tail} bases, so that it is a multiple of {tokenizer.k}"
            )
        parts.append(bases)
    if ambiguous:
        logger.warning("%d IUPAC letter(s) of a prompt other than N were read as N", ambiguous)
    return "".join(parts)
