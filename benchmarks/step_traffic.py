"""Operations and bytes of a whole pre-training step by kind, with and without its fused ways, counted by tracing.

    python -m benchmarks.step_traffic              the 0.1B model, 64 x 512 tokens, bf16 autocast
    python -m benchmarks.step_traffic --update     writes the table into step_traffic.md

The step of training/loop.py runs on fake tensors of the real sizes (as in benchmarks.traced_steps), so nothing is
computed and no GPU is needed. Every operation of torch is one, whatever it launches; a call of one of our ops counts
the Triton kernels that it launches (the loss's products by the library are not counted). Bytes are those of an
operation's arguments and results, each once: what it must read and write if nothing stays in a cache. Views and
allocations are left out. Needs Triton outside its interpreter.
"""

import argparse
import os
import re
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

os.environ["TRITON_INTERPRET"] = "0"  # read when triton is first imported, below

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from benchmarks.pages import add_update, show
from benchmarks.traced_steps import as_on
from benchmarks.triton_launches import launches_go_to, target_of
from dnagpt_fast.batch import PretrainBatch, Windows
from dnagpt_fast.model.config import preset
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.registration import NAMESPACE
from dnagpt_fast.pretrain.job import PretrainingLosses
from dnagpt_fast.pretrain.settings import LossSettings
from dnagpt_fast.training.loop import Loop
from dnagpt_fast.training.optimizer import build_optimizer

PAGE = Path(__file__).with_suffix(".md")
ACHIEVED = 2.8e12  # bytes/s that streaming kernels reach on an H100 SXM (its data sheet has 3.35)
# kinds of operations, by the first pattern that is found in an operation's name
KINDS = {
    "products": r"(::mm|::addmm|::bmm|linear)",
    "attention": r"attention",
    "loss": r"combined_loss",
    "residual additions and norms": r"residual_norm|layer_norm|aten::add",
    "products with GELU": r"mlp_",
    "GELU": r"gelu",
    "casts and copies": r"_to_copy|::copy_|clone",
    "optimizer, norm of gradients": r"adam|foreach|linalg_vector_norm",
    "embeddings and the rest": "",
}
FREE = re.compile(r"empty|new_zeros|detach|_unsafe_view|alias|lift_fresh|profiler|prim::|record_function")
HEAD = """# Operations and bytes of a pre-training step

Written by `python -m benchmarks.step_traffic --update`: `dna_gpt0.1b_m`, 64 x 512 tokens, bf16 by autocast, blocks not
compiled, counted on fake tensors. "ms" is the time of the bytes at 2.8 TB/s on an H100, by arithmetic; it says nothing
of products and of the loss, whose time is in their operations. **Nothing here is measured on a GPU.**

- before: residual additions, norms and casts are operations of torch, and gradients are clipped in a pass of their own
- fused: `residual_norm`, and the clipping in the optimizer's pass; the residual stream in fp32 (the default)
- fused, bf16 stream: also `run.residual = "bf16"`
- GELU inside: also GELU inside two products of each block (`DNAGPT_FAST_IMPL=mlp=triton`); on an H100 the rule of
  `ops/mlp/rule.py` leaves it apart at this width, because the kernels' products are slower than the library's; on an
  A100 and an RTX 4090 it chooses this way ([scaling.md](../docs/scaling.md) has the milliseconds)

"""


class Count(TorchDispatchMode):
    """Operations and bytes by kind."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: Counter[str] = Counter()
        self.bytes: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        name = func._schema.name
        if getattr(func, "is_view", False) or FREE.search(name):
            return made
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, name))
        tensors = {id(x): x for x in tree_leaves((args, kwargs, made)) if isinstance(x, Tensor)}
        self.operations[kind] += func.namespace != NAMESPACE  # ours are counted by their launches
        self.bytes[kind] += sum(x.numel() * x.itemsize for x in tensors.values())
        return made


class ClippedApart(Loop):
    """The update with a pass for clipping, and without a flag that it obeys."""

    def _update(self, norm: Tensor) -> None:
        scale = (self.clip_norm / (norm + 1e-6)).clamp(max=1.0)
        torch._foreach_mul_([p.grad for group in self.optimizer.param_groups for p in group["params"]], scale)
        self.optimizer.step()


def count(
    name: str, samples: int, *, fused: bool, stream: torch.dtype | None, inside: bool = False, layers: int = 0
) -> Count:
    """The counts of one step. layers: of a smaller model, for tests; 0: those of the shape `name`."""
    config = preset(name)
    config = replace(config, num_layers=layers or config.num_layers)
    with torch.device("meta"):
        model = DNAGPT.from_config(config)
    launches: list[Any] = []
    with launches_go_to(target_of("sm_90"), launches.append), as_on("sm_90"):
        for module in model.modules():
            for of, weight in module.named_parameters(recurse=False):
                setattr(module, of, nn.Parameter(torch.empty(weight.shape)))
        model.number_embedding.requires_grad_(False)
        model.residual_dtype = stream
        ids = torch.zeros(samples, config.max_len, dtype=torch.int64)
        places, gc = torch.zeros(samples, dtype=torch.int64), torch.zeros(samples)
        kinds = torch.zeros(ids.shape, dtype=torch.uint8)
        batch = PretrainBatch(
            ids, ids, kinds, config.max_len - 3, gc, gc > 0, Windows(places, places, places, places)
        )
        loop = (Loop if fused else ClippedApart)(
            losses_of=PretrainingLosses(model, LossSettings(), 6, 6 * config.max_len, 5),
            optimizer=build_optimizer(model, lr=0.1, betas=(0.9, 0.98), eps=1e-8, weight_decay=0.1),
            batch_at=lambda step, part: batch,
            lr_at=lambda step: 0.1,
            describe=lambda batch: [],
            bf16=True,
        )
        choice = {"mlp": "triton" if inside else "dense"} | ({} if fused else {"residual_norm": "reference"})
        with dispatch.using(**choice):
            loop._work(0, 0.1)  # makes the optimizer's state
            launches.clear()
            with Count() as counted:
                loop._work(0, 0.1)
    for kernel in (launch.kernel.__name__ for launch in launches):
        kind = next(kind for kind, pattern in KINDS.items() if re.search(pattern, kernel))
        counted.operations[kind] += 1
    return counted


WAYS: dict[str, dict[str, Any]] = {
    "before": {"fused": False, "stream": None},
    "fused": {"fused": True, "stream": None},
    "fused, bf16 stream": {"fused": True, "stream": torch.bfloat16},
    "GELU inside": {"fused": True, "stream": torch.bfloat16, "inside": True},
}


def page(name: str = "dna_gpt0.1b_m", samples: int = 64, layers: int = 0) -> str:
    """The table."""
    counts = {way: count(name, samples, **given, layers=layers) for way, given in WAYS.items()}
    heads = [f"{way}: operations | GB | ms" for way in WAYS]
    lines = [HEAD + f"| kind | {' | '.join(heads)} |", "|---" * (1 + 3 * len(WAYS)) + "|"]
    for kind in [*KINDS, "in all"]:
        cells = []
        for counted in counts.values():
            some = list(KINDS) if kind == "in all" else [kind]
            operations = sum(counted.operations[one] for one in some)
            moved = sum(counted.bytes[one] for one in some)
            cells.append(f"{operations} | {moved / 1e9:.2f} | {moved / ACHIEVED * 1e3:.2f}")
        lines.append(f"| {kind} | {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_update(parser, PAGE)
    parser.add_argument("--layers", type=int, default=0, help="of a smaller model; 0: all")
    options = parser.parse_args(arguments)
    text = page(layers=options.layers)
    show(text, PAGE, options.update)
    return 0


if __name__ == "__main__":
    sys.exit(main())
