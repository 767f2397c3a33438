"""No code in a hostile folder runs, however it is opened, and no message advises to allow it."""

import pickle
import re
import warnings
from pathlib import Path

import pytest

from tests.faults.hostile_folder import ADVICE, Runs, answers

ROOT = Path(__file__).resolve().parents[2]
# Folders with code in a place that this way of opening reads. The others open without an error: the place is
# not read.
READ = {
    "run, metadata": ".*",
    "run, weights": ".*",
    "run, optimizer": "pretrain --resume",
    "tuned run, metadata": "finetune --resume",
    "zip.pth": ".*",
    "pickle.pth": ".*",
    "code instead of weights.safetensors": ".*",
    "hf, bin": "(?!AutoTokenizer).*",
    "hf, extra": "nothing",
}


# Each way of reading once; the other commands use the same functions.
FEW = ("score", "predict")


def messages(folder: Path, commands: tuple[str, ...]) -> list[tuple[str, str, str]]:
    mark = folder / "code-ran"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = list(
            answers(folder, mark, lambda arguments: arguments[0] in commands or "--resume" in arguments)
        )
    assert not mark.exists()
    return found


def test_the_code_would_run_where_it_is_let(tmp_path):
    pickle.loads(pickle.dumps(Runs(tmp_path / "code-ran")))
    assert (tmp_path / "code-ran").exists()


@pytest.mark.parametrize(
    "commands",
    [
        pytest.param(FEW, id="few"),
        pytest.param(
            (*FEW, "embed", "generate", "convert", "finetune", "pretrain"), id="all", marks=pytest.mark.slow
        ),
    ],
)
def test_code_in_a_folder_is_refused_and_nobody_is_advised_to_let_it_run(tmp_path, commands):
    found = messages(tmp_path / "hostile", commands)
    assert {name for name, _, _ in found} == READ.keys()
    assert len(found) >= (50 if len(commands) > len(FEW) else 20)
    for name, how, answer in found:
        refused = answer != "done"
        assert refused == bool(re.fullmatch(f"({READ[name]})( .*)?", how)), (name, how, answer)
        assert "unexpected" not in answer, answer
        assert not any(word in answer for word in ADVICE), (name, how, answer)


def test_no_message_of_the_package_holds_the_advice():
    """In the source, weights_only is an argument that is always True, or a word to search for, never part of
    a message."""
    for path in (ROOT / "dnagpt_fast").rglob("*.py"):
        for line in path.read_text().splitlines():
            if any(word in line for word in ADVICE):
                assert re.search(
                    r'weights_only=True\)$|if "weights_only" in |"weights_only" in str\(', line
                ), f"{path}: {line}"


def test_the_page_says_how_to_see_it():
    assert "python -m tests.faults.hostile_folder" in (ROOT / "docs" / "faults.md").read_text()
