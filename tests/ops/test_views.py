"""Every op and implementation under views of every kind: strided, expanded, offset, empty, of one row.

A view has the same values as a contiguous copy, so both must give the same result. No byte outside the view may be
read: the memory between and around its elements is NaN or the largest integer.
"""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from dnagpt_fast import ops
from dnagpt_fast.ops import dispatch
from tests.ops.packed_genomes import packed_genome, random_text

KINDS = ("contiguous", "every second", "expanded", "offset", "transposed", "one row", "no row")


def poison(shape: list[int], dtype: torch.dtype) -> Tensor:
    """All NaN, or the largest integer; True for bool."""
    value = torch.nan if dtype.is_floating_point else True if dtype == torch.bool else torch.iinfo(dtype).max
    return torch.full(shape, value, dtype=dtype)


def view_of(x: Tensor, kind: str) -> Tensor:
    """The values of x (of its first row for "expanded") in the layout `kind`, with poison around them."""
    shape = list(x.shape)
    if kind == "every second":
        view = poison([2 * size for size in shape], x.dtype)[tuple(slice(None, None, 2) for _ in shape)]
    elif kind == "offset":
        view = poison([size + 3 for size in shape], x.dtype)[tuple(slice(1, 1 + size) for size in shape)]
    elif kind == "transposed":
        view = poison([*shape[::-1], 2], x.dtype)[..., 0].permute(*range(x.dim())[::-1])
    elif kind == "expanded":
        return x[:1].clone().expand(shape)
    else:
        return x.clone()
    return view.copy_(x)


def rows_of(kind: str) -> int:
    return {"one row": 1, "no row": 0}.get(kind, 20)


def attention_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    tokens = rows_of(kind)
    tensors = {name: torch.randn(2, 2, tokens, 32) for name in "qkv"}
    tensors["key_mask"] = torch.rand(2, tokens) > 0.3
    do = torch.randn(2, 2, tokens, 32)

    def run(q: Tensor, k: Tensor, v: Tensor, key_mask: Tensor) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in (q, k, v)]
        o = ops.attention(*leaves, key_mask=key_mask)
        assert isinstance(o, Tensor)
        return (o, *torch.autograd.grad(o, leaves, view_of(do, kind)))

    return tensors, run


def attention_packed_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    tokens = rows_of(kind)
    tensors = {"qkv": torch.randn(2, tokens, 3, 2, 32)}
    do = torch.randn(2, 2, tokens, 32)

    def run(qkv: Tensor) -> tuple[Tensor, ...]:
        leaf = qkv.detach().requires_grad_()
        o = ops.attention_packed(leaf)
        return (o, *torch.autograd.grad(o, leaf, view_of(do, kind)))

    return tensors, run


def attention_decode_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    batch = min(rows_of(kind), 3)
    tensors = {
        "q": torch.randn(batch, 2, 2, 32),
        "k_cache": torch.randn(batch, 2, 90, 32),
        "v_cache": torch.randn(batch, 2, 90, 32),
        "cache_lengths": torch.tensor([90, 2, 41])[:batch],
    }
    return tensors, lambda **given: (ops.attention_decode(**given),)


def combined_loss_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    rows, vocab = rows_of(kind), 70
    tensors = {
        "hidden": torch.randn(rows, 24),
        "weight": torch.randn(vocab, 24),
        "targets": torch.randint(0, vocab, (rows,)),
        "bias": torch.randn(vocab),
        "row_kind": torch.randint(0, 3, (rows,), dtype=torch.uint8),
        "gc_prediction": torch.randn(5),
        "gc_target": torch.randn(5),
        "gc_mask": torch.tensor([True, False, True, True, False]),
    }

    def run(
        hidden: Tensor, weight: Tensor, targets: Tensor, bias: Tensor, **rest: Tensor
    ) -> tuple[Tensor, ...]:
        leaves = [x.detach().requires_grad_() for x in (hidden, weight, bias)]
        loss = ops.combined_loss(*leaves[:2], targets, bias=leaves[2], return_log_probs=True, **rest)
        parts = (loss.total, loss.next_token, loss.order, loss.gc, loss.log_probs)
        return (*parts, *torch.autograd.grad(loss.total, leaves))

    return tensors, run


def residual_norm_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    rows = rows_of(kind)
    tensors = {name: torch.randn(rows, 24) for name in ("stream", "branch")}
    tensors |= {name: torch.randn(24) for name in ("weight", "bias")}
    cotangents = torch.randn(rows, 24), torch.randn(rows, 24)

    def run(**given: Tensor) -> tuple[Tensor, ...]:
        leaves = {name: x.detach().requires_grad_() for name, x in given.items()}
        made = ops.residual_norm(**leaves)
        seen = [view_of(x, kind) for x in cotangents]
        return (*made, *torch.autograd.grad(made, list(leaves.values()), seen))

    return tensors, run


def mlp_case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
    rows = rows_of(kind)
    tensors = {"x": torch.randn(rows, 24), "up": torch.randn(40, 24), "down": torch.randn(12, 40)}
    tensors |= {"up_bias": torch.randn(40), "down_bias": torch.randn(12)}
    dy = torch.randn(rows, 12)

    def run(**given: Tensor) -> tuple[Tensor, ...]:
        leaves = {name: x.detach().requires_grad_() for name, x in given.items()}
        y = ops.mlp(**leaves)
        return (y, *torch.autograd.grad(y, list(leaves.values()), view_of(dy, kind)))

    return tensors, run


def windows_case(op: str) -> Callable[[str], tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]]:
    genome = packed_genome(random_text(900, seed=1, n_every=70), random_text(500, seed=2))

    def case(kind: str) -> tuple[dict[str, Tensor], Callable[..., tuple[Tensor, ...]]]:
        count = rows_of(kind)
        tensors = {"contig": torch.arange(count) % 2, "start_bp": torch.arange(count) * 7}
        if op == "gc_count":
            tensors["length_bp"] = torch.arange(count) + 3
            return tensors, lambda **given: ops.gc_count(genome, **given)
        tensors["orientation"] = torch.arange(count) % 4

        def run(contig: Tensor, start_bp: Tensor, orientation: Tensor) -> tuple[Tensor, ...]:
            return (ops.kmer_tokenize(genome, contig, start_bp, 20, orientation),)

        return tensors, run

    return case


CASES = {
    "attention": attention_case,
    "attention_packed": attention_packed_case,
    "attention_decode": attention_decode_case,
    "combined_loss": combined_loss_case,
    "residual_norm": residual_norm_case,
    "mlp": mlp_case,
    "gc_count": windows_case("gc_count"),
    "kmer_tokenize": windows_case("kmer_tokenize"),
}


def implementations(op: str) -> list[str]:
    names = dispatch.IMPLEMENTATIONS[op.removesuffix("_packed")]
    return [name for name in names if name != "rule"]  # resolved to another of them


@pytest.mark.usefixtures("poisoned_memory")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    ("op", "implementation"), [(op, name) for op in CASES for name in implementations(op)], ids=str
)
def test_a_view_gives_what_its_copy_gives(op, implementation, kind):
    tensors, run = CASES[op](kind)
    with dispatch.using(**{op.removesuffix("_packed"): implementation}):
        views = {name: view_of(x, kind) for name, x in tensors.items()}
        # clone() would keep the strides of a dense view
        copies = {name: torch.empty(x.shape, dtype=x.dtype).copy_(x) for name, x in views.items()}
        got, wanted = run(**views), run(**copies)
        for i, (g, w) in enumerate(zip(got, wanted, strict=True)):
            torch.testing.assert_close(g, w, msg=lambda m, i=i: f"result {i}: {m}")
