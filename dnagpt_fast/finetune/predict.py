"""Predictions of a fine-tuned model for new sequences."""

from pathlib import Path
from typing import Any

from dnagpt_fast.finetune.data.examples import fit_length
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
from dnagpt_fast.ops.traits import refuse_products
from dnagpt_fast.output_files import refuse_inputs
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
    longest, tags = language.template.longest_bp(model.max_len), language.template.kind == "tagging"
    if tags:
        examples = window_sequences(examples, language.template, longest)
    else:
        examples = fit_length(examples, longest, data.on_long)
    where = pick_device(device, what="device")
    model = use_products(model.to(where), products)
    losses = TaskLosses(model, language.template.kind, language.answers).to(where)
    rows = encode(examples, language, labelled=False)
    if tags:
        spans = predicted_spans(examples, predict_tags(losses, rows, batch_size, where), language)
        write_spans(output, spans)
        return spans, language
    found = predict_rows(losses, rows, language, batch_size, where, labelled=False)
    write_predictions(output, found, language)
    return found, language
