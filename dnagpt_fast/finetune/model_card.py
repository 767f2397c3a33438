"""RUN/README.md, the model card: the model, its training data, its scores and its settings."""

import json
from pathlib import Path
from typing import Any

from dnagpt_fast.output_files import write_text

PICTURES = {
    "test.png": "Predictions of the test rows",
    "haplotypes.png": "Generated haplotypes beside real ones",
    "loss.png": "Loss of training and validation",
}
PIPELINES = {
    "classification": "text-classification",
    "regression": "text-classification",
    "tagging": "token-classification",
    "generation": "text-generation",
}


def _head(run: Path, record: dict[str, Any], results: dict[str, Any]) -> list[str]:
    """The YAML that the Hugging Face Hub reads (https://huggingface.co/docs/hub/model-cards). Values are JSON, which is
    YAML too."""
    settings, kind = record["settings"], record["language"]["kind"]
    scores = {name: value[0] if isinstance(value, list) else value for name, value in results["test"].items()}
    task = {"type": PIPELINES[kind], "name": kind}
    data = Path(settings["data"]["path"]).name
    found = {
        "task": task,
        "dataset": {"name": data, "type": data, "split": "test"},
        "metrics": [{"type": name, "name": name, "value": value} for name, value in scores.items()],
    }
    head: dict[str, Any] = {
        "library_name": "dnagpt-fast",
        "pipeline_tag": PIPELINES[kind],
        "tags": ["dna", "genomics", "biology", "dnagpt", kind],
    }
    if scores:
        head["model-index"] = [{"name": run.resolve().name, "results": [found]}]
    return ["---", *(f"{key}: {json.dumps(value)}" for key, value in head.items()), "---", ""]


def without_folders(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings whose files have their names only: the folders of one computer say nothing to others."""

    def shown(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: shown(one) for key, one in value.items()}
        if isinstance(value, list):
            return [shown(one) for one in value]
        return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value

    return {key: shown(value) for key, value in settings.items()}


def write_model_card(run: Path, record: dict[str, Any], results: dict[str, Any]) -> None:
    """record: config.json; results: results.json."""
    settings, language = record["settings"], record["language"]
    shape = record["model"]
    start = settings["start"]["path"]
    lines = [
        *_head(run, record, results),
        f"# A DNAGPT fine-tuned for {language['kind']}",
        "",
        f"{shape['num_layers']} layers, width {shape['embedding_dim']}, {shape['num_heads']} heads, at most "
        f"{shape['max_len']} tokens, {shape['vocab_size']:,} tokens in the vocabulary "
        f"(k = {record['vocabulary']['k']}, {'dynamic' if record['vocabulary']['dynamic'] else 'fixed'}). "
        f"{record['trained_parameters']:,} parameters were tuned ({settings['tuning']['method']}).",
        "",
        f"Start: {Path(start).name if start else 'random weights'}"
        + (f" (SHA-256 of its weights {record['start_sha256']})" if record.get("start_sha256") else "")
        + f", seed {record['seed']}.",
        "",
        "## Data",
        "",
        "| file | SHA-256 |",
        "|---|---|",
        *(f"| {name} | `{digest}` |" for name, digest in record["hashes"].items()),
        "",
        f"Split: {_split(record)}.",
        "",
        "| set | rows | |",
        "|---|---|---|",
        *(
            f"| {name} | {count['rows']:,} | {', '.join(f'{k} {v:,}' for k, v in count.get('labels', {}).items())} |"
            for name, count in record["counts"].items()
        ),
        "",
    ]
    if language["classes"]:
        lines += ["Classes, in the order of their answers: " + ", ".join(language["classes"]) + ".", ""]
    if language["standardisation"]:
        scale = language["standardisation"]
        lines += [
            f"Label (transform: {language['target_transform']}): mean {scale['target_mean']:.6g}, standard deviation "
            f"{scale['target_sd']:.6g} of the training rows; predictions are scaled back with them.",
            "",
        ]
    lines += [
        "## Result",
        "",
        f"{results['epochs']} epochs, {results['steps']} steps, {results['seconds']:.0f} s of training; the weights "
        f"are those after step {results['best_step']}, with the lowest validation loss, "
        f"{results['validation_loss']:.4f}.",
        "",
        "| on the test rows | value | 95 % interval |",
        "|---|---|---|",
    ]
    for name, value in results["test"].items():
        if isinstance(value, list):
            lines.append(f"| {name} | {value[0]:.4f} | {value[1]:.4f} to {value[2]:.4f} |")
        else:
            lines.append(f"| {name} | {value:.4f} | |")
    rivals = results.get("baselines", {})
    if rivals:
        names = list(results["test"])
        lines += [
            "",
            "The same scores of simple models, trained on the same rows:",
            "",
            "| | " + " | ".join(names) + " |",
            "|---" * (len(names) + 1) + "|",
            *(
                f"| {rival} | " + " | ".join(f"{scores[name][0]:.4f}" for name in names) + " |"
                for rival, scores in rivals.items()
            ),
            "",
            "A tuned model is worth its cost only where it beats them.",
        ]
    pictures = [name for name in ("test.png", "haplotypes.png", "loss.png") if (run / name).is_file()]
    lines += [line for name in pictures for line in ("", f"![{PICTURES[name]}]({name})")]
    if any(isinstance(value, list) for value in results["test"].values()):
        lines += [
            "",
            f"Intervals: percentiles of a bootstrap over the test {_drawn(language['kind'])}. They do not include the "
            "variation between choices of training rows or seeds.",
        ]
    lines += [
        "",
        "## Settings",
        "",
        "```json",
        json.dumps(without_folders(settings), indent=2),
        "```",
        "",
        "Versions: " + ", ".join(f"{name} {version}" for name, version in record["versions"].items()) + ".",
        "",
    ]
    write_text(run / "README.md", "\n".join(lines))


def _drawn(kind: str) -> str:
    return {"classification": "rows (within each class)", "tagging": "windows"}.get(kind, "rows")


def _split(record: dict[str, Any]) -> str:
    settings, split = record["settings"], record["settings"]["split"]
    if "variants" in record["counts"]["train"]:
        return f"by person, shares {split['shares']}, seed {split['seed']}"
    if split["kind"] == "column":
        return f"the column `{settings['data']['split_column']}` of the data"
    if split["kind"] == "block":
        return f"by blocks of {split['block_bp']:,} bp, shares {split['shares']}, seed {split['seed']}"
    return f"at random, shares {split['shares']}, seed {split['seed']}"
