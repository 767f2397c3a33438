"""Tags of k-mers: what a fine-tuned model says at each of them, as spans of the sequence, and how good they are."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch

from dnagpt_fast.evaluation import plots
from dnagpt_fast.evaluation.scores import Score
from dnagpt_fast.evaluation.tag_scores import confusion_counts, find_spans, tag_scores
from dnagpt_fast.finetune.data.examples import Examples, Loci
from dnagpt_fast.finetune.data.tables import write_rows
from dnagpt_fast.finetune.language import Language
from dnagpt_fast.finetune.task_data import TaskData
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.finetune.templates import TaskTemplate

OUTSIDE = "O"


@dataclass(frozen=True)
class Span:
    """A stretch of one kind: [start_bp, end_bp) of a contig on the forward strand, or of a sequence without a place."""

    contig: str
    start_bp: int
    end_bp: int
    strand: str
    kind: str


@dataclass(frozen=True)
class TaggedSpans:
    """What a model found in n windows.

    spans          in the order of the sequences
    probabilities  float64 of each span: the mean over its k-mers of the probability of their tags
    where          the spans' places, as `contig:start_bp-end_bp`
    """

    spans: list[Span]
    probabilities: np.ndarray

    @property
    def where(self) -> list[str]:
        return [f"{span.contig}:{span.start_bp}-{span.end_bp}" for span in self.spans]


def window_sequences(examples: Examples, template: TaskTemplate, longest_bp: int) -> Examples:
    """Sequences cut end to end into windows that the model takes, each with its place: in the genome where that is
    known, otherwise in the sequence, which is then named by its own place in the file."""
    k = template.vocabulary.k
    longest_bp = longest_bp // k * k
    loci = examples.loci
    row, texts, bounds = [], [], []
    for i, sequence in enumerate(examples.sequence):
        usable = template.usable(sequence)
        for start in range(0, len(usable), longest_bp) or (0,):
            text = usable[start : start + longest_bp]
            row.append(i)
            texts.append(text)
            if loci is not None and loci.strand[i] == "-":
                end = int(loci.end_bp[i]) - start
                bounds.append((end - len(text), end))
            else:
                begin = start if loci is None else int(loci.start_bp[i]) + start
                bounds.append((begin, begin + len(text)))
    cut = examples.take(row)
    at = np.array(bounds, np.int64)
    place = Loci(
        cut.where if cut.loci is None else cut.loci.contig,
        at[:, 0].copy(),
        at[:, 1].copy(),
        ["+"] * len(row) if cut.loci is None else cut.loci.strand,
    )
    return replace(cut, sequence=texts, loci=place)


@torch.no_grad()
def predict_tags(
    losses: TaskLosses, data: TaskData, batch_size: int, device: torch.device
) -> list[np.ndarray]:
    """Probabilities float64 (k-mers, classes) of each row."""
    found: list[np.ndarray] = [np.empty(0)] * len(data)
    for batch in data.in_order_of_length(batch_size):
        values = losses.predict(batch.to(device)).double().cpu().numpy()
        for row, value in zip(batch.row.tolist(), values, strict=True):
            found[row] = value[1 : data.length[row]]
    return found


def spans_of(
    examples: Examples,
    tags: Sequence[np.ndarray],
    language: Language,
    values: Sequence[np.ndarray] | None = None,
) -> TaggedSpans:
    """The spans in the tags of rows; windows that follow on one another are read as one.

    values  of each row (k-mers,), whose means over the spans' k-mers are their probabilities; None: 1
    """
    kinds, k = tag_kinds(language), language.template.vocabulary.k
    loci = examples.loci
    assert loci is not None
    spans, means = [], []
    for run in _runs(loci, k):
        joined = np.concatenate([tags[i] for i in run])
        value = np.ones(len(joined)) if values is None else np.concatenate([values[i] for i in run])
        first, last = run[0], run[-1]
        backward = loci.strand[first] == "-"
        low, high = (last, first) if backward else (first, last)
        begin_bp, end_bp = int(loci.start_bp[low]), int(loci.end_bp[high])
        for begin, end, kind in find_spans(joined).tolist():
            # the last k-mer of a sequence may be shorter
            near, far = begin * k, min(end * k, end_bp - begin_bp)
            bounds = (end_bp - far, end_bp - near) if backward else (begin_bp + near, begin_bp + far)
            spans.append(Span(loci.contig[first], *bounds, loci.strand[first], kinds[kind]))
            means.append(float(value[begin:end].mean()))
    return TaggedSpans(spans, np.array(means))


def predicted_spans(examples: Examples, found: Sequence[np.ndarray], language: Language) -> TaggedSpans:
    """found: probabilities (k-mers, classes) of each row, of which the highest is the tag."""
    return spans_of(examples, [p.argmax(1) for p in found], language, [p.max(1, initial=0) for p in found])


def tag_kinds(language: Language) -> list[str]:
    """The kinds of features that the classes of a tagging are about."""
    return [name.removeprefix("B-") for name in language.classes[1::2]]


def write_spans(path: Path, found: TaggedSpans, truth: TaggedSpans | None = None) -> None:
    """A table of spans: contig (or the sequence's place in its file), start_bp, end_bp, strand, the label if known, the
    answer, its probability. A span that is only in one of them is O in the other."""
    answers = {
        _place(span): (span.kind, f"{p:.6g}")
        for span, p in zip(found.spans, found.probabilities, strict=True)
    }
    labels = {} if truth is None else {_place(span): span.kind for span in truth.spans}
    rows = []
    for place in sorted(answers.keys() | labels.keys()) if truth is not None else answers:
        label = [] if truth is None else [labels.get(place, OUTSIDE)]
        rows.append([*place, *label, *answers.get(place, (OUTSIDE, ""))])
    known = ["label"] if truth is not None else []
    write_rows(path, ["contig", "start_bp", "end_bp", "strand", *known, "predicted", "probability"], rows)


def report_tags(
    losses: TaskLosses,
    data: TaskData,
    language: Language,
    batch_size: int,
    device: torch.device,
    folder: Path,
    *,
    seed: int,
) -> dict[str, Score]:
    """The scores of labelled rows; writes `predictions.tsv` and the figure `test.png` into the folder."""
    truth = data.examples.tags
    assert truth is not None
    found = predict_tags(losses, data, batch_size, device)
    write_spans(
        folder / "predictions.tsv",
        predicted_spans(data.examples, found, language),
        spans_of(data.examples, truth, language),
    )
    guess = [p.argmax(1) for p in found]
    scores = tag_scores(truth, guess, tag_kinds(language), seed=seed)
    counts = confusion_counts(np.concatenate(truth), np.concatenate(guess), len(language.classes))
    plots.plot_tags(folder / "test.png", counts, scores, language.classes)
    return scores


def _place(span: Span) -> tuple[str, int, int, str]:
    return span.contig, span.start_bp, span.end_bp, span.strand


def _runs(loci: Loci, k: int) -> Iterator[list[int]]:
    """Rows, in their order, of windows each of which begins where the one before it ends, with a whole k-mer."""
    run: list[int] = []
    for i in range(len(loci.contig)):
        if run:
            before = run[-1]
            backward = loci.strand[i] == "-"
            follows = (
                loci.end_bp[i] == loci.start_bp[before]
                if backward
                else loci.start_bp[i] == loci.end_bp[before]
            )
            same = loci.contig[i] == loci.contig[before] and loci.strand[i] == loci.strand[before]
            if not (follows and same) or (loci.end_bp[before] - loci.start_bp[before]) % k:
                yield run
                run = []
        run.append(i)
    if run:
        yield run
