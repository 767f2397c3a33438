"""Evaluation on held-out sequence: the model's nats per base pair beside baselines on the same windows.

The held-out ranges are divided into adjacent windows; each is read forward on the forward strand. K-mers that
contain N are excluded for all models. The loss of the model is -log p of each k-mer over its whole
vocabulary; that of a Markov chain is -log p of the same bases given the earlier bases of the window; that of
the uniform model is ln 4 per base. The difference to the best chain has the 95 % interval of a bootstrap over
blocks of 10,000 bp, because neighbouring windows are not independent. GC and order are predicted on the same
windows, the order also for each window reversed.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.evaluation.chains import Chains
from dnagpt_fast.evaluation.markov import base_codes
from dnagpt_fast.genome.intervals import Intervals, tile
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops.combined_loss.occurring import OccurringTokens
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.packed import PackedGenome
from dnagpt_fast.pretrain.batches import BatchMaker, Template
from dnagpt_fast.training.processes import Processes

UNIFORM = math.log(4)
BLOCK_BP = 10_000
RESAMPLES = 2000
WINDOWS_AT_ONCE = 1 << 18


@dataclass(frozen=True)
class ValidationReport:
    """windows, base_pairs: number evaluated (per orientation). Losses in nats per base pair, over known
    bases.

    markov_*        the chain of order 5, fitted on markov_fitted_bp bases of both strands together
    order2_*        the chain of order 2
    best_markov_*   the chain whose order and pseudo-count were chosen (evaluation/chains.py)
    against_best    nats_per_bp minus that of the best chain, with its 95 % interval (None for a single block)
    gc_r2           None where GC does not vary
    order_accuracy  over the same number of windows of both classes, so chance is 0.5
    """

    windows: int
    base_pairs: int
    nats_per_bp: float
    uniform_nats_per_bp: float
    markov_nats_per_bp: float
    markov_order: int
    markov_fitted_bp: int
    order2_nats_per_bp: float
    best_markov_nats_per_bp: float
    best_markov_order: int
    best_markov_pseudo: float
    against_best: float
    against_best_low: float | None
    against_best_high: float | None
    gc_r2: float | None
    order_accuracy: float

    def to_dict(self) -> dict[str, float | int | None]:
        return asdict(self)

    def rows(self) -> list[tuple[str, str]]:
        """The lines of the printed report: label and value."""
        gc = "-" if self.gc_r2 is None else f"{self.gc_r2:.3f}"
        return [
            ("held-out windows", f"{self.windows:,} ({self.base_pairs:,} bp)"),
            ("uniform", f"{self.uniform_nats_per_bp:.4f} nats/bp"),
            ("order-2 Markov chain", f"{self.order2_nats_per_bp:.4f} nats/bp"),
            (f"order-{self.markov_order} Markov chain", f"{self.markov_nats_per_bp:.4f} nats/bp"),
            (
                f"best Markov chain (order {self.best_markov_order}, pseudo-count {self.best_markov_pseudo:g})",
                f"{self.best_markov_nats_per_bp:.4f} nats/bp",
            ),
            ("DNAGPT", f"{self.nats_per_bp:.4f} nats/bp"),
            ("  against uniform", f"{self.nats_per_bp - self.uniform_nats_per_bp:+.4f}"),
            (f"  against order {self.markov_order}", f"{self.nats_per_bp - self.markov_nats_per_bp:+.4f}"),
            ("  against the best chain", f"{self.against_best:+.4f}{self._interval()}"),
            ("GC content r2", gc),
            ("order accuracy (chance 0.5)", f"{self.order_accuracy:.3f}"),
        ]

    def _interval(self) -> str:
        if self.against_best_low is None:
            return " (one block: no interval)"
        return f" (95 %: {self.against_best_low:+.4f} to {self.against_best_high:+.4f})"


def held_out_windows(
    genomes: Sequence[PackedGenome], held_out: Sequence[Intervals], length_bp: int, max_n_bp: int, most: int
) -> Windows:
    """At most `most` of the adjacent windows in the held-out ranges of all genomes, spread evenly, in
    orientation 0.

    Raises ValueError if no window fits.
    """
    pieces = [
        (g, genome, piece)
        for g, (genome, ranges) in enumerate(zip(genomes, held_out, strict=True))
        for piece in _pieces(ranges, length_bp)
    ]
    # The windows are counted first and only chosen ones are made: a list of all would be as large as the
    # corpus.
    counts = [len(tile(genome, piece, length_bp, max_n_bp)) for _, genome, piece in pieces]
    count = sum(counts)
    if not count:
        raise ValueError(
            f"no held-out range has room for a window of {length_bp} bp with at most {max_n_bp} unknown bases"
        )
    chosen = np.linspace(0, count - 1, min(most, count)).round().astype(np.int64)
    rows, first = [], 0
    for (g, genome, piece), held in zip(pieces, counts, strict=True):
        mine = chosen[(chosen >= first) & (chosen < first + held)] - first
        first += held
        if len(mine):
            tiles = tile(genome, piece, length_bp, max_n_bp)
            rows.append(np.stack([np.full(len(mine), g), tiles.contig[mine], tiles.start_bp[mine]]))
    columns = np.concatenate(rows, axis=1)
    index, contig, start_bp = (torch.from_numpy(np.ascontiguousarray(row, dtype=np.int64)) for row in columns)
    return Windows(index, contig, start_bp, torch.zeros_like(index))


def _pieces(ranges: Intervals, length_bp: int) -> Iterator[Intervals]:
    """The ranges in their order, in groups of about WINDOWS_AT_ONCE windows at most, or of a single range."""
    windows = np.cumsum(np.maximum(ranges.end_bp - ranges.start_bp, 0) // length_bp)
    group = windows // WINDOWS_AT_ONCE
    for rows in np.split(np.arange(len(ranges)), np.flatnonzero(np.diff(group)) + 1):
        yield Intervals(ranges.contig[rows], ranges.start_bp[rows], ranges.end_bp[rows])


class Answers(NamedTuple):
    """A model's predictions for a batch: log_probs (B, n_kmers) of its k-mers, says_reversed bool (B,), gc
    float (B,)."""

    log_probs: torch.Tensor
    says_reversed: torch.Tensor
    gc: torch.Tensor


def answers_of(
    model: DNAGPT, batch: PretrainBatch, template: Template, occurring: OccurringTokens | None = None
) -> Answers:
    """The answers of a model: each k-mer from the position before it, the order answer at `<B>`, GC at `<M>`.

    occurring: for a model whose other rows are equal: the same softmax over all tokens with a fifth of the
    products
    """
    hidden, last = model.hidden_states(batch.token_ids), model.last_projection
    n_kmers = hidden.shape[1] - template.n_extra
    targets = batch.targets[:, :n_kmers]
    rows = model.head_rows(hidden[:, :n_kmers]).flatten(0, 1)
    losses = combined_loss(
        rows, last.weight, targets.flatten(), bias=last.bias, return_log_probs=True, occurring=occurring
    )
    assert losses.log_probs is not None
    pair = torch.tensor([template.not_reversed, template.reversed], device=hidden.device)
    bias = None if last.bias is None else last.bias[pair]
    logits = F.linear(model.head_rows(hidden[:, -1]), last.weight[pair], bias)
    gc = model.num_regression(hidden[:, batch.gc_position]).squeeze(-1)
    return Answers(losses.log_probs.view_as(targets), logits[:, 1] > logits[:, 0], gc)


class Validator:
    """Evaluates a model on fixed held-out windows; the baselines are computed once."""

    def __init__(self, maker: BatchMaker, windows: Windows, chains: Chains, batch_size: int) -> None:
        self.maker = maker
        self.windows = windows
        self.batch_size = batch_size
        self.chains = chains
        k, n_kmers = maker.vocabulary.k, maker.n_kmers
        known, nats = [], []
        places = (windows.genome.tolist(), windows.contig.tolist(), windows.start_bp.tolist())
        for g, contig, start_bp in zip(*places, strict=True):
            codes = base_codes(maker.genomes[g], contig, start_bp, start_bp + maker.length_bp)
            whole = (codes.reshape(n_kmers, k) >= 0).all(axis=1)
            known.append(whole)
            nats.append(-chains.log_probs(codes).reshape(-1, n_kmers, k)[:, whole].sum(axis=(1, 2)))
        self.known = torch.from_numpy(np.stack(known))
        self.base_pairs = int(self.known.sum()) * k
        # Losses in nats of order 2, order 5 and the best chain, (windows, 3).
        self.chain_nats = np.stack(nats)
        per_bp = self.chain_nats.sum(axis=0) / max(self.base_pairs, 1)
        self.order2_nats_per_bp, self.markov_nats_per_bp, self.best_nats_per_bp = per_bp.tolist()
        block = torch.stack([windows.genome, windows.contig, windows.start_bp // BLOCK_BP])
        self.block = torch.unique(block, dim=1, return_inverse=True)[1]

    @torch.no_grad()
    def __call__(
        self,
        ask: Callable[[PretrainBatch], Answers],
        device: torch.device,
        processes: Processes | None = None,
        *,
        bf16: bool = False,
    ) -> ValidationReport:
        """The report on the model behind `ask`, the same in every process. All processes run the same number
        of batches, as sharded models need; a window that is evaluated twice for this counts once."""
        processes = processes or Processes()
        count, world_size = len(self.known), processes.world_size
        mine = torch.arange(processes.rank, -(-count // world_size) * world_size, world_size)
        # correct order answers; for GC the count, sum, sum of squares and squared error; nats of each block
        sums = torch.zeros(5, dtype=torch.float64, device=device)
        nats = torch.zeros(int(self.block.max()) + 1, dtype=torch.float64, device=device)
        with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
            for orientation in (0, 1):
                for places in mine.split(self.batch_size):
                    once, places = places < count, places % count
                    batch = self.maker(self._windows(places, orientation)).to(device)
                    answers = ask(batch)
                    once = once.to(device)
                    sums[0] += ((answers.says_reversed == bool(orientation)) & once).sum()
                    if orientation == 0:
                        known = self.known[places].to(device) & once[:, None]
                        of_window = -torch.where(known, answers.log_probs.double(), 0.0).sum(dim=1)
                        nats.index_add_(0, self.block[places].to(device), of_window)
                        counted = batch.gc_mask & once
                        target, said = batch.gc_target.double()[counted], answers.gc.double()[counted]
                        moments = (counted, target, target.square(), (said - target).square())
                        sums[1:] += torch.stack([moment.sum().double() for moment in moments])
        shared = processes.sum(torch.cat([sums, nats]))
        right, *gc_sums = shared[: len(sums)].tolist()
        of_block = shared[len(sums) :].cpu().numpy()
        low, high = self._interval(of_block)
        total = float(of_block.sum()) / max(self.base_pairs, 1)
        return ValidationReport(
            windows=count,
            base_pairs=self.base_pairs,
            nats_per_bp=total,
            uniform_nats_per_bp=UNIFORM,
            markov_nats_per_bp=self.markov_nats_per_bp,
            markov_order=self.chains.usual_order,
            markov_fitted_bp=self.chains.chain.fitted_bp,
            order2_nats_per_bp=self.order2_nats_per_bp,
            best_markov_nats_per_bp=self.best_nats_per_bp,
            best_markov_order=self.chains.best_order,
            best_markov_pseudo=self.chains.best_pseudo,
            against_best=total - self.best_nats_per_bp,
            against_best_low=low,
            against_best_high=high,
            gc_r2=r2(*gc_sums),
            order_accuracy=right / (2 * count),
        )

    def _interval(self, nats_of_block: np.ndarray) -> tuple[float | None, float | None]:
        """The 95 % interval of nats_per_bp minus the best chain's, by drawing blocks with replacement."""
        count, block = len(nats_of_block), self.block.numpy()
        if count < 2 or not self.base_pairs:
            return None, None
        bases = np.bincount(block, self.known.sum(dim=1).double().numpy() * self.maker.vocabulary.k, count)
        difference = nats_of_block - np.bincount(block, self.chain_nats[:, 2], count)
        drawn = np.random.default_rng(0).integers(count, size=(RESAMPLES, count))
        means = difference[drawn].sum(axis=1) / np.maximum(bases[drawn].sum(axis=1), 1)
        low, high = np.percentile(means, [2.5, 97.5]).tolist()
        return low, high

    def _windows(self, places: torch.Tensor, orientation: int) -> Windows:
        genome = self.windows.genome[places]
        contig, start_bp = self.windows.contig[places], self.windows.start_bp[places]
        return Windows(genome, contig, start_bp, torch.full_like(genome, orientation))


def r2(count: float, total: float, squares: float, residual: float) -> float | None:
    """1 - residual / (squares - total^2 / count), from sums over the targets; None where the targets do not vary."""
    spread = squares - total**2 / count if count else 0.0
    # A variation below the rounding of the sums is no variation.
    return 1 - residual / spread if spread > 1e-12 * squares else None
