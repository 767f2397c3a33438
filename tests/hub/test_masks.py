"""Masks, caches, packed sequences and padding give the numbers of plain sequences, as GPT-2 of the library does."""

import pytest
import torch

from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.ops import dispatch
from tests.hub.strong import strong_model

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.attention import KERNELS  # noqa: E402
from dnagpt_fast.hub.versions import CACHE  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")
IDS = torch.tensor([[21, 60, 80, 100, 120, 33, 44, 55]])
GREEDY = {"max_new_tokens": 12, "do_sample": False, "eos_token_id": None}


def gpt2():
    torch.manual_seed(0)
    config = transformers.GPT2Config(
        vocab_size=189, n_positions=48, n_embd=48, n_layer=2, n_head=3, pad_token_id=20
    )
    model = transformers.GPT2LMHeadModel(config)
    for block in model.transformer.h:
        block.attn.c_proj.weight.data *= 40
    return model


def close(a, b):
    torch.testing.assert_close(a, b, atol=5e-5, rtol=5e-5)


OURS = [("ours", "sdpa"), ("ours", "eager"), ("ours", KERNELS)]
BESIDE = [("GPT-2", "sdpa"), ("GPT-2", "eager")]


@pytest.fixture(params=OURS + BESIDE, ids="-".join)
def model(request):
    which, attention = request.param
    model = hub.DNAGPTForCausalLM.from_dnagpt(strong_model()) if which == "ours" else gpt2()
    model.set_attn_implementation(attention)
    model.eval()
    # so that a test cannot pass because context does not matter
    with torch.no_grad():
        assert (model(IDS).logits[:, 4:5] - model(IDS[:, 4:5]).logits).abs().max() > 0.05
    return model


def is_ours(model):
    return isinstance(model, hub.DNAGPTForCausalLM)


@pytest.fixture(params=["sdpa", "eager", KERNELS])
def attention(request):
    return request.param


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def test_masks_of_four_dimensions(model):
    """Float ones are added to the scores: a band, in which a token sees itself and the two before it."""
    seen = torch.ones(8, 8).tril().bool() & ~torch.ones(8, 8).tril(-3).bool()
    added = torch.zeros(1, 1, 8, 8).masked_fill(~seen, float("-inf"))
    wanted = model(IDS, attention_mask=added).logits
    other = IDS.clone()
    other[0, 0] = 99
    changed = model(other, attention_mask=added).logits
    reach = 2 * model.config.num_hidden_layers + 1
    close(changed[:, reach:], wanted[:, reach:])
    assert (changed[:, 2] - wanted[:, 2]).abs().max() > 1e-3
    if is_ours(model):  # the library leaves the dtype to the caller
        close(model(IDS, attention_mask=added.double()).logits, wanted)
        close(model(IDS, attention_mask=seen[None, None]).logits, wanted)


def test_causal_masks_given_by_hand_change_nothing(model):
    alone = model(IDS).logits
    added = torch.zeros(1, 1, 8, 8).masked_fill(torch.ones(8, 8).tril() == 0, -1e9)
    close(model(IDS, attention_mask=added).logits, alone)
    if is_ours(model) or model.config._attn_implementation == "sdpa":
        close(model(IDS, attention_mask=added == 0).logits, alone)


def test_static_cache_by_hand(model):
    alone = model(IDS).logits
    cache = transformers.StaticCache(config=model.config, max_cache_len=40)
    close(model(IDS[:, :4], **{CACHE: cache}).logits, alone[:, :4])
    close(model(IDS[:, 4:5], **{CACHE: cache}).logits, alone[:, 4:5])
    close(model(IDS[:, 5:], **{CACHE: cache}).logits, alone[:, 5:])


def test_dynamic_cache_in_pieces(model):
    alone = model(IDS).logits
    cache = transformers.DynamicCache(config=model.config)
    for start, end in ((0, 3), (3, 6), (6, 7), (7, 8)):
        close(model(IDS[:, start:end], **{CACHE: cache}).logits, alone[:, start:end])


def test_packed_sequences_do_not_see_each_other(model):
    first, second = IDS[:, :5], IDS[:, 3:6]
    packed = torch.cat((first, second), 1)
    positions = torch.tensor([[0, 1, 2, 3, 4, 0, 1, 2]])
    for use_cache in (False, True) if is_ours(model) else (False,):
        logits = model(packed, position_ids=positions, use_cache=use_cache).logits
        close(logits[:, :5], model(first).logits)
        close(logits[:, 5:], model(second).logits)


@pytest.mark.parametrize("seed", range(3))
def test_bfloat16_rounds_packed_sequences_no_worse_than_padded_ones(attention, seed):
    """Neither is held against the other, as both are rounded: at most twice the error of the padded batch, beside the
    same weights in float64."""
    torch.manual_seed(seed)
    config = hub.DNAGPTConfig(vocab_size=189, max_len=48, num_layers=2, num_heads=2, embedding_dim=32)
    low = hub.DNAGPTForCausalLM(config).to(torch.bfloat16).eval()
    truth = hub.DNAGPTForCausalLM(config).double().eval()
    truth.load_state_dict(low.state_dict())
    low.set_attn_implementation(attention)
    lengths = [7, 3, 6, 1, 5]
    ids = torch.randint(21, 189, (len(lengths), 7))
    mask = torch.arange(7) >= 7 - torch.tensor(lengths)[:, None]
    positions = torch.cat([torch.arange(n) for n in lengths])[None]
    padded = low(ids, attention_mask=mask.long(), use_cache=False).logits[mask]
    packed = low(ids[mask][None], position_ids=positions, use_cache=False).logits[0]
    wanted = torch.cat([truth(row[m][None]).logits[0] for row, m in zip(ids, mask, strict=True)])
    bounds = (padded.double() - wanted).abs().max(), (padded.double() - wanted).square().mean()
    assert 0 < bounds[0] < 0.1
    assert (packed.double() - wanted).abs().max() <= 2 * bounds[0]
    assert (packed.double() - wanted).square().mean() <= 2 * bounds[1]


@pytest.mark.parametrize("flash", [False, True])
def test_the_collator_of_packed_sequences(model, flash):
    rows = [{"input_ids": IDS[0, :5].tolist()}, {"input_ids": IDS[0, 3:].tolist()}]
    collate = transformers.DataCollatorWithFlattening(return_flash_attn_kwargs=flash)
    batch = {k: v for k, v in collate(rows).items()}
    found = model(**batch, use_cache=False)
    parts = [model(torch.tensor([row["input_ids"]]), labels=torch.tensor([row["input_ids"]])) for row in rows]
    close(found.logits, torch.cat([part.logits for part in parts], 1))
    close(found.loss, (4 * parts[0].loss + 4 * parts[1].loss) / 8)


def padded(side):
    pads = torch.full((1, 3), 20)
    ids = torch.cat((pads, IDS[:, :5]) if side == "left" else (IDS[:, :5], pads), 1)
    both = torch.cat((ids, IDS))
    mask = torch.ones_like(both)
    place = slice(0, 3) if side == "left" else slice(5, 8)
    mask[0, place] = 0
    return both, mask, slice(3, 8) if side == "left" else slice(0, 5)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_no_logits(model, side):
    ids, mask, kept = padded(side)
    settings = {}
    if not is_ours(model):  # which counts the pads as positions
        settings["position_ids"] = (mask.cumsum(-1) - 1).clamp(min=0)
    logits = model(ids, attention_mask=mask, **settings).logits
    assert torch.isfinite(logits).all()
    close(logits[0, kept], model(IDS[:, :5]).logits[0])
    close(logits[1], model(IDS).logits[0])


@pytest.mark.parametrize("cache", ["static", "dynamic", "none"])
def test_greedy_generation_of_a_padded_batch(model, cache):
    ids, mask, _ = padded("left")
    ways = {"static": {"cache_implementation": "static"}, "dynamic": {}, "none": {"use_cache": False}}
    found = model.generate(ids, attention_mask=mask, **GREEDY, **ways[cache])
    for row, alone in zip(found, (IDS[:, :5], IDS), strict=True):
        assert row[8:].equal(model.generate(alone, **GREEDY, use_cache=False)[0, alone.shape[1] :])


def test_beams(model):
    ids, mask, _ = padded("left")
    settings = GREEDY | {"num_beams": 3}
    found = model.generate(ids, attention_mask=mask, **settings)
    assert found.equal(model.generate(ids, attention_mask=mask, **settings, use_cache=False))


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_does_not_change_the_loss(attention, side):
    model = hub.DNAGPTForCausalLM.from_dnagpt(strong_model()).eval()
    model.set_attn_implementation(attention)
    ids, mask, _ = padded(side)
    labels = ids.masked_fill(mask == 0, -100)
    short, long = (model(rows, labels=rows).loss for rows in (IDS[:, :5], IDS))
    close(model(ids, attention_mask=mask, labels=labels).loss, (4 * short + 7 * long) / 11)


@pytest.mark.parametrize(
    "mask", [torch.ones(1, 8, 8), torch.ones(8), torch.ones(1, 1, 8, 8, dtype=torch.long)], ids=str
)
def test_masks_of_unknown_form_are_refused(mask):
    model = hub.DNAGPTForCausalLM.from_dnagpt(strong_model())
    with pytest.raises(ValueError, match="attention_mask is"):
        model(IDS, attention_mask=mask)


def test_the_kernels_compute_the_documented_cases(monkeypatch):
    """In the interpreter: plain, padded and packed sequences, without torch's attention."""
    torch.manual_seed(0)
    own = DNAGPT(vocab_size=189, max_len=32, num_layers=2, num_heads=2, embedding_dim=64, bias=False).eval()
    for block in own.blocks:
        block.attn.c_proj.weight.data *= 40
    model = hub.DNAGPTForCausalLM.from_dnagpt(own)
    plain = model(IDS).logits
    short = model(IDS[:, :5]).logits
    ids, mask, kept = padded("left")
    model.set_attn_implementation(KERNELS)
    monkeypatch.setattr(
        torch.nn.functional, "scaled_dot_product_attention", lambda *_, **__: pytest.fail("torch's")
    )
    with dispatch.using(attention="triton"):
        close(model(IDS, use_cache=False).logits, plain)
        found = model(ids, attention_mask=mask, use_cache=False).logits
        close(found[1], plain[0])
        close(found[0, kept], short[0])
        packed = model(
            torch.cat((IDS, IDS[:, :5]), 1),
            position_ids=torch.cat((torch.arange(8), torch.arange(5)))[None],
            cu_seq_lens_q=torch.tensor([0, 8, 13], dtype=torch.int32),
            use_cache=False,
        ).logits
    close(packed, torch.cat((plain, short), 1))
