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
from dnagpt_fast import KmerTokenizer
from dnagpt_fast.vocab import RESERVED
from tests.ops.packed_genomes import random_text


@pytest.mark.parametrize(("species", "length_bp"), [("", 3060), ("<R>", 3060), ("", 1_200_000)])
def test_encode(benchmark, monkeypatch, species, length_bp):
    torch.set_num_threads(1)
    ours, text = KmerTokenizer(), species + random_text(length_bp, seed=1)
    calls = {"fast": max(1, 6_000_000 // length_bp), "slow": max(1, 100_000 // length_bp)}
    wanted = ours.encode(text).tolist()
    copies = text.encode()

    def repeated(encode, speed):
        def run():
            for _ in range(calls[speed]):
                encode(text)

        return run

    contenders = {
        "ours": repeated(ours.encode, "fast"),
        "memcpy": repeated(lambda _: bytearray(copies), "fast"),
    }
    if not species and importlib.util.find_spec("tokenizers"):
        hf = importlib.import_module("tokenizers")
        vocabulary = {piece: i for i, piece in enumerate(ours.idx_to_token)}
        peer = hf.Tokenizer(hf.models.WordLevel(vocabulary, unk_token="<0>"))
        peer.pre_tokenizer = hf.pre_tokenizers.Split(hf.Regex(".{1,6}"), behavior="isolated")
        assert peer.encode(text).ids == wanted
        contenders["Hugging Face tokenizers"] = repeated(peer.encode, "slow")
    against = "ours"
    if official := os.environ.get("DNAGPT_OFFICIAL"):
        monkeypatch.syspath_prepend(official)
        sys.modules.pop("dna_gpt", None)
        peer = importlib.import_module("dna_gpt.tokenizer").KmerTokenizer(6, list(RESERVED))
        assert peer.encode(text).tolist() == wanted
        contenders["official"] = repeated(peer.encode, "slow")
        against = "official"
    work = {
        name: 1e-9 * length_bp * calls["fast" if name in ("ours", "memcpy") else "slow"]
        for name in contenders
    }
    contest(benchmark, f"text_encode {species}{length_bp} bp", contenders, work, "Gbp", against=against)
