"""Differences between the tested versions of transformers (`dnagpt-fast doctor` shows them)."""

import warnings
from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import torch
import transformers
from transformers import PreTrainedConfig
from transformers.cache_utils import Cache
from transformers.masking_utils import create_causal_mask
from transformers.modeling_outputs import BaseModelOutputWithPast

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""The name of the key-value cache in the installed transformers: `past_key_values` up to 5.23, then
`cache`."""
KNOWN_TENSORS = frozenset(
    (
        "num_items_in_batch",
        "shift_labels",
        "cache_position",
        "cu_seq_lens_q",
        "cu_seq_lens_k",
        "max_length_q",
        "max_length_k",
    )
)
"""Tensors that transformers passes to any model: for the loss, for the attention functions, or with
information that the cache and the positions already have."""


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, which may be passed under either name; warns about the older name as the installed
    transformers does. Raises ValueError for two."""
    if past_key_values is None:
        return cache
    if cache is not None:
        raise ValueError("cache and past_key_values are two names of one argument: both were given")
    if CACHE == "cache":
        warnings.warn(
            "`past_key_values` is deprecated in transformers, which calls it `cache` since 5.24",
            FutureWarning,
            stacklevel=3,
        )
    return past_key_values


def refuse_unknown_state(arguments: Mapping[str, Any]) -> None:
    """Raises TypeError for a cache or a tensor under a name that this model does not know.

    transformers passes settings of its own through every model, so unknown names as such must be let through. But a
    tensor or a cache left out changes the numbers: it must not vanish when transformers renames an argument.
    """
    for name, value in arguments.items():
        if name not in KNOWN_TENSORS and isinstance(value, (torch.Tensor, Cache)):
            raise TypeError(
                f"forward got {name} ({type(value).__name__}), which this model does not know; with transformers "
                f"{transformers.__version__} it may be a new name of an argument. `dnagpt-fast doctor` names the "
                "tested versions"
            )


def causal_mask(
    config: PreTrainedConfig,
    x: torch.Tensor,
    attention_mask: torch.Tensor | None,
    cache: Cache | None,
    position_ids: torch.Tensor | None,
) -> Any:
    """The mask in the form that the configured attention needs, by transformers' own function: None (plain
    causal), bool or float (B, 1, T, S), or the result of its registered mask function.

    x             embeddings (B, T, D)
    position_ids  (B, T); without mask and cache, restarts separate packed sequences
    """
    return create_causal_mask(
        config=config,
        inputs_embeds=x,
        attention_mask=attention_mask,
        position_ids=position_ids,
        **{CACHE: cache},
    )
