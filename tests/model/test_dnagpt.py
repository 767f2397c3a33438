"""The model: logits and number regression of the official code, layers, losses, and errors for bad input."""

import math

import pytest
import torch

from dnagpt_fast import DNAGPT, ModelConfig
from dnagpt_fast.batch import IGNORE_INDEX, ROW_IGNORED, ROW_NEXT_TOKEN, ROW_ORDER, PretrainBatch, Windows
from dnagpt_fast.model.config import PRESETS
from tests.tiny import NAMES, load_tiny

# fp32 results of another torch build: sums of a few hundred values near 1 differ by their order.
CLOSE = {"atol": 2e-5, "rtol": 2e-5}


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


def test_logits_are_the_official_ones(tiny):
    with torch.no_grad():
        torch.testing.assert_close(tiny.model()(tiny.golden["ids"]), tiny.golden["logits"], **CLOSE)


def test_regression_with_numbers_is_the_official_one(tiny):
    golden = tiny.golden
    with torch.no_grad():
        numbers_out, logits = tiny.model()(
            golden["reg_ids"], golden["reg_numbers"], golden["reg_number_loc"], golden["reg_number_block"]
        )
    torch.testing.assert_close(numbers_out, golden["reg_num"], **CLOSE)
    torch.testing.assert_close(logits, golden["reg_logits"], **CLOSE)


def test_every_form_of_number_block_gives_the_same(tiny):
    golden, model = tiny.golden, tiny.model()
    first = int(golden["reg_number_block"][0])
    sizes = [first, golden["reg_ids"].shape[1] - first]
    forms = [first, sizes, [sizes], torch.tensor(first), torch.tensor([first]), torch.tensor([sizes])]
    with torch.no_grad():
        for block in forms:
            _, logits = model(golden["reg_ids"], golden["reg_numbers"], golden["reg_number_loc"], block)
            torch.testing.assert_close(logits, golden["reg_logits"], **CLOSE)


def test_numbers_in_a_batch_give_the_same_as_single_rows(tiny):
    """Rows with different numbers, positions and cuts, three pieces each, against the same rows in batches of one."""
    model = tiny.model()
    generator = torch.Generator().manual_seed(7)
    ids = torch.randint(0, 189, (3, 9), generator=generator)
    numbers = torch.randn(3, 4, generator=generator)
    loc = torch.tensor([[0, 5], [12, 3], [16, 16]])
    block = torch.tensor([[2, 3, 4], [1, 1, 7], [4, 4, 1]])
    with torch.no_grad():
        together = model(ids, numbers, loc, block)
        assert together[0].shape == (3, 2, 1)
        assert together[1].shape == (3, 9 + 2 * 4, 189)
        for row in range(3):
            alone = model(ids[row : row + 1], numbers[row], loc[row : row + 1], block[row].tolist())
            torch.testing.assert_close(together[0][row], alone[0][0], **CLOSE)
            torch.testing.assert_close(together[1][row], alone[1][0], **CLOSE)


def test_numbers_are_inserted_after_every_piece_except_the_last():
    """Only the embedding layer: tokens and numbers are identified by their values."""
    model = DNAGPT(vocab_size=40, max_len=30, embedding_dim=6)
    ids, numbers = torch.arange(7)[None], torch.tensor([[1.0, 2.0]])
    with torch.no_grad():
        grown = model.embeddings(ids, numbers, [3, 2, 2])[0] - model.transformer.wpe.weight[:11]
        tokens = model.transformer.wte(ids)[0]
        embedded = model.number_embedding(numbers[0][:, None])
    expected = torch.cat((tokens[:3], embedded, tokens[3:5], embedded, tokens[5:]))
    torch.testing.assert_close(grown, expected)
    with torch.no_grad():
        empty_first = model.embeddings(ids, numbers, [0, 7])[0] - model.transformer.wpe.weight[:9]
    torch.testing.assert_close(empty_first, torch.cat((embedded, tokens)))


def test_number_gradients_reach_every_number_parameter():
    model = DNAGPT(vocab_size=40, max_len=30, embedding_dim=6)
    out, _ = model(torch.arange(6)[None], torch.randn(1, 3), torch.tensor([[8]]), 4)
    out.sum().backward()
    for part in (model.number_embedding, model.num_regression):
        assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in part.parameters())


def test_hidden_states_of_every_layer(tiny):
    model, ids = tiny.model(), tiny.golden["ids"]
    layers = model.num_layers
    with torch.no_grad():
        torch.testing.assert_close(model.mlm_head(model.hidden_states(ids)), model(ids))
        rows = model.head_rows(model.hidden_states(ids))
        assert model.last_projection(rows).equal(model(ids))
        assert model.hidden_states(ids, layer=0).equal(model.embeddings(ids))
        assert model.hidden_states(ids, layer=-1).equal(model.hidden_states(ids, layer=layers))
        x = model.hidden_states(ids, layer=layers - 1)
        torch.testing.assert_close(
            model.transformer.ln_f(sum(model.transformer.h[-1](x))), model.hidden_states(ids), atol=0, rtol=0
        )
    with pytest.raises(ValueError, match="layer"):
        model.hidden_states(ids, layer=layers + 1)


def test_attention_is_causal(tiny):
    model, ids = tiny.model(), tiny.golden["ids"][:1].clone()
    with torch.no_grad():
        before = model(ids)
        ids[0, 20] = (ids[0, 20] + 1) % 189
        after = model(ids)
    torch.testing.assert_close(before[:, :20], after[:, :20], atol=0, rtol=0)
    assert not torch.allclose(before[:, 20:], after[:, 20:])


def test_state_dict_has_the_official_names(tiny):
    assert set(tiny.model().state_dict()) == set(tiny.state)


@pytest.mark.parametrize("name", PRESETS)
def test_from_name_has_the_published_shape(name):
    vocab_size = PRESETS[name].vocab_size
    with torch.device("meta"):
        model = DNAGPT.from_name(name, vocab_size)
    config = model.config
    assert config.head_size == {"dna_gpt0.1b_h": 64, "dna_gpt0.1b_m": 64, "dna_gpt3b_m": 32}[name]
    assert not any(parameter.endswith("bias") for parameter in model.state_dict())
    assert model.transformer.wpe.weight.shape == (4096 if name.endswith("_h") else 512, config.embedding_dim)
    assert model.mlm_head[3].weight.shape == (vocab_size, config.embedding_dim)


def test_initial_values():
    """c_proj normal with 0.02/sqrt(2 layers), measured over 2 x (96*96 + 96*384) values: 1 % is 4 standard errors."""
    torch.manual_seed(0)
    model = DNAGPT(vocab_size=50, max_len=8, num_layers=2, num_heads=2, embedding_dim=96)
    weights = torch.cat([p.flatten() for n, p in model.named_parameters() if n.endswith("c_proj.weight")])
    assert weights.std().item() == pytest.approx(0.02 / math.sqrt(4), rel=0.02)
    assert model.transformer.wte.weight.std().item() == pytest.approx(1.0, rel=0.05)
    assert model.mlm_head[2].weight.equal(torch.ones(96))


def test_too_many_positions_are_refused(tiny):
    model = tiny.model()
    with pytest.raises(ValueError, match=f"{model.max_len + 1} positions.*max_len = {model.max_len}"):
        model(torch.zeros(1, model.max_len + 1, dtype=torch.long))
    with pytest.raises(ValueError, match="positions"):
        model(torch.zeros(1, model.max_len - 2, dtype=torch.long), torch.zeros(3), torch.tensor([[0]]), 5)


@pytest.mark.parametrize(
    ("ids", "message"),
    [
        (torch.tensor([[0, 189]]), "0..189.*0..188"),
        (torch.tensor([[-1, 3]]), "-1..3"),
        (torch.tensor([3]), "wanted an integer tensor"),
        (torch.zeros(1, 3), "float32"),
    ],
)
def test_wrong_ids_are_refused(tiny, ids, message):
    with pytest.raises(ValueError, match=message):
        tiny.model()(ids)


@pytest.mark.parametrize(
    ("numbers", "loc", "block", "message"),
    [
        (torch.zeros(2), torch.tensor([[0]]), None, "go together"),
        (None, torch.tensor([[0]]), 3, "go together"),
        (torch.zeros(3, 2), torch.tensor([[0], [0]]), 3, "wanted \\(B, n\\) with B = 2"),
        (torch.zeros(2), torch.tensor([[0], [0]]), 3, "wanted \\(B, n\\) with B = 2"),
        (torch.zeros(2, 2), torch.tensor([0]), 3, "number_loc"),
        (torch.zeros(2, 2), torch.tensor([[0], [0]]), [1, 2], "add up to the 5 tokens"),
        (torch.zeros(2, 2), torch.tensor([[0], [0]]), 0, "positive piece size"),
        (torch.zeros(2, 2), torch.tensor([[0], [0]]), torch.tensor([1, 1, 1]), "3 rows"),
        (torch.zeros(2, 2), torch.tensor([[0], [0]]), [[5], [2, 3]], "differ in length"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(tiny, numbers, loc, block, message):
    with pytest.raises(ValueError, match=message):
        tiny.model()(torch.ones(2, 5, dtype=torch.long), numbers, loc, block)


def test_pretraining_loss_is_its_three_parts(tiny):
    """Against separate heads: cross-entropy over next-token rows and over order rows, squared GC error."""
    model = tiny.model()
    generator = torch.Generator().manual_seed(3)
    B, T, place = 3, 11, 8
    ids = torch.randint(0, 189, (B, T), generator=generator)
    targets = torch.randint(0, 189, (B, T), generator=generator)
    kind = torch.full((B, T), ROW_NEXT_TOKEN, dtype=torch.uint8)
    kind[:, -1] = ROW_ORDER
    kind[:, 0] = ROW_IGNORED
    targets[1, 4] = IGNORE_INDEX
    gc_target, gc_mask = torch.tensor([0.4, 0.9, 0.1]), torch.tensor([True, False, True])
    nowhere = torch.zeros(B, dtype=torch.int64)
    windows = Windows(nowhere, nowhere, nowhere, nowhere)
    batch = PretrainBatch(ids, targets, kind, place, gc_target, gc_mask, windows)
    loss = model.pretraining_loss(batch, order_weight=0.7, gc_weight=0.3)

    hidden = model.hidden_states(ids)
    logits = model.mlm_head(hidden)
    valid = (kind == ROW_NEXT_TOKEN) & (targets != IGNORE_INDEX)
    next_token = torch.nn.functional.cross_entropy(logits[valid], targets[valid])
    order = torch.nn.functional.cross_entropy(logits[:, -1], targets[:, -1])
    gc = (model.num_regression(hidden[:, place])[:, 0] - gc_target)[gc_mask].square().mean()
    torch.testing.assert_close(loss.next_token, next_token.detach(), **CLOSE)
    torch.testing.assert_close(loss.order, order.detach(), **CLOSE)
    torch.testing.assert_close(loss.gc, gc.detach(), **CLOSE)
    total = next_token + 0.7 * order + 0.3 * gc
    torch.testing.assert_close(loss.total, total, **CLOSE)
    names = [name for name, _ in model.named_parameters() if not name.startswith("number_embedding")]
    got = torch.autograd.grad(loss.total, [model.get_parameter(name) for name in names])
    wanted = torch.autograd.grad(total, [model.get_parameter(name) for name in names])
    for name, one, other in zip(names, got, wanted, strict=True):
        torch.testing.assert_close(one, other, **CLOSE, msg=lambda text, name=name: f"{name}: {text}")


def test_smaller_integer_ids_give_the_same_logits(tiny):
    model, ids = tiny.model(), tiny.golden["ids"]
    with torch.no_grad():
        for dtype in (torch.int32, torch.int16, torch.uint8, torch.uint16):
            assert model(ids.to(dtype)).equal(model(ids))


def test_config_names_what_is_wrong():
    with pytest.raises(ValueError, match=r"unknown model setting.*depth"):
        ModelConfig.from_dict({"vocab_size": 5, "depth": 2})
    with pytest.raises(ValueError, match="lack vocab_size"):
        ModelConfig.from_dict({})
    with pytest.raises(ValueError, match="multiple of num_heads"):
        ModelConfig(10, embedding_dim=10, num_heads=3)
    with pytest.raises(ValueError, match="max_len = 0"):
        ModelConfig(10, max_len=0)
    with pytest.raises(ValueError, match="unknown model name 'gpt5'"):
        DNAGPT.from_name("gpt5", 10)
    config = ModelConfig(10)
    assert ModelConfig.from_dict(config.to_dict()) == config


def loss_and_gradients(model, ids):
    model.zero_grad()
    loss = model.hidden_states(ids).square().mean()
    loss.backward()
    return [loss.detach(), *(p.grad.clone() for p in model.transformer.parameters())]


def test_recomputed_blocks_give_the_same_bits(tiny):
    model, ids = tiny.model(), tiny.golden["ids"]
    wanted = loss_and_gradients(model, ids)
    names, runs = list(model.state_dict()), []
    model.recompute_blocks()
    model.transformer.h[0].attn.register_forward_hook(lambda *_: runs.append(0))
    assert all(torch.equal(a, b) for a, b in zip(loss_and_gradients(model, ids), wanted, strict=True))
    assert list(model.state_dict()) == names
    assert len(runs) == 2, "forward, and again in the backward pass"
    with torch.no_grad():
        model.hidden_states(ids)
    assert len(runs) == 3


def test_the_residual_stream_is_kept_in_bf16_under_autocast_only(tiny):
    model, ids = tiny.model(), tiny.golden["ids"]
    seen = []
    for block in model.blocks:
        block.register_forward_hook(lambda _, __, made: seen.append(made[0].dtype))

    def states(autocast: bool) -> torch.Tensor:
        seen.clear()
        with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return model.hidden_states(ids).float()

    plain, wide = states(False), states(True)
    assert set(seen) == {torch.float32}
    model.residual_dtype = torch.bfloat16
    assert torch.equal(states(False), plain)
    half = states(True)
    assert set(seen) == {torch.bfloat16}
    # a few roundings to bf16, of up to 2^-9 of the stream each
    assert (wide - plain).norm() < (half - plain).norm() < 2**-6 * plain.norm()
    assert not torch.equal(half, wide)


@pytest.mark.slow
@pytest.mark.filterwarnings("default")  # torch warns of its own code while it compiles
@pytest.mark.parametrize("recompute", [False, True])
def test_compiled_blocks_give_the_same_within_rounding(tiny, recompute):
    from torch._dynamo.utils import counters

    model, ids = tiny.model(), tiny.golden["ids"]
    wanted = loss_and_gradients(model, ids)
    names = list(model.state_dict())
    torch._dynamo.reset()
    counters.clear()
    model.compile_blocks()
    if recompute:
        model.recompute_blocks()
    for one, other in zip(loss_and_gradients(model, ids), wanted, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-6)
    assert list(model.state_dict()) == names
    # one function for the first block, which has no branch to add, and one for all others (recomputed blocks have
    # their sum already); without graph breaks, because fullgraph raises for them
    assert counters["stats"]["unique_graphs"] == (1 if recompute else 2)
    assert len(model.transformer.h) > 2
