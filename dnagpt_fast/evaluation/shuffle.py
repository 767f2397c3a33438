"""Random sequences with exactly the dinucleotides of a given one (Altschul and Erickson 1985)."""

from itertools import pairwise

import numpy as np


def dinucleotide_shuffle(text: str, rng: np.random.Generator) -> str:
    """A text with the same first and last letter and the same count of every pair of neighbours.

    An edge of a graph of letters is drawn for each pair of neighbours; a random walk over all edges, whose last edges
    out of the letters form a tree to the last letter, is uniform among all such texts.

    >>> made = dinucleotide_shuffle("ACACAGAGTTACG", np.random.default_rng(0))
    >>> sorted(pairwise(made)) == sorted(pairwise("ACACAGAGTTACG"))
    True
    """
    if len(text) < 4:
        return text
    edges: dict[str, list[str]] = {}
    for letter, following in pairwise(text):
        edges.setdefault(letter, []).append(following)
    end = text[-1]
    others = [letter for letter in edges if letter != end]
    while True:
        last = {letter: edges[letter][int(rng.integers(len(edges[letter])))] for letter in others}
        if all(_reaches(letter, end, last) for letter in others):
            break
    ways = {}
    for letter, onward in edges.items():
        rest = list(onward)
        if letter in last:
            rest.remove(last[letter])
        mixed = [rest[i] for i in rng.permutation(len(rest))]
        ways[letter] = iter([*mixed, last[letter]] if letter in last else mixed)
    made = [text[0]]
    for _ in range(len(text) - 1):
        made.append(next(ways[made[-1]]))
    return "".join(made)


def _reaches(letter: str, end: str, last: dict[str, str]) -> bool:
    for _ in range(len(last) + 1):
        if letter == end:
            return True
        letter = last[letter]
    return letter == end
