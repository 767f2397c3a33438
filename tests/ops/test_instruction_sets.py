"""The choice of instruction set: visible, forced by the environment, never silent."""

import pytest

from dnagpt_fast.ops import compiled, kmer_tokenize, report
from tests.ops.packed_genomes import INSTRUCTION_SETS, packed_genome


def test_the_best_is_chosen(monkeypatch):
    monkeypatch.delenv("DNAGPT_FAST_CPU_ISA", raising=False)
    assert compiled.cpu_isa() == INSTRUCTION_SETS[-1] == report()["cpu_isa"]


@pytest.mark.parametrize("name", INSTRUCTION_SETS)
def test_the_environment_decides(monkeypatch, name):
    monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", name)
    assert compiled.cpu_isa() == name


def test_an_instruction_set_the_machine_lacks(monkeypatch):
    lacking = "avx2" if "neon" in INSTRUCTION_SETS else "neon"
    monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", lacking)
    with pytest.raises(RuntimeError, match=f"DNAGPT_FAST_CPU_ISA={lacking}: this machine or build lacks it"):
        kmer_tokenize(packed_genome("ACGTAC"), [0], [0], 1)


def test_an_unknown_name(monkeypatch):
    monkeypatch.setenv("DNAGPT_FAST_CPU_ISA", "AVX1024")
    with pytest.raises(ValueError, match="wanted scalar, avx2, avx512 or neon"):
        kmer_tokenize(packed_genome("ACGTAC"), [0], [0], 1)
