"""DNAGPT for Hugging Face transformers (extra `[hf]`): `import dnagpt_fast.hub` registers it with the Auto classes.

No remote code: the classes live in this package. Tensors bear the official names here too, so the same numbers serve
the official code, a run folder and a Hugging Face folder. `from_pretrained` refuses a folder whose tensors are not
exactly this model's (transformers itself only warns), unless told `strict=False`.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn

try:
    import transformers
except ImportError as error:
    raise ImportError(
        "dnagpt_fast.hub needs transformers: it comes with the extra, `pip install 'dnagpt-fast[hf]'`"
    ) from error

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    DynamicCache,
    GenerationConfig,
    GenerationMixin,
    PreTrainedModel,
    initialization,
)
from transformers.cache_utils import Cache
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_outputs import (
    BaseModelOutputWithPast,
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
)
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from dnagpt_fast.hub.config import CACHE, DNAGPTConfig
from dnagpt_fast.hub.tokenizer import DNAGPTTokenizer
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.layers import MLP, CausalSelfAttention, NumberBlock, head, insert_numbers
from dnagpt_fast.vocab import PAD_ID, UNKNOWN_ID

UNUSED_TENSORS = frozenset(
    ("num_items_in_batch", "cache_position", "cu_seq_lens_q", "cu_seq_lens_k", "max_length_q", "max_length_k")
)
"""Tensors that transformers may pass to any model, and what they say comes by another argument here too."""


def one_cache(cache: Cache | None, past_key_values: Cache | None) -> Cache | None:
    """The cache, which may come by either of its names. Raises ValueError for two."""
    if cache is not None and past_key_values is not None:
        raise ValueError("cache and past_key_values are two names of one argument: both were given")
    return past_key_values if cache is None else cache


def refuse_unknown_state(arguments: Mapping[str, Any]) -> None:
    """Raises TypeError for a cache or a tensor under a name that this model does not know.

    transformers passes settings of its own through every model, so unknown names as such must be let through. But a
    tensor or a cache left out changes the numbers: it must not vanish when transformers renames an argument.
    """
    for name, value in arguments.items():
        if name not in UNUSED_TENSORS and isinstance(value, (torch.Tensor, Cache)):
            raise TypeError(
                f"forward got {name} ({type(value).__name__}), which this model does not know; with transformers "
                f"{transformers.__version__} it may be a new name of an argument. `dnagpt-fast doctor` names the "
                "tested versions"
            )


class DNAGPTBlock(GradientCheckpointingLayer):
    """A block whose attention can use a cache; the same modules and names as model.Block."""

    def __init__(self, config: DNAGPTConfig, index: int) -> None:
        super().__init__()
        shape = config.model_config()
        self.config = config
        self.index = index
        self.scaling = shape.head_size**-0.5
        self.is_causal = True  # read by the attention functions of transformers
        self.attn = CausalSelfAttention(shape)
        self.mlp = MLP(shape)
        # transformers initialises module by module and passes over those without tensors of their own
        last: list[Any] = [self.attn.c_proj, self.mlp.c_proj]
        for layer in last:
            layer.ends_residual_branch = True
        self.ln_1 = nn.LayerNorm(shape.embedding_dim, bias=shape.bias)
        self.ln_2 = nn.LayerNorm(shape.embedding_dim, bias=shape.bias)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, past: Cache | None = None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        q, k, v = self.attn.heads(self.ln_1(x))
        if past is not None:
            k, v = past.update(k, v, self.index)
        name = self.config._attn_implementation
        attend = _eager_attention if name == "eager" else ALL_ATTENTION_FUNCTIONS[name]
        o, weights = attend(self, q, k, v, mask, dropout=0.0, scaling=self.scaling)
        x = x + self.attn.c_proj(o.flatten(2))
        return x + self.mlp(self.ln_2(x)), weights


def _eager_attention(
    module: nn.Module,
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float,
    **_: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attention whose weights (B, H, T, S) can be looked at; mask bool, True where a key is seen."""
    if mask is None:
        mask = torch.ones(q.shape[2], k.shape[2], dtype=torch.bool, device=q.device).tril(
            k.shape[2] - q.shape[2]
        )
    weights = (q @ k.transpose(-1, -2) * scaling).masked_fill(~mask, float("-inf")).softmax(-1)
    return (weights @ v).transpose(1, 2), weights


class DNAGPTPreTrainedModel(PreTrainedModel):
    config_class = DNAGPTConfig
    base_model_prefix = "transformer"
    supports_gradient_checkpointing = True
    _no_split_modules = ["DNAGPTBlock"]  # noqa: RUF012
    _skip_keys_device_placement = [CACHE]  # noqa: RUF012
    _supports_sdpa = True
    _supports_flash_attn = True
    # Tensors that may be absent, or there for nothing, when weights of another head are taken over.
    may_be_missing = ""
    may_be_unexpected = ""

    @classmethod
    def from_pretrained(cls, *args: Any, strict: bool = True, **kwargs: Any) -> Any:
        """As `PreTrainedModel.from_pretrained`, but raises ValueError naming missing, unexpected or misshapen tensors.

        strict  False: load what fits and only warn, as transformers does
        """
        wants_info = kwargs.pop("output_loading_info", False)
        if strict:  # named below, instead of by an error that names nothing
            kwargs["ignore_mismatched_sizes"] = True
        loaded: Any = super().from_pretrained(*args, output_loading_info=True, **kwargs)
        model, info = loaded
        kinds = {
            "missing": _besides(info["missing_keys"], cls.may_be_missing),
            "unexpected": _besides(info["unexpected_keys"], cls.may_be_unexpected),
            "wrong shape": [" ".join(map(str, key)) for key in info["mismatched_keys"]],
        }
        faults = [f"{kind}: {', '.join(names)}" for kind, names in kinds.items() if names]
        if strict and faults:
            raise ValueError(
                f"{args[0] if args else 'the folder'} does not fit {cls.__name__}. " + "; ".join(faults)
            )
        return (model, info) if wants_info else model

    @torch.no_grad()
    def _init_weights(self, module: Any) -> None:
        """torch's defaults, and c_proj normal with std 0.02 / sqrt(2 * layers), through functions that leave loaded
        tensors alone."""
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


def _besides(names: Any, pattern: str) -> list[str]:
    return sorted(name for name in names if not (pattern and re.fullmatch(pattern, name)))


class DNAGPTModel(DNAGPTPreTrainedModel):
    """Embeddings, blocks and last norm."""

    may_be_unexpected = r"(number_embedding|mlm_head|num_regression|score)\..*"

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        self.wte = nn.Embedding(config.vocab_size, config.embedding_dim)
        self.wpe = nn.Embedding(config.max_len, config.embedding_dim)
        self.h = nn.ModuleList([DNAGPTBlock(config, index) for index in range(config.num_layers)])
        self.ln_f = nn.LayerNorm(config.embedding_dim, bias=config.bias)
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
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> BaseModelOutputWithPast | tuple[Any, ...]:
        """cache: by this name or the older `past_key_values`. Raises ValueError for positions past max_len, TypeError
        for tensors and caches under unknown names.

        position_ids default to the count of attended tokens before each one, so left padding moves nothing.
        """
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("wanted one of input_ids and inputs_embeds")
        refuse_unknown_state(kwargs)
        cache = one_cache(cache, past_key_values)
        x = self.wte(input_ids) if inputs_embeds is None else inputs_embeds
        use_cache = self.config.use_cache if use_cache is None else use_cache
        if use_cache and cache is None and not (self.training and self.gradient_checkpointing):
            cache = DynamicCache()
        past = 0 if cache is None else int(cache.get_seq_length())
        B, T, _width = x.shape
        if attention_mask is not None and attention_mask.dim() == 2 and bool(attention_mask.all()):
            attention_mask = None
        if position_ids is None:
            if attention_mask is not None and attention_mask.dim() == 2:
                position_ids = (attention_mask.long().cumsum(-1) - 1).clamp(min=0)[:, -T:]
            else:
                position_ids = torch.arange(past, past + T, device=x.device)[None]
        if bool((position_ids >= self.config.max_len).any()):
            raise ValueError(
                f"{int(position_ids.max()) + 1} positions: this model has max_len = {self.config.max_len}; "
                "dnagpt_fast.model.generation goes on past it as the official code does"
            )
        x = x + self.wpe(position_ids)
        mask = self._mask(attention_mask, B, T, past, x.device)
        states, weights = [], []
        for block in self.h:
            states.append(x)
            x, attended = block(x, mask, cache)
            weights.append(attended)
        x = self.ln_f(x)
        states.append(x)
        wants_states = (
            self.config.output_hidden_states if output_hidden_states is None else output_hidden_states
        )
        wants_weights = self.config.output_attentions if output_attentions is None else output_attentions
        output = BaseModelOutputWithPast(
            last_hidden_state=x,
            hidden_states=tuple(states) if wants_states else None,
            attentions=tuple(weights) if wants_weights else None,
            **{CACHE: cache if use_cache else None},
        )
        return output if return_dict is not False else output.to_tuple()

    def _mask(
        self, attention_mask: torch.Tensor | None, B: int, T: int, past: int, device: torch.device
    ) -> torch.Tensor | None:
        """bool (B, 1, T, past + T), True where a key is seen; None: plain causal attention over all there is."""
        if attention_mask is not None and attention_mask.dim() == 4:
            return attention_mask.bool()
        if "flash" in self.config._attn_implementation:
            return attention_mask  # that function wants the (B, S) mask
        if attention_mask is None and (past == 0 or T == 1):
            return None
        causal = torch.ones(T, past + T, dtype=torch.bool, device=device).tril(past)
        if attention_mask is None:
            return causal[None, None].expand(B, 1, -1, -1)
        seen = causal & attention_mask.bool()[:, None, None, :]
        # A padding token that sees nothing would give NaN: it sees itself, and nobody sees it.
        return seen | torch.eye(T, past + T, dtype=torch.bool, device=device).roll(past, 1)


@dataclass
class DNAGPTOutput(CausalLMOutputWithPast):
    """numbers_out (B, n, 1): what the regression head read at `number_loc`."""

    numbers_out: torch.Tensor | None = None


class DNAGPTForCausalLM(DNAGPTPreTrainedModel, GenerationMixin):
    """The whole published model: token head, regression head and number input."""

    may_be_unexpected = r"score\..*"

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        d = config.embedding_dim
        self.transformer = DNAGPTModel(config)
        self.number_embedding = head(1, d, d, config.bias)
        self.mlm_head = head(d, d, config.vocab_size, config.bias)
        self.num_regression = head(d, d, 1, config.bias)
        self.post_init()

    @classmethod
    def from_dnagpt(cls, model: DNAGPT) -> "DNAGPTForCausalLM":
        """The same weights (shared, not copied) under transformers."""
        with torch.device("meta"):
            hub = cls(DNAGPTConfig.from_model_config(model.config))
        hub.load_state_dict(model.state_dict(), strict=True, assign=True)
        hub.generation_config = GenerationConfig(eos_token_id=[UNKNOWN_ID, PAD_ID], pad_token_id=PAD_ID)
        return hub.train(model.training)

    def to_dnagpt(self) -> DNAGPT:
        """The same weights (shared, not copied) without transformers."""
        with torch.device("meta"):
            model = DNAGPT.from_config(self.config.model_config())
        model.load_state_dict(self.state_dict(), strict=True, assign=True)
        return model.train(self.training)

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.wte = cast(nn.Embedding, value)

    def get_output_embeddings(self) -> nn.Module:
        return self.mlm_head[3]

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.mlm_head[3] = value

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        numbers: torch.Tensor | None = None,
        number_loc: torch.Tensor | None = None,
        number_block: NumberBlock | None = None,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> DNAGPTOutput | tuple[Any, ...]:
        """labels (B, T): ids to predict, shifted here, -100 ignored. numbers ...: as in `DNAGPT.forward`; they make the
        sequence grow, so labels and attention_mask must have the grown length then."""
        if (numbers is None) != (number_block is None):
            raise ValueError("numbers and number_block go together: one was given without the other")
        if numbers is not None and number_block is not None:
            if inputs_embeds is None:
                inputs_embeds, input_ids = self.transformer.wte(input_ids), None
            inputs_embeds = insert_numbers(inputs_embeds, self.number_embedding, numbers, number_block)
        output = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            cache=one_cache(cache, past_key_values),
            inputs_embeds=inputs_embeds,
            use_cache=use_cache,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            **kwargs,
        )
        hidden = output.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.mlm_head(hidden[:, kept] if not isinstance(kept, slice) or logits_to_keep else hidden)
        loss = None
        if labels is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
        numbers_out = None
        if number_loc is not None:
            rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
            numbers_out = self.num_regression(hidden[rows, number_loc])
        result = DNAGPTOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            numbers_out=numbers_out,
            **{CACHE: output.get(CACHE)},
        )
        return result if return_dict is not False else result.to_tuple()


class DNAGPTForSequenceClassification(DNAGPTPreTrainedModel):
    """A linear layer on the last hidden state of the last token that is not padding."""

    may_be_missing = r"score\..*"
    may_be_unexpected = r"(number_embedding|mlm_head|num_regression)\..*"

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        self.transformer = DNAGPTModel(config)
        self.score = nn.Linear(config.embedding_dim, cast(int, config.num_labels), bias=False)
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.wte = cast(nn.Embedding, value)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> SequenceClassifierOutputWithPast | tuple[Any, ...]:
        """labels: int64 (B,) classes, float (B,) or (B, labels) values, or float (B, labels) of 0 and 1, as
        `config.problem_type` says; without it, by their number and dtype. Padding is told by attention_mask, without it
        by the pad token."""
        if (
            attention_mask is None
            and input_ids is not None
            and bool((input_ids == self.config.pad_token_id).any())
        ):
            attention_mask = (input_ids != self.config.pad_token_id).long()
        output = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            use_cache=False,
            output_hidden_states=output_hidden_states,
            output_attentions=output_attentions,
            **kwargs,
        )
        hidden = output.last_hidden_state
        places = torch.arange(hidden.shape[1], device=hidden.device)
        if attention_mask is None:
            last = places[-1].expand(hidden.shape[0])
        else:
            last = (places * attention_mask.to(places.dtype)).argmax(-1)
        logits = self.score(hidden[torch.arange(hidden.shape[0], device=hidden.device), last])
        result = SequenceClassifierOutputWithPast(
            loss=None if labels is None else self._loss(logits, labels),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if return_dict is not False else result.to_tuple()

    def _loss(self, logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        kind = self.config.problem_type
        if kind is None:
            if logits.shape[1] == 1:
                kind = "regression"
            else:
                kind = (
                    "multi_label_classification"
                    if labels.is_floating_point()
                    else "single_label_classification"
                )
        if kind == "regression":
            return F.mse_loss(logits.view(-1), labels.to(logits.dtype).view(-1))
        if kind == "single_label_classification":
            return F.cross_entropy(logits, labels.view(-1))
        return F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype))


AutoConfig.register(DNAGPTConfig.model_type, DNAGPTConfig, exist_ok=True)
AutoModel.register(DNAGPTConfig, DNAGPTModel, exist_ok=True)
AutoModelForCausalLM.register(DNAGPTConfig, DNAGPTForCausalLM, exist_ok=True)
AutoModelForSequenceClassification.register(DNAGPTConfig, DNAGPTForSequenceClassification, exist_ok=True)
AutoTokenizer.register(DNAGPTConfig, slow_tokenizer_class=DNAGPTTokenizer, exist_ok=True)
