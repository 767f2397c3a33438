"""The Hugging Face classes: Auto classes, transformers' own generation, Trainer, PEFT, errors."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.hub.strong import strong_model
from tests.tiny import NAMES, load_tiny

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.versions import CACHE  # noqa: E402
from dnagpt_fast.model.inference import Inference  # noqa: E402

# transformers and related libraries give deprecation warnings on loading and training.
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)


@pytest.fixture(params=NAMES)
def tiny(request):
    return load_tiny(request.param)


@pytest.fixture(params=NAMES)
def strong(request):
    return strong_model(request.param)


@pytest.fixture
def folder(tiny, tmp_path):
    path = tmp_path / "hf"
    hub.DNAGPTForCausalLM.from_dnagpt(tiny.model()).save_pretrained(path)
    hub.DNAGPTTokenizer(3).save_pretrained(path)
    return path


@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_loaded_folder_gives_the_same_logits(tiny, folder, attention):
    """Bit for bit with SDPA, which is what the model itself uses; eager sums in another order."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation=attention).eval()
    assert type(model) is hub.DNAGPTForCausalLM
    with torch.no_grad():
        wanted = tiny.model()(tiny.golden["ids"])
        got = model(tiny.golden["ids"]).logits
    if attention == "sdpa":
        assert got.equal(wanted)
    torch.testing.assert_close(got, wanted, atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(got, tiny.golden["logits"], atol=2e-5, rtol=2e-5)


def test_numbers_go_in_and_come_out(tiny, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    golden = tiny.golden
    with torch.no_grad():
        out = model(
            golden["reg_ids"],
            numbers=golden["reg_numbers"],
            number_loc=golden["reg_number_loc"],
            number_block=golden["reg_number_block"],
        )
        bare = model(golden["ids"], return_dict=False)
    torch.testing.assert_close(out.numbers_out, golden["reg_num"], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(out.logits, golden["reg_logits"], atol=2e-5, rtol=2e-5)
    torch.testing.assert_close(bare[0], golden["logits"], atol=2e-5, rtol=2e-5)
    with pytest.raises(ValueError, match="go together"):
        model(golden["reg_ids"], numbers=golden["reg_numbers"])


def test_generate_with_transformers_is_our_greedy_generation(strong):
    """Prompts of different lengths, padded at the left, with its cache and without, against one prompt at a time."""
    model, tokenizer = hub.DNAGPTForCausalLM.from_dnagpt(strong), hub.DNAGPTTokenizer(3)
    prompts = ["<R>ACGTTGACGGATTA", "<R>ACG", "<R>NNACGTA"]
    batch = tokenizer(prompts, padding=True, return_tensors="pt")
    longest = batch["input_ids"].shape[1]
    kept = model.generate(**batch, max_new_tokens=20, do_sample=False, eos_token_id=None)
    fresh = model.generate(**batch, max_new_tokens=20, do_sample=False, eos_token_id=None, use_cache=False)
    assert kept.equal(fresh)
    for prompt, row in zip(prompts, kept, strict=True):
        ids = tokenizer.kmer.encode(prompt)[None]
        wanted = strong.generate(ids, 20)[0]
        assert row[longest - ids.shape[1] :].equal(wanted)
        # the result of an unused cache: each token depends only on the one before it
        assert not wanted[ids.shape[1] + 1 :].equal(blind(strong, wanted[ids.shape[1]], 19))
    several = model.generate(**batch, max_new_tokens=5, do_sample=True, num_return_sequences=3)
    assert several.shape[0] == 9


def blind(model, token, count):
    """Greedy tokens of a model that sees only the last token."""
    found = []
    for _ in range(count):
        token = model(token.view(1, 1))[0, -1].argmax()
        found.append(token)
    return torch.stack(found)


@pytest.mark.parametrize("name", ["cache", "past_key_values"])
def test_a_cache_goes_by_both_names(strong, name):
    model = hub.DNAGPTForCausalLM.from_dnagpt(strong)
    ids = torch.tensor([[21, 60, 80, 100, 120]])
    with torch.no_grad():
        alone = model(ids).logits
        first = model(ids[:, :2], use_cache=True)
        assert first[CACHE].get_seq_length() == 2
        rest = model(ids[:, 2:], **{name: first[CACHE]})
    torch.testing.assert_close(rest.logits, alone[:, 2:], atol=2e-5, rtol=2e-5)
    assert (model(ids[:, 2:]).logits - alone[:, 2:]).abs().max() > 0.1
    with pytest.raises(ValueError, match="two names of one argument"):
        model(ids[:, 2:], cache=first[CACHE], past_key_values=first[CACHE])


@pytest.mark.parametrize("which", ["DNAGPTModel", "DNAGPTForCausalLM", "DNAGPTForSequenceClassification"])
def test_state_under_an_unknown_name_is_refused(tiny, which):
    """A changed interface must raise an error; settings and the tensors of Trainer are accepted."""
    model = getattr(hub, which)(hub.DNAGPTConfig.from_model_config(tiny.config))
    ids = torch.tensor([[21, 60, 80]])
    model(ids, num_items_in_batch=torch.tensor(3), cache_position=torch.arange(3), return_loss=True)
    for value in (transformers.DynamicCache(), torch.zeros(1, 3)):
        with pytest.raises(TypeError, match="key_values_of_the_future"):
            model(ids, key_values_of_the_future=value)


def test_text_generation_pipeline(folder):
    pipe = transformers.pipeline("text-generation", model=str(folder))
    (answer,) = pipe("<R>ACGACG", max_new_tokens=6, do_sample=False)
    assert answer["generated_text"].startswith("<R>ACGACG")


def test_all_hidden_states_and_attentions(tiny, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, attn_implementation="eager").eval()
    ids, own = tiny.golden["ids"], tiny.model()
    with torch.no_grad():
        out = model(ids, output_hidden_states=True, output_attentions=True)
        assert len(out.hidden_states) == own.num_layers + 1
        for layer, state in enumerate(out.hidden_states):
            torch.testing.assert_close(state, own.hidden_states(ids, layer=layer), atol=2e-5, rtol=2e-5)
    assert all(torch.allclose(w.sum(-1), torch.ones(())) for w in out.attentions)
    found = Inference(own).attention_weights(ids[0].tolist(), range(1, own.num_layers + 1))
    torch.testing.assert_close(found, torch.stack([w[0] for w in out.attentions]), atol=2e-5, rtol=2e-5)


def test_padding_changes_nothing(folder):
    """Left and right padding against the sequence alone."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder).eval()
    ids = torch.tensor([[21, 60, 80, 100, 120]])
    pads = torch.full((1, 3), 20)
    with torch.no_grad():
        alone = model(ids).logits
        for padded, mask, kept in (
            (torch.cat((pads, ids), 1), [[0] * 3 + [1] * 5], slice(3, None)),
            (torch.cat((ids, pads), 1), [[1] * 5 + [0] * 3], slice(0, 5)),
        ):
            got = model(padded, attention_mask=torch.tensor(mask)).logits
            assert torch.isfinite(got).all()
            torch.testing.assert_close(got[:, kept], alone, atol=2e-5, rtol=2e-5)
        assert model(ids, logits_to_keep=2).logits.shape[1] == 2


def test_positions_past_max_len_are_refused(tiny, folder):
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    with pytest.raises(ValueError, match=f"max_len = {tiny.config.max_len}"):
        model(torch.zeros(1, tiny.config.max_len + 1, dtype=torch.long))


def test_tokenizer_is_the_official_one(tiny, folder):
    golden = json.loads((Path(__file__).parents[1] / "data" / "tokenizer.json").read_text())
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    assert type(tokenizer) is hub.DNAGPTTokenizer
    for case in golden["k3_dynamic"]["cases"]:
        if case["ids"]:
            assert tokenizer(case["text"])["input_ids"] == case["ids"]
            assert tokenizer.decode(case["ids"]) == case["decoded"]
    assert len(tokenizer) == tokenizer.vocab_size == 189
    assert (tokenizer.pad_token_id, tokenizer.unk_token_id) == (20, 0)
    right = tokenizer(["<R>ACG", "<R>"], padding=True, padding_side="right", return_tensors="pt")
    assert right["input_ids"].tolist() == [[21, 106], [21, 20]]
    assert tokenizer("<R>" + "ACG" * 9, truncation=True, max_length=4)["input_ids"] == [21, *[106] * 3]


def change(folder, mutate):
    tensors = load_file(folder / "model.safetensors")
    mutate(tensors)
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


@pytest.mark.parametrize(
    ("mutate", "message"),
    [
        (lambda t: t.pop("transformer.h.0.ln_1.weight"), r"missing: transformer\.h\.0\.ln_1\.weight"),
        (lambda t: t.update({"other.weight": torch.ones(1)}), r"unexpected: other\.weight"),
        (lambda t: t.update({"mlm_head.0.weight": torch.ones(2, 2)}), r"mlm_head\.0\.weight"),
    ],
)
def test_wrong_weights_are_refused_by_name(folder, mutate, message):
    change(folder, mutate)
    with pytest.raises((ValueError, RuntimeError), match=message):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_a_truncated_file_is_refused(folder):
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-50])
    with pytest.raises(Exception, match=r"(?i)incomplete|truncat|invalid"):
        transformers.AutoModelForCausalLM.from_pretrained(folder)


def test_not_strict_loads_what_fits(folder):
    change(folder, lambda tensors: tensors.pop("mlm_head.2.weight"))
    model = hub.DNAGPTForCausalLM.from_pretrained(folder, strict=False)
    assert model.mlm_head[2].weight.equal(torch.ones_like(model.mlm_head[2].weight))


def test_initial_values_are_those_of_the_model():
    """Standard deviations of torch's defaults and of the c_proj rule, over about 10^4 values each."""
    torch.manual_seed(0)
    config = hub.DNAGPTConfig(
        vocab_size=200, max_len=64, num_layers=2, num_heads=2, embedding_dim=64, bias=True
    )
    model = hub.DNAGPTForCausalLM(config)
    proj = torch.cat([p.flatten() for n, p in model.named_parameters() if n.endswith("c_proj.weight")])
    assert proj.std().item() == pytest.approx(0.01, rel=0.03)
    assert model.transformer.wte.weight.std().item() == pytest.approx(1, rel=0.03)
    fc = model.transformer.h[0].mlp.c_fc
    assert fc.weight.std().item() == pytest.approx(1 / math.sqrt(3 * 64), rel=0.03)
    assert fc.bias.abs().max() <= 1 / 8
    assert model.transformer.ln_f.weight.equal(torch.ones(64))


def test_classification_heads_of_every_kind(folder):
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    batch = tokenizer(["<R>ACGTTGACG<=><R>", "<R>ACG<=><R>"], padding=True, return_tensors="pt")
    for labels, count in (
        (torch.tensor([0, 2]), 3),
        (torch.tensor([0.5, -1.0]), 1),
        (torch.tensor([[1.0, 0.0], [0.0, 1.0]]), 2),
    ):
        model = transformers.AutoModelForSequenceClassification.from_pretrained(
            folder, num_labels=count
        ).eval()
        out = model(**batch, labels=labels)
        assert out.logits.shape == (2, count)
        out.loss.backward()
        with torch.no_grad():
            alone = model(tokenizer("<R>ACG<=><R>", return_tensors="pt")["input_ids"])
            no_mask = model(batch["input_ids"])
            right = tokenizer(
                ["<R>ACGTTGACG<=><R>", "<R>ACG<=><R>"],
                padding=True,
                padding_side="right",
                return_tensors="pt",
            )
            turned = model(**right)
        for other in (no_mask.logits, turned.logits):
            torch.testing.assert_close(other, out.logits.detach(), atol=2e-5, rtol=2e-5)
        torch.testing.assert_close(alone.logits[0], out.logits[1].detach(), atol=2e-5, rtol=2e-5)


class Repeats(torch.utils.data.Dataset):
    def __init__(self, tokenizer):
        self.rows = [tokenizer("<R>" + unit * 6) for unit in ("ACGTTG", "GGATCC", "TTTAAA", "CACACA")]

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, i):
        return self.rows[i]


@pytest.mark.parametrize("lora", [False, True])
def test_trainer_and_lora(folder, tmp_path, lora):
    """Twelve steps over four repeats bring the loss down; LoRA leaves the base weights alone and merges back."""
    model = transformers.AutoModelForCausalLM.from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    if lora:
        peft = pytest.importorskip("peft", reason="needs the extra [hf]")
        settings = peft.LoraConfig(r=4, target_modules=["c_attn", "c_proj"], task_type="CAUSAL_LM")
        model = peft.get_peft_model(model, settings)
    arguments = transformers.TrainingArguments(
        output_dir=str(tmp_path / "out"),
        max_steps=12,
        per_device_train_batch_size=4,
        learning_rate=1e-2,
        logging_steps=1,
        report_to=[],
        use_cpu=True,
        save_strategy="no",
        disable_tqdm=True,
        gradient_checkpointing=not lora,
    )
    trainer = transformers.Trainer(
        model=model,
        args=arguments,
        train_dataset=Repeats(tokenizer),
        data_collator=transformers.DataCollatorForLanguageModeling(tokenizer, mlm=False),
        processing_class=tokenizer,
    )
    trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < 0.9 * losses[0]
    if lora:
        base = model.get_base_model().state_dict()
        for name, value in before.items():
            layer = name.replace("c_attn.", "c_attn.base_layer.").replace("c_proj.", "c_proj.base_layer.")
            assert base[layer].equal(value)
        merged = model.merge_and_unload()
        assert set(merged.state_dict()) == set(before)
        assert not merged.state_dict()["transformer.h.0.attn.c_attn.weight"].equal(
            before["transformer.h.0.attn.c_attn.weight"]
        )


def test_there_and_back_without_a_copy(tiny):
    model = tiny.model()
    wrapped = hub.DNAGPTForCausalLM.from_dnagpt(model)
    back = wrapped.to_dnagpt()
    for name, value in back.state_dict().items():
        assert value.data_ptr() == model.state_dict()[name].data_ptr()
    assert back.config == model.config
