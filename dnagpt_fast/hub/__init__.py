"""DNAGPT for Hugging Face transformers (extra `[hf]`): `import dnagpt_fast.hub` registers it with the Auto classes."""

from dnagpt_fast.hub.config import DNAGPTConfig
from dnagpt_fast.hub.models import (
    DNAGPTForCausalLM,
    DNAGPTForSequenceClassification,
    DNAGPTModel,
)
from dnagpt_fast.hub.tokenizer import DNAGPTTokenizer

__all__ = [
    "DNAGPTConfig",
    "DNAGPTForCausalLM",
    "DNAGPTForSequenceClassification",
    "DNAGPTModel",
    "DNAGPTTokenizer",
]
