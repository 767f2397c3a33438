"""Splits into training, validation and test sets: by block of the chromosome, by a column, or at random, with
a warning that counts overlaps."""

import logging
from collections.abc import Sequence

import numpy as np

from dnagpt_fast.finetune.data.examples import Examples, LabelError, Loci
from dnagpt_fast.finetune.data.near_copies import copies
from dnagpt_fast.genome.regions import contig_key, parse_range

logger = logging.getLogger(__name__)

SPLITS = ("train", "validation", "test")
KINDS = ("column", "block", "random")
_ALIASES = {"valid": "validation", "val": "validation", "dev": "validation", "training": "train"}


def split_examples(
    examples: Examples,
    kind: str,
    *,
    shares: Sequence[float] = (0.7, 0.1, 0.2),
    block_bp: int = 1_000_000,
    seed: int = 0,
    drop_overlaps: bool = True,
    drop_copies: bool = False,
    held_out: Sequence[str] = (),
) -> dict[str, np.ndarray]:
    """Row numbers of `train`, `validation` and `test`, int64, ascending.

    kind           "column": from the file's split column; "block": contigs are divided into blocks of
                   block_bp, each block belongs to one set, and a window belongs to the block of its middle;
                   "random"
    shares         of the three sets, for "block" (of the blocks) and "random" (of the rows)
    drop_overlaps  for "block": training windows that overlap a window of another set are left out
    drop_copies    near copies (data/near_copies.py) of a row of another set are left out: training rows, and
                   validation rows with a copy among the test rows
    held_out       for "block": as in `blocks_to_sets`
    Warnings count the training windows that overlap a window of another set, and the training sequences that
    are also in another set. Rows that are windows of one sequence stay together. Raises LabelError if the
    file lacks the information, ValueError.
    """
    if kind not in KINDS:
        raise ValueError(f"split.kind = {kind!r}: wanted one of {', '.join(KINDS)}")
    if len(shares) != 3 or min(shares) < 0 or not np.isclose(sum(shares), 1):
        raise ValueError(f"split.shares = {tuple(shares)}: wanted three of 0 or more that add up to 1")
    if kind == "column":
        which = _by_column(examples)
    elif kind == "block":
        which = _by_block(examples, shares, block_bp, seed, held_out)
    else:
        which = _at_random(examples, shares, seed)
    sets = {name: np.nonzero(which == i)[0] for i, name in enumerate(SPLITS)}
    sets = _without_overlaps(examples, sets, drop=drop_overlaps and kind == "block")
    if drop_copies:
        sets = without_copies(examples.sequence, sets)
    if not len(sets["train"]):
        raise LabelError(f"{examples.path}: the split leaves no rows for training")
    return sets


def _by_column(examples: Examples) -> np.ndarray:
    if examples.split is None:
        raise LabelError(
            f"{examples.path} has no split column: name it in data.split_column, or set split.kind = 'block' (of the "
            f"chromosome) or 'random'"
        )
    which = np.empty(len(examples), np.int64)
    for i, text in enumerate(examples.split):
        name = _ALIASES.get(text.lower(), text.lower())
        if name not in SPLITS:
            raise LabelError(f"{examples.where[i]}: split {text!r}: wanted {', '.join(SPLITS)}")
        which[i] = SPLITS.index(name)
    return which


def _by_block(
    examples: Examples, shares: Sequence[float], block_bp: int, seed: int, held_out: Sequence[str]
) -> np.ndarray:
    if examples.loci is None:
        raise LabelError(
            f"{examples.path} has no positions of its sequences: give columns contig, start_bp, end_bp, or set "
            f"split.kind = 'column' or 'random'"
        )
    return blocks_to_sets(examples.loci, shares, block_bp, seed, held_out)


def blocks_to_sets(
    loci: Loci, shares: Sequence[float], block_bp: int, seed: int, held_out: Sequence[str] = ()
) -> np.ndarray:
    """int64 (n,), indices into SPLITS: blocks in shuffled order fill test, then validation, then training.

    The shares of the windows are as close as whole blocks allow. held_out: ranges, `contig:start_bp-end_bp`, that
    the start model's training left out; validation and test windows are then inside these ranges, and only blocks
    whose windows have their middles there are held out. Raises LabelError if a set would be empty.
    """
    if block_bp < 1:
        raise ValueError(f"split.block_bp = {block_bp}: wanted 1 or more")
    middle = (loci.start_bp + loci.end_bp) // 2
    keys = list(zip(loci.contig, (middle // block_bp).tolist(), strict=True))
    blocks = sorted(set(keys))
    counts = dict.fromkeys(blocks, 0)
    for key in keys:
        counts[key] += 1
    seen: set[tuple[str, int]] = set()
    inside = np.ones(len(keys), bool)
    if held_out:
        inside = within(loci, held_out)
        seen = {key for key, new in zip(keys, _middles_within(loci, held_out), strict=True) if not new}
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(blocks))
    goal = {2: shares[2] * len(keys), 1: shares[1] * len(keys)}
    set_of: dict[tuple[str, int], int] = {}
    filled = {2: 0, 1: 0}
    for i in order.tolist():
        open_sets = [s for s in (2, 1) if filled[s] + counts[blocks[i]] / 2 <= goal[s] and goal[s] > 0]
        if blocks[i] in seen:
            open_sets = []
        chosen = open_sets[0] if open_sets else 0
        set_of[blocks[i]] = chosen
        if chosen:
            filled[chosen] += counts[blocks[i]]
    # a window over the end of a range was partly seen: it is for training, where no held-out window overlaps it
    which = np.where(inside, np.array([set_of[key] for key in keys]), 0)
    for i, name in enumerate(SPLITS):
        if shares[i] > 0 and not (which == i).any():
            raise LabelError(
                f"{len(blocks)} block(s) of {block_bp:,} bp leave no rows for {name}: set a smaller split.block_bp"
                + (", or give more ranges in split.held_out" if held_out else "")
            )
    return which


def within(loci: Loci, ranges: Sequence[str]) -> np.ndarray:
    """bool (n,): whether a window is inside one of the ranges `contig:start_bp-end_bp`. Raises RegionError."""
    found = np.zeros(len(loci.contig), bool)
    contig = np.array([contig_key(name) for name in loci.contig], dtype=object)
    for text in ranges:
        name, start_bp, end_bp = parse_range(text, "split.held_out")
        end_bp = 1 << 62 if end_bp is None else end_bp
        found |= (contig == contig_key(name)) & (loci.start_bp >= start_bp) & (loci.end_bp <= end_bp)
    return found


def _middles_within(loci: Loci, ranges: Sequence[str]) -> np.ndarray:
    middle = (loci.start_bp + loci.end_bp) // 2
    return within(Loci(loci.contig, middle, middle + 1, loci.strand), ranges)


def without_copies(sequence: Sequence[str], sets: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The rows without near copies of a row of another set: of training rows and of validation rows those are kept
    that have none in the sets after them. A warning counts the others."""
    left, later = dict(sets), sets["test"]
    for name in ("validation", "train"):
        rows = sets[name]
        if len(rows) and len(later):
            near = copies([sequence[i] for i in rows], [sequence[i] for i in later])[1]
            if near.any():
                logger.warning(
                    "left out %d of %d %s row(s) that are near copies of a held-out one",
                    near.sum(),
                    len(rows),
                    name,
                )
            left[name] = rows[~near]
        later = np.concatenate([later, left[name]])
    return left


def _at_random(examples: Examples, shares: Sequence[float], seed: int) -> np.ndarray:
    parents, of_row = np.unique(examples.parent, return_inverse=True)
    order = np.random.Generator(np.random.Philox(seed)).permutation(len(parents))
    ends = np.round(np.cumsum(shares) * len(parents)).astype(int)
    which = np.empty(len(parents), np.int64)
    which[order] = np.searchsorted(ends, np.arange(len(parents)), side="right")
    return which[of_row]


def _without_overlaps(
    examples: Examples, sets: dict[str, np.ndarray], *, drop: bool
) -> dict[str, np.ndarray]:
    others = np.concatenate([sets["validation"], sets["test"]])
    train = sets["train"]
    if examples.loci is not None:
        leaking = overlapping(examples.loci, train, others)
        if leaking.any() and drop:
            logger.warning("left out %d training window(s) that overlap a held-out one", leaking.sum())
            train = train[~leaking]
        elif leaking.any():
            logger.warning(
                "%d of %d training windows overlap a validation or test window: the scores will be too good; "
                "set split.kind = 'block'",
                leaking.sum(),
                len(train),
            )
    held_out = {examples.sequence[i] for i in others}
    same = sum(examples.sequence[i] in held_out for i in train)
    if same:
        logger.warning("%d of %d training sequences are also in the validation or test set", same, len(train))
    return {**sets, "train": train}


def overlapping(loci: Loci, rows: np.ndarray, others: np.ndarray) -> np.ndarray:
    """bool (len(rows),): whether the window overlaps one of the windows `others`, on either strand."""
    found = np.zeros(len(rows), bool)
    contig = np.array(loci.contig, dtype=object)
    for name in set(contig[rows]) & set(contig[others]) if len(rows) and len(others) else ():
        mine, theirs = np.nonzero(contig[rows] == name)[0], others[contig[others] == name]
        order = np.argsort(loci.start_bp[theirs], kind="stable")
        starts = loci.start_bp[theirs][order]
        # for each window the farthest end of all windows that start no later
        reach = np.maximum.accumulate(loci.end_bp[theirs][order])
        before = np.searchsorted(starts, loci.end_bp[rows[mine]], side="left") - 1
        found[mine] = (before >= 0) & (reach[np.maximum(before, 0)] > loci.start_bp[rows[mine]])
    return found
