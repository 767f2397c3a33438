"""The models with a head: the published model, and classifiers of sequences, k-mers or bases."""

import copy
from dataclasses import dataclass
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import nn
from transformers import GenerationConfig, GenerationMixin, StoppingCriteriaList
from transformers.cache_utils import Cache
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    SequenceClassifierOutputWithPast,
    TokenClassifierOutput,
)

from dnagpt_fast.batch import IGNORE_INDEX
from dnagpt_fast.hub.config import DNAGPTConfig
from dnagpt_fast.hub.models import DNAGPTModel, DNAGPTPreTrainedModel
from dnagpt_fast.hub.stopping import StopAtText
from dnagpt_fast.hub.versions import CACHE, one_cache
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.layers import NumberBlock, head, insert_numbers
from dnagpt_fast.model.shapes_only import shapes_only
from dnagpt_fast.vocab import PAD_ID, UNKNOWN_ID


@dataclass
class DNAGPTOutput(CausalLMOutputWithPast):
    """numbers_out (B, n, 1): output of the regression head at `number_loc`."""

    numbers_out: torch.Tensor | None = None


class _WithHead(DNAGPTPreTrainedModel):
    """Base of the models with a head: the trunk under its official name."""

    transformer: DNAGPTModel

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        if config.head_in_trunk:
            raise ValueError(
                "this folder is for servers (hub/serving.py): its trunk includes part of the token head; load the "
                "folder that it was made from"
            )
        self.transformer = DNAGPTModel(config)

    def get_input_embeddings(self) -> nn.Module:
        return self.transformer.wte

    def set_input_embeddings(self, value: nn.Module) -> None:
        self.transformer.wte = cast(nn.Embedding, value)


class DNAGPTForCausalLM(_WithHead, GenerationMixin):
    """The whole published model: token head, regression head and number input."""

    _keys_to_ignore_on_load_unexpected = [r"^score\."]  # noqa: RUF012 the base class's form

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        d = config.embedding_dim
        self.number_embedding = head(1, d, d, config.bias)
        self.mlm_head = head(d, d, config.vocab_size, config.bias)
        self.num_regression = head(d, d, 1, config.bias)
        self.post_init()

    @classmethod
    def from_dnagpt(cls, model: DNAGPT) -> "DNAGPTForCausalLM":
        """The model as a transformers model, with the same weights (shared, not copied)."""
        with shapes_only():
            hub = cls(DNAGPTConfig.from_model_config(model.config))
        hub.load_state_dict(model.state_dict(), strict=True, assign=True)
        hub.generation_config = GenerationConfig(eos_token_id=[UNKNOWN_ID, PAD_ID], pad_token_id=PAD_ID)
        return hub.train(model.training)

    def to_dnagpt(self) -> DNAGPT:
        """The model without transformers, with the same weights (shared, not copied)."""
        with shapes_only():
            model = DNAGPT.from_config(self.config.model_config())
        model.load_state_dict(self.state_dict(), strict=True, assign=True)
        return model.train(self.training)

    def get_output_embeddings(self) -> nn.Module:
        return self.mlm_head[3]

    def set_output_embeddings(self, value: nn.Module) -> None:
        self.mlm_head[3] = value

    def generate(
        self, inputs: torch.Tensor | None = None, generation_config: Any = None, *args: Any, **kwargs: Any
    ) -> Any:
        """As `GenerationMixin.generate`; hub/stopping.py does `stop_strings`, which needs `tokenizer=`."""
        wanted = kwargs.pop("stop_strings", None)
        settings = generation_config or self.generation_config
        if wanted is None and getattr(settings, "stop_strings", None) is not None:
            wanted = settings.stop_strings
            generation_config = copy.deepcopy(settings)
            generation_config.stop_strings = None
        if wanted is not None:
            if kwargs.get("tokenizer") is None:
                raise ValueError("stop_strings needs the tokenizer: generate(..., tokenizer=tokenizer)")
            given = kwargs.pop("stopping_criteria", None) or []
            criterion = StopAtText(wanted, kwargs["tokenizer"])
            kwargs["stopping_criteria"] = StoppingCriteriaList([*given, criterion])
        return super().generate(inputs, generation_config, *args, **kwargs)

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        use_cache: bool | None = None,
        logits_to_keep: int | torch.Tensor = 0,
        numbers: torch.Tensor | None = None,
        number_loc: torch.Tensor | None = None,
        number_block: NumberBlock | None = None,
        return_dict: bool | None = None,
        cache: Cache | None = None,
        **kwargs: Any,
    ) -> DNAGPTOutput | tuple[Any, ...]:
        """Logits (B, T, V), or those of the last `logits_to_keep` tokens. Other arguments, including those in
        kwargs, are as in `DNAGPTModel.forward`.

        labels       (B, T): ids to predict, shifted here; -100, and labels whose predecessor is padding, are
                     ignored
        numbers ...  as in `DNAGPT.forward`; they make the sequence longer, and labels and attention_mask must
                     have the new length
        """
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
            return_dict=True,
            **kwargs,
        )
        hidden = output.last_hidden_state
        kept = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.mlm_head(hidden[:, kept])
        numbers_out = None
        if number_loc is not None:
            rows = torch.arange(hidden.shape[0], device=hidden.device)[:, None]
            numbers_out = self.num_regression(hidden[rows, number_loc])
        loss = None
        if labels is not None:
            labels = _without_first_of_padded(labels, attention_mask)
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **kwargs)
            if self.training:
                loss = loss + self._zero_of_idle_heads(numbers is None, number_loc is None)
        result = DNAGPTOutput(
            loss=loss,
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
            numbers_out=numbers_out,
            **{CACHE: output.get(CACHE)},
        )
        return result if self.wants_dict(return_dict) else result.to_tuple()

    def _zero_of_idle_heads(self, no_input: bool, no_regression: bool) -> torch.Tensor | int:
        """0, with a gradient of zeros for the number heads that the batch does not use, because
        DistributedDataParallel waits for a gradient of every parameter."""
        idle = [*(no_input * [self.number_embedding]), *(no_regression * [self.num_regression])]
        parameters = [p for module in idle for p in module.parameters() if p.requires_grad]
        return sum((p * 0).sum() for p in parameters)


def _without_first_of_padded(labels: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
    """The labels, without those whose predecessor is padding. Otherwise the first token of a left-padded
    sequence would be predicted from padding, and the loss of a sequence would depend on its batch."""
    if attention_mask is None or attention_mask.shape != labels.shape:
        return labels
    before = F.pad(attention_mask[:, :-1], (1, 0), value=1)
    return labels.masked_fill(before == 0, IGNORE_INDEX)


class _Classifier(_WithHead):
    """Base of the two classifiers, a linear layer on hidden states; subclasses choose states and loss."""

    may_be_missing = r"score\..*"
    _keys_to_ignore_on_load_unexpected = [r"^(number_embedding|mlm_head|num_regression)\."]  # noqa: RUF012
    output_class: type[Any]
    score: nn.Linear

    def forward(
        self,
        input_ids: torch.Tensor | None = None,
        attention_mask: torch.Tensor | None = None,
        position_ids: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        return_dict: bool | None = None,
        **kwargs: Any,
    ) -> Any:
        """Logits and, with labels, the loss, in the shapes of the class. Other arguments, including those in
        kwargs, are as in `DNAGPTModel.forward`."""
        attention_mask = self._mask(input_ids, attention_mask)
        output = self.transformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            return_dict=True,
            **kwargs | {"use_cache": False},
        )
        logits = self._logits(output.last_hidden_state, attention_mask)
        result = self.output_class(
            loss=None if labels is None else self._loss(logits, labels, kwargs.get("num_items_in_batch")),
            logits=logits,
            hidden_states=output.hidden_states,
            attentions=output.attentions,
        )
        return result if self.wants_dict(return_dict) else result.to_tuple()

    def _mask(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        return attention_mask

    def _logits(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        raise NotImplementedError

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor | int | None
    ) -> torch.Tensor:
        """counted: labels in all micro-batches of a step; `Trainer` then does not divide the loss itself."""
        raise NotImplementedError


class DNAGPTForSequenceClassification(_Classifier):
    """A linear layer on the last hidden state of the last token that is not padding: logits (B, labels).

    labels  int64 (B,) classes, float (B,) or (B, labels) values, or float (B, labels) of 0 and 1, as
            `config.problem_type` says; without it, their number and dtype decide
    Padding is found by attention_mask, or without it by the pad token.
    """

    output_class = SequenceClassifierOutputWithPast

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        self.score = nn.Linear(config.embedding_dim, cast(int, config.num_labels), bias=False)
        self.post_init()

    def _mask(
        self, input_ids: torch.Tensor | None, attention_mask: torch.Tensor | None
    ) -> torch.Tensor | None:
        if attention_mask is None and input_ids is not None and self.config.pad_token_id is not None:
            return (input_ids != self.config.pad_token_id).long()
        return attention_mask

    def _logits(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        places = torch.arange(hidden.shape[1], device=hidden.device)
        if attention_mask is None:
            last = places[-1].expand(hidden.shape[0])
        else:
            last = (places * attention_mask.to(places.dtype)).argmax(-1)
        return self.score(hidden[torch.arange(hidden.shape[0], device=hidden.device), last])

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor | int | None
    ) -> torch.Tensor:
        kind = self.config.problem_type
        if kind is None and logits.shape[1] == 1:
            kind = "regression"
        elif kind is None:
            several = labels.is_floating_point()
            kind = "multi_label_classification" if several else "single_label_classification"
        reduction = "mean" if counted is None else "sum"
        if kind == "single_label_classification":
            loss = F.cross_entropy(logits, labels.view(-1), reduction=reduction)
        elif kind == "regression":
            loss = F.mse_loss(logits.view(-1), labels.to(logits.dtype).view(-1), reduction=reduction)
        else:
            loss = F.binary_cross_entropy_with_logits(logits, labels.to(logits.dtype), reduction=reduction)
        return loss if counted is None else loss / counted


class DNAGPTForTokenClassification(_Classifier):
    """A linear layer on every hidden state: a class for each k-mer, logits (B, T, classes), or, with
    `config.labels_per_token` = k, for each of its bases, logits (B, T, labels_per_token, classes). A token's state
    depends on the tokens up to it, not on later ones.

    labels  int64 (B, T), or (B, T, labels_per_token), -100 ignored
    `forward` raises ValueError for labels of another shape.
    """

    output_class = TokenClassifierOutput

    def __init__(self, config: DNAGPTConfig) -> None:
        super().__init__(config)
        classes = cast(int, config.num_labels)
        self.score = nn.Linear(config.embedding_dim, config.labels_per_token * classes)
        self.post_init()

    def _logits(self, hidden: torch.Tensor, attention_mask: torch.Tensor | None) -> torch.Tensor:
        logits = self.score(hidden)
        bases = self.config.labels_per_token
        return logits.unflatten(-1, (bases, -1)) if bases > 1 else logits

    def _loss(
        self, logits: torch.Tensor, labels: torch.Tensor, counted: torch.Tensor | int | None
    ) -> torch.Tensor:
        if labels.shape != logits.shape[:-1]:
            raise ValueError(f"labels {tuple(labels.shape)}: wanted {tuple(logits.shape[:-1])}")
        classes = logits.flatten(0, -2).float()
        summed = F.cross_entropy(classes, labels.flatten(), ignore_index=IGNORE_INDEX, reduction="sum")
        return summed / ((labels != IGNORE_INDEX).sum().clamp(min=1) if counted is None else counted)
