import pytest

from dnagpt_fast.generation import filter_logits
from tests.tiny import NAMES, load_tiny


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


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
