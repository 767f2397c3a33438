"""Prompts of the published fine-tuned models, as in the scripts of the official repository.

classification  `<species>` sequence `<=><species>`: the next token is the answer of the class
regression      `<species>` sequence `<+><M>` numbers `<=><M>`: the regression head reads the last position; without
                numbers `<species>` sequence `<=><M>`
generation      `<species>` sequence `<P>`: every token is predicted; the pad token ends a sequence
tagging         `<species>` sequence: at each k-mer the next token is the answer of its class
"""

from collections.abc import Sequence
from dataclasses import dataclass

from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import PAD_ID, Vocabulary, reserved_id

# Three or more classes use reserved tokens that have no other meaning in a prompt.
MANY_ANSWERS = (*"123456789", "&", "|", "!", "-", "*", "/", *"WYXZ")
BINARY_ANSWERS = ("A", "N")  # false, true
FIXED_BINARY_ANSWERS = ("-", "+")


def answer_tokens(vocabulary: Vocabulary, classes: int) -> list[int]:
    """Token ids of the answers of C classes.

    Two classes: `A` (false) and `N` (true) as published; `<->` and `<+>` in the fixed vocabulary, which has
    no k-mers of one letter. More classes: `<1>`, `<2>`, ... Raises ValueError for fewer than 2 or more than
    19 classes.
    """
    if classes == 2:
        if vocabulary.dynamic:
            return [vocabulary.kmer_id(letter) for letter in BINARY_ANSWERS]
        return [reserved_id(name) for name in FIXED_BINARY_ANSWERS]
    if not 2 <= classes <= len(MANY_ANSWERS):
        raise ValueError(f"{classes} classes: wanted 2 to {len(MANY_ANSWERS)}, one reserved token for each")
    return [reserved_id(name) for name in MANY_ANSWERS[:classes]]


@dataclass(frozen=True)
class TaskTemplate:
    """How a sequence becomes tokens. numbers: count of numbers that are inserted before the last two tokens
    (regression)."""

    kind: str
    species: str
    vocabulary: Vocabulary
    numbers: int = 0

    @property
    def prompt(self) -> tuple[str, ...]:
        """Reserved tokens after the sequence."""
        if self.kind == "classification":
            return ("=", self.species)
        if self.kind == "regression":
            return ("+", "M", "=", "M") if self.numbers else ("=", "M")
        return ()

    def longest_bp(self, max_len: int) -> int:
        """Bases that fit into max_len positions together with the prompt and the numbers."""
        return self.vocabulary.k * (max_len - 1 - len(self.prompt) - self.numbers)

    def usable(self, sequence: str) -> str:
        """The sequence without a tail that is shorter than one token of the fixed vocabulary."""
        if self.vocabulary.dynamic:
            return sequence
        return sequence[: len(sequence) // self.vocabulary.k * self.vocabulary.k]

    def encode(self, sequence: str, tokenizer: KmerTokenizer) -> list[int]:
        """Input token ids. For generation the last one is the pad token, which is predicted but never an
        input."""
        prompt = "".join(f"<{name}>" for name in self.prompt)
        ids = tokenizer.encode(f"<{self.species}>{self.usable(sequence)}{prompt}", to_tensor=False)
        assert isinstance(ids, list)
        return [*ids, PAD_ID] if self.kind == "generation" else ids


def arrange_classes(classes: Sequence[str], positive: str) -> tuple[str, ...]:
    """The classes in the order of their answers: with two classes the positive one is the second.

    Raises ValueError where `positive` is given and there are not two classes, or it is none of them.
    """
    if not positive:
        return tuple(classes)
    if len(classes) != 2 or positive not in classes:
        raise ValueError(
            f"task.positive = {positive!r}: wanted one of two classes; the classes are {', '.join(classes)}"
        )
    return (*(name for name in classes if name != positive), positive)
