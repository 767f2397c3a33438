"""The model's shape as a configuration of transformers, and what the installed transformers calls things."""

from dataclasses import fields
from typing import Any

from transformers import PreTrainedConfig
from transformers.modeling_outputs import BaseModelOutputWithPast

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.vocab import PAD_ID, UNKNOWN_ID

CACHE = "cache" if "cache" in {field.name for field in fields(BaseModelOutputWithPast)} else "past_key_values"
"""What the installed transformers calls the key-value cache: `past_key_values` up to 5.23, `cache` since."""


class DNAGPTConfig(PreTrainedConfig):
    """The shape of the model under its official names; Hugging Face's names (hidden_size ...) are aliases.

    Generation stops at the unknown and the pad token, as in the official script.
    """

    model_type = "dnagpt"
    keys_to_ignore_at_inference = [CACHE]  # noqa: RUF012 the base class's form
    attribute_map = {  # noqa: RUF012
        "hidden_size": "embedding_dim",
        "num_hidden_layers": "num_layers",
        "num_attention_heads": "num_heads",
        "max_position_embeddings": "max_len",
    }

    def __init__(
        self,
        vocab_size: int = 19_564,
        max_len: int = 512,
        num_layers: int = 12,
        num_heads: int = 12,
        embedding_dim: int = 768,
        bias: bool = False,
        use_cache: bool = True,
        **kwargs: Any,
    ) -> None:
        self.vocab_size = vocab_size
        self.max_len = max_len
        self.num_layers = num_layers
        self.num_heads = num_heads
        self.embedding_dim = embedding_dim
        self.bias = bias
        self.use_cache = use_cache
        self.model_config()
        kwargs.setdefault("pad_token_id", PAD_ID)
        kwargs.setdefault("eos_token_id", [UNKNOWN_ID, PAD_ID])
        kwargs["tie_word_embeddings"] = False
        super().__init__(**kwargs)

    def model_config(self) -> ModelConfig:
        """Raises ValueError for a shape that cannot be."""
        return ModelConfig(
            self.vocab_size, self.max_len, self.num_layers, self.num_heads, self.embedding_dim, self.bias
        )

    @classmethod
    def from_model_config(cls, config: ModelConfig) -> "DNAGPTConfig":
        return cls(**config.to_dict())
