"""The dispatch table, and the two ways to override it."""

import pytest
import torch

from dnagpt_fast.ops import dispatch


def test_every_default_is_an_implementation():
    assert dispatch.DEFAULTS.keys() == dispatch.IMPLEMENTATIONS.keys()
    for op, devices in dispatch.DEFAULTS.items():
        assert set(devices.values()) <= set(dispatch.IMPLEMENTATIONS[op])


def test_using_overrides_the_environment_and_ends(monkeypatch):
    assert dispatch.choose("gc_count", "cpu") == "native"
    monkeypatch.setenv(dispatch.ENVIRONMENT, "gc_count=reference, kmer_tokenize=reference")
    assert dispatch.choose("gc_count", "cpu") == "reference"
    with dispatch.using(gc_count="native"):
        assert dispatch.choose("gc_count", "cpu") == "native"
        assert dispatch.choose("kmer_tokenize", "cpu") == "reference"
        with dispatch.using(kmer_tokenize="native"):
            assert dispatch.table()["gc_count"]["cpu"] == dispatch.table()["kmer_tokenize"]["cpu"] == "native"
    assert dispatch.choose("gc_count", "cpu") == "reference"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("gc_count", "not of the form"),
        ("gcc=native", "unknown op 'gcc'"),
        ("gc_count=fast", "no implementation 'fast'"),
    ],
)
def test_a_bad_environment(monkeypatch, text, words):
    monkeypatch.setenv(dispatch.ENVIRONMENT, text)
    with pytest.raises(ValueError, match=words):
        dispatch.choose("gc_count", "cpu")


def test_bad_choices():
    with pytest.raises(ValueError, match="unknown op"), dispatch.using(tokenise="native"):
        pass
    with pytest.raises(ValueError, match="no implementation"), dispatch.using(gc_count="fast"):
        pass
    with pytest.raises(ValueError, match="unknown op"):
        dispatch.choose("tokenise", "cpu")
    with pytest.raises(NotImplementedError, match="no implementation for device 'tpu'"):
        dispatch.choose("gc_count", "tpu")


def test_a_compiled_function_asks_the_table_once_as_torch_s_own_mark_makes_it():
    marked = torch.compiler.assume_constant_result(lambda: 0)
    assert vars(dispatch.constant_when_compiled(lambda: 0)) == vars(marked)
    asked = []

    @dispatch.constant_when_compiled
    def choice():
        asked.append(dispatch.choose("gc_count", "cpu"))
        return 2.0

    compiled = torch.compile(lambda x: x * choice(), fullgraph=True, backend="eager")
    assert [compiled(torch.ones(1)).item() for _ in range(3)] == [2.0, 2.0, 2.0]
    assert asked == ["native"]
