"""Windows of packed genomes -> batches of the template `<species> k-mers <=> <M> <=> <B>` and the answer.

The input is only coordinates: ops.kmer_tokenize and ops.gc_count, or ops.sample_batch in one call, compute
token ids, GC and the order label from the packed bases, on the genomes' device.
"""

from collections.abc import Sequence
from copy import copy
from dataclasses import dataclass
from typing import cast

import torch

from dnagpt_fast.batch import ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.genome.base_weights import BaseWeights
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops.gc_count import gc_count
from dnagpt_fast.ops.kmer_tokenize import kmer_tokenize
from dnagpt_fast.ops.sample_batch import BatchSampler
from dnagpt_fast.ops.traits import samples_in_one_call
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.vocab import Vocabulary, reserved_id

# A vocabulary without one-letter k-mers has two reserved tokens as order answers. `<+>` and `<->` suggest
# directions and are neither a species nor part of a prompt; `<0>` is not possible, because it is the unknown
# token.
FIXED_ANSWERS = ("+", "-")
DYNAMIC_ANSWERS = ("N", "A")


@dataclass(frozen=True)
class Template:
    """The token ids around the k-mers.

    gc_prompt, order_prompt  GC is predicted at the last token of gc_prompt, the order at the last token of
                             order_prompt
    not_reversed, reversed   the two answers
    """

    gc_prompt: tuple[int, ...]
    order_prompt: tuple[int, ...]
    not_reversed: int
    reversed: int

    @classmethod
    def build(
        cls,
        vocabulary: Vocabulary,
        gc_prompt: Sequence[str] = ("=", "M"),
        order_prompt: Sequence[str] = ("=", "B"),
        order_answers: Sequence[str] = (),
    ) -> "Template":
        """From token names. Answers may be reserved tokens or k-mers of the vocabulary. Raises ValueError, KeyError."""
        if not gc_prompt or not order_prompt:
            raise ValueError("the template needs at least one token of gc_prompt and of order_prompt")
        answers = tuple(order_answers) or (DYNAMIC_ANSWERS if vocabulary.dynamic else FIXED_ANSWERS)
        ids = [_answer_id(vocabulary, answer) for answer in answers]
        if len(ids) != 2 or ids[0] == ids[1]:
            raise ValueError(
                f"order_answers = {answers}: wanted two different tokens, for not reversed and reversed"
            )
        return cls(tuple(map(reserved_id, gc_prompt)), tuple(map(reserved_id, order_prompt)), ids[0], ids[1])

    @property
    def n_extra(self) -> int:
        """Number of input tokens in addition to the k-mers: the species and the two prompts."""
        return 1 + len(self.gc_prompt) + len(self.order_prompt)


def _answer_id(vocabulary: Vocabulary, name: str) -> int:
    # `B` is a reserved token, `A` and `N` are k-mers: no name is both.
    return vocabulary.kmer_id(name) if set(name) <= set("NAGCT") else reserved_id(name)


class BatchMaker:
    """Makes PretrainBatch from Windows of these genomes; species: one token id for each genome."""

    def __init__(
        self,
        genomes: Sequence[PackedGenome],
        species: Sequence[int],
        n_kmers: int,
        vocabulary: Vocabulary,
        template: Template,
    ) -> None:
        if n_kmers < 1:
            raise ValueError(f"n_kmers = {n_kmers}: a window needs at least one k-mer")
        if len(genomes) != len(species):
            raise ValueError(f"{len(genomes)} genomes and {len(species)} species tokens: wanted one each")
        self.genomes = list(genomes)
        self.device = self.genomes[0].device
        self.species = torch.tensor(species, dtype=torch.int64, device=self.device)
        self.n_kmers = n_kmers
        self.vocabulary = vocabulary
        self.template = template
        self._base_weights: tuple[BaseWeights, ...] = ()
        prompts = (*template.gc_prompt, *template.order_prompt)
        self._batch_sampler: tuple[WindowSampler, BatchSampler] | None = None
        self._prompts = torch.tensor(prompts, dtype=torch.int64, device=self.device)

    def weighing(self, *weights: BaseWeights) -> "BatchMaker":
        """A maker of the same batches with row weights: the weight of a next token is the product of the
        `weights` of its k-mer."""
        made = copy(self)
        made._base_weights = weights
        return made

    @property
    def length_bp(self) -> int:
        """Bases of a window."""
        return self.n_kmers * self.vocabulary.k

    @property
    def n_tokens(self) -> int:
        """Input tokens of a sample."""
        return self.n_kmers + self.template.n_extra

    def __call__(self, windows: Windows) -> PretrainBatch:
        """The batch of these windows, on the genomes' device. Raises IndexError where a window leaves its contig."""
        B = len(windows.genome)
        kmers = torch.empty((B, self.n_kmers), dtype=torch.int64, device=self.device)
        gc_target = torch.empty(B, dtype=torch.float32, device=self.device)
        gc_mask = torch.empty(B, dtype=torch.bool, device=self.device)
        for g in torch.unique(windows.genome).tolist():
            rows = torch.nonzero(windows.genome == g).squeeze(1)
            contig, start_bp = windows.contig[rows], windows.start_bp[rows]
            of_genome = kmer_tokenize(
                self.genomes[g],
                contig,
                start_bp,
                self.n_kmers,
                windows.orientation[rows],
                k=self.vocabulary.k,
                dynamic=self.vocabulary.dynamic,
                dtype=torch.int64,
            )
            gc, known = gc_count(self.genomes[g], contig, start_bp, self.length_bp)
            rows = rows.to(self.device)
            kmers[rows] = of_genome
            gc_target[rows] = gc / known.clamp(min=1)
            gc_mask[rows] = known > 0
        # Reversed relative to its own strand: orientations 1 (forward strand) and 2 (reverse strand).
        turned = ((windows.orientation ^ (windows.orientation >> 1)) & 1).to(self.device, torch.bool)
        return self._with_template(windows, kmers, gc_target, gc_mask, turned)

    def sampled(self, sampler: WindowSampler, first_index: int | torch.Tensor, count: int) -> PretrainBatch:
        """The batch of sampler.sample(first_index, count), drawn and tokenized in one native call where
        possible.

        first_index may be an int64 on the genomes' CUDA device, as BatchSampler takes it. The sampler must draw
        windows of `length_bp` from these genomes. Raises ValueError for another length, and for an index on the device
        where `can_be_recorded` is False.
        """
        if sampler.length_bp != self.length_bp:
            raise ValueError(
                f"the sampler draws windows of {sampler.length_bp} bp, a batch takes {self.length_bp}"
            )
        if isinstance(first_index, torch.Tensor) and not self.can_be_recorded:
            raise ValueError(
                f"a first index on {first_index.device}: these batches are made with the host's help; wanted an int"
            )
        if not samples_in_one_call(self.device.type):
            return self(sampler.sample(cast(int, first_index), count))
        if self._batch_sampler is None or self._batch_sampler[0] is not sampler:
            draw = BatchSampler(
                self.genomes,
                sampler.tables,
                sampler.seed,
                self.n_kmers,
                k=self.vocabulary.k,
                dynamic=self.vocabulary.dynamic,
            )
            self._batch_sampler = (sampler, draw)
        drawn = self._batch_sampler[1](first_index, count)
        return self._with_template(
            drawn.windows, drawn.kmers, drawn.gc_fraction, drawn.gc_known, drawn.reversed
        )

    @property
    def can_be_recorded(self) -> bool:
        """Whether `sampled` needs nothing from the host, so that a graph can repeat it with other samples."""
        return self.device.type == "cuda" and samples_in_one_call(self.device.type) and not self._base_weights

    def _with_template(
        self,
        windows: Windows,
        kmers: torch.Tensor,
        gc_target: torch.Tensor,
        gc_mask: torch.Tensor,
        turned: torch.Tensor,
    ) -> PretrainBatch:
        B, T = len(kmers), self.n_tokens
        token_ids = torch.empty((B, T), dtype=torch.int64, device=self.device)
        token_ids[:, 0] = self.species[windows.genome.to(self.device)]
        token_ids[:, 1 : 1 + self.n_kmers] = kmers
        token_ids[:, 1 + self.n_kmers :] = self._prompts
        targets = torch.empty_like(token_ids)
        targets[:, :-1] = token_ids[:, 1:]
        targets[:, -1] = torch.where(turned, self.template.reversed, self.template.not_reversed)
        row_kind = torch.full((B, T), ROW_NEXT_TOKEN, dtype=torch.uint8, device=self.device)
        row_kind[:, -1] = ROW_ORDER
        return PretrainBatch(
            token_ids=token_ids,
            targets=targets,
            row_kind=row_kind,
            gc_position=self.n_kmers + len(self.template.gc_prompt),
            gc_target=gc_target,
            gc_mask=gc_mask,
            windows=windows,
            row_weight=self._row_weight(windows),
        )

    def _row_weight(self, windows: Windows) -> torch.Tensor | None:
        if not self._base_weights:
            return None
        weight = torch.ones((len(windows.genome), self.n_tokens), device=self.device)
        for of_bases in self._base_weights:
            # The row of a position predicts the next one: row 0, the species token, predicts the first k-mer.
            of_kmers = of_bases.of_kmers(windows, self.n_kmers, self.vocabulary.k)
            weight[:, : self.n_kmers] *= of_kmers.to(self.device)
        return weight
