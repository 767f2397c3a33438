"""The examples in docstrings run and give the stated results; the functions that a user meets first have
one."""

import doctest
import importlib
import re

import pytest

import dnagpt_fast as df
from tests.imports import MODULES

WITH_EXAMPLES = [
    name for name, path in MODULES.items() if re.search(r"^ *>>> ", path.read_text(), re.MULTILINE)
]
MET_FIRST = (
    df.Genome.open,
    df.KmerTokenizer,
    df.DNAGPT,
    df.load_model,
    df.embed,
    df.score,
    df.generate_sequences,
    df.ops.kmer_tokenize,
    df.ops.gc_count,
    df.ops.sequence_text,
)


@pytest.mark.parametrize("name", WITH_EXAMPLES)
def test_the_examples_of_a_module(name, tmp_path, monkeypatch):
    if name.startswith("dnagpt_fast.hub"):
        pytest.importorskip("transformers", reason="needs the extra [hf]")
    monkeypatch.chdir(tmp_path)
    found = doctest.testmod(importlib.import_module(name))
    assert found.attempted
    assert not found.failed


@pytest.mark.parametrize("public", MET_FIRST, ids=lambda public: public.__qualname__)
def test_what_a_user_meets_first_has_an_example(public):
    assert ">>>" in public.__doc__
