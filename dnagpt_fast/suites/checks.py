"""What is looked at in labelled sequences before anything runs: copies across the split, classes, lengths, N, and
overlap with a model's recorded training ranges."""

from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from dnagpt_fast.finetune.data.examples import Examples, Loci
from dnagpt_fast.finetune.data.near_copies import copies
from dnagpt_fast.finetune.data.splits import overlapping
from dnagpt_fast.genome.regions import contig_key


def describe(sets: Mapping[str, Examples]) -> dict[str, Any]:
    """Rows, classes, lengths and share of N of each part."""
    found: dict[str, Any] = {}
    for name, rows in sets.items():
        lengths = np.array([len(text) for text in rows.sequence])
        found[name] = {
            "rows": len(rows),
            "classes": dict(sorted(Counter(rows.label or ()).items())),
            "length_bp": [int(lengths.min()), float(np.median(lengths)), int(lengths.max())],
            "n_share": float(sum(text.count("N") for text in rows.sequence) / lengths.sum()),
        }
    return found


def leaks(sets: Mapping[str, Examples], held: str = "test") -> tuple[dict[str, Any], list[str]]:
    """(Counts, sentences) about the rows of `held` that have a copy in another part."""
    counts: dict[str, Any] = {}
    said = []
    for name, rows in sets.items():
        if name == held or held not in sets:
            continue
        same, near = copies(sets[held].sequence, rows.sequence)
        counts[f"{held}_in_{name}"] = {"identical": int(same.sum()), "near": int(near.sum())}
        if near.any():
            first = sets[held].where[int(np.argmax(near))]
            said.append(
                f"{near.sum():,} of {len(near):,} {held} rows have a near copy in {name} ({same.sum():,} identical; "
                f"first: {first}): scores on them may be too good"
            )
    return counts, said


def overlaps(sets: Mapping[str, Examples]) -> list[str]:
    """A sentence about test windows that overlap a window of another part in the genome."""
    said = []
    test = sets["test"]
    for name, rows in sets.items():
        if name == "test" or test.loci is None or rows.loci is None:
            continue
        both = Loci(
            [*test.loci.contig, *rows.loci.contig],
            np.concatenate([test.loci.start_bp, rows.loci.start_bp]),
            np.concatenate([test.loci.end_bp, rows.loci.end_bp]),
            [*test.loci.strand, *rows.loci.strand],
        )
        mine = np.arange(len(test))
        found = overlapping(both, mine, np.arange(len(test), len(test) + len(rows)))
        if found.any():
            said.append(
                f"{found.sum():,} of {len(test):,} test windows overlap a window of {name} in the genome"
            )
    return said


def balance(sets: Mapping[str, Examples]) -> list[str]:
    """Sentences about classes that are rare, and about N."""
    said = []
    for name, part in describe(sets).items():
        sizes = part["classes"]
        if sizes and min(sizes.values()) < 20:
            rare = min(sizes, key=sizes.__getitem__)
            said.append(
                f"{name} has {sizes[rare]} row(s) of class {rare!r}: scores that need it are uncertain"
            )
        if part["n_share"] > 0.01:
            said.append(f"{part['n_share']:.1%} of the bases of {name} are N")
    return said


def seen_in_training(loci: Loci | None, record: Iterable[Mapping[str, Any]]) -> str:
    """One sentence about how many test rows overlap the ranges that a model's training record names."""
    record = list(record)
    if not record:
        return "the model has no record of its training ranges"
    if loci is None:
        return "the data have no positions: overlap with the training ranges cannot be seen"
    held: dict[str, list[tuple[int, int]]] = {}
    for genome in record:
        for text in genome.get("held_out", []):
            contig, _, span = str(text).rpartition(":")
            start, _, end = span.partition("-")
            if contig and start.isdigit() and end.isdigit():
                held.setdefault(contig_key(contig), []).append((int(start), int(end)))
    outside = 0
    named = 0
    for contig, start, end in zip(loci.contig, loci.start_bp.tolist(), loci.end_bp.tolist(), strict=True):
        if contig_key(contig) not in held:
            continue
        named += 1
        outside += not any(low <= start and end <= high for low, high in held[contig_key(contig)])
    if not named:
        return "no contig of the data is named in the model's training record"
    if not outside:
        return f"all {len(loci.contig):,} test rows are inside the ranges that the model's training held out"
    return (
        f"{outside:,} of {len(loci.contig):,} test rows are outside the ranges that the model's training held out: it "
        f"has read their sequence, without labels"
    )
