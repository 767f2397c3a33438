"""Predicted tags of k-mers: spans of the sequences, tables of them, and their scores."""

from collections.abc import Callable, Iterator, Sequence
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
from dnagpt_fast.plot_style import VECTOR

OUTSIDE = "O"


@dataclass(frozen=True)
class Span:
    """An interval of one kind: [start_bp, end_bp) of a contig on the forward strand, or of a sequence without
    a place."""

    contig: str
    start_bp: int
    end_bp: int
    strand: str
    kind: str


@dataclass(frozen=True)
class TaggedSpans:
    """The spans that a model predicts in n windows.

    spans          in the order of the sequences
    probabilities  float64, one per span: the mean probability of the tags of its k-mers
    where          the places of the spans, `contig:start_bp-end_bp`
    """

    spans: list[Span]
    probabilities: np.ndarray

    @property
    def where(self) -> list[str]:
        return [f"{span.contig}:{span.start_bp}-{span.end_bp}" for span in self.spans]


def window_sequences(examples: Examples, template: TaskTemplate, longest_bp: int) -> Examples:
    """Divides sequences into adjacent windows that the model takes, each with its place: in the genome if
    that is known, otherwise in the sequence, which is then named by its place in the file."""
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
    losses: TaskLosses,
    data: TaskData,
    batch_size: int,
    device: torch.device,
    progress: Callable[[int], object] = lambda rows: None,
) -> list[np.ndarray]:
    """Probabilities float64 (k-mers, classes) of each row. progress: called with the number of rows done since the last
    call."""
    found: list[np.ndarray] = [np.empty(0)] * len(data)
    # a padded row differs in the last bits, which rounded products would enlarge
    equal = losses.model.products != "float32"
    for batch in data.in_order_of_length(batch_size, equal=equal):
        values = losses.predict(batch.to(device)).double().cpu().numpy()
        for row, value in zip(batch.row.tolist(), values, strict=True):
            found[row] = value[1 : data.length[row]]
        progress(len(batch.row))
    return found


def spans_of(
    examples: Examples,
    tags: Sequence[np.ndarray],
    language: Language,
    values: Sequence[np.ndarray] | None = None,
) -> TaggedSpans:
    """The spans in the tags of rows; adjacent windows are read as one.

    values  (k-mers,) of each row; their mean over a span's k-mers is the probability of the span; None: 1
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
    """The spans of the most likely tags. found: probabilities (k-mers, classes) of each row."""
    return spans_of(examples, [p.argmax(1) for p in found], language, [p.max(1, initial=0) for p in found])


def tag_kinds(language: Language) -> list[str]:
    """The kinds of features in the classes of a tagging task."""
    return [name.removeprefix("B-") for name in language.classes[1::2]]


def write_spans(path: Path, found: TaggedSpans, truth: TaggedSpans | None = None) -> None:
    """Writes a table of spans: contig (or the sequence's place in its file), start_bp, end_bp, strand, the
    label if known, the predicted kind, its probability. With labels, a span that is only true or only
    predicted is O in the other column."""
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
    """The scores of labelled rows; also writes `predictions.tsv` and the figures `test.png` and
    `test.svg` into the folder."""
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
    plots.plot_tags(folder / "test.png", counts, scores, language.classes, beside=(VECTOR,))
    return scores


def _place(span: Span) -> tuple[str, int, int, str]:
    return span.contig, span.start_bp, span.end_bp, span.strand


def _runs(loci: Loci, k: int) -> Iterator[list[int]]:
    """Groups of rows, in their order: adjacent windows, each of which starts at a k-mer border where the
    previous ends."""
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
