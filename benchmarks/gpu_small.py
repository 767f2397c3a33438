"""Every kernel once on small shapes, for compute-sanitizer, before anything else runs on a GPU.

    compute-sanitizer --tool memcheck python -m benchmarks.gpu_small
    python -m benchmarks.gpu_small --device cpu                           a rehearsal with the CPU
                                                                          implementations

The shapes of known compiler faults come first (Triton issues 10573, 10486, 11366: attention's backward with
32-wide tiles and 4 warps on sm_90). Such a fault appears in all launches of a process or in none, so each
tool runs in a new process.
"""

import argparse

import torch

from dnagpt_fast import ops
from dnagpt_fast.genome.sampler import WindowSampler
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.attention.extend import attention_extend
from dnagpt_fast.ops.sampling.op import advance_lanes, next_tokens
from dnagpt_fast.ops.sampling.settings import HOWS, Choice
from tests.ops.attention.cases import Case
from tests.ops.packed_genomes import packed_genome, random_text


def attention(device: str, dtype: torch.dtype) -> None:
    """Each head size, plain and masked, forward and backward, in two passes and in one; decoding."""
    for size in (32, 128, 64):
        # few kernels to compile, all kinds of loads
        for kind, tokens in (
            ("causal", 200),
            ("sequences padded", 200),
            ("causal", 60),
            ("sequences padded", 50),
        ):
            case = Case(1 if "sequences" in kind else 2, 2, tokens, size, kind, dtype)
            (qkv,), (do, dlse) = case.inputs()
            leaf = qkv.to(device).requires_grad_()
            options = {
                name: x.to(device) if isinstance(x, torch.Tensor) else x for name, x in case.options().items()
            }
            q, k, v = (x.transpose(1, 2) for x in leaf.unbind(2))
            o, lse = ops.attention(q, k, v, return_lse=True, **options)  # type: ignore[arg-type]
            seen = lse.where(lse != -torch.inf, 0.0)
            torch.autograd.grad((o, seen), leaf, (do.to(device), dlse.to(device)))
            torch.autograd.grad(ops.attention_packed(leaf, **options), leaf, do.to(device))  # type: ignore[arg-type]
        cache = torch.randn(2, 3, 2, 300, size, device=device, dtype=dtype)
        lengths = torch.tensor([300, 7, 129], device=device)
        ops.attention_decode(cache[0, :, :, :3], *cache, lengths)


def generation(device: str, dtype: torch.dtype) -> None:
    """A token more in each cache, in one part and in two, and every way to choose a token."""
    for size, slots in ((32, 600), (64, 300), (128, 70)):
        cache = torch.randn(2, 3, 2, slots, size, device=device, dtype=dtype)
        lengths = torch.tensor([slots - 1, 0, 60], device=device)
        attention_extend(torch.randn(16, 6 * size, device=device, dtype=dtype), *cache, lengths)
    logits = torch.randn(3, 5000, device=device, dtype=dtype)
    allowed = torch.rand(5000, device=device) < 0.9
    for how in HOWS:
        numbers = {"uniform": torch.rand(3, device=device, dtype=torch.float64), "race": logits.abs() + 1}
        for choice in (Choice(how=how), Choice(0.9, 50, 0.9, how, allowed)):
            tokens = next_tokens(logits, choice, numbers.get(how))
    state = [torch.ones(3, dtype=torch.int64, device=device) for _ in range(3)]
    made, turn = torch.zeros(2, 3, dtype=torch.int64, device=device), torch.zeros_like(state[0][:1])
    advance_lanes(tokens, tokens[:2].clone(), *state, made, turn)


def combined_loss(device: str, dtype: torch.dtype) -> None:
    """With and without its options, with partly filled tiles, by each of its implementations for a GPU."""
    rows, vocab, width = 300, 1030, 200
    targets = torch.randint(0, vocab, (rows,), device=device)
    kind = torch.randint(0, 3, (rows,), device=device, dtype=torch.uint8)
    gc = torch.randn(5, device=device, requires_grad=True)
    for options in (
        {},
        {"skip_below": 2**-24},
        {"reduction": "none"},
        {"label_smoothing": 0.1, "z_loss": 1e-3, "soft_cap": 5.0},
    ):
        leaves = [
            torch.randn(n, width, device=device, dtype=dtype, requires_grad=True) for n in (rows, vocab)
        ]
        bias = torch.randn(vocab, device=device, dtype=dtype, requires_grad=True)
        given = {"gc_prediction": gc, "gc_target": gc.detach() + 1} if "reduction" not in options else {}
        for name in ("triton", "products") if device != "cpu" else ("chunked",):
            with dispatch.using(combined_loss=name):
                loss = ops.combined_loss(*leaves, targets, bias=bias, row_kind=kind, **given, **options)  # type: ignore[arg-type]
            torch.autograd.grad(loss.total.sum(), [*leaves, bias])


def residual_norm(device: str, dtype: torch.dtype) -> None:
    """Either stream, with and without bias, at a width that fills its tiles and one that does not."""
    for width in (256, 200):
        for stream in (torch.float32, dtype):
            leaves = [
                torch.randn(300, width, device=device, dtype=kind, requires_grad=True)
                for kind in (stream, dtype)
            ]
            leaves += [torch.randn(width, device=device, requires_grad=True) for _ in range(2)]
            for given in (leaves, leaves[:3]):
                s, y = ops.residual_norm(*given, dtype=dtype)
                torch.autograd.grad(s.sum() + y.sum(), given, retain_graph=True)
                torch.autograd.grad(y.sum(), given)


def mlp(device: str, dtype: torch.dtype) -> None:
    """With and without biases, at a width that fills its tiles and one that does not."""
    for width in (128, 90):
        wide = 4 * width
        leaves = [
            torch.randn(*shape, device=device, dtype=dtype, requires_grad=True)
            for shape in ((300, width), (wide, width), (width, wide), (wide,), (width,))
        ]
        with dispatch.using(mlp="triton" if device != "cpu" else "dense"):
            for biases in ({}, {"up_bias": leaves[3], "down_bias": leaves[4]}):
                y = ops.mlp(*leaves[:3], **biases)
                torch.autograd.grad(y.sum(), leaves[: 3 + len(biases)])


def genome(device: str) -> None:
    """Tokenizing, GC counts and sampled batches."""
    here = packed_genome(random_text(5000, seed=1, n_every=300))
    on_device = here.to(device)
    starts = torch.arange(0, 900, 7)
    contigs = torch.zeros_like(starts)
    for dtype in (torch.uint16, torch.int32, torch.int64):
        ops.kmer_tokenize(on_device, contigs, starts, 510, starts % 4, dtype=dtype)
    ops.gc_count(on_device, contigs, starts, starts + 3)
    tables = WindowSampler([here], 6 * 37, seed=3).tables
    ops.BatchSampler([on_device], tables, 3, 37)(0, 65)
    ops.synchronize(on_device)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", default="cuda")
    device = parser.parse_args(arguments).device
    dtype = torch.float32 if device == "cpu" else torch.bfloat16
    attention(device, dtype)
    combined_loss(device, dtype)
    residual_norm(device, dtype)
    mlp(device, dtype)
    genome(device)
    if device != "cpu":
        torch.cuda.synchronize()
    print("every kernel ran")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
