"""The commands about the installation and its settings: models, config, doctor."""

from pathlib import Path
from typing import Annotated

import typer

from dnagpt_fast.cli.command import Report, prints
from dnagpt_fast.cli.options import option


@prints("what", "ok", "message")
def doctor() -> Report:
    """Show what is installed and built, which implementation of each op is used, and how to fix what is wrong.

    Exit code 1 if something must be fixed.

    $ dnagpt-fast doctor
    """
    from dnagpt_fast.cli.doctor import examine
    from dnagpt_fast.progress import working

    with working("examining"):
        findings = examine()
    width = max(len(finding.what) for finding in findings)
    return Report(
        [f"{'ok  ' if one.ok else 'FAIL'} {one.what:{width}}  {one.message}" for one in findings],
        [{"what": one.what, "ok": one.ok, "message": one.message} for one in findings],
        is_result=True,
        code=int(not all(one.ok for one in findings)),
    )


@prints("name", "about", "file_bytes")
def models() -> Report:
    """List the models that are part of the package; every command that takes a model accepts their names.

    $ dnagpt-fast models
    """
    from dnagpt_fast.weights.packaged import known_names, packaged_models

    found = packaged_models()
    sizes = {name: model.file.stat().st_size for name, model in found.items()}
    return Report(
        [f"{name}  {model.about}  ({sizes[name] / 1e6:.1f} MB)" for name, model in found.items()],
        [{"name": name, "about": model.about, "file_bytes": sizes[name]} for name, model in found.items()],
        is_result=True,
        notes=[] if found else [known_names()],
        code=int(not found),
    )


@prints("settings", "output")
def config(
    kind: Annotated[str, typer.Argument(metavar="KIND", help="pretrain or finetune")],
    output: Annotated[Path | None, option("--out", ".toml; default standard output")] = None,
) -> Report:
    """Print every setting of pretrain or finetune with its default and its meaning, as a TOML file for --config.

    $ dnagpt-fast config pretrain -o pretrain.toml
    $ dnagpt-fast config finetune --json
    """
    from dnagpt_fast.finetune.settings import FinetuneConfig
    from dnagpt_fast.output_files import write_text
    from dnagpt_fast.pretrain.settings import PretrainConfig
    from dnagpt_fast.training.settings_toml import settings_toml

    kinds = {"pretrain": PretrainConfig, "finetune": FinetuneConfig}
    if kind not in kinds:
        raise typer.BadParameter(f"{kind!r}: wanted pretrain or finetune", param_hint="KIND")
    settings = kinds[kind]()
    text = (
        f"# Every setting of `dnagpt-fast {kind}` with its default. Leave out what shall stay as it is.\n\n"
        f"{settings_toml(settings)}"
    )
    if output is None:
        return Report(text.rstrip("\n"), {"settings": settings.to_dict()}, is_result=True)
    write_text(output, text)
    values = {"settings": settings.to_dict(), "output": output}
    return Report(f"{output}: every setting of {kind}", values, output=output)
