"""The model's shape as a configuration of transformers."""

from typing import Any

from transformers import PreTrainedConfig

from dnagpt_fast.hub.adapters import name_targets_to_peft
from dnagpt_fast.hub.shim import AUTO_MAP, write_beside
from dnagpt_fast.hub.versions import CACHE
from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.vocab import PAD_ID, UNKNOWN_ID

DEFAULT_SIZES = {"max_len": 512, "num_layers": 12, "num_heads": 12, "embedding_dim": 768}
"""The smallest published shape."""


class DNAGPTConfig(PreTrainedConfig):
    """The shape of the model under its official names and under Hugging Face's names.

    vocab_size ... bias  as in `ModelConfig`
    labels_per_token     for `DNAGPTForTokenClassification`: 1 if a k-mer has one label, k if each base has
                         its own
    head_in_trunk        for folders for servers (hub/serving.py): the trunk includes the first layers of the
                         token head

    `config.json` has both kinds of names, because PEFT, TRL and vLLM read the file and not this class. Either
    kind may be given. Generation stops at the unknown and the pad token, as in the official script. Raises
    ValueError for an impossible shape, and for two names of one size with different values.

    >>> config = DNAGPTConfig(vocab_size=189, hidden_size=48, num_heads=3, num_layers=2)
    >>> config.embedding_dim, config.to_dict()["num_hidden_layers"]
    (48, 2)
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
        max_len: int | None = None,
        num_layers: int | None = None,
        num_heads: int | None = None,
        embedding_dim: int | None = None,
        bias: bool = False,
        use_cache: bool = True,
        labels_per_token: int = 1,
        head_in_trunk: bool = False,
        **kwargs: Any,
    ) -> None:
        own = {
            "max_len": max_len,
            "num_layers": num_layers,
            "num_heads": num_heads,
            "embedding_dim": embedding_dim,
        }
        sizes = {}
        for alias, name in self.attribute_map.items():
            given = {value for value in (own[name], kwargs.pop(alias, None)) if value is not None}
            if len(given) > 1:
                raise ValueError(
                    f"{name} and {alias} are two names of one size: got {' and '.join(map(str, sorted(given)))}"
                )
            sizes[name] = given.pop() if given else DEFAULT_SIZES[name]
        if labels_per_token < 1:
            raise ValueError(f"labels_per_token = {labels_per_token}: wanted 1 or more")
        self.vocab_size = vocab_size
        self.max_len = sizes["max_len"]
        self.num_layers = sizes["num_layers"]
        self.num_heads = sizes["num_heads"]
        self.embedding_dim = sizes["embedding_dim"]
        self.bias = bias
        self.use_cache = use_cache
        self.labels_per_token = labels_per_token
        self.head_in_trunk = head_in_trunk
        self.model_config()
        for name in self._derived():
            kwargs.pop(name, None)
        kwargs.setdefault("pad_token_id", PAD_ID)
        kwargs.setdefault("eos_token_id", [UNKNOWN_ID, PAD_ID])
        kwargs.setdefault("bos_token_id", None)
        kwargs["tie_word_embeddings"] = False
        kwargs["auto_map"] = dict(AUTO_MAP)
        super().__init__(**kwargs)

    def model_config(self) -> ModelConfig:
        """The shape as a `ModelConfig`. Raises ValueError for an impossible shape."""
        return ModelConfig(
            self.vocab_size, self.max_len, self.num_layers, self.num_heads, self.embedding_dim, self.bias
        )

    @classmethod
    def from_model_config(cls, config: ModelConfig, **settings: Any) -> "DNAGPTConfig":
        """The configuration of a shape. settings: other arguments of the configuration, such as
        `num_labels`."""
        return cls(**config.to_dict(), **settings)

    def _derived(self) -> dict[str, Any]:
        """Sizes that other libraries expect and that follow from the shape; they are written but not read."""
        return {
            "num_key_value_heads": self.num_heads,
            "head_dim": self.embedding_dim // self.num_heads,
            "intermediate_size": 4 * self.embedding_dim,
            "hidden_act": "gelu_pytorch_tanh",
        }

    def __getattr__(self, name: str) -> Any:
        """Computes the derived sizes at each access, so that they always fit the shape."""
        if not name.startswith("_") and "num_heads" in self.__dict__:
            derived = self._derived()
            if name in derived:
                return derived[name]
        raise AttributeError(f"{type(self).__name__} has no attribute {name!r}")

    def to_dict(self) -> dict[str, Any]:
        """The configuration with both kinds of names. PEFT calls this before it looks up its default
        layers."""
        name_targets_to_peft()
        named = super().to_dict()
        named |= {alias: named[name] for alias, name in self.attribute_map.items() if name in named}
        return named | self._derived()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As the base class; also writes a module for `trust_remote_code=True` and a model card
        (hub/shim.py)."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        write_beside(save_directory)
        return saved

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoConfig") -> None:
        """Does nothing: these classes are in an installed package, so a saved folder needs no copy of
        them."""
