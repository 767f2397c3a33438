"""The official test.py: the same flags, output lines and results. `python -m dnagpt_fast.official --task ...`

Samples are drawn as in the official script: from torch's generator, seeded before the model's initial values are drawn,
one sample after the other. But they are computed together: each sample starts from the state that the generator has if
all samples before it have full length; if one stops early, the samples after it are computed again from the right
state. docs/differences.md lists the differences from the original.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import torch

from dnagpt_fast.model.config import PRESETS
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.generation import SamplingRules, continue_sequences
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training.devices import pick_device, pick_dtype
from dnagpt_fast.weights.official import CheckpointError, load_official

RED, GREEN, PLAIN = "\033[31m", "\033[0;32m", "\033[0m"
BRIGHT_RED = "\033[0;31m"


def main(arguments: Sequence[str] | None = None) -> None:
    """Exit code 0; 1 with one line on stderr if the checkpoint or the input cannot be used; 2 for wrong flags."""
    options = _parser().parse_args(arguments)
    try:
        run(options)
    except (ValueError, IndexError, OSError) as error:
        sys.stderr.write(f"error: {error}\n")
        sys.exit(1)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m dnagpt_fast.official",
        description="the official DNAGPT script: sample sequences, or run a fine-tuned model",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    parser.add_argument(
        "--task", default="generation", choices=["generation", "regression", "classification"]
    )
    parser.add_argument("--input", "-i", default="<R>CTGTATACCACAGA", help="prompt")
    parser.add_argument("--numbers", help="numbers of the regression task, separated by spaces")
    parser.add_argument(
        "--name", "-n", default="dna_gpt0.1b_m", choices=list(PRESETS), help="published model"
    )
    parser.add_argument("--num_samples", "-ns", type=int, default=10)
    parser.add_argument("--max_len", "-ml", type=int, default=256, help="tokens, including the prompt")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--topk", type=int, default=0)
    parser.add_argument("--topp", type=float, default=0.95)
    parser.add_argument("--seed", type=int, default=40)
    parser.add_argument("--weight", "-w", help="checkpoint; default checkpoints/NAME.pth")
    parser.add_argument("--device", help="cpu or cuda; default cuda if available")
    parser.add_argument("--dtype", help="float32, float16, bfloat16; default float16, on the CPU float32")
    return parser


def run(options: argparse.Namespace) -> None:
    """Runs one task. Raises ValueError, OSError for input that cannot be used."""
    device = pick_device(options.device, what="--device")
    dtype = _dtype(options.dtype, device)
    path = Path(options.weight or f"checkpoints/{options.name}.pth")
    if not path.is_file():
        raise FileNotFoundError(f"not exist checkpoint: {path}")
    generator = torch.Generator(device).manual_seed(options.seed)
    if options.task == "generation" and device.type == "cpu":
        generator.set_state(_state_after_initial_values(options.name, options.seed))
    model, tokenizer = load_official(path, device=device, dtype=dtype)
    published = PRESETS[options.name]
    if model.config != published:
        _warn(f"{path} is no {options.name}: the shape of the checkpoint is used, {model.config}")
    _say(f"number of parameters: {sum(p.numel() for p in model.transformer.parameters()) / 1e6:.2f}M")
    _say(f"loading model weights from {path}")
    max_len = min(options.max_len, model.max_len)
    if max_len < 1:
        raise ValueError(f"--max_len {options.max_len}: wanted 1 or more")
    if options.task == "generation":
        _generation(model, tokenizer, options, max_len, generator)
    elif options.task == "regression":
        _regression(model, tokenizer, options, max_len)
    else:
        _classification(model, tokenizer, options, max_len)


def _generation(
    model: DNAGPT,
    tokenizer: KmerTokenizer,
    options: argparse.Namespace,
    max_len: int,
    generator: torch.Generator,
) -> None:
    prompt_ids = _encode(tokenizer, options.input, max_len)
    _say(f"max length is {max_len}")
    _say(f"prompt token ids: {prompt_ids}")
    rules = SamplingRules(
        options.temperature, True, options.topk, options.topp, (tokenizer.unk_id, tokenizer.pad_id)
    )
    new = max(max_len - len(prompt_ids), 0)
    made = sample_in_turn(model, prompt_ids, new, options.num_samples, rules, generator)
    for tokens in made:
        _say(f"{RED}{options.input}{PLAIN}{tokenizer.decode(tokens)}")
        _say("-" * 50)


def sample_in_turn(
    model: DNAGPT,
    prompt_ids: list[int],
    max_new_tokens: int,
    num_samples: int,
    rules: SamplingRules,
    generator: torch.Generator,
) -> list[list[int]]:
    """New tokens of num_samples samples, as if drawn one after the other with `torch.multinomial` from the generator;
    the generator ends in the same state."""
    inference = Inference(model, pack=True)
    uniform = torch.ones(
        1, model.vocab_size, dtype=model.transformer.wte.weight.dtype, device=generator.device
    )
    made: list[list[int]] = []
    while len(made) < num_samples:
        streams = []
        for _ in range(num_samples - len(made)):
            streams.append(torch.Generator(generator.device).set_state(generator.get_state()))
            for _ in range(max_new_tokens):  # the draws of a sample of full length
                uniform.multinomial(1, generator=generator)

        def draw(probabilities: torch.Tensor, sequences: list[int], streams: list = streams) -> torch.Tensor:
            each = zip(probabilities.split(1), sequences, strict=True)
            return torch.cat([row.multinomial(1, generator=streams[i])[0] for row, i in each])

        some = continue_sequences(
            inference, [prompt_ids] * len(streams), [max_new_tokens] * len(streams), rules, draw
        )
        for tokens, stream in zip(some, streams, strict=True):
            made.append(tokens)
            if len(tokens) < max_new_tokens:
                # It drew less than assumed: the samples after it start again from its real final state.
                generator.set_state(stream.get_state())
                break
    return made


def _regression(model: DNAGPT, tokenizer: KmerTokenizer, options: argparse.Namespace, max_len: int) -> None:
    if not options.numbers:
        raise ValueError("--task regression needs --numbers")
    try:
        numbers = [float(number) for number in options.numbers.split()]
    except ValueError as error:
        raise ValueError(f"--numbers {options.numbers!r}: {error}") from error
    prompt_ids = _encode(tokenizer, options.input, max_len)
    if len(prompt_ids) < 3:
        raise ValueError(f"the regression prompt has {len(prompt_ids)} tokens: wanted a sequence and <=><M>")
    _say(f"inputs numbers: {numbers}")
    weight = model.transformer.wte.weight
    with torch.no_grad():
        answer, _ = model(
            torch.tensor([prompt_ids], device=weight.device),
            torch.tensor(numbers, device=weight.device, dtype=weight.dtype),
            torch.tensor([[len(prompt_ids) + len(numbers) - 1]], device=weight.device),
            number_block=len(prompt_ids) - 2,
        )
    _say(f"The predicted expression level is: {BRIGHT_RED}{answer[0, 0, 0].tolist()}{PLAIN}")


def _classification(
    model: DNAGPT, tokenizer: KmerTokenizer, options: argparse.Namespace, max_len: int
) -> None:
    prompt_ids = _encode(tokenizer, options.input, max_len)
    with torch.no_grad():
        logits = model(torch.tensor([prompt_ids], device=model.transformer.wte.weight.device))[0, -1]
    answer = tokenizer.decode([int(logits.argmax())])
    if answer == "N":
        _say(f"{GREEN}The input is a real GSR sequence!{PLAIN}")
    elif answer == "A":
        _say(f"{BRIGHT_RED}The input is a fake GSR sequence!{PLAIN}")
    else:
        _say(f"The model's answer is {answer}: neither N (a real GSR sequence) nor A (a fake one)")


def _encode(tokenizer: KmerTokenizer, prompt: str, max_len: int) -> list[int]:
    ids = [int(i) for i in tokenizer.encode(prompt, to_tensor=False)]
    if not ids:
        raise ValueError("--input has no token")
    if len(ids) > max_len:
        _warn(
            f"the input has {len(ids)} tokens: only the first {max_len} are used (--max_len, max_len of the model)"
        )
    return ids[:max_len]


def _dtype(name: str | None, device: torch.device) -> torch.dtype:
    dtype = pick_dtype(name, what="--dtype")
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.float16
    if dtype == torch.float16 and device.type == "cpu":
        _warn("float16 on the CPU is slow and less accurate than float32")
    return dtype


def _state_after_initial_values(name: str, seed: int) -> torch.Tensor:
    """The CPU generator's state after the official script has seeded it and built its model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        DNAGPT.from_name(name, PRESETS[name].vocab_size)
        return torch.get_rng_state()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")


def _warn(line: str) -> None:
    sys.stderr.write(f"warning: {line}\n")


__all__ = ["CheckpointError", "main", "run", "sample_in_turn"]
