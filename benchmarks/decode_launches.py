"""The launches of one token of generation on a GPU, counted by tracing: torch's kernels and the Triton kernels.

    python -m benchmarks.decode_launches

A step runs on fake tensors as on an H100 (traced_steps.py). Every operation of torch that is not a view or an
allocation counts as one launch; some, such as a sort, take several. In a CUDA graph all of them are one launch of the
host, but each still takes its two microseconds on the card.
"""

import argparse
import sys
from collections import Counter
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

from benchmarks.traced_steps import SHAPES, Step, trace
from benchmarks.triton_launches import launches_go_to, target_of
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.lanes import LOOK, Buffers
from dnagpt_fast.ops.sampling.settings import Choice

ALLOCATIONS = ("empty", "empty_strided", "empty_like", "new_empty", "lift_fresh", "detach")
CHOICES = {
    "greedy": Choice(),
    "top-p 0.95": Choice(top_p=0.95, how="uniform"),
    "torch's global generator, top-k 50": Choice(top_k=50, how="race"),
}


class Counts(TorchDispatchMode):
    """Counts operations of torch that launch a kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func._schema.name.split("::")[1]
        view = any(result.alias_info and not result.alias_info.is_write for result in func._schema.returns)
        if func.namespace == "aten" and not view and name not in ALLOCATIONS:
            self.found[name] += 1
        return func(*args, **(kwargs or {}))


def launches(name: str, choice: Choice, lanes: int = 10, dtype: torch.dtype = torch.bfloat16) -> Counter[str]:
    """The launches of one token of `lanes` sequences with a model of SHAPES, by kernel."""
    config, counts = SHAPES[name], Counts()

    def run(model: DNAGPT) -> None:
        buffers = Buffers(Inference(model), lanes, config.max_len, choice, (19, 20), LOOK)
        buffers.step()  # makes what is kept for later steps
        kernels.clear()
        with counts:
            buffers.step()

    kernels: list[str] = []
    with launches_go_to(target_of("sm_90"), lambda launch: kernels.append(launch.kernel.__name__)):
        trace(Step("decoding", config, dtype, "meta", run), "sm_90")
    return counts.found + Counter(kernels)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.parse_args(arguments)
    for name, config in SHAPES.items():
        for how, choice in CHOICES.items():
            found = launches(name, choice)
            print(f"{name}, {config.num_layers} layers, {how}: {found.total()} launches a token")
    print(", ".join(f"{kernel} {count}" for kernel, count in found.most_common()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
