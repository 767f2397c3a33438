"""The kernels' vocabulary order, and the tile skip: what it skips, and that it skips nothing before training."""

from dataclasses import replace

import pytest
import torch

from dnagpt_fast.ops.combined_loss import tiles
from dnagpt_fast.ops.combined_loss.op import combined_loss
from dnagpt_fast.ops.combined_loss.tiles import TILE_VOCAB, TILES, tile_order
from dnagpt_fast.vocab import Vocabulary
from tests.ops.combined_loss.cases import make_case, run


@pytest.mark.parametrize("dynamic", [True, False])
def test_plain_6mers_come_first_and_every_token_once(dynamic):
    vocabulary = Vocabulary(6, dynamic)
    order, place = tile_order(len(vocabulary))
    assert torch.equal(order.sort().values, torch.arange(len(vocabulary), dtype=torch.int32))
    assert torch.equal(order[place.long()], torch.arange(len(vocabulary), dtype=torch.int32))
    plain = [
        len(vocabulary.piece(t)) == 6 and set(vocabulary.piece(t)) <= set("ACGT") for t in order.tolist()
    ]
    assert all(plain[: 4**6])
    assert not any(plain[4**6 :])
    assert 4**6 % TILE_VOCAB == 0


def test_another_vocabulary_keeps_its_order():
    assert tile_order(189)[0].tolist() == list(range(189))


@pytest.mark.parametrize("implementation", ["chunked", "triton"])
def test_a_tile_far_below_gets_no_gradient_and_nothing_else_changes(implementation):
    """The last of three vocabulary tiles is 40 nats below the others, except in one row whose target is in it."""
    case = make_case(200, 384, 16, dtype=torch.float16)
    targets = case.tensors["targets"]
    targets.clamp_(max=255)
    targets[150] = 300
    case.tensors["row_kind"][150] = 1
    case.tensors["bias"][256:] = -40.0
    exact, skipped = run(case, implementation), run(case.with_(skip_below=2**-24), implementation)
    for name in ("d_weight", "d_bias"):
        assert exact[name][256:].abs().max() > 0
        assert skipped[name][300].abs().max() > 0  # the tile of this row is kept, because the target is in it
    for name in exact:  # the skipped gradient is smaller than the rounding of fp16 sums
        torch.testing.assert_close(skipped[name], exact[name], rtol=2e-3, atol=1e-6, msg=name)
    targets[150] = 20
    skipped = run(case.with_(skip_below=2**-24), implementation)
    for name in ("d_weight", "d_bias"):
        assert torch.equal(skipped[name][256:], torch.zeros_like(skipped[name][256:]))


@pytest.mark.parametrize("narrow", ["forward", "dz", "forward and dz"])
def test_the_skip_where_passes_have_tiles_of_different_widths(monkeypatch, narrow):
    """The flags of the skip are of whole tiles: a pass with tiles of half the width reads the flag of the tile that it
    is in. Five whole tiles, the last of them less than half full; the second is far below."""
    narrower = {row: replace(tile, narrow=row[1].partition(" ")[0] in narrow) for row, tile in TILES.items()}
    monkeypatch.setattr(tiles, "TILES", narrower)
    monkeypatch.setattr(tiles, "OLDER", {})
    edge = TILE_VOCAB // 2  # in fp32
    case = make_case(100, 4 * edge + edge // 4, 16)
    below = slice(edge, 2 * edge)
    case.tensors["targets"][(case.tensors["targets"] // edge) == 1] = 0
    case.tensors["bias"][below] = -40.0
    exact, skipped = run(case, "triton"), run(case.with_(skip_below=2**-24), "triton")
    for name in ("d_weight", "d_bias"):
        assert exact[name][below].abs().max() > 0
        assert not skipped[name][below].any()
        exact[name][below] = 0
    for name in exact:
        torch.testing.assert_close(skipped[name], exact[name], rtol=2e-3, atol=1e-6, msg=name)


@pytest.mark.parametrize("implementation", ["chunked", "triton"])
@pytest.mark.parametrize("settings", [{}, {"label_smoothing": 0.1}], ids=str)
def test_at_the_start_of_training_nothing_is_left_out(implementation, settings):
    """Flat probabilities: the same bits as without the skip. With label smoothing every entry has a gradient."""
    case = make_case(150, 300, 16, **settings)
    if settings:
        case.tensors["bias"][256:] = -40.0
    exact, skipped = run(case, implementation), run(case.with_(skip_below=2**-24), implementation)
    for name in exact:
        assert torch.equal(skipped[name], exact[name]), name


def test_a_threshold_of_real_probabilities_is_refused():
    with pytest.raises(ValueError, match="skip_below"):
        combined_loss(torch.zeros(1, 2), torch.zeros(3, 2), torch.tensor([0]), skip_below=0.01)
