"""Composed initial values: a k-mer's input row is a sum of random vectors, one for each of its sub-k-mers.

If each row is drawn independently, the rows of two 6-mers that share five bases are as different as any two rows, and
the model must learn the meaning of a base at a position thousands of times. Composed rows are similar from the start.
Names, shapes and the variance of a component (1) are those of the official initial values; only the draw differs.
"""

import math
import os
from collections.abc import Iterator

import torch

from dnagpt_fast.model.config import ModelConfig, parameter_count, preset
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.training.settings import ConfigError, ModelSettings
from dnagpt_fast.vocab import BASES, Vocabulary

INITIAL = ("composed", "official")
LONGEST_PART = 3
OWN_SHARE = 0.1
MOST_LAYERS = 10_000
"""Building more takes minutes, whatever their width."""


def model_shape(settings: ModelSettings, vocabulary: Vocabulary) -> ModelConfig:
    """A published shape, with the values that the settings give. Raises ConfigError."""
    names = ("max_len", "num_layers", "num_heads", "embedding_dim")
    given = {name: getattr(settings, name) for name in names if getattr(settings, name)}
    try:
        return preset(settings.name, len(vocabulary), bias=settings.bias, **given)
    except ValueError as error:
        raise ConfigError(f"model: {error}") from error


def random_model(settings: ModelSettings, vocabulary: Vocabulary, seed: int) -> DNAGPT:
    """An untrained model. Sets torch's seed. Raises ConfigError."""
    if settings.initial not in INITIAL:
        raise ConfigError(f"model.initial = {settings.initial!r}: wanted {' or '.join(INITIAL)}")
    torch.manual_seed(seed)
    shape = model_shape(settings, vocabulary)
    refuse_too_large(shape)
    model = DNAGPT.from_config(shape)
    if settings.initial == "composed":
        compose_input_rows(model.transformer.wte.weight, vocabulary)
    return model


def refuse_too_large(shape: ModelConfig) -> None:
    """Raises ConfigError for a model that this machine's memory cannot hold, before anything is allocated."""
    layers, count = shape.num_layers, parameter_count(shape)
    needs, has = 4 * count, os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    if layers > MOST_LAYERS or needs > has:
        raise ConfigError(
            f"model: {layers:,} layers of width {shape.embedding_dim:,} have {count:,} parameters, which take "
            f"{needs / 2**30:,.1f} GiB: wanted at most {MOST_LAYERS:,} layers and the memory of this machine, "
            f"{has / 2**30:,.1f} GiB"
        )


@torch.no_grad()
def compose_input_rows(
    rows: torch.Tensor, vocabulary: Vocabulary, generator: torch.Generator | None = None
) -> None:
    """Writes the k-mers' rows of an input table (V, D) in place; the rows of the reserved tokens do not change.

    row(w) = scale * sum over l = 1..3 and places j of part[l, j, w[j : j + l]] + 0.1 * own(w), all entries of part and
    own drawn from N(0, 1). A sub-k-mer with an N adds 0. scale makes the variance of the sum 1 for k-mers without N.
    generator: None takes torch's global generator.

    >>> rows = torch.zeros(len(Vocabulary(3)), 64)
    >>> compose_input_rows(rows, Vocabulary(3), torch.Generator().manual_seed(0))
    >>> row = lambda kmer: rows[Vocabulary(3).kmer_id(kmer)]
    >>> bool(row("ACG") @ row("ACT") > row("ACG") @ row("GTA"))
    True
    """
    width, device = rows.shape[1], rows.device
    n = len(BASES)
    parts: dict[tuple[int, int], torch.Tensor] = {}
    for length, place in _places(vocabulary.k):
        part = torch.randn(n**length, width, generator=generator, dtype=rows.dtype, device=device)
        part[_has_unknown(length).to(device)] = 0.0
        parts[length, place] = part
    for k in range(1 if vocabulary.dynamic else vocabulary.k, vocabulary.k + 1):
        first, count = vocabulary.first_id(k), n**k
        places = list(_places(k))
        value = torch.arange(count, device=device)
        composed = OWN_SHARE * torch.randn(count, width, generator=generator, dtype=rows.dtype, device=device)
        for length, place in places:
            # the digits place .. place + length - 1 of the base-5 number
            sub = value // n ** (k - place - length) % n**length
            composed += parts[length, place][sub] / math.sqrt(len(places))
        rows[first : first + count] = composed


def _places(k: int) -> Iterator[tuple[int, int]]:
    """(length, first position) of every sub-k-mer of at most LONGEST_PART bases."""
    for length in range(1, min(LONGEST_PART, k) + 1):
        for place in range(k - length + 1):
            yield length, place


def _has_unknown(length: int) -> torch.Tensor:
    """bool (5^length,): whether the k-mer with this number contains N, the digit 0."""
    value = torch.arange(len(BASES) ** length)
    digits = torch.stack([value // len(BASES) ** i % len(BASES) for i in range(length)])
    return (digits == 0).any(0)
