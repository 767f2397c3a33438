"""The official tokenizer with Hugging Face's interface and the compiled encoder."""

from collections.abc import Sequence
from typing import Any

import torch
from transformers import BatchEncoding, PreTrainedTokenizer
from transformers.utils import PaddingStrategy

from dnagpt_fast.hub.shim import TOKENIZER_AUTO_MAP, write_beside
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import RESERVED

PLAIN_SETTINGS = {
    "stride": 0,
    "is_split_into_words": False,
    "return_token_type_ids": None,
    "return_overflowing_tokens": False,
    "return_special_tokens_mask": False,
    "return_length": False,
    "split_special_tokens": False,
}
"""Settings of a call with which text is encoded directly to ids; with others it is first split into token
strings."""


class DNAGPTTokenizer(PreTrainedTokenizer):
    """The official tokenizer with Hugging Face's interface. It pads on the left, as generation needs.

    k, dynamic_kmer  as in `KmerTokenizer`
    kwargs           as in `PreTrainedTokenizer`; pad_token and unk_token default to the official `<P>` and `<0>`

    Added tokens get the ids after the vocabulary and are found in text before it is split into k-mers.

    >>> tokenizer = DNAGPTTokenizer(3)
    >>> tokenizer("<R>ACGACG")["input_ids"]
    [21, 106, 106]
    """

    model_input_names = ["input_ids", "attention_mask"]  # noqa: RUF012
    padding_side = "left"
    _auto_map = TOKENIZER_AUTO_MAP

    def __init__(self, k: int = 6, dynamic_kmer: bool = True, **kwargs: Any) -> None:
        self.kmer = KmerTokenizer(k, RESERVED, dynamic_kmer)
        # None if a saved tokenizer had none
        kwargs["pad_token"] = kwargs.get("pad_token") or "<P>"
        kwargs["unk_token"] = kwargs.get("unk_token") or "<0>"
        super().__init__(k=k, dynamic_kmer=dynamic_kmer, **kwargs)

    @property
    def vocab_size(self) -> int:
        """Number of tokens without added ones; `len` includes them."""
        return len(self.kmer)

    def get_vocab(self) -> dict[str, int]:
        return self.kmer.token_to_idx | self._added_tokens_encoder

    def _tokenize(self, text: str, **_: Any) -> list[str]:
        return self.kmer.tokenize(text)

    def _convert_token_to_id(self, token: str) -> int:
        found = self.kmer.token_to_idx.get(token)
        return self._unknown_id() if found is None else found

    def _convert_id_to_token(self, index: int) -> str:
        return self.kmer.id_to_piece(index)

    def _unknown_id(self) -> int:
        token = str(self.unk_token)
        known = self._added_tokens_encoder.get(token)
        return self.kmer.piece_to_id(token) if known is None else known

    def convert_tokens_to_string(self, tokens: list[str]) -> str:
        return "".join(tokens)

    def build_inputs_with_special_tokens(
        self, token_ids_0: list[int], token_ids_1: list[int] | None = None
    ) -> list[int]:
        """The ids, unchanged: the species token is written in the text."""
        return token_ids_0 + (token_ids_1 or [])

    def save_vocabulary(self, save_directory: str, filename_prefix: str | None = None) -> tuple[str, ...]:
        """Saves nothing: k and dynamic_kmer in tokenizer_config.json define the vocabulary."""
        return ()

    def save_pretrained(self, save_directory: Any, *args: Any, **kwargs: Any) -> Any:
        """As the base class; also writes the files of hub/shim.py."""
        saved = super().save_pretrained(save_directory, *args, **kwargs)
        write_beside(save_directory)
        return saved

    @classmethod
    def register_for_auto_class(cls, auto_class: Any = "AutoTokenizer") -> None:
        """Does nothing, as for the configuration."""

    def _encode_plus(  # type: ignore[override]
        self, text: Any, text_pair: Any = None, **settings: Any
    ) -> BatchEncoding:
        """Text to ids. Plain calls use the compiled encoder; calls with pairs, words, overflow or added
        tokens use the base class, which first makes token strings."""
        batched = not isinstance(text, str)
        texts = text if batched else [text]
        if text_pair is None and self._is_plain(texts, settings):
            encoded = self._encode_texts(texts, batched=batched, **settings)
            if encoded is not None:
                return encoded
        return super()._encode_plus(text, text_pair=text_pair, **settings)

    def _is_plain(self, texts: Any, settings: dict[str, Any]) -> bool:
        return (
            isinstance(texts, list)
            and len(texts) > 0
            and all(isinstance(text, str) for text in texts)
            and all(not settings.get(name, wanted) for name, wanted in PLAIN_SETTINGS.items())
            and not self.split_special_tokens
            and not settings.get("sanitize_control_tokens")
            and str(self.unk_token) == self.kmer.reserved_tokens[self.kmer.unk_id]
            and len(self) == len(self.kmer)
        )

    def _encode_texts(
        self,
        texts: Sequence[str],
        *,
        batched: bool,
        padding_strategy: PaddingStrategy = PaddingStrategy.DO_NOT_PAD,
        truncation_strategy: Any = None,
        max_length: int | None = None,
        pad_to_multiple_of: int | None = None,
        padding_side: str | None = None,
        return_tensors: Any = None,
        return_attention_mask: bool | None = None,
        verbose: bool = True,
        **_: Any,
    ) -> BatchEncoding | None:
        """None if the base class must refuse or convert the result: rows of different length as one tensor,
        or tensors of other libraries than torch."""
        rows = [self._truncated(self.kmer.encode(text), truncation_strategy, max_length) for text in texts]
        lengths = [len(row) for row in rows]
        width = max(lengths)
        if padding_strategy == PaddingStrategy.MAX_LENGTH and max_length is not None:
            width = max(width, max_length)
        pads = padding_strategy != PaddingStrategy.DO_NOT_PAD
        if pads and pad_to_multiple_of:
            width = -(-width // pad_to_multiple_of) * pad_to_multiple_of
        masked = (
            "attention_mask" in self.model_input_names
            if return_attention_mask is None
            else return_attention_mask
        )
        longest: Any = max(rows, key=len)
        self._eventual_warn_about_too_long_sequence(longest, max_length, verbose)
        left = (padding_side or self.padding_side) == "left"
        as_tensor = getattr(return_tensors, "value", return_tensors)
        found: dict[str, Any] = {}
        if as_tensor is None:
            spare = [width - length if pads else 0 for length in lengths]
            lists = [row.tolist() for row in rows]
            found["input_ids"] = [
                _beside(ids, [self.pad_token_id] * more, left) for ids, more in zip(lists, spare, strict=True)
            ]
            if masked:
                found["attention_mask"] = [
                    _beside([1] * length, [0] * more, left)
                    for length, more in zip(lengths, spare, strict=True)
                ]
            if not batched:
                found = {name: value[0] for name, value in found.items()}
        elif as_tensor == "pt" and (pads or len(set(lengths)) == 1):
            ids = torch.full((len(rows), width), self.pad_token_id)
            mask = torch.zeros_like(ids)
            for i, row in enumerate(rows):
                place = slice(width - len(row), None) if left else slice(len(row))
                ids[i, place] = row
                mask[i, place] = 1
            found["input_ids"] = ids
            if masked:
                found["attention_mask"] = mask
        else:
            return None
        return BatchEncoding(found)

    def _truncated(self, row: Any, strategy: Any, max_length: int | None) -> torch.Tensor:
        name = getattr(strategy, "value", strategy) or "do_not_truncate"
        if name in ("do_not_truncate", "only_second") or max_length is None or len(row) <= max_length:
            return row
        return row[len(row) - max_length :] if self.truncation_side == "left" else row[:max_length]


def _beside(row: list[int], more: list[int], left: bool) -> list[int]:
    return more + row if left else row + more
