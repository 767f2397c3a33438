"""The shape of a DNAGPT model, and the three published shapes (arXiv 2307.05628 and the official repository)."""

from dataclasses import asdict, dataclass, fields, replace
from typing import Any

# Sizes above this are refused: a damaged file may give a size that no tensor can have.
LARGEST = 2**31 - 1


@dataclass(frozen=True)
class ModelConfig:
    """The constructor arguments of `DNAGPT`, with the names of the official code.

    vocab_size     entries of the token embedding and of the token head; 19,564 (dynamic, k=6) or 15,659 (fixed)
    max_len        positions, in tokens
    embedding_dim  width D; the head size is embedding_dim / num_heads
    bias           biases in every Linear and LayerNorm; False in the three published models
    """

    vocab_size: int
    max_len: int = 512
    num_layers: int = 12
    num_heads: int = 12
    embedding_dim: int = 768
    bias: bool = False

    def __post_init__(self) -> None:
        for field in ("vocab_size", "max_len", "num_layers", "num_heads", "embedding_dim"):
            value = getattr(self, field)
            if not isinstance(value, int) or isinstance(value, bool) or not 1 <= value <= LARGEST:
                raise ValueError(f"{field} = {value!r}: wanted an int, 1..{LARGEST}")
        if self.embedding_dim % self.num_heads:
            raise ValueError(
                f"embedding_dim = {self.embedding_dim} is no multiple of num_heads = {self.num_heads}"
            )

    @property
    def head_size(self) -> int:
        return self.embedding_dim // self.num_heads

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "ModelConfig":
        """Raises ValueError that names an unknown key or a missing vocab_size."""
        unknown = sorted(set(values) - {field.name for field in fields(cls)})
        if unknown:
            raise ValueError(
                f"unknown model setting(s) {', '.join(unknown)}: they are {', '.join(f.name for f in fields(cls))}"
            )
        if "vocab_size" not in values:
            raise ValueError("the model settings lack vocab_size")
        return cls(**values)


def parameter_count(config: ModelConfig) -> int:
    """Parameters of `DNAGPT.from_config(config)`, all heads included."""
    D, bias = config.embedding_dim, int(config.bias)
    norm = D * (1 + bias)
    block = 12 * D * D + bias * (3 * D + D + 4 * D + D) + 2 * norm

    def head(d_in: int, d_out: int) -> int:
        return d_in * D + bias * D + norm + D * d_out + bias * d_out

    return (
        (config.vocab_size + config.max_len) * D
        + config.num_layers * block
        + norm
        + head(1, D)
        + head(D, config.vocab_size)
        + head(D, 1)
    )


_DYNAMIC_K6 = 19_564
_FIXED_K6 = 15_659

PRESETS: dict[str, ModelConfig] = {
    "dna_gpt0.1b_h": ModelConfig(_FIXED_K6, max_len=4096, num_layers=12, num_heads=12, embedding_dim=768),
    "dna_gpt0.1b_m": ModelConfig(_DYNAMIC_K6, max_len=512, num_layers=12, num_heads=12, embedding_dim=768),
    "dna_gpt3b_m": ModelConfig(_DYNAMIC_K6, max_len=512, num_layers=60, num_heads=64, embedding_dim=2048),
}


def preset(name: str, vocab_size: int | None = None, **given: Any) -> ModelConfig:
    """A published shape by name, with the given fields replaced.

    Raises ValueError for an unknown name or a value that does not fit.

    >>> preset("dna_gpt0.1b_m", max_len=1024).max_len
    1024
    """
    if name not in PRESETS:
        raise ValueError(f"unknown model name {name!r}: wanted one of {', '.join(PRESETS)}")
    if vocab_size is not None:
        given["vocab_size"] = vocab_size
    return replace(PRESETS[name], **given)
