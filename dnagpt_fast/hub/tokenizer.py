"""The official tokenizer behind Hugging Face's interface; hub/models.py registers it."""

from typing import Any

from transformers import PreTrainedTokenizer

from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import RESERVED


class DNAGPTTokenizer(PreTrainedTokenizer):
    """The official tokenizer behind Hugging Face's interface. Pads at the left, as generation wants it."""

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"

    def __init__(self, k: int = 6, dynamic_kmer: bool = True, **kwargs: Any) -> None:
        self.kmer = KmerTokenizer(k, RESERVED, dynamic_kmer)
        kwargs["pad_token"], kwargs["unk_token"] = "<P>", "<0>"
        super().__init__(k=k, dynamic_kmer=dynamic_kmer, **kwargs)

    @property
    def vocab_size(self) -> int:
        return len(self.kmer)

    def get_vocab(self) -> dict[str, int]:
        return dict(self.kmer.token_to_idx)

    def tokenize(
        self, text: str, pair: str | None = None, add_special_tokens: bool = False, **_: Any
    ) -> list[str]:
        return self.kmer.tokenize(text)

    def _convert_token_to_id(self, token: str) -> int:
        return self.kmer.piece_to_id(token)

    def _convert_id_to_token(self, index: int) -> str:
        return self.kmer.id_to_piece(index)

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Nothing to save: k and dynamic_kmer in tokenizer_config.json say it all."""
        return ()
