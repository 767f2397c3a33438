"""The heads: number heads under DistributedDataParallel's rule, classes a k-mer and a base, other numbers of classes,
weights of attention, states by index."""

import pytest
import torch

from dnagpt_fast.finetune.data.token_tags import TaggedWindows, read_features
from dnagpt_fast.genome import Genome
from dnagpt_fast.model.tokenizer import KmerTokenizer
from tests.hub.strong import strong_model

transformers = pytest.importorskip("transformers", reason="needs the extra [hf]")

from dnagpt_fast import hub  # noqa: E402 after the check for transformers
from dnagpt_fast.hub.versions import CACHE  # noqa: E402

pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning", "ignore::DeprecationWarning", "ignore::UserWarning"
)
IDS = torch.tensor([[21, 60, 80, 100, 120, 33, 44, 55]])


@pytest.fixture
def model():
    return hub.DNAGPTForCausalLM.from_dnagpt(strong_model())


@pytest.fixture
def folder(model, tmp_path):
    model.save_pretrained(tmp_path / "hf")
    return tmp_path / "hf"


def test_every_parameter_has_a_gradient_in_training(model):
    """DistributedDataParallel without its search for unused parameters, as Trainer sets it, waits for each of them."""
    alone = model.eval()(IDS, labels=IDS).loss
    loss = model.train()(IDS, labels=IDS).loss
    assert loss.equal(alone)
    loss.backward()
    assert all(p.grad is not None for p in model.parameters())
    number_heads = [*model.number_embedding.parameters(), *model.num_regression.parameters()]
    assert not any(p.grad.any() for p in number_heads)
    assert all(p.grad.any() for p in model.mlm_head.parameters())


@pytest.mark.skipif(CACHE == "past_key_values", reason="this transformers has one name only")
def test_the_older_name_of_the_cache_is_warned_of(model):
    with pytest.warns(FutureWarning, match="`past_key_values` is deprecated") as found:
        old = model(IDS, past_key_values=transformers.DynamicCache(config=model.config))
    assert len(found) == 1
    assert old.cache.get_seq_length() == IDS.shape[1]
    with pytest.raises(ValueError, match="two names of one argument"):
        model(IDS, past_key_values=old.cache, cache=old.cache)


def test_frozen_heads_stay_out_of_the_loss(model):
    for module in (model.number_embedding, model.num_regression):
        module.requires_grad_(False)
    model.train()(IDS, labels=IDS).loss.backward()
    assert all(p.grad is None for p in model.num_regression.parameters())


def test_a_cache_and_gradient_checkpointing(model):
    model.gradient_checkpointing_enable()
    model.train()
    assert model(IDS, labels=IDS).past_key_values is None
    with pytest.raises(ValueError, match="gradient checkpointing runs each block twice"):
        model(IDS, **{CACHE: transformers.DynamicCache()})
    with torch.no_grad():  # generation between steps
        kept = model.generate(IDS, max_new_tokens=5, do_sample=False, eos_token_id=None)
        assert kept.equal(model.eval().generate(IDS, max_new_tokens=5, do_sample=False, eos_token_id=None))


def test_other_numbers_of_classes_when_asked_for(folder, tmp_path):
    auto = transformers.AutoModelForSequenceClassification
    three = auto.from_pretrained(folder, num_labels=3)
    three.save_pretrained(tmp_path / "three")
    with pytest.raises(ValueError, match=r"wrong shape: score\.weight"):
        auto.from_pretrained(tmp_path / "three", num_labels=5)
    for settings in ({"ignore_mismatched_sizes": True}, {"strict": False}):
        five = auto.from_pretrained(tmp_path / "three", num_labels=5, **settings)
        assert five.score.weight.shape[0] == 5
        assert five.transformer.wte.weight.equal(three.transformer.wte.weight)
    tensors = dict(three.state_dict())
    del tensors["transformer.ln_f.weight"]
    three.save_pretrained(tmp_path / "gap", state_dict=tensors)
    with pytest.raises(ValueError, match=r"missing: transformer\.ln_f\.weight"):
        auto.from_pretrained(tmp_path / "gap", num_labels=5, ignore_mismatched_sizes=True)


@pytest.mark.parametrize(
    ("labels", "settings"),
    [
        (torch.tensor([0, 2, 1]), {"num_labels": 3}),
        (torch.tensor([0.5, -1.0, 2.0]), {"num_labels": 1}),
        (torch.tensor([[0.5, 1.0], [2.0, 0.0], [1.0, 1.0]]), {"num_labels": 2, "problem_type": "regression"}),
        (torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0]]), {"num_labels": 2}),
    ],
    ids=["classes", "values", "pairs of values", "several classes"],
)
def test_micro_batches_of_a_classifier_add_up_to_the_batch(folder, labels, settings):
    """Trainer counts the labels of all micro-batches and leaves the division to the model."""
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder, **settings)
    ids = torch.cat((IDS, IDS.flip(1), IDS + 1))
    whole = model(ids, labels=labels).loss
    parts = [
        model(ids[part], labels=labels[part], num_items_in_batch=torch.tensor(labels.numel())).loss
        for part in (slice(0, 2), slice(2, 3))
    ]
    torch.testing.assert_close(sum(parts), whole)
    lonely = ids[:1], labels[:1]
    torch.testing.assert_close(
        model(lonely[0], labels=lonely[1]).loss,
        model(lonely[0], labels=lonely[1], num_items_in_batch=lonely[1].numel()).loss,
    )


@pytest.mark.parametrize("bases", [1, 3])
def test_classes_of_kmers_and_of_bases(folder, bases):
    """A class for each k-mer or each base, learnt: which base it is can be read off the k-mer itself."""
    torch.manual_seed(0)
    auto = transformers.AutoModelForTokenClassification
    model = auto.from_pretrained(folder, num_labels=5, labels_per_token=bases).train()
    assert type(model) is hub.DNAGPTForTokenClassification
    tokenizer = hub.DNAGPTTokenizer(3)
    text = "ACGTTGCCAGATTACNNA"
    ids = tokenizer(text, return_tensors="pt")["input_ids"]
    classes = torch.tensor(["ACGTN".index(base) for base in text]).view(1, -1, 3)
    labels = classes if bases == 3 else classes[:, :, 0]
    labels = labels.clone()
    labels[0, 0] = -100
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for _ in range(30):
        loss = model(ids, labels=labels).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    out = model.eval()(ids, labels=labels)
    assert out.logits.shape == (*labels.shape, 5)
    found = out.logits.argmax(-1)
    assert found[labels != -100].equal(labels[labels != -100])
    wanted = torch.nn.functional.cross_entropy(out.logits.flatten(0, -2), labels.flatten())
    torch.testing.assert_close(out.loss, wanted)
    with pytest.raises(ValueError, match="labels"):
        model(ids, labels=labels[:, 1:])


def test_weights_of_attention_as_the_library_has_them(model):
    """With eager one a layer; with sdpa an empty tuple, as GPT-2 of the library."""
    model.set_attn_implementation("eager")
    found = model(IDS, output_attentions=True).attentions
    assert len(found) == model.config.num_layers
    model.set_attn_implementation("sdpa")
    assert model(IDS, output_attentions=True).attentions == ()
    assert model(IDS).attentions is None


def test_states_by_index(model):
    every = model(IDS, output_hidden_states=True).hidden_states
    some = model(IDS, output_hidden_states=[0, -1]).hidden_states
    assert [i for i, state in enumerate(some) if state is not None] == [0, len(every) - 1]
    assert some[-1].equal(every[-1])
    assert model(IDS, output_hidden_states=1).hidden_states[1].equal(every[1])
    with pytest.raises(ValueError, match=r"states 0\.\."):
        model(IDS, output_hidden_states=[99])


def test_return_dict_of_the_configuration(model):
    model.config.return_dict = False
    assert isinstance(model(IDS), tuple)
    assert model(IDS, return_dict=True).logits.shape == (1, 8, 189)


@pytest.mark.parametrize("per_base", [False, True])
def test_tags_of_a_genome_in_trainer(folder, tmp_path, per_base):
    """The example of docs/finetuning.md, on a small genome."""
    (tmp_path / "g.fa").write_text(">chr1\n" + "ACGTTGACGGATTACCAG" * 20 + "\n")
    (tmp_path / "a.bed").write_text("chr1\t3\t40\tCDS\nchr1\t100\t200\texon\n")
    with Genome.open(tmp_path / "g.fa") as genome:
        features = read_features(tmp_path / "a.bed")
        rows = TaggedWindows(genome, features, ["CDS", "exon"], KmerTokenizer(3), kmers=20, per_base=per_base)
        model = transformers.AutoModelForTokenClassification.from_pretrained(
            folder, num_labels=len(rows.tags), labels_per_token=3 if per_base else 1
        )
        arguments = transformers.TrainingArguments(
            output_dir=str(tmp_path / "out"),
            max_steps=8,
            per_device_train_batch_size=6,
            learning_rate=1e-2,
            logging_steps=1,
            report_to=[],
            use_cpu=True,
            save_strategy="no",
            disable_tqdm=True,
        )
        collator = (
            transformers.default_data_collator
            if per_base
            else transformers.DataCollatorForTokenClassification(hub.DNAGPTTokenizer(3))
        )
        trainer = transformers.Trainer(model, arguments, train_dataset=rows, data_collator=collator)
        trainer.train()
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0]
