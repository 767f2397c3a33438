"""KmerTokenizer.encode beside the official tokenizer and Hugging Face tokenizers.

pytest benchmarks/bench_text_encode.py
DNAGPT_OFFICIAL=<clone of TencentAILabHealthcare/DNAGPT> pytest benchmarks/bench_text_encode.py
"""

import importlib
import importlib.util
import os
import sys

import pytest
import torch

from benchmarks.contest import contest
from dnagpt_fast.tokenizer import KmerTokenizer
from dnagpt_fast.vocab import RESERVED
from tests.ops.packed_genomes import random_text


@pytest.mark.parametrize(("species", "length_bp"), [("", 3060), ("<R>", 3060), ("", 1_200_000)])
def test_encode(benchmark, monkeypatch, species, length_bp):
    torch.set_num_threads(1)
    ours, text = KmerTokenizer(), species + random_text(length_bp, seed=1)
    calls = max(1, 100_000 // length_bp)
    wanted = ours.encode(text).tolist()
    copies = text.encode()

    def repeated(encode):
        def run():
            for _ in range(calls):
                encode(text)

        return run

    contenders = {"ours": repeated(ours.encode), "memcpy": repeated(lambda _: bytearray(copies))}
    if not species and importlib.util.find_spec("tokenizers"):
        hf = importlib.import_module("tokenizers")
        vocabulary = {piece: i for i, piece in enumerate(ours.idx_to_token)}
        peer = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token="<0>"))
        peer.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex(".{1,6}"), behavior="isolated")
        assert peer.encode(text).ids == wanted
        contenders["Hugging Face tokenizers"] = repeated(peer.encode)
    against = "ours"
    if official := os.environ.get("DNAGPT_OFFICIAL"):
        monkeypatch.syspath_prepend(official)
        sys.modules.pop("dna_gpt", None)
        peer = importlib.import_module("dna_gpt.tokenizer").KmerTokenizer(6, list(RESERVED))
        assert peer.encode(text).tolist() == wanted
        contenders["official"] = repeated(peer.encode)
        against = "official"
    work = dict.fromkeys(contenders, 1e-9 * length_bp * calls)
    contest(benchmark, f"text_encode {species}{length_bp} bp", contenders, work, "Gbp", against=against)
