"""The model and its uses: tokenizer, layers, inference, generation, embedding, scores."""

from dnagpt_fast.model.config import ModelConfig
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.tokenizer import KmerTokenizer

__all__ = ["DNAGPT", "KmerTokenizer", "ModelConfig"]
