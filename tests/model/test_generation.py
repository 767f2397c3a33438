"""Generation: the official rules, the cache, seeded draws that do not depend on the batch, crop_to."""

import pytest
import torch

from dnagpt_fast import KmerTokenizer
from dnagpt_fast.model.generation import (
    SamplingRules,
    SeededDraws,
    base_tokens,
    continue_sequences,
    generate_sequences,
    most_likely,
)
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.ops.sampling.reference import filter_logits
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


def directly_computed(model, ids, new):
    """Greedy tokens without a cache: the whole context goes through `forward` for every token."""
    ids = list(ids)
    with torch.no_grad():
        for _ in range(new):
            logits = model(torch.tensor([ids[-model.max_len :]]))[0, -1]
            ids.append(int(logits.softmax(-1).topk(1).indices))
    return ids


def some_prompts(count, longest, seed=5):
    generator = torch.Generator().manual_seed(seed)
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, 189, (n,), generator=generator).tolist() for n in lengths]


def test_greedy_generation_past_max_len_is_the_official_one(tiny):
    golden = tiny.golden
    new = golden["gen_greedy"].shape[1] - golden["gen_prompt"].shape[1]
    assert golden["gen_greedy"].shape[1] > tiny.config.max_len
    assert tiny.model().generate(golden["gen_prompt"], new).equal(golden["gen_greedy"])


@pytest.mark.parametrize(("key", "top_k", "top_p"), [("k5", 5, 0.0), ("p90", 0, 0.9), ("k20_p50", 20, 0.5)])
def test_filter_is_the_official_one(tiny, key, top_k, top_p):
    logits = tiny.golden["filt_in"]
    before = logits.clone()
    assert filter_logits(logits, top_k, top_p).equal(tiny.golden[f"filt_{key}"])
    assert logits.equal(before)


def test_stop_ids_end_before_the_stop_token(tiny):
    golden = tiny.golden
    whole = golden["gen_greedy"][0].tolist()
    prompt = golden["gen_prompt"].shape[1]
    stop = whole[prompt + 5]
    end = whole.index(stop, prompt)
    out = tiny.model().generate(golden["gen_prompt"], len(whole), stop_ids=(stop,))
    assert out[0].tolist() == whole[:end]


def test_a_batch_of_unequal_prompts_gives_the_same_as_each_prompt_without_a_cache(tiny):
    """Lengths from 1 to past max_len, so that lanes cross max_len at different steps."""
    model = tiny.model()
    prompts = [*some_prompts(9, model.max_len), list(range(60, 60 + model.max_len + 3))]
    rules = SamplingRules()
    made = continue_sequences(Inference(model, pack=True), prompts, [12] * 10, rules, most_likely)
    for prompt, tokens in zip(prompts, made, strict=True):
        assert prompt + tokens == directly_computed(model, prompt, 12)


def test_rows_that_stop_early_are_padded_and_the_others_continue(tiny):
    model = tiny.model()
    prompts = torch.tensor([[21, 40, 50], [21, 60, 70], [22, 80, 90]])
    free = [directly_computed(model, row.tolist(), 10) for row in prompts]
    stop = free[1][6]
    out = model.generate(prompts, 10, stop_ids=[stop])
    for row, whole in zip(out.tolist(), free, strict=True):
        end = whole.index(stop, 3) if stop in whole[3:] else len(whole)
        assert row == (whole[:end] + [20] * 13)[: len(row)]


def test_a_sampled_sequence_does_not_depend_on_its_batch(tiny):
    """20 prompts of 1..30 tokens, two samples each: alone, in batches of 3, of 40, in another order."""
    model = tiny.model()
    tokenizer = KmerTokenizer(3)
    prompts = [tokenizer.decode(ids) for ids in some_prompts(20, 30)]
    settings = {
        "max_new_tokens": 25,
        "num_samples": 2,
        "seed": 11,
        "top_p": 0.95,
        "top_k": 150,
        "temperature": 1.1,
    }

    def run(chosen, **more):
        made = generate_sequences(model, tokenizer, chosen, **{**settings, **more})
        return {(chosen[one.prompt], one.sample): one.new_ids for one in made}

    together = run(prompts, batch_size=40)
    assert len({tuple(ids) for ids in together.values()}) > 30
    assert run(prompts, batch_size=3) == together
    assert run(prompts[::-1], batch_size=7) == together
    for prompt in prompts[:4]:
        assert run([prompt], num_samples=1, batch_size=1)[prompt, 0] == together[prompt, 0]
    assert run(prompts, batch_size=40, seed=12) != together


def test_the_stream_of_a_sequence_is_its_own():
    probabilities = torch.full((1, 50), 1 / 50)

    def numbers(*key):
        draw = SeededDraws([key])
        return [int(draw(probabilities, [0])) for _ in range(40)]

    base = numbers(3, 0, [21, 5])
    assert numbers(3, 0, [21, 5]) == base
    for other in ((4, 0, [21, 5]), (3, 1, [21, 5]), (3, 0, [21, 6]), (3, 0, [2, 15])):
        assert numbers(*other) != base


def test_draws_have_the_given_probabilities():
    """10,000 draws from five tokens, one of p = 0: chi-square with 3 degrees of freedom, 0.1 % point 16.3."""
    probabilities = torch.tensor([[0.5, 0.0, 0.3, 0.15, 0.05]]).repeat(10_000, 1)
    draws = SeededDraws([(1, i, [0]) for i in range(10_000)])(probabilities, list(range(10_000)))
    counts = torch.bincount(draws, minlength=5)
    assert counts[1] == 0
    expected = probabilities[0] * 10_000
    kept = expected > 0
    assert float(((counts - expected)[kept] ** 2 / expected[kept]).sum()) < 16.3


def test_a_draw_at_the_upper_end_is_a_token_with_a_probability():
    class Edge:
        def random(self):
            return 1.0  # a result that rounding of u * sum can give

    draw = SeededDraws([])
    draw._streams = [Edge()]
    assert draw(torch.tensor([[0.2, 0.8, 0.0]]), [0]).tolist() == [1]


def test_sampling_through_the_official_call_follows_the_global_seed(tiny):
    """For a batch of one: the tokens of torch.multinomial over the filtered probabilities, step by step."""
    model = tiny.model()
    torch.manual_seed(40)
    out = model.generate(torch.tensor([[21, 100]]), 15, temperature=0.9, do_sample=True, top_k=40, top_p=0.9)
    torch.manual_seed(40)
    ids = [21, 100]
    with torch.no_grad():
        for _ in range(15):
            logits = model(torch.tensor([ids]))[:, -1] / 0.9
            ids.append(int(filter_logits(logits, 40, 0.9).softmax(-1).multinomial(1)))
    assert out[0].tolist() == ids


def test_bases_only_draws_nothing_else(tiny):
    tokenizer = KmerTokenizer(3)
    made = list(
        generate_sequences(
            tiny.model(),
            tokenizer,
            ["<R>ACG"],
            max_new_tokens=60,
            num_samples=8,
            bases_only=True,
            temperature=3.0,
        )
    )
    free = list(
        generate_sequences(
            tiny.model(), tokenizer, ["<R>ACG"], max_new_tokens=60, num_samples=8, temperature=3.0
        )
    )
    letters = [set(tokenizer.decode(one.new_ids)) for one in made]
    assert all(seen <= set("ACGT") for seen in letters)
    assert all(len(one.new_ids) == 60 for one in made)
    assert any(set(tokenizer.decode(one.new_ids)) - set("ACGT") for one in free)
    assert int(base_tokens(tokenizer).sum()) == 4 + 16 + 64


def test_crop_to_continues_from_the_last_tokens(tiny):
    """At max_len the context becomes its last 7 tokens and grows again, twice."""
    model = tiny.model()
    keep, new = 7, 2 * model.max_len
    prompt = [21, 50, 60]
    rules = SamplingRules(crop_to=keep)
    made = continue_sequences(Inference(model), [prompt, prompt[:1]], [new, new], rules, most_likely)
    for start, tokens in zip((prompt, prompt[:1]), made, strict=True):
        text, context = list(start), list(start)
        with torch.no_grad():
            for _ in range(new):
                if len(context) > model.max_len:
                    context = text[-keep:]
                token = int(model(torch.tensor([context]))[0, -1].softmax(-1).topk(1).indices)
                text.append(token)
                context.append(token)
        assert start + tokens == text


def test_max_tokens_counts_the_prompt(tiny):
    tokenizer = KmerTokenizer(3)
    made = list(generate_sequences(tiny.model(), tokenizer, ["<R>ACGAC", "<R>"], max_tokens=6, stop_ids=()))
    assert [len(one.prompt_ids) + len(one.new_ids) for one in made] == [6, 6]
    longer = list(generate_sequences(tiny.model(), tokenizer, ["<R>ACGACGACG"], max_tokens=2, stop_ids=()))
    assert longer[0].new_ids == []


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one of max_new_tokens, max_tokens and length_bp"),
        ({"max_new_tokens": 3, "max_tokens": 9}, "one of max_new_tokens, max_tokens and length_bp"),
        ({"max_new_tokens": 3, "num_samples": 0}, "num_samples = 0"),
        ({"max_new_tokens": 3, "temperature": 0.0}, "temperature = 0"),
        ({"max_new_tokens": 3, "top_k": -1}, "top_k = -1"),
        ({"max_new_tokens": 3, "crop_to": 0}, "crop_to = 0"),
        ({"max_new_tokens": 3, "prompts": ["<R>", ""]}, "has no token"),
    ],
)
def test_settings_that_cannot_be_used_are_refused_at_once(tiny, settings, message):
    settings = {"prompts": ["<R>"], **settings}
    with pytest.raises(ValueError, match=message):
        generate_sequences(tiny.model(), KmerTokenizer(3), **settings)


def test_engine_refuses_what_does_not_fit(tiny):
    model = tiny.model()
    inference = Inference(model)
    with pytest.raises(ValueError, match="less than max_len"):
        continue_sequences(inference, [[1]], [3], SamplingRules(crop_to=model.max_len), most_likely)
    nothing = torch.zeros(189, dtype=torch.bool)
    with pytest.raises(ValueError, match="allow no token"):
        continue_sequences(inference, [[1]], [3], SamplingRules(allowed=nothing), most_likely)
    with pytest.raises(ValueError, match=r"500\.\.500"):
        model.generate(torch.tensor([[500] * 16]), 2)
    with pytest.raises(ValueError, match="integer tensor"):
        model.generate(torch.zeros(1, 2), 2)


def test_every_product_of_generation_is_the_packed_one(tiny, monkeypatch):
    """No layer is called as a module (its own forward is slower for a few rows), and every weight is packed."""
    model = tiny.model()
    prompt = torch.tensor([[21, 50, 60]])
    wanted = model.generate(prompt, 12)
    layers = [module for module in model.modules() if isinstance(module, torch.nn.Linear)]
    assert set(Inference(model, pack=True)._packed) == {id(layer) for layer in layers}

    def called(*_, **__):
        raise AssertionError("a layer was called as a module")

    for kind in {type(layer) for layer in layers}:
        monkeypatch.setattr(kind, "forward", called)
    assert model.generate(prompt, 12).equal(wanted)


def test_prompts_that_end_inside_a_kmer_are_reported(tiny, caplog):
    tokenizer = KmerTokenizer(3)
    prompts = ["<R>ACGACG", "<R>ACGTT", "<R>", "<R>A"]
    list(generate_sequences(tiny.model(), tokenizer, prompts, max_new_tokens=1))
    (said,) = caplog.messages
    assert said.startswith(
        "2 prompt(s) end inside a 3-mer; the first is prompts[1], whose last 2 base(s), TT, become"
    )
    caplog.clear()
    list(generate_sequences(tiny.model(), tokenizer, prompts[::2], max_new_tokens=1))
    assert not caplog.messages


def test_progress_counts_the_new_tokens_of_all_sequences(tiny):
    seen: list[tuple[int, int]] = []
    prompts, settings = ["<R>", "<R>ACGTGT"], {"max_tokens": 9, "num_samples": 3, "batch_size": 2}

    def report(done: int, total: int) -> None:
        seen.append((done, total))

    made = list(
        generate_sequences(tiny.model(), KmerTokenizer(3), prompts, **settings, stop_ids=(), progress=report)
    )
    total = sum(len(one.new_ids) for one in made)
    assert seen[-1] == (total, total)
    assert seen == sorted(seen)
