"""Resident or host-mapped: the rule, and the line in the log."""

import pytest
import torch

from dnagpt_fast.pretrain.placement import USABLE_SHARE, log_line, place, place_on
from tests.ops.packed_genomes import packed_genome

HUMAN, MAMMALS = 800 * 10**6, 50 * 10**9


@pytest.mark.parametrize(
    ("packed", "free", "model", "resident"),
    [
        (HUMAN, 80 * 10**9, 45 * 10**9, True),
        (MAMMALS, 80 * 10**9, 10 * 10**9, True),
        (MAMMALS, 80 * 10**9, 45 * 10**9, False),
        (HUMAN, 24 * 10**9, 22 * 10**9, False),
        # a model that does not fit at all leaves nothing
        (1, 10**9, 2 * 10**9, False),
    ],
)
def test_genomes_are_resident_where_they_fit_beside_the_model(packed, free, model, resident):
    assert place(packed, free, model).resident == resident


def test_the_last_byte_counts():
    free, model = 10**9, 10**8
    left = int(free * USABLE_SHARE) - model
    assert place(left, free, model).resident
    assert not place(left + 1, free, model).resident


def test_the_choice_follows_the_devices_free_memory(monkeypatch):
    genomes = [packed_genome("ACGT" * 1000)] * 3
    cuda = torch.device("cuda", 1)
    asked = []
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: asked.append(device) or (10**6, 10**9))
    assert place_on(cuda, genomes, 10**5).resident
    assert not place_on(cuda, genomes, 10**6).resident
    assert asked == [cuda, cuda]
    assert not place_on(torch.device("cpu"), genomes, 0).resident
    assert place_on(cuda, genomes, 0).packed_bytes == 3 * genomes[0].packed.numel()


def test_the_line_shows_the_choice_and_the_reason():
    cuda = torch.device("cuda", 0)
    line = log_line(place(MAMMALS, 80 * 10**9, 45 * 10**9), 200, cuda)
    assert line == (
        "corpus: 200 genome(s), 50.0 GB packed, mapped in host memory "
        "(80.0 GB free, 92% of it usable, 45.0 GB for the training step: 28.6 GB left)"
    )
    assert "resident on cuda:0 (" in log_line(place(HUMAN, 80 * 10**9, 45 * 10**9), 1, cuda)
