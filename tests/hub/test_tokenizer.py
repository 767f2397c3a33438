"""DNAGPTTokenizer: the official ids by every kind of call, added tokens, copies, padding, stop strings."""

import copy
import pickle
import random

import pytest
import torch

from tests.tiny import load_tiny

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.stopping import StopAtText  # noqa: E402

TEXTS = ["<R>ACGTTGACGGATTA", "<R>ACG", "R", "", "<R>acgNN<P><<P>>x", "ACGT" * 9, "<0>P<R", "A C\nGT"]


@pytest.fixture
def tokenizer():
    return hub.DNAGPTTokenizer(3)


def by_token_strings(tokenizer, *args, **settings):
    """Encodes with the base class, which uses the tokens' strings."""
    way = copy.deepcopy(tokenizer)
    way._is_plain = lambda *_: False
    return way(*args, **settings)


SETTINGS = [
    {},
    {"padding": True},
    {"padding": "max_length", "max_length": 9, "truncation": True},
    {"truncation": True, "max_length": 2},
    {"padding": True, "pad_to_multiple_of": 8, "padding_side": "right"},
    {"padding": True, "return_attention_mask": False},
    {"padding": True, "return_tensors": "pt"},
    {"padding": True, "return_tensors": "np"},
    {
        "padding": "max_length",
        "max_length": 5,
        "truncation": True,
        "return_tensors": "pt",
        "padding_side": "right",
    },
]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("truncation_side", ["right", "left"])
def test_the_fast_way_is_the_base_classes(tokenizer, settings, truncation_side):
    tokenizer.truncation_side = truncation_side
    inputs = [TEXTS, *([TEXTS[0], [TEXTS[0]]])]
    for text in inputs:
        found, wanted = tokenizer(text, **settings), by_token_strings(tokenizer, text, **settings)
        assert found.keys() == wanted.keys()
        for name, value in found.items():
            assert type(value) is type(wanted[name])
            same = (
                value.tolist() == wanted[name].tolist() if hasattr(value, "tolist") else value == wanted[name]
            )
            assert same, (name, text, value, wanted[name])


def test_text_goes_by_the_compiled_encoder(tokenizer, monkeypatch):
    monkeypatch.setattr(type(tokenizer), "tokenize", lambda *_, **__: pytest.fail("by token strings"))
    text = "<R>" + "".join(random.Random(0).choices("ACGTN", k=3000))
    wanted = tokenizer.kmer.encode(text)
    assert tokenizer(text)["input_ids"] == wanted.tolist()
    assert tokenizer(text, return_tensors="pt")["input_ids"].equal(wanted[None])
    assert tokenizer.encode(text) == wanted.tolist()


def test_rows_of_different_length_are_no_tensor(tokenizer):
    with pytest.raises(ValueError, match="padding"):
        tokenizer(TEXTS[:2], return_tensors="pt")


def test_pairs_words_and_overflow(tokenizer):
    assert tokenizer("<R>ACG", "GGG")["input_ids"] == [
        *tokenizer("<R>ACG")["input_ids"],
        *tokenizer("GGG")["input_ids"],
    ]
    words = tokenizer(["ACG", "TT"], is_split_into_words=True)["input_ids"]
    assert words == [*tokenizer("ACG")["input_ids"], *tokenizer("TT")["input_ids"]]
    rest = tokenizer("ACGTTT", truncation=True, max_length=1, return_overflowing_tokens=True)
    assert rest["overflowing_tokens"] == tokenizer("TTT")["input_ids"]


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda t: pickle.loads(pickle.dumps(t))])
def test_copies(tokenizer, copied):
    tokenizer.add_tokens(["<new>"])
    twin = copied(tokenizer)
    assert len(twin) == 190
    for text in (*TEXTS, "ACG<new>ACG"):
        assert twin(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_added_tokens_have_ids_and_embeddings(tokenizer, tmp_path):
    assert tokenizer.add_tokens(["<new>", "<R>"]) == 1
    assert tokenizer.add_special_tokens({"eos_token": "<EOS>"}) == 1
    text = "<R>ACG<new>AC<EOS>"
    ids = tokenizer(text)["input_ids"]
    assert ids == [21, 106, 189, 47, 190]
    assert (len(tokenizer), tokenizer.vocab_size, tokenizer.eos_token_id) == (191, 189, 190)
    assert tokenizer.get_vocab()["<new>"] == 189
    assert tokenizer.decode(ids) == text
    assert tokenizer.decode(ids, skip_special_tokens=True) == "<R>ACG<new>AC"
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert again(text)["input_ids"] == ids
    model = hub.DNAGPTForCausalLM.from_dnagpt(load_tiny("tiny_nobias").model())
    model.resize_token_embeddings(len(tokenizer))
    assert model(torch.tensor([ids])).logits.shape[-1] == 191


def test_pad_and_unknown_token_given_by_the_user_are_kept(tmp_path):
    tokenizer = hub.DNAGPTTokenizer(3, pad_token="<R>", unk_token="<?>")
    assert (tokenizer.pad_token, tokenizer.pad_token_id) == ("<R>", 21)
    assert tokenizer(["ACG", "ACGACG"], padding=True)["input_ids"] == [[21, 106], [106, 106]]
    assert tokenizer("acgACG<0>")["input_ids"] == [189, 106, 0]
    tokenizer.save_pretrained(tmp_path)
    again = transformers.AutoTokenizer.from_pretrained(tmp_path)
    assert (again.pad_token, again.unk_token, len(again)) == ("<R>", "<?>", 190)


@pytest.mark.parametrize(
    ("texts", "stop", "wanted"),
    [
        (["ACG", "TTA"], "GTT", True),  # across tokens
        (["ACG", "TTA"], "TT", True),  # ends within the last token
        (["ACG", "TTA"], "ACG", False),  # was there before the last token
        (["ACG", "TTA"], ["CCC", "A"], True),
        (["ACG", "<R>"], "<R>", True),
        (["ACG"], "ACGT", False),
    ],
)
def test_text_that_stops(tokenizer, texts, stop, wanted):
    ids = torch.tensor([[tokenizer.convert_tokens_to_ids(text) for text in texts]])
    assert StopAtText(stop, tokenizer)(ids).tolist() == [wanted]


def test_generate_stops_at_strings(tokenizer):
    model = hub.DNAGPTForCausalLM.from_dnagpt(load_tiny("tiny_nobias").model())
    prompt = tokenizer(["<R>ACGTTG", "<R>GGATCC"], return_tensors="pt")
    # a finished row is only padded if there is an end token; this one is never generated
    settings = {"max_new_tokens": 20, "do_sample": False, "eos_token_id": 1}
    free = model.generate(**prompt, **settings)
    texts = tokenizer.convert_ids_to_tokens(free[0].tolist())
    start = prompt["input_ids"].shape[1]
    place, wanted = next(
        (i, t) for i, t in enumerate(texts[start + 2 :], start + 2) if t not in texts[start:i]
    )
    stopped = model.generate(**prompt, **settings, stop_strings=[wanted], tokenizer=tokenizer)
    first = stopped[0].tolist()
    assert first[: place + 1] == free[0, : place + 1].tolist()
    assert set(first[place + 1 :]) <= {tokenizer.pad_token_id}
    with pytest.raises(ValueError, match="tokenizer"):
        model.generate(**prompt, **settings, stop_strings=[wanted])
    with pytest.raises(ValueError, match="one letter or more"):
        StopAtText([""], tokenizer)
