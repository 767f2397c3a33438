"""DNAGPT for Hugging Face transformers (extra `[hf]`): `import dnagpt_fast.hub` registers it with the Auto classes."""

try:
    import transformers
except ImportError as error:
    raise ImportError(
        "dnagpt_fast.hub needs transformers, which the extra installs: `pip install 'dnagpt-fast[hf]'`"
    ) from error

from dnagpt_fast.hub.config import DNAGPTConfig
from dnagpt_fast.hub.heads import (
    DNAGPTForCausalLM,
    DNAGPTForSequenceClassification,
    DNAGPTForTokenClassification,
)
from dnagpt_fast.hub.models import DNAGPTModel
from dnagpt_fast.hub.tokenizer import DNAGPTTokenizer

__all__ = [
    "DNAGPTConfig",
    "DNAGPTForCausalLM",
    "DNAGPTForSequenceClassification",
    "DNAGPTForTokenClassification",
    "DNAGPTModel",
    "DNAGPTTokenizer",
]

transformers.AutoConfig.register(DNAGPTConfig.model_type, DNAGPTConfig, exist_ok=True)
transformers.AutoModel.register(DNAGPTConfig, DNAGPTModel, exist_ok=True)
transformers.AutoModelForCausalLM.register(DNAGPTConfig, DNAGPTForCausalLM, exist_ok=True)
transformers.AutoModelForSequenceClassification.register(
    DNAGPTConfig, DNAGPTForSequenceClassification, exist_ok=True
)
transformers.AutoModelForTokenClassification.register(
    DNAGPTConfig, DNAGPTForTokenClassification, exist_ok=True
)
transformers.AutoTokenizer.register(DNAGPTConfig, slow_tokenizer_class=DNAGPTTokenizer, exist_ok=True)
