"""The report of an evaluation: report.json, the tables as Markdown, the figures, and one HTML page with both."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from dnagpt_fast.output_files import whole_folder, write_json
from dnagpt_fast.plot_style import VECTOR
from dnagpt_fast.suites.figures import draw
from dnagpt_fast.suites.page import html_page
from dnagpt_fast.suites.published import published
from dnagpt_fast.suites.table import Table

MEASURES = {
    "mcc": "Matthews' correlation (MCC)",
    "accuracy": "accuracy",
    "auroc": "AUROC",
    "auprc": "AUPRC",
    "pair_accuracy": "share of pairs ranked right",
    "identity": "share of bases recovered",
    "spearman": "Spearman's rho",
    "nats_per_bp": "nats per base",
}


def write_report(output: Path, report: dict[str, Any], predictions: Mapping[str, np.ndarray]) -> None:
    """The folder, completely or not at all."""
    made = tables(report)
    with whole_folder(output) as folder:
        write_json(folder / "report.json", report)
        np.savez_compressed(folder / "predictions.npz", allow_pickle=False, **predictions)
        draw(folder / "report.png", report, beside=(VECTOR,))
        (folder / "report.md").write_text(
            "\n\n".join([f"# {report['suite']}: {report['about']}", *(one.markdown() for one in made)]) + "\n"
        )
        (folder / "report.html").write_text(html_page(report, made, folder / "report.png"))


def tables(report: dict[str, Any]) -> list[Table]:
    made = []
    for measure in dict.fromkeys(task["measure"] for task in report["tasks"]):
        mine = [task for task in report["tasks"] if task["measure"] == measure]
        made.append(_scores(report["suite"], mine, measure))
    others = [name for name in ("auroc", "auprc") if any(name != task["measure"] for task in report["tasks"])]
    for name in others:
        mine = [
            task
            for task in report["tasks"]
            if task["measure"] != name and all(name in one["scores"] for one in task["results"])
        ]
        if mine and (name == "auroc" or report["suite"] == "variants"):
            made.append(_scores(report["suite"], mine, name))
    made += _parts(report["tasks"])
    made.append(_differences(report["tasks"]))
    made.append(_data(report["tasks"]))
    findings = [[task["task"], said] for task in report["tasks"] for said in task["findings"]]
    if findings:
        made.append(Table("Findings about the data", ["task", "finding"], findings))
    made.append(_chosen(report["tasks"]))
    made.append(_circumstances(report))
    return made


def _scores(suite: str, tasks: Sequence[Mapping[str, Any]], measure: str) -> Table:
    every = [one for task in tasks for one in task["results"]]
    # baselines first, also those that only some tasks have
    every.sort(key=lambda one: one["role"] != "baseline")
    methods = list(dict.fromkeys(one["method"] for one in every))
    known = [published(suite, task["task"], measure) for task in tasks]
    sources = list(dict.fromkeys(number.source for row in known for number in row))
    rows = []
    for task, numbers in zip(tasks, known, strict=True):
        cells = {one["method"]: interval(one["scores"].get(measure)) for one in task["results"]}
        of_source = {source: [n for n in numbers if n.source == source] for source in sources}
        rows.append(
            [
                task["task"],
                *(cells.get(method, "") for method in methods),
                *(", ".join(f"{n.model} {n.value:.3f}" for n in of_source[source]) for source in sources),
            ]
        )
    rising = tasks[0]["rising"] or measure != tasks[0]["measure"]
    note = "95 % intervals: bootstrap of the test rows, or of whole clusters where the data table names them."
    if sources:
        note += " Published numbers were not measured here, and their rows may differ from these."
    title = f"{MEASURES.get(measure, measure)}, {'higher' if rising else 'lower'} is better"
    return Table(title, ["task", *methods, *(f"published: {source}" for source in sources)], rows, note)


def _parts(tasks: Sequence[Mapping[str, Any]]) -> list[Table]:
    """The scores of parts of a task, such as the elements of an MPRA or the classes of variants; they are called
    `measure: part`."""
    made = []
    for task in tasks:
        names = [name for name in task["results"][0]["scores"] if ": " in name]
        if names:
            methods = [one["method"] for one in task["results"]]
            rows = [
                [name.partition(": ")[2], *(interval(one["scores"][name]) for one in task["results"])]
                for name in names
            ]
            measure = names[0].partition(": ")[0]
            made.append(Table(f"{task['task']}: {MEASURES.get(measure, measure)}", ["part", *methods], rows))
    return made


def interval(score: Sequence[float] | None, signed: bool = False) -> str:
    if score is None:
        return ""
    value, low, high = (f"{x:+.3f}" if signed else f"{x:.3f}" for x in score)
    if score[0] == score[1] == score[2]:
        return value
    return f"{value} ({low} to {high})"


def _differences(tasks: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [task["task"], one["method"], one["minus"], interval(one["difference"], signed=True)]
        for task in tasks
        for one in task["differences"]
    ]
    return Table(
        "Differences in the same resamples",
        ["task", "model", "minus", "difference of the task's measure"],
        rows,
        "The best baseline is the one that is best on the test rows, which favours it. The methods differ where the "
        "interval excludes 0.",
    )


def _data(tasks: Sequence[Mapping[str, Any]]) -> Table:
    rows = []
    for task in tasks:
        facts = task["facts"]
        for part in ("train", "dev", "test"):
            if part not in facts:
                continue
            one = facts[part]
            classes = ", ".join(f"{name}: {count:,}" for name, count in one["classes"].items())
            low, middle, high = one["length_bp"]
            length = f"{low:,}" if low == high else f"{low:,} to {high:,}, median {middle:,.0f}"
            drawn = f", drawn from {one['drawn_from']:,}" if "drawn_from" in one else ""
            kind = f"{task['clusters']} clusters" if task["clusters"] and part == "test" else ""
            rows.append(
                [
                    task["task"],
                    part,
                    f"{one['rows']:,}{drawn}",
                    classes,
                    length,
                    f"{one['n_share']:.2%}",
                    kind,
                ]
            )
        if "test" not in facts:
            said = "; ".join(f"{name}: {value}" for name, value in facts.items())
            kind = f"{task['clusters']} clusters" if task["clusters"] else ""
            rows.append([task["task"], "test", f"{task['rows']:,}", said, "", "", kind])
    return Table("Data", ["task", "part", "rows", "classes", "length (bp)", "N", "bootstrap over"], rows)


def _chosen(tasks: Sequence[Mapping[str, Any]]) -> Table:
    rows = [
        [
            task["task"],
            one["method"],
            ", ".join(f"{k} {v:g}" if isinstance(v, float) else f"{k} {v}" for k, v in one["chosen"].items()),
            f"{one['seconds']:,.1f}",
        ]
        for task in tasks
        for one in task["results"]
    ]
    return Table("Choices made on the dev rows, and time", ["task", "method", "chosen", "seconds"], rows)


def _circumstances(report: Mapping[str, Any]) -> Table:
    job = report["job"]
    rows = [
        ["tasks", ", ".join(task["task"] for task in report["tasks"])],
        *([name, str(job[name])] for name in ("max_rows", "seed", "window_bp", "ways", "resamples")),
        *([f"run: {name}", str(value)] for name, value in job["run"].items()),
        *([f"tuning: {name}", str(value)] for name, value in (job["tuning"] or {}).items()),
        *([f"model {name}", f"SHA-256 {about['sha256']}"] for name, about in report["models"].items()),
        *([f"file {name}", f"SHA-256 {digest}"] for name, digest in job["files"].items()),
        *([name, str(value)] for name, value in report["versions"].items()),
        ["seconds in all", f"{report['seconds']:,.1f}"],
    ]
    return Table("Circumstances", ["what", "value"], rows)
