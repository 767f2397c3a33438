"""The base-level loss: against its formula, against fp64, and the settings with which it cannot be combined."""

import math
from itertools import product

import pytest
import torch

from dnagpt_fast.batch import IGNORE_INDEX, ROW_NEXT_TOKEN
from dnagpt_fast.ops.combined_loss.base_level import (
    base_level_rows,
    base_probabilities,
    bases_of_kmers,
    pulled_up,
)
from dnagpt_fast.ops.combined_loss.occurring import plain_kmers
from dnagpt_fast.vocab import Vocabulary
from tests.ops.combined_loss.cases import Case, assert_implementation_close, make_case, run

IMPLEMENTATIONS = ["reference", "chunked", "triton"]
KERNELS = ["chunked", "triton"]


def base_case(
    k: int, rows: int = 40, dynamic: bool = True, width: int = 16, base_level: float = 0.4, **options
) -> Case:
    """Rows of every kind; most of the next tokens are plain k-mers, some are other tokens."""
    vocabulary = Vocabulary(k, dynamic)
    case = make_case(rows, len(vocabulary), width, base_level=base_level, k=k, **options)
    plain = torch.rand(rows) < 0.8
    kmers = plain_kmers(vocabulary)
    drawn = kmers[torch.randint(0, len(kmers), (rows,))]
    targets = case.tensors["targets"]
    targets[:] = torch.where(plain & (targets != IGNORE_INDEX), drawn, targets)
    return case


def test_numbers_of_kmers_are_their_bases():
    vocabulary = Vocabulary(3)
    pieces = [vocabulary.piece(int(token)) for token in plain_kmers(vocabulary)]
    assert pieces == ["".join(bases) for bases in product("AGCT", repeat=3)]
    written = ["".join("AGCT"[b] for b in bases) for bases in bases_of_kmers(3, torch.device("cpu")).tolist()]
    assert written == pieces


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("dynamic", [True, False])
def test_the_formula(implementation, dynamic):
    """Every P_i(b) is summed over the letters, in Python floats."""
    k, share = 2, 0.3
    vocabulary = Vocabulary(k, dynamic)
    case = base_case(k, 24, dynamic, base_level=share).to(torch.float64)
    ours = run(case, implementation)
    x, w, b, t = (case.tensors[n] for n in ("hidden", "weight", "bias", "targets"))
    pieces = [vocabulary.piece(v) for v in range(len(vocabulary))]
    plain = [len(p) == k and set(p) <= set("ACGT") for p in pieces]
    total, rows, by_base = 0.0, 0, 0
    for r in range(24):
        if case.tensors["row_kind"][r] != ROW_NEXT_TOKEN or t[r] == IGNORE_INDEX:
            continue
        p = torch.softmax(x[r] @ w.T + b, 0).tolist()
        rows += 1
        loss = -math.log(p[t[r]])
        if plain[t[r]]:
            by_base += 1
            of_base = [
                sum(p[v] for v in range(len(p)) if plain[v] and pieces[v][i] == pieces[t[r]][i])
                for i in range(k)
            ]
            loss = (1 - share) * loss - share * sum(map(math.log, of_base)) / k
        total += loss
    assert 0 < by_base < rows
    assert abs(float(ours["next_token"]) - total / rows) < 1e-7


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("base_level", [0.3, 1.0])
@pytest.mark.parametrize("settings", [{}, {"z_loss": 1e-2, "soft_cap": 3.0}], ids=str)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_every_output_and_gradient_against_fp64(implementation, base_level, settings, dtype):
    case = base_case(3, base_level=base_level, dtype=dtype, **settings)
    assert_implementation_close(case, implementation)


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_reductions_against_fp64(implementation, reduction):
    assert_implementation_close(base_case(3, reduction=reduction), implementation)


@pytest.mark.parametrize("implementation", KERNELS)
@pytest.mark.parametrize(
    ("k", "dtype"),
    # tiles of 64 and of 128 places: more than one tile of plain k-mers, each with one first base
    [(1, torch.float32), (4, torch.float32), (4, torch.float16), (5, torch.float16)],
    ids=str,
)
def test_kmers_of_other_lengths_against_fp64(implementation, k, dtype):
    assert_implementation_close(base_case(k, rows=130, dtype=dtype, spread=3.0), implementation)


@pytest.mark.parametrize("implementation", ["chunked", pytest.param("triton", marks=pytest.mark.slow)])
def test_the_published_vocabulary_against_fp64(implementation):
    assert_implementation_close(base_case(6, rows=150, width=32), implementation)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_share_of_0_is_the_cross_entropy(implementation):
    case = base_case(2)
    for name, value in run(case.with_(base_level=0.0), implementation).items():
        plain = run(
            Case(case.tensors, {n: v for n, v in case.settings.items() if n not in ("base_level", "k")}),
            implementation,
        )
        assert torch.equal(value, plain[name]), name


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_base_of_no_probability_gives_a_finite_loss(implementation):
    """P_i(t_i) underflows if every k-mer with the target's base is 200 nats below the others."""
    case = base_case(2, base_level=0.5)
    case.tensors["bias"].zero_()
    vocabulary = Vocabulary(2)
    with_t = [
        v for v in range(len(vocabulary)) if vocabulary.piece(v)[:1] == "T" and len(vocabulary.piece(v)) == 2
    ]
    case.tensors["bias"][with_t] = -200.0
    case.tensors["targets"][:] = vocabulary.kmer_id("TA")
    for name, value in run(case, implementation).items():
        assert torch.isfinite(value).all(), name


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(base_level=1.5), r"base_level 1.5: wanted a share, 0..1"),
        (dict(base_level=0.5, label_smoothing=0.1), r"base_level 0.5 and label_smoothing 0.1"),
        (dict(base_level=0.5, skip_below=2**-24), r"base_level 0.5 and skip_below"),
        (dict(base_level=0.5, classes=torch.tensor([3])), r"base_level and classes"),
        (dict(base_level=0.5, k=None), r"base_level with k 0 and 64 rows of weight: wanted k of 1..6"),
        (dict(base_level=0.5, k=3), r"base_level with k 3 and 64 rows of weight: .*, 189 \(dynamic\) or 159 \(fixed\)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(arguments, message):
    case = base_case(2)
    with pytest.raises(ValueError, match=message):
        run(case.with_(**arguments), "chunked")


def test_every_tensor_is_on_the_device_of_the_rows():
    """On the meta device, which, like a GPU, refuses tensors of the CPU beside its own."""
    logits, number = torch.zeros(5, 300, device="meta"), torch.zeros(5, dtype=torch.int64, device="meta")
    kmers = torch.zeros(4**3, dtype=torch.int64, device="meta")
    assert base_level_rows(logits, kmers, number).shape == (5,)
    found = base_probabilities(logits[:, : 4**3], logits[:, :1], number, 3)
    assert found.shape == (5, 3)
    assert pulled_up(found, number, 3).shape == (5, 4**3)
