"""Predictions of a fine-tuned model for new sequences."""

from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnagpt_fast.finetune.data.examples import Examples, clean_sequences, fit_length
from dnagpt_fast.finetune.data.settings import LabelledDataSettings
from dnagpt_fast.finetune.data.sources import read_examples
from dnagpt_fast.finetune.data.tables import delimiter
from dnagpt_fast.finetune.language import Language
from dnagpt_fast.finetune.prepare import encode
from dnagpt_fast.finetune.report import Predictions, predict_rows, write_predictions
from dnagpt_fast.finetune.settings import ConfigError, FinetuneConfig
from dnagpt_fast.finetune.tagging import (
    TaggedSpans,
    predict_tags,
    predicted_spans,
    window_sequences,
    write_spans,
)
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.json_files import read_json
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.products import use_products
from dnagpt_fast.model.sequences import Source, sequences_of, text_of
from dnagpt_fast.ops.traits import refuse_products
from dnagpt_fast.output_files import refuse_inputs
from dnagpt_fast.progress import counting
from dnagpt_fast.training.devices import pick_device
from dnagpt_fast.training.run_folder import part_of
from dnagpt_fast.training.settings import from_tree
from dnagpt_fast.weights.forms import WEIGHTS, load_folder


def is_finetuned(path: Path) -> bool:
    """True for a folder that a fine-tuning run wrote."""
    config = path / "config.json"
    return (path / "run-0").is_dir() or (config.is_file() and read_json(config).get("kind") == "finetune")


def load_finetuned(run: Path) -> tuple[DNAGPT, Language, dict[str, Any]]:
    """The best model of a fine-tuning run (eval mode, CPU), its language and its record.

    Raises ConfigError for a folder that is not a fine-tuning run, CheckpointError for damaged files."""
    path = run / "config.json"
    if (run / "run-0").is_dir():
        raise ConfigError(f"{run} holds several runs: choose one of them, such as {run / 'run-0'}")
    if not path.is_file() or not (run / WEIGHTS).is_file():
        raise ConfigError(
            f"{run} holds no finished epoch of a fine-tuning run: config.json or {WEIGHTS} is missing"
        )
    kind = read_json(path).get("kind")
    if kind != "finetune":
        raise ConfigError(f"{run} is a run of {kind or 'something else'}, not of fine-tuning")
    model, tokenizer, record = load_folder(run)
    try:
        language = Language.from_dict(record["language"], tokenizer.vocabulary)
    except (KeyError, TypeError, AttributeError, ValueError) as error:
        raise ConfigError(
            f"{path}: the entry 'language' of a fine-tuning run cannot be read: {error!r}"
        ) from error
    return model, language, record


def predict_sequences(
    run: str | Path,
    sequences: Iterable[Source],
    *,
    numbers: Any = None,
    device: str = "auto",
    batch_size: int = 32,
    products: str = "float32",
) -> Predictions:
    """Predictions of a fine-tuned classifier or regression for sequences in memory, in order.

    run        the folder of the run
    sequences  as of `embed`: text, ranges of a genome, a column of a table and so on
    numbers    (n, m), the side inputs of a model that was tuned with numbers, in the order of data.number_columns
    products   as of `predict`

    Returns `values`, float64: probabilities (n, C) in the order of `classes`, or values (n,). Sequences longer than the
    model reads are treated as data.on_long of the run says. Raises ConfigError for a run of another kind, LabelError
    (a ValueError) for a sequence that cannot be used, TypeError for what is none; both name the row.
    """
    run = Path(run)
    refuse_products(products)
    model, language, record = load_finetuned(run)
    if language.template.kind not in ("classification", "regression"):
        raise ConfigError(
            f"{run} was tuned for {language.template.kind}: wanted classification or regression; "
            "`dnagpt_fast.finetune.predict` reads files for tagging"
        )
    path = run / "config.json"
    settings = from_tree(FinetuneConfig, part_of(record, "settings", dict, path), str(path)).data
    texts = [text_of(source) for _, source in sequences_of(sequences)]
    where = [f"sequences[{row}]" for row in range(len(texts))]
    side = np.zeros((len(texts), 0)) if numbers is None else np.asarray(numbers, np.float64)
    if side.shape != (len(texts), language.template.numbers):
        raise ConfigError(
            f"numbers is {side.shape}: wanted {(len(texts), language.template.numbers)}, a row for each sequence with "
            f"{list(settings.number_columns)}"
        )
    found = Predictions([], np.zeros((0, len(language.classes)) if language.classes else 0), None)
    if texts:
        cleaned = clean_sequences(texts, where, settings.on_lower_case)
        examples = Examples(Path("sequences"), where, cleaned, None, side, tuple(settings.number_columns))
        found = _predictions(model, language, examples, settings.on_long, device, batch_size, products)
    return replace(found, classes=language.classes)


def predict(
    run: Path,
    data: LabelledDataSettings | None,
    output: Path,
    *,
    device: str = "auto",
    batch_size: int = 32,
    products: str = "float32",
) -> tuple[Predictions | TaggedSpans, Language]:
    """Predicts new sequences and writes the table `output` (.tsv or .csv): one row for each sequence, or for each span
    that a tagging model finds in them.

    data      the file of sequences and its columns; None: those of the training run. Labels are not read.
    products  float32, or bfloat16 or int8 for the matrix products on the CPU: model/products.py
    Raises ConfigError, LabelError, FileNotFoundError, ValueError for another suffix of `output`.
    """
    delimiter(output)
    refuse_products(products)
    model, language, record = load_finetuned(run)
    if language.template.kind == "generation":
        raise ConfigError(
            f"{run} was tuned for generation, which has no predictions: use `dnagpt-fast generate {run}`, or for "
            f"haplotypes `dnagpt-fast finetune --resume --out {run} --set sampling.count=...`"
        )
    path = run / "config.json"
    settings = from_tree(FinetuneConfig, part_of(record, "settings", dict, path), str(path)).data
    if data is None:
        data = settings
    if len(data.number_columns) != language.template.numbers:
        raise ConfigError(
            f"data.number_columns = {data.number_columns}: by {path}, the model was tuned with "
            f"{language.template.numbers} numbers, {settings.number_columns}"
        )
    refuse_inputs(output, data.path, data.genome)
    examples = read_examples(data, labelled=False)
    if language.template.kind == "tagging":
        examples = window_sequences(examples, language.template, language.template.longest_bp(model.max_len))
        where, losses = _losses(model, language, device, products)
        rows = encode(examples, language, labelled=False)
        with counting(len(rows), "row", "rows/s") as progress:
            tagged = predict_tags(losses, rows, batch_size, where, progress)
        spans = predicted_spans(examples, tagged, language)
        write_spans(output, spans)
        return spans, language
    found = _predictions(model, language, examples, data.on_long, device, batch_size, products)
    write_predictions(output, found, language)
    return found, language


def _predictions(
    model: DNAGPT,
    language: Language,
    examples: Examples,
    on_long: str,
    device: str,
    batch_size: int,
    products: str,
) -> Predictions:
    examples = fit_length(examples, language.template.longest_bp(model.max_len), on_long)
    where, losses = _losses(model, language, device, products)
    rows = encode(examples, language, labelled=False)
    with counting(len(rows), "row", "rows/s") as progress:
        return predict_rows(losses, rows, language, batch_size, where, labelled=False, progress=progress)


def _losses(model: DNAGPT, language: Language, device: str, products: str) -> tuple[torch.device, TaskLosses]:
    where = pick_device(device, what="device")
    model = use_products(model.to(where), products)
    return where, TaskLosses(model, language.template.kind, language.answers).to(where)
