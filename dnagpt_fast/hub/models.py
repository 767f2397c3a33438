"""The blocks and the trunk of DNAGPT for transformers, with loading and initialisation of the weights.

There is no remote code: the classes are in this package. Tensors have the official names here too, so the
same weights work in the official code, a run folder and a Hugging Face folder. `from_pretrained` refuses a
folder whose tensors are not exactly those of the model (transformers only warns), unless called with
`strict=False`.
"""

import math
import re
from typing import Any, cast

import torch
from torch import nn
from transformers import DynamicCache, PreTrainedModel, initialization
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import BaseModelOutputWithPast

from dnagpt_fast.hub.attention import DNAGPTAttention
from dnagpt_fast.hub.config import DNAGPTConfig
from dnagpt_fast.hub.versions import CACHE, causal_mask, one_cache, refuse_unknown_state
from dnagpt_fast.model.layers import MLP, head
from dnagpt_fast.training.torch_files import cause, reason


class TensorsDoNotFit(ValueError, RuntimeError):
    """A folder's tensors are not those of the model. Also a RuntimeError, as transformers raises in some such
    cases."""


class DNAGPTBlock(GradientCheckpointingLayer):
    """A block whose attention can use a cache; the same modules and names as model.layers.Block."""

    def __init__(self, config: DNAGPTConfig, layer_idx: int) -> None:
        super().__init__()
        shape = config.model_config()
        self.attn = DNAGPTAttention(config, layer_idx)
        self.mlp = MLP(shape)
        # transformers initialises each module separately, and skips modules without tensors of their own
        last: list[Any] = [self.attn.c_proj, self.mlp.c_proj]
        for layer in last:
            layer.ends_residual_branch = True
        self.ln_1 = nn.LayerNorm(shape.embedding_dim, bias=shape.bias)
        self.ln_2 = nn.LayerNorm(shape.embedding_dim, bias=shape.bias)

    def forward(
        self, x: torch.Tensor, mask: Any = None, cache: Cache | None = None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """(B, T, D) -> (B, T, D) and the attention's weights, if its function returns them."""
        attended, weights = self.attn(self.ln_1(x), mask, cache, **kwargs)
        x = x + attended
        return x + self.mlp(self.ln_2(x)), weights


class DNAGPTPreTrainedModel(PreTrainedModel):
    config_class = DNAGPTConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DNAGPTBlock"]  # noqa: RUF012
    _skip_keys_device_placement = [CACHE]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    # Tensors that may be missing when the weights come from a model with another head; transformers warns
    # about them. Tensors that may be present without use are in transformers' own
    # _keys_to_ignore_on_load_unexpected.
    may_be_missing = ""

    @classmethod
    def from_pretrained(cls, *args: Any, strict: bool = True, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, but raises TensorsDoNotFit (a ValueError) with the names of
        missing and unexpected tensors and of tensors with another shape.

        strict  False: loads the tensors that fit and only warns, as transformers does.
                `ignore_mismatched_sizes=True`, for example for a head with another number of classes, only
                allows tensors with another shape; they are initialised.
        """
        wants_info = kwargs.pop("output_loading_info", False)
        misshapen_allowed = kwargs.pop("ignore_mismatched_sizes", False) or not strict
        # tensors with another shape are allowed here and named below; transformers' error would not name them
        try:
            loaded: Any = super().from_pretrained(
                *args, output_loading_info=True, ignore_mismatched_sizes=True, **kwargs
            )
        except Exception as error:
            if cause(error) is not None:
                raise
            raise TensorsDoNotFit(f"{args[0] if args else 'the folder'}: {reason(error)}") from None
        model, info = loaded
        kinds = {
            "missing": sorted(
                name for name in info["missing_keys"] if not re.fullmatch(cls.may_be_missing, name)
            ),
            "unexpected": sorted(info["unexpected_keys"]),
            "wrong shape": [
                " ".join(map(str, key)) for key in info["mismatched_keys"] if not misshapen_allowed
            ],
        }
        faults = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        if strict and faults:
            raise TensorsDoNotFit(
                f"{args[0] if args else 'the folder'} does not fit {cls.__name__}. " + "; ".join(faults)
            )
        return (model, info) if wants_info else model

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoModel") -> None:
        """Does nothing, as for the configuration."""

    def wants_dict(self, return_dict: bool | None) -> bool:
        """Whether forward returns an output object or a tuple."""
        return bool(self.config.return_dict if return_dict is None else return_dict)

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """torch's defaults, and c_proj normal with std 0.02 / sqrt(2 * layers), by functions that do not
        change loaded tensors."""
        if getattr(module, "ends_residual_branch", False):
            initialization.normal_(module.weight, std=0.02 / math.sqrt(2 * self.config.num_layers))
        elif isinstance(module, nn.Linear):
            initialization.kaiming_uniform_(module.weight, a=math.sqrt(5))
        elif isinstance(module, nn.Embedding):
            initialization.normal_(module.weight)
        elif isinstance(module, nn.LayerNorm):
            initialization.ones_(module.weight)
        bias = getattr(module, "bias", None)
        if isinstance(module, nn.Linear) and bias is not None:
            bound = module.in_features**-0.5
            initialization.uniform_(bias, -bound, bound)
        elif isinstance(module, nn.LayerNorm) and bias is not None:
            initialization.zeros_(bias)


class DNAGPTModel(DNAGPTPreTrainedModel):
    """Embeddings, blocks and last norm; with `config.head_in_trunk` also the first three layers of the token
    head."""

    _keys_to_ignore_on_load_unexpected = [  # noqa: RUF012
        r"^(number_embedding|mlm_head|num_regression|score)\."
    ]

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.wpe = nn.Embedding(config.max_len, config.embedding_dim)
        self.h = nn.ModuleList([DNAGPTBlock(config, index) for index in range(config.num_layers)])
        self.ln_f = nn.LayerNorm(config.embedding_dim, bias=config.bias)
        if config.head_in_trunk:
            self.head = head(config.embedding_dim, config.embedding_dim, config.vocab_size, config.bias)[:3]
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.wte = cast(nn.Embedding, value)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | int | list[int] | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """Hidden states (B, T, D) after the last norm, or the input of the token head's last layer.

        attention_mask        (B, S), 0 at padding; or (B, 1, T, S), bool (True: seen) or float (added to the scores)
        position_ids          (B, T); default: the count of attended tokens before each token, so left padding
                              does not shift positions. Without mask and cache, positions that restart
                              separate packed sequences
        cache                 also under the older name `past_key_values`
        output_hidden_states  True, or the indices of the wanted states (the others are then None)
        kwargs                passed to the attention function

        Raises ValueError for positions past max_len and masks of another form, TypeError for tensors and
        caches under unknown names.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("wanted one of input_ids and inputs_embeds")
        refuse_unknown_state(kwargs)
        cache = one_cache(cache, past_key_values)
        x = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        attention_mask = _checked_mask(attention_mask, x.dtype)
        mask_positions = position_ids
        past = 0 if cache is None else cache.get_seq_length()
        if position_ids is None:
            position_ids = _positions(attention_mask, x.shape[1], past, x.device)
        self._refuse_positions(position_ids, x.shape[1] + past, given=mask_positions is not None)
        mask = causal_mask(self.config, x, attention_mask, cache, mask_positions)
        cache, use_cache = self._chosen_cache(cache, use_cache)
        x = x + self.wpe(position_ids)
        wants_weights = self.config.output_attentions if output_attentions is None else output_attentions
        if wants_weights:
            kwargs["output_attentions"] = True  # a function without weights warns about it
        states, weights = [], []
        for block in self.h:
            states.append(x)
            x, attended = block(x, mask, cache, position_ids=position_ids, **kwargs)
            if attended is not None:
                weights.append(attended)
        x = self.ln_f(x)
        states.append(x)
        wants_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        output = BaseModelOutputWithPast(
            last_hidden_state=self.head(x) if self.config.head_in_trunk else x,
            hidden_states=_selected(states, wants_states),
            attentions=tuple(weights) if wants_weights else None,
            **{CACHE: cache if use_cache else None},
        )
        return output if self.wants_dict(return_dict) else output.to_tuple()

    def _chosen_cache(self, cache: Cache | None, use_cache: bool | None) -> tuple[Cache | None, bool]:
        """The cache to use, if any, and whether it is returned."""
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if self.training and self.gradient_checkpointing and torch.is_grad_enabled():
            if cache is not None:
                raise ValueError(
                    "gradient checkpointing runs each block twice and would write the cache twice: use only one of "
                    "them"
                )
            return None, False
        if use_cache and cache is None:
            cache = DynamicCache(config=self.config)
        return cache, use_cache

    def _refuse_positions(self, position_ids: torch.Tensor, end: Any, *, given: bool) -> None:
        """Raises ValueError for positions past max_len.

        end: number of tokens so far; with a static cache a tensor. The values are read if the shape does not
        decide; on a GPU, where reading waits for the device, only if there are too many tokens for one
        sequence.
        """
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return
        counted = isinstance(end, int)
        too_many = counted and end > self.config.max_len
        if not too_many and (position_ids.device.type != "cpu" or (counted and not given)):
            return
        if bool((position_ids >= self.config.max_len).any()):
            raise ValueError(
                f"{int(position_ids.max()) + 1} positions: this model has max_len = {self.config.max_len}; "
                "DNAGPT.generate continues past it as the official code does"
            )


def _checked_mask(attention_mask: torch.Tensor | None, dtype: torch.dtype) -> torch.Tensor | None:
    """A mask (B, S) unchanged; a mask of four dimensions in a dtype that the attention functions take."""
    if not isinstance(attention_mask, torch.Tensor) or attention_mask.dim() == 2:
        return attention_mask
    if attention_mask.dim() != 4 or not (
        attention_mask.dtype == torch.bool or attention_mask.is_floating_point()
    ):
        raise ValueError(
            f"attention_mask is {attention_mask.dtype} {tuple(attention_mask.shape)}: wanted (B, S), or (B, 1, T, S) "
            "of bool (True where a key is seen) or of float (added to the scores)"
        )
    if attention_mask.dtype in (torch.bool, dtype):
        return attention_mask
    # a value that becomes -inf in the narrower dtype could leave a row without keys, whose softmax is NaN
    return attention_mask.clamp(min=torch.finfo(dtype).min).to(dtype)


def _positions(
    attention_mask: torch.Tensor | None, T: int, past: int | torch.Tensor, device: torch.device
) -> torch.Tensor:
    if isinstance(attention_mask, torch.Tensor) and attention_mask.dim() == 2:
        return (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:]
    return (torch.arange(T, device=device) + past)[None]


def _selected(states: list[torch.Tensor], wanted: bool | int | list[int] | None) -> tuple[Any, ...] | None:
    """All states for True, None for False, otherwise those of the indices, with None in place of the
    others."""
    if isinstance(wanted, bool) or wanted is None:
        return tuple(states) if wanted else None
    indices = [wanted] if isinstance(wanted, int) else list(wanted)
    if any(not -len(states) <= index < len(states) for index in indices):
        raise ValueError(f"output_hidden_states = {indices}: this model has states 0..{len(states) - 1}")
    kept = {index % len(states) for index in indices}
    return tuple(state if index in kept else None for index, state in enumerate(states))
