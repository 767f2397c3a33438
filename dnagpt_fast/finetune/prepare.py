"""Makes the encoded training, validation and test rows of a run from its settings and a vocabulary."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from dnagpt_fast.evaluation.tag_scores import tag_names
from dnagpt_fast.finetune.data.examples import (
    Examples,
    LabelError,
    class_of,
    find_classes,
    fit_length,
    target_values,
)
from dnagpt_fast.finetune.data.haplotypes import HaplotypePanel
from dnagpt_fast.finetune.data.sources import kind_of, read_examples, read_panel, read_tagged
from dnagpt_fast.finetune.data.splits import SPLITS, split_examples
from dnagpt_fast.finetune.language import Language, Standardisation
from dnagpt_fast.finetune.settings import FinetuneConfig
from dnagpt_fast.finetune.task_data import TaskData
from dnagpt_fast.finetune.templates import MANY_ANSWERS, TaskTemplate, answer_tokens, arrange_classes
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import Vocabulary, species_token

LOG_OFFSET = 0.1  # of the published target, log10(x + 0.1)
MOST_KINDS = (len(MANY_ANSWERS) - 1) // 2  # largest number of kinds of features to tag


@dataclass(frozen=True)
class Prepared:
    """The data of a run.

    sets     train, validation, test; empty sets are left out
    panel    generation from VCF or .haps: the haplotypes; panel_rows: their row numbers in each set
    hashes   SHA-256 of each file that was read
    counts   number of rows (and of each label) in each set, for the model card
    """

    language: Language
    sets: dict[str, TaskData]
    panel: HaplotypePanel | None = None
    panel_rows: dict[str, np.ndarray] = field(default_factory=dict)
    hashes: dict[str, str] = field(default_factory=dict)
    counts: dict[str, Any] = field(default_factory=dict)


def prepare(config: FinetuneConfig, vocabulary: Vocabulary, max_len: int) -> Prepared:
    """Reads, checks, splits and encodes. Raises LabelError, ConfigError, ValueError, FileNotFoundError."""
    task = config.task
    kind = task.kind
    numbers = len(config.data.number_columns)
    if numbers and kind != "regression":
        raise LabelError(f"data.number_columns is for regression; task.kind is {kind!r}")
    template = TaskTemplate(kind, species_token(task.species), vocabulary, numbers)
    if kind_of(Path(config.data.path)) == "haplotypes":
        return _prepare_haplotypes(config, template, max_len)
    longest = template.longest_bp(max_len)
    if kind == "tagging":
        examples = read_tagged(config.data, task.classes, k=vocabulary.k, longest_bp=longest)
    else:
        examples = read_examples(config.data, labelled=kind != "generation")
    rows = split_examples(
        examples,
        config.split.kind,
        shares=config.split.shares,
        block_bp=config.split.block_bp,
        seed=config.split.seed,
        drop_overlaps=config.split.drop_overlaps,
        drop_copies=config.split.drop_copies,
        held_out=config.split.held_out,
    )
    sets = {name: examples.take(index) for name, index in rows.items() if len(index)}
    if "validation" not in sets:
        raise LabelError(
            f"{examples.path}: no validation rows, which early stopping needs: assign rows to the validation set, or "
            f"change split.shares"
        )
    language = Language(template)
    if kind == "classification":
        language = _classes(config, template, sets)
    elif kind == "tagging":
        language = _tags(template, examples, sets)
    elif kind == "regression":
        values = _transformed(sets["train"], task.target_transform)
        _check_test_values(sets)
        scale = Standardisation.of(sets["train"].numbers, values)
        language = Language(template, standardisation=scale, target_transform=task.target_transform)
    encoded = {
        name: encode(
            fit_length(part, longest, config.data.on_long), language, config=config, weighted=name == "train"
        )
        for name, part in sets.items()
    }
    counts: dict[str, Any] = {}
    for name in SPLITS:
        part = sets.get(name)
        counts[name] = {"rows": 0 if part is None else len(part)}
        if kind == "classification" and part is not None:
            counts[name]["labels"] = dict(sorted(Counter(part.label or ()).items()))
        elif kind == "tagging" and part is not None:
            found = _tag_counts(part, len(language.classes)).tolist()
            counts[name]["labels"] = dict(zip(language.classes, found, strict=True))
    return Prepared(language, encoded, hashes=_hashes(config), counts=counts)


def _classes(config: FinetuneConfig, template: TaskTemplate, sets: dict[str, Examples]) -> Language:
    train = sets["train"]
    classes = config.task.classes or find_classes(train)
    if len(set(classes)) != len(classes):
        raise LabelError(f"task.classes names a class twice: {', '.join(classes)}")
    classes = arrange_classes(classes, config.task.positive)
    found = np.bincount(class_of(train, classes), minlength=len(classes))
    if (found == 0).any():
        raise LabelError(
            f"{train.path}: class {classes[int(np.argmin(found))]!r} is empty: no training row has it; change the "
            f"split, or take it out of task.classes"
        )
    if "test" in sets:
        tested = set(class_of(sets["test"], classes).tolist())
        missing = [name for i, name in enumerate(classes) if i not in tested]
        if missing:
            assert train.label is not None
            name = missing[0]
            raise LabelError(
                f"{train.where[train.label.index(name)]}: class {name!r} of this row is empty in the test set: change "
                f"the label if it is misspelt, or the split, or leave out the test rows"
            )
    return Language(template, classes, tuple(answer_tokens(template.vocabulary, len(classes))))


def _tags(template: TaskTemplate, examples: Examples, sets: dict[str, Examples]) -> Language:
    if len(examples.kinds) > MOST_KINDS:
        raise LabelError(
            f"{examples.path}: {len(examples.kinds)} kinds in task.classes: wanted up to {MOST_KINDS}, since each has "
            f"two tags, and there are {len(MANY_ANSWERS)} answers"
        )
    classes = tag_names(examples.kinds)
    for name in ("train", "test"):
        if name not in sets:
            continue
        found = _tag_counts(sets[name], len(classes))
        for kind, count in zip(examples.kinds, found[1::2] + found[2::2], strict=True):
            if count == 0:
                raise LabelError(
                    f"{examples.path}: no {name} window has a feature {kind!r}: change the split, for example by a "
                    f"smaller split.block_bp, or take the kind out of task.classes"
                )
    return Language(template, tuple(classes), tuple(answer_tokens(template.vocabulary, len(classes))))


def _tag_counts(examples: Examples, classes: int) -> np.ndarray:
    """int64 (classes,): the number of k-mers with each tag."""
    return np.bincount(np.concatenate(examples.tags or [np.zeros(0, np.int64)]), minlength=classes)


def _check_test_values(sets: dict[str, Examples]) -> None:
    """Raises LabelError, before any training, where the test rows (if any) cannot be scored."""
    if "test" in sets:
        values = target_values(sets["test"])
        if len(values) < 3 or np.ptp(values) == 0:
            raise LabelError(
                f"{sets['test'].where[0]}: {len(values)} test row(s) with labels from {values.min():g} to "
                f"{values.max():g}: wanted 3 or more that vary; change the split, or leave out the test rows"
            )


def encode(
    examples: Examples,
    language: Language,
    *,
    config: FinetuneConfig | None = None,
    weighted: bool = False,
    labelled: bool = True,
) -> TaskData:
    """The rows as model input, for training with class weights. Raises LabelError for labels that do not
    fit."""
    targets, weights, tag_weights = None, None, None
    kind = language.template.kind
    if labelled and kind == "classification":
        targets = class_of(examples, language.classes)
        if weighted and config is not None:
            found = np.bincount(targets, minlength=len(language.classes))
            weights = _class_weights(config, found)[targets]
    elif labelled and kind == "tagging" and weighted and config is not None:
        tag_weights = _class_weights(config, _tag_counts(examples, len(language.classes)))
    elif labelled and kind == "regression":
        assert language.standardisation is not None
        targets = language.standardisation.target(_transformed(examples, language.target_transform))
    vocabulary = language.template.vocabulary
    return TaskData(
        examples,
        language.template,
        KmerTokenizer.of(vocabulary),
        standardisation=language.standardisation,
        targets=targets,
        weights=weights,
        tag_weights=tag_weights,
    )


def _class_weights(config: FinetuneConfig, counts: np.ndarray) -> np.ndarray:
    """The weight of each class. counts: the number of rows (or k-mers) of each class."""
    given, classes = config.task.class_weights, len(counts)
    if given:
        if len(given) != classes or min(given) <= 0:
            raise LabelError(
                f"task.class_weights = {given}: wanted {classes} positive numbers, one for each class"
            )
        return np.array(given)
    if config.task.balanced:
        # a tag may not occur at all: features shorter than a k-mer have no I
        return counts.sum() / (classes * np.maximum(counts, 1))
    return np.ones(classes)


def _transformed(examples: Examples, how: str) -> np.ndarray:
    values = target_values(examples)
    if how == "none":
        return values
    low = values <= -LOG_OFFSET
    if low.any():
        first = int(np.argmax(low))
        raise LabelError(
            f"{examples.where[first]}: label {values[first]:g}: log10(x + {LOG_OFFSET}) needs x >= 0"
        )
    return np.log10(values + LOG_OFFSET)


def _prepare_haplotypes(config: FinetuneConfig, template: TaskTemplate, max_len: int) -> Prepared:
    if template.kind != "generation":
        raise LabelError(
            f"{config.data.path}: haplotypes are for task.kind = 'generation', not {template.kind!r}"
        )
    panel = read_panel(config.data)
    sites, longest = len(panel.position_bp), template.longest_bp(max_len)
    if sites > longest:
        raise LabelError(
            f"{panel.path}: {sites:,} variants, but this model takes at most {longest:,}: set data.max_sites, "
            f"data.region or data.min_allele_count"
        )
    if config.sampling.count == 1:
        raise LabelError(
            "sampling.count = 1: wanted 2 haplotypes or more, or 0 for as many as the test set has"
        )
    people = len(panel.names) // 2
    order = np.random.Generator(np.random.Philox(config.split.seed)).permutation(people)
    ends = np.round(np.cumsum(config.split.shares) * people).astype(int)
    if len(ends) != 3 or ends[2] != people or min(np.diff([0, *ends])) < 1:
        raise LabelError(f"{panel.path}: {people} people cannot be split as {config.split.shares}")
    texts = panel.texts()
    sets, rows = {}, {}
    for name, chosen in zip(SPLITS, np.split(order, ends[:2]), strict=True):
        at = np.sort(np.concatenate([2 * chosen, 2 * chosen + 1]))
        rows[name] = at
        if name == "test" and (panel.alleles[at] == panel.alleles[at[0]]).all():
            raise LabelError(
                f"{panel.path}: the {len(at)} haplotypes of the test set are all the same at these {sites} variants: "
                f"set another split.seed, or use more people or variants"
            )
        examples = Examples(
            path=panel.path,
            where=[f"{panel.path}: haplotype {panel.names[i]}" for i in at],
            sequence=[texts[i] for i in at],
            label=None,
            numbers=np.zeros((len(at), 0)),
        )
        sets[name] = encode(examples, Language(template), labelled=False)
    counts = {name: {"rows": len(at), "variants": sites} for name, at in rows.items()}
    return Prepared(Language(template), sets, panel, rows, _hashes(config), counts)


def _hashes(config: FinetuneConfig) -> dict[str, str]:
    names = (config.data.path, config.data.genome)
    return {Path(name).name: sha256_of(name) for name in names if name}
