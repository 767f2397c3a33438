"""The Triton launches of whole steps of the published models, without a GPU: what a card would really run.

    python -m benchmarks.traced_steps             the launches of each step on an H100, their grids, programs per SM
    python -m benchmarks.traced_steps --update    writes them into traced_steps.md
    python -m benchmarks.compile_audit --op steps compiles those that no other case of the audit compiles

A step runs on fake tensors of the real sizes (torch's FakeTensorMode): nothing is computed and nothing is stored, but
all of the package's own code runs, so the launches have the arguments, tiles and grids of a card. A read of a value by
the host raises, so the trace also proves that a step's kernels need no synchronisation. The package's ops are run
here, and torch's own kernels (products, norms, the optimizer) are left out. Attention is traced by the Triton kernels
also where the rule would choose SDPA. Needs Triton outside its interpreter, as benchmarks.triton_launches does.
"""

import argparse
import math
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

os.environ["TRITON_INTERPRET"] = "0"  # read when triton is first imported, below

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.pages import add_update, show
from benchmarks.triton_launches import Launch, launches_go_to, target_of
from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.finetune.task_data import TaskBatch
from dnagpt_fast.finetune.task_loss import TaskLosses
from dnagpt_fast.model.config import PRESETS, ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.lanes import LOOK, Buffers
from dnagpt_fast.model.score import ROWS_OF_LOGITS, target_log_probs
from dnagpt_fast.ops import dispatch, triton_settings
from dnagpt_fast.ops.combined_loss import launch as loss_launch
from dnagpt_fast.ops.combined_loss.occurring import occurring_tokens
from dnagpt_fast.ops.registration import NAMESPACE, implementation_of
from dnagpt_fast.ops.sampling.settings import Choice
from dnagpt_fast.vocab import Vocabulary
from dnagpt_fast.weights.packaged import packaged_models

PAGE = Path(__file__).with_suffix(".md")
MULTIPROCESSORS = {"A100": 108, "RTX 4090": 128, "H100": 132, "B200": 148}  # streaming multiprocessors, SMs
HEADINGS = (
    f"| kernel | launches | grid | {' | '.join(f'on {card}' for card in MULTIPROCESSORS)} |",
    "|---" * (3 + len(MULTIPROCESSORS)) + "|",
)
PAGE_HEAD = """# The Triton launches of whole steps

Written by `python -m benchmarks.traced_steps --update`: each step runs on fake tensors of the real sizes, with the
tiles of an H100. Pre-training and evaluation take 32,768 tokens in windows of the model's length, fine-tuning 32
sequences, scoring 8, decoding one token of 64. torch's own kernels (products, embeddings, the optimizer) are not
counted; attention is by the Triton kernels also where the rule would choose SDPA.

The last columns are the programs of one launch per SM of a card:
{counts}. A launch of less than one
program per SM leaves some idle. The count, combine, finish and sum kernels reduce few numbers and are small by design.
"""
SHAPES = PRESETS | {
    name: ModelConfig(**packaged.facts["model"]) for name, packaged in packaged_models().items()
}
TRAINED_ROWS = 32_768  # tokens of a traced pre-training step: 64 windows of 512 tokens
ANSWERS = (5, 6)  # two answer tokens of a classification


@dataclass(frozen=True)
class Step:
    """One step of a model. run: builds the inputs on a device and makes the step with the model.

    device  of the fake tensors: "cpu", or "meta" where the package reads a value on the CPU
    """

    name: str
    model: ModelConfig
    dtype: torch.dtype
    device: str
    run: Callable[[DNAGPT], None]
    autocast: bool = False


def steps(config: ModelConfig, *, rows: int = TRAINED_ROWS) -> Iterator[Step]:
    """Pre-training, evaluation, fine-tuning, decoding and scoring of one shape, in the dtypes that they are run in."""
    half, full = torch.bfloat16, torch.float32
    vocabulary = Vocabulary(6, dynamic=config.vocab_size == len(Vocabulary(6, dynamic=True)))
    tokens = config.max_len
    sequences = max(1, rows // tokens)
    for occurs in (True, False):
        which = "occurring tokens" if occurs else "full vocabulary"
        settings = {"occurring": occurring_tokens(vocabulary, [*ANSWERS, 7]) if occurs else None}
        train = _pretrain(sequences, tokens, settings)
        yield Step(f"pre-training, {which}, bfloat16", config, full, "cpu", train, autocast=True)
    yield Step("pre-training, full vocabulary, float32", config, full, "cpu", train)
    base_level = {"occurring": occurring_tokens(vocabulary, [*ANSWERS, 7]), "base_level": 0.5}
    train = _pretrain(sequences, tokens, base_level)
    yield Step("pre-training, base-level loss, bfloat16", config, full, "cpu", train, autocast=True)
    evaluate = torch.no_grad()(_pretrain(sequences, tokens, {}, backward=False))
    yield Step("evaluation, bfloat16", config, full, "cpu", evaluate, autocast=True)
    yield Step(
        "fine-tuning, two classes, bfloat16", config, full, "cpu", _classify(32, tokens), autocast=True
    )
    for dtype, name in ((half, "bfloat16"), (full, "float32")):
        yield Step(f"decoding 64 sequences, {name}", config, dtype, "meta", _decode(64, tokens))
        yield Step(f"scoring, {name}", config, dtype, "cpu", _score(tokens))


def _pretrain(
    sequences: int, tokens: int, settings: Mapping[str, Any], *, backward: bool = True
) -> Callable[[DNAGPT], None]:
    def run(model: DNAGPT) -> None:
        shape = (sequences, tokens)
        ids = torch.zeros(shape, dtype=torch.int64)
        kinds, gc = torch.zeros(shape, dtype=torch.uint8), torch.zeros(sequences)
        places = torch.zeros(sequences, dtype=torch.int64)
        windows = Windows(places, places, places, places)
        batch = PretrainBatch(ids, ids, kinds, tokens - 2, gc, gc > 0, windows)
        loss = model.pretraining_loss(batch, **settings).total
        if backward:
            loss.backward()

    return run


def _classify(sequences: int, tokens: int) -> Callable[[DNAGPT], None]:
    def run(model: DNAGPT) -> None:
        each = torch.zeros(sequences, dtype=torch.int64)
        ids = torch.zeros(sequences, tokens, dtype=torch.int64)
        batch = TaskBatch(ids, each, None, None, each, torch.ones(sequences), each)
        TaskLosses(model, "classification", ANSWERS)(batch)["loss"].backward()

    return run


def _decode(sequences: int, tokens: int) -> Callable[[DNAGPT], None]:
    def run(model: DNAGPT) -> None:
        choice = Choice(top_p=0.95, how="uniform")
        Buffers(Inference(model), sequences, tokens, choice, (19, 20), LOOK).step()

    return run


def _score(tokens: int) -> Callable[[DNAGPT], None]:
    def run(model: DNAGPT) -> None:
        with torch.no_grad():
            ids = torch.zeros(8, tokens, dtype=torch.int64, device=model.transformer.wte.weight.device)
            rows = model.hidden_states(ids)[:, :-1].flatten(0, 1)[:ROWS_OF_LOGITS]
            target_log_probs(Inference(model), rows, ids.flatten()[: len(rows)])

    return run


def cases(architecture: str) -> Iterator[tuple[str, Callable[[], object]]]:
    """For benchmarks.compile_audit: each step of each shape, of one layer, since all layers launch the same code."""
    for name, config in SHAPES.items():
        for step in steps(replace(config, num_layers=1)):
            yield f"{name} {step.name}", partial(trace, step, architecture)


def trace(step: Step, architecture: str) -> None:
    """Makes one step with the launches of a card, which go where benchmarks.triton_launches sends them."""
    with torch.device("meta"):
        model = DNAGPT.from_config(step.model).to(step.dtype)
    with as_on(architecture):
        for module in model.modules():
            for name, weight in module.named_parameters(recurse=False):
                fake = torch.empty(weight.shape, dtype=weight.dtype, device=step.device)
                setattr(module, name, nn.Parameter(fake))
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=step.autocast):
            step.run(model)


class _RunsOurOps(TorchDispatchMode):
    """Runs the package's ops on fake tensors as on real ones: their launches are what is traced."""

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.removeprefix(f"{NAMESPACE}::")
        traced = func.namespace == NAMESPACE and name.startswith(
            ("attention", "combined_loss_", "next_tokens", "residual_norm_", "mlp_")
        )
        if traced and not name.endswith("_targets"):
            return implementation_of(name)(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


@contextmanager
def as_on(architecture: str) -> Iterator[None]:
    """Inside the block tensors are fake, and the package's ops choose what they would choose on this card."""

    def order_on_the_host(*arguments: Any) -> tuple[Tensor, ...]:
        # a table that is made from values, once per process
        with unset_fake_temporarily():
            return tile_order(*arguments)

    tile_order = loss_launch.tile_order
    ours = (
        "attention",
        "attention_decode",
        "attention_extend",
        "next_tokens",
        "advance_lanes",
        "residual_norm",
    )
    with ExitStack() as stack:
        # torch allocates at multiples of 512 bytes: a view's alignment is that of its offset
        address = mock.patch.object(FakeTensor, "data_ptr", lambda x: x.storage_offset() * x.element_size())
        for context in (
            address,
            mock.patch.object(triton_settings, "architecture", return_value=architecture),
            mock.patch.object(triton_settings, "interpreting", return_value=True),
            mock.patch.object(loss_launch, "tile_order", order_on_the_host),
            dispatch.using(
                linear="torch", combined_loss="products", mlp="rule", **dict.fromkeys(ours, "triton")
            ),
            FakeTensorMode(allow_non_fake_inputs=True),
            _RunsOurOps(),
        ):
            stack.enter_context(context)
        yield


def page() -> str:
    """The launches of each step of the published shapes, their grids and how they fill each card."""
    counts = ", ".join(f"{card} has {count}" for card, count in MULTIPROCESSORS.items())
    lines = [PAGE_HEAD.format(counts=counts)]
    for name, config in SHAPES.items():
        for step in steps(config):
            launches: list[Launch] = []
            with launches_go_to(target_of("sm_90"), launches.append):
                trace(step, "sm_90")
            lines += [
                f"## {name}: {step.name}",
                "",
                f"{len(launches)} launches of Triton kernels.",
                "",
                *HEADINGS,
            ]
            for (kernel, grid), times in Counter((x.kernel.__name__, x.grid) for x in launches).items():
                programs = math.prod(grid)
                filled = " | ".join(f"{programs / count:.1f}" for count in MULTIPROCESSORS.values())
                lines.append(f"| {kernel} | {times} | {' x '.join(map(str, grid))} | {filled} |")
            lines.append("")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_update(parser, PAGE)
    options = parser.parse_args(arguments)
    text = page()
    show(text, PAGE, options.update)
    return 0


if __name__ == "__main__":
    sys.exit(main())
