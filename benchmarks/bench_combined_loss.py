"""combined_loss, over the full vocabulary and over the occurring tokens, against plain torch, torch's
linear_cross_entropy and (where installed) Liger.

    pytest benchmarks/bench_combined_loss.py                      4,096 rows of the 0.1B model, on CPU
    pytest benchmarks/bench_combined_loss.py --benchmark-json=out.json

Rows of tokens that never occur are equal and never a target, so all implementations have the same loss and
gradient. Ours must agree with plain torch before a time is taken; the errors of the others are printed (torch's
linear_cross_entropy, 2.13: 7e-4 if rows of the projection are equal, otherwise 1e-5). They run in turn; the
best of ROUNDS is reported. Printed, one row for each contender, and in extra_info: instruction_set (as torch
uses it), threads, seconds, tokens_per_s (rows of the loss), memory_mb (peak of the process above its inputs,
including gradients, measured on Linux), and time and memory as ratios to plain torch in this run.
DNAGPT_BENCH_ROWS=256 sets another size, to test the script.
"""

import ctypes
import json
import os
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F

from dnagpt_fast.ops import combined_loss, dispatch
from dnagpt_fast.ops.combined_loss.occurring import equalize_rest, occurring_tokens
from dnagpt_fast.vocab import N_RESERVED, Vocabulary

ROWS, VOCAB, WIDTH = int(os.environ.get("DNAGPT_BENCH_ROWS", 4096)), 19_564, 768
ROUNDS = 4
CHECKED_ROWS = 7000  # three chunks of the kernels' backward, whose sums go through memory between them
OCCURRING = occurring_tokens(Vocabulary(6), range(N_RESERVED))
Loss = Callable[[torch.Tensor, torch.Tensor, torch.Tensor], torch.Tensor]


def plain(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.cross_entropy(F.linear(x, w), t)


def ours(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return combined_loss(x, w, t).total


def ours_occurring(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return combined_loss(x, w, t, occurring=OCCURRING.to(x.device)).total


def torch_chunked(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return F.linear_cross_entropy(x, w, t, options=torch.nn.LinearCrossEntropyOptions())


CONTENDERS: dict[str, Loss] = {
    "plain": plain,
    "torch linear_cross_entropy": torch_chunked,
    "ours": ours,
    "ours, occurring": ours_occurring,
}
if not hasattr(F, "linear_cross_entropy"):  # torch below 2.13
    del CONTENDERS["torch linear_cross_entropy"]


def inputs(device: str, dtype: torch.dtype, rows: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, WIDTH, generator=generator).to(device, dtype).requires_grad_()
    w = torch.randn(VOCAB, WIDTH, generator=generator) / WIDTH**0.5
    equalize_rest(w, None, OCCURRING)
    t = OCCURRING.tokens[torch.randint(0, len(OCCURRING.tokens), (rows,), generator=generator)]
    return x, w.to(device, dtype).requires_grad_(), t.to(device)


def one_pass(
    loss: Loss, x: torch.Tensor, w: torch.Tensor, t: torch.Tensor, gradient: bool = True
) -> torch.Tensor:
    x.grad = w.grad = None
    with torch.set_grad_enabled(gradient):
        value = loss(x, w, t)
    if gradient:
        value.backward()
    return value.detach()


def status_mb(field: str) -> float:
    found = re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) / 1024


def peak_mb(run: Callable[[], object], device: str) -> float:
    """Peak memory of one call above the memory before it: of the allocator on CUDA, of the process on
    Linux."""
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        run()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    ctypes.CDLL(None).malloc_trim(0)  # otherwise the call could use freed blocks that glibc still holds
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak to the current size
    before = status_mb("VmRSS")
    run()
    return status_mb("VmHWM") - before


def largest_error(loss: Loss, x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> float:
    """Of the loss and both gradients against plain torch's, as a share of the largest value."""
    wanted = [one_pass(plain, x, w, t), x.grad, w.grad]
    got = [one_pass(loss, x, w, t), x.grad, w.grad]
    errors = []
    for theirs, plains in zip(got, wanted, strict=True):
        assert theirs is not None
        assert plains is not None
        errors.append(float((theirs.double() - plains.double()).abs().max() / plains.double().abs().max()))
    return max(errors)


def check(loss: Loss, x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> None:
    """Loss and both gradients against fp64: an error of at most twice plain torch's and a few units of the dtype."""
    wide = [y.detach().double().requires_grad_() for y in (x, w)]
    truth = [one_pass(plain, *wide, t), *(y.grad for y in wide)]
    errors = []
    for function in (loss, plain):
        got = [one_pass(function, x, w, t), x.grad, w.grad]
        errors.append(
            [float((a.double() - b).abs().max() / b.abs().max()) for a, b in zip(got, truth, strict=True)]
        )
    unit = torch.finfo(x.dtype).eps
    for what, ours, plains in zip(("loss", "dx", "dw"), *errors, strict=True):
        assert ours <= 2 * plains + 4 * unit, (
            f"{what}: relative error {ours:.2e}, plain torch has {plains:.2e}"
        )


def error_of(name: str, loss: Loss, *tensors: torch.Tensor) -> float:
    """A contender's error. Ours must pass the check; a peer's is shown beside its figures."""
    if name.startswith("ours"):
        check(loss, *tensors)
    return largest_error(loss, *tensors)


@pytest.mark.parametrize("gradient", [True, False], ids=["forward+backward", "evaluation"])
def test_cpu(benchmark, gradient):
    errors = {
        name: error_of(name, loss, *inputs("cpu", torch.float32, 64)) for name, loss in CONTENDERS.items()
    }
    x, w, t = inputs("cpu", torch.float32, ROWS)
    memory, seconds = {}, {name: [] for name in CONTENDERS}
    for name, loss in CONTENDERS.items():
        x.grad = w.grad = None
        memory[name] = peak_mb(lambda loss=loss: one_pass(loss, x, w, t, gradient), "cpu")
    for _ in range(ROUNDS):  # in turn, so that a machine that slows down slows all of them
        for name, loss in CONTENDERS.items():
            began = time.perf_counter()
            one_pass(loss, x, w, t, gradient)
            seconds[name].append(time.perf_counter() - began)
    benchmark.pedantic(one_pass, args=(ours, x, w, t, gradient), rounds=1, iterations=1)
    benchmark.extra_info["rows"] = [
        {
            "contender": name,
            "implementation": dispatch.choose("combined_loss", "cpu") if name.startswith("ours") else "torch",
            "instruction_set": torch.backends.cpu.get_cpu_capability(),
            "threads": torch.get_num_threads(),
            "gradient": gradient,
            "error": float(f"{errors[name]:.1e}"),
            "seconds": round(min(times), 3),
            "tokens_per_s": round(ROWS / min(times)),
            "time_ratio": round(min(times) / min(seconds["plain"]), 3),
            "memory_mb": round(memory[name], 1),
            "memory_ratio": round(memory[name] / memory["plain"], 3),
        }
        for name, times in seconds.items()
    ]
    print()
    for row in benchmark.extra_info["rows"]:
        print(json.dumps(row))


def gpu_contenders() -> dict[str, Loss]:
    """CONTENDERS, the recomputing kernels, the tile skip, torch.compile and, where installed, Liger."""

    def recomputing(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with dispatch.using(combined_loss="triton"):
            return ours(x, w, t)

    def recomputing_occurring(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        with dispatch.using(combined_loss="triton"):
            return ours_occurring(x, w, t)

    def skipping(x: torch.Tensor, w: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return combined_loss(x, w, t, skip_below=2**-24).total

    found = CONTENDERS | {
        "ours, recomputing kernels": recomputing,
        "ours, occurring, recomputing kernels": recomputing_occurring,
        "ours, skip 2^-24": skipping,
        "torch.compile": torch.compile(plain),
    }
    try:
        from liger_kernel.transformers.functional import liger_fused_linear_cross_entropy
    except ImportError:
        print("Liger is not installed: pip install liger-kernel")
    else:
        found["liger"] = liger_fused_linear_cross_entropy
    return found


def gpu_rows(
    rows: int = 32_768, dtype: torch.dtype = torch.bfloat16, rounds: int = 20, device: str = "cuda"
) -> Iterator[dict[str, object]]:
    """For the report on a real card: every contender's median time and peak memory. On the CPU: CONTENDERS."""
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None
    x, w, t = inputs(device, dtype, rows)
    for name, loss in (gpu_contenders() if device == "cuda" else CONTENDERS).items():
        error = error_of(name, loss, *inputs(device, dtype, min(rows, CHECKED_ROWS)))
        for gradient in (True, False):
            one_pass(loss, x, w, t, gradient)
            memory = peak_mb(lambda loss=loss, gradient=gradient: one_pass(loss, x, w, t, gradient), device)
            times = []
            for _ in range(rounds):
                wait()
                began = time.perf_counter()
                one_pass(loss, x, w, t, gradient)
                wait()
                times.append(time.perf_counter() - began)
            yield {
                "op": "combined_loss",
                "contender": name,
                "rows": rows,
                "gradient": gradient,
                "error": error,
                "seconds": sorted(times)[len(times) // 2],
                "memory_mb": memory,
            }
