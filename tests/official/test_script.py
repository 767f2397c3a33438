"""The official command line: its flags and results. With DNAGPT_OFFICIAL=<clone of the official repository> the slow
tests compare it with the original."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from dnagpt_fast import DNAGPT, KmerTokenizer
from dnagpt_fast.model.config import PRESETS
from dnagpt_fast.model.generation import SamplingRules
from dnagpt_fast.official.script import main, sample_in_turn
from dnagpt_fast.ops.sampling.reference import filter_logits, probabilities
from tests.tiny import load_tiny

OFFICIAL = os.environ.get("DNAGPT_OFFICIAL")
ROOT = Path(__file__).resolve().parents[2]
TASK_FLAGS = ["task", "input", "numbers", "name", "num_samples", "max_len"]
RED, GREEN, PLAIN = "\033[0;31m", "\033[0;32m", "\033[0m"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    """An untrained checkpoint of the real 0.1b_m size with a definite output: its head prefers its input token."""
    torch.manual_seed(3)
    model = DNAGPT.from_name("dna_gpt0.1b_m", PRESETS["dna_gpt0.1b_m"].vocab_size)
    with torch.no_grad():
        model.mlm_head[3].weight *= 3
    path = tmp_path_factory.mktemp("weights") / "m.pth"
    torch.save({"model": model.state_dict()}, path)
    return path, model.eval()


def output_lines(capsys, *arguments):
    main([str(a) for a in arguments])
    return capsys.readouterr().out.splitlines()


def test_generation(checkpoint, capsys):
    """Every flag of the task, against samples drawn here one after the other without a cache."""
    path, model = checkpoint
    lines = output_lines(
        capsys, "--task", "generation", "-i", "<R>AGAGAAAAGAGT", "-n", "dna_gpt0.1b_m", "-ns", 2, "-ml", 9,
        "--temperature", 0.8,
        "--topk", 50, "--topp", 0.9, "--seed", 7, "-w", path, "--device", "cpu", "--dtype", "float32",
    )  # fmt: skip
    tokenizer = KmerTokenizer(6)
    torch.manual_seed(7)
    DNAGPT.from_name(
        "dna_gpt0.1b_m", 19_564
    )  # the official script draws initial values between the seed and the samples
    wanted = ["number of parameters: 100.37M", f"loading model weights from {path}"]
    wanted += ["max length is 9", "prompt token ids: [21, 8495, 7978]"]
    with torch.no_grad():
        for _ in range(2):
            ids = [21, 8495, 7978]
            while len(ids) < 9:
                logits = filter_logits(model(torch.tensor([ids]))[:, -1] / 0.8, 50, 0.9)
                ids.append(int(logits.softmax(-1).multinomial(1)))
            wanted += [f"\033[31m<R>AGAGAAAAGAGT{PLAIN}{tokenizer.decode(ids[3:])}", "-" * 50]
    assert lines == wanted


def test_regression(checkpoint, capsys):
    path, model = checkpoint
    prompt = "<R>" + "ACGTTG" * 20 + "<+><M><=><M>"
    lines = output_lines(
        capsys, "--task", "regression", "--input", prompt, "--numbers", "0.5 -1 2e-1", "--weight", path
    )
    ids = KmerTokenizer(6).encode(prompt)[None]
    with torch.no_grad():
        answer, _ = model(
            ids, torch.tensor([0.5, -1, 0.2]), torch.tensor([[ids.shape[1] + 2]]), ids.shape[1] - 2
        )
    assert lines[2] == "inputs numbers: [0.5, -1.0, 0.2]"
    assert lines[3] == f"The predicted expression level is: {RED}{answer[0, 0, 0].tolist()}{PLAIN}"


@pytest.mark.parametrize(
    ("token", "line"),
    [
        ("N", f"{GREEN}The input is a real GSR sequence!{PLAIN}"),
        ("A", f"{RED}The input is a fake GSR sequence!{PLAIN}"),
        ("GATTAC", "The model's answer is GATTAC: neither N (a real GSR sequence) nor A (a fake one)"),
    ],
)
def test_classification(checkpoint, capsys, monkeypatch, token, line):
    path, _ = checkpoint
    answer = torch.full((1, 1, 19_564), 0.0)
    answer[..., KmerTokenizer(6).piece_to_id(token)] = 1.0
    monkeypatch.setattr(DNAGPT, "forward", lambda self, ids: answer.expand(1, ids.shape[1], -1))
    assert (
        output_lines(capsys, "--task", "classification", "--input", "<R>ACGTTG<=><R>", "--weight", path)[-1]
        == line
    )


@pytest.mark.parametrize("stop_share", [0.0, 0.05])
def test_samples_in_turn_share_one_generator(stop_share):
    """Samples computed together equal those drawn one after the other, also if many stop early."""
    model = load_tiny("tiny_bias").model()
    if stop_share:
        with torch.no_grad():
            model.mlm_head[3].bias[20] += 2.5
    rules = SamplingRules(1.0, True, 0, 0.95, (0, 20) if stop_share else ())
    together = torch.Generator().manual_seed(5)
    made = sample_in_turn(model, [21, 100], 12, 7, rules, together)
    torch.manual_seed(5)
    wanted = []
    with torch.no_grad():
        for _ in range(7):
            ids = [21, 100]
            while len(ids) < 14:
                logits = model(torch.tensor([ids]))[:, -1]
                token = int(probabilities(logits, rules.choice("race", logits.device)).multinomial(1))
                if token in rules.stop_ids:
                    break
                ids.append(token)
            wanted.append(ids[2:])
    assert made == wanted
    assert together.get_state().equal(torch.get_rng_state())
    assert (min(map(len, made)) < 12) == bool(stop_share)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--weight", "absent.pth"], "not exist checkpoint: absent.pth"),
        (["--weight", "{path}", "--task", "regression"], "needs --numbers"),
        (["--weight", "{path}", "--task", "regression", "--numbers", "1 x"], "could not convert"),
        (
            ["--weight", "{path}", "--task", "regression", "--numbers", "1", "-i", "<R>"],
            "regression prompt has 1 tokens",
        ),
        (["--weight", "{path}", "-i", ""], "has no token"),
        (["--weight", "{path}", "--dtype", "int8"], "--dtype = 'int8'"),
        (["--weight", "{path}", "-ml", "0"], "--max_len 0"),
        (["--weight", "{path}", "--temperature", "0"], "temperature = 0"),
    ],
)
def test_an_error_is_one_line(checkpoint, capsys, arguments, message):
    with pytest.raises(SystemExit) as exit_:
        main([argument.format(path=checkpoint[0]) for argument in arguments])
    assert exit_.value.code == 1
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1
    assert message in lines[0]


def test_too_many_numbers_are_an_error(checkpoint, capsys):
    arguments = [
        "--task",
        "regression",
        "--weight",
        str(checkpoint[0]),
        "-i",
        "<R>" + "ACGTTG" * 600,
        "-ml",
        "512",
    ]
    with pytest.raises(SystemExit):
        main([*arguments, "--numbers", "1 2 3"])
    error = capsys.readouterr().err
    assert "515 positions" in error
    assert "only the first 512 are used" in error


def test_lower_case_and_another_models_weights_are_warned_of(checkpoint, capsys, caplog):
    lines = output_lines(
        capsys, "-w", checkpoint[0], "-n", "dna_gpt0.1b_h", "-i", "<R>acgtac", "-ns", 1, "-ml", 3
    )
    assert lines[3] == "prompt token ids: [21, 0]"
    assert "not in the vocabulary" in caplog.text


def test_unknown_flags_and_tasks_are_refused(capsys):
    for arguments in (["--task", "translation"], ["--colour", "red"], ["--name", "dna_gpt9"]):
        with pytest.raises(SystemExit) as exit_:
            main(arguments)
        assert exit_.value.code == 2


def test_python_m_runs_the_script():
    done = subprocess.run(
        [sys.executable, "-m", "dnagpt_fast.official", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    )
    for flag in [*TASK_FLAGS, "temperature", "topk", "topp", "seed", "weight", "device", "dtype"]:
        assert f"--{flag}" in done.stdout


@pytest.mark.slow
@pytest.mark.skipif(not OFFICIAL, reason="DNAGPT_OFFICIAL names no clone of the official repository")
@pytest.mark.parametrize(
    "arguments",
    [
        ["--task", "generation", "-ns", "3", "-ml", "24", "-i", "<R>AGAGAAAAGAGT"],
        [
            "--task",
            "generation",
            "-ns",
            "2",
            "-ml",
            "16",
            "--temperature",
            "0.7",
            "--topk",
            "9",
            "--topp",
            "0",
            "--seed",
            "3",
        ],
        [
            "--task",
            "regression",
            "-i",
            "<R>" + "ACGTTG" * 30 + "<+><M><=><M>",
            "--numbers",
            "1 -0.5 0.25",
            "-ml",
            "512",
        ],
        ["--task", "classification", "-i", "<R>" + "ACGTTG" * 30 + "<=><R>"],
    ],
)
def test_the_original_prints_the_same(checkpoint, arguments):
    """Line by line; the regression's number to fp32 accuracy. The untrained model answers neither N nor A: there the
    original prints nothing and we a line."""
    command = [*arguments, "--weight", str(checkpoint[0]), "--device", "cpu", "--dtype", "float32"]
    original = subprocess.run(
        [sys.executable, "test.py", *command], capture_output=True, text=True, cwd=OFFICIAL, check=True
    ).stdout.splitlines()
    ours = subprocess.run(
        [sys.executable, "-m", "dnagpt_fast.official", *command],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=True,
    ).stdout.splitlines()
    if "classification" in arguments:
        assert ours[: len(original)] == original
        assert len(ours) == len(original) + 1
    elif "regression" in arguments:
        assert ours[:-1] == original[:-1]
        numbers = [float(lines[-1].split("\033[0;31m")[1].removesuffix(PLAIN)) for lines in (ours, original)]
        assert numbers[0] == pytest.approx(numbers[1], rel=1e-4)
    else:
        assert ours == original


@pytest.mark.skipif(not OFFICIAL, reason="DNAGPT_OFFICIAL names no clone of the official repository")
def test_a_seed_gives_the_initial_values_of_the_original(tmp_path):
    code = (
        "import sys, torch; sys.path.insert(0, sys.argv[1]); from dna_gpt.model import DNAGPT; torch.manual_seed(1);"
        "m = DNAGPT(50, 9, 2, 2, 8, bias=True); torch.save((m.state_dict(), torch.get_rng_state()), sys.argv[2])"
    )
    subprocess.run([sys.executable, "-c", code, OFFICIAL, str(tmp_path / "m.pth")], check=True)
    state, after = torch.load(tmp_path / "m.pth", weights_only=True)
    torch.manual_seed(1)
    ours = DNAGPT(50, 9, 2, 2, 8, bias=True).state_dict()
    assert ours.keys() == state.keys()
    assert all(ours[name].equal(state[name]) for name in state)
    assert after.equal(torch.get_rng_state())
