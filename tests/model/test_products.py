"""bfloat16 and int8 products: every use of a model takes them, no result depends on its batch, misuse is refused."""

import copy

import pytest
import torch

from dnagpt_fast import Genome, KmerTokenizer, load_model, load_pretrained
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.inference import Inference
from dnagpt_fast.model.products import LAYERS, use_products
from dnagpt_fast.model.score import score
from dnagpt_fast.ops import dispatch, traits
from dnagpt_fast.variants.places import variant_scores
from dnagpt_fast.weights.forms import save_model
from tests.model.test_embed import random_bases
from tests.tiny import load_tiny

FORCED = {"bfloat16": {"linear_bfloat16": "torch"}, "int8": {"linear_int8": "torch"}}
FLAGS = {"bfloat16": "amx_bf16", "int8": "avx512_vnni"}


@pytest.fixture(params=["bfloat16", "int8"])
def products(request):
    return request.param


@pytest.fixture
def model(products, monkeypatch):
    monkeypatch.setattr(traits, "processor_flags", lambda: frozenset(FLAGS.values()))
    return use_products(load_tiny("tiny_bias").model(), products)


def test_scores_and_vectors_do_not_depend_on_batch_order_or_other_lengths(model):
    tokenizer, texts = KmerTokenizer(3), random_bases(8, 200)
    alone = [next(score(model, tokenizer, [text])) for text in texts]
    vectors = [next(embed(model, tokenizer, [text])).tolist() for text in texts]
    for order in (range(8), range(7, -1, -1)):
        for max_tokens in (40, 4096):
            some = [texts[i] for i in order]
            assert list(score(model, tokenizer, some, max_tokens=max_tokens)) == [alone[i] for i in order]
            found = embed(model, tokenizer, some, max_tokens=max_tokens)
            assert [vector.tolist() for vector in found] == [vectors[i] for i in order]


def test_generated_sequences_do_not_depend_on_their_batch(model):
    def made(prompts, batch_size):
        found = generate_sequences(
            model, KmerTokenizer(3), prompts, max_new_tokens=12, num_samples=2, batch_size=batch_size, seed=3
        )
        return [one.new_ids for one in found]

    prompts = ["<R>ACG", "<R>" + "ACGTTG" * 3, "<R>"]
    assert made(prompts, 16) == made(prompts, 1) == [ids for one in prompts for ids in made([one], 2)]


def test_variant_scores_do_not_depend_on_their_batch(model, tmp_path):
    (tmp_path / "a.fa").write_text(">a\n" + "ACGTTGCAACTTAGC" * 16 + "\n")
    genome = Genome.open(tmp_path / "a.fa")
    variants = [("a", 60, "A", "G"), ("a", 61, "C", "T"), ("a", 90, "A", "ACC")]
    settings = {"context_bp": 30, "after_bp": 12}
    together = list(variant_scores(model, KmerTokenizer(3), genome, variants, **settings))
    for one, wanted in zip(variants, together, strict=True):
        assert list(variant_scores(model, KmerTokenizer(3), genome, [one], **settings)) == [wanted]


def test_products_change_scores_a_little(products, model):
    """The tiny model has random weights, but its log-probabilities still show that the products differ."""
    tokenizer, texts = KmerTokenizer(3), random_bases(6, 400)
    exact = [one.per_bp for one in score(load_tiny("tiny_bias").model(), tokenizer, texts)]
    rounded = [one.per_bp for one in score(model, tokenizer, texts)]
    differences = [abs(a - b) for a, b in zip(exact, rounded, strict=True)]
    assert 1e-6 < max(differences) < 0.02


def test_the_layers_of_blocks_and_token_head_change_and_their_float32_weights_are_gone(products, model):
    changed = [m for m in model.modules() if type(m) is LAYERS[products]]
    assert len(changed) == 4 * model.num_layers + 2
    before = load_tiny("tiny_bias").model()
    matrices = sum(p.numel() for n, p in before.named_parameters() if n.endswith("weight") and p.dim() == 2)
    tables = before.transformer.wte.weight.numel() + before.transformer.wpe.weight.numel()
    assert sum(m.weight.numel() for m in changed) + tables <= matrices
    held = sum(t.nbytes for t in model.state_dict().values())
    assert held < sum(t.nbytes for t in before.state_dict().values()) - 1.9 * sum(
        m.weight.numel() for m in changed
    )
    last, exact = model.last_projection.weight, before.last_projection.weight
    assert (last - exact).abs().max() < 0.01 * exact.abs().max()
    ids = torch.tensor([[21, 30, 40, 50, 60]])
    assert torch.equal(copy.deepcopy(model)(ids), model(ids))


def test_such_a_model_is_not_trained_saved_or_changed_again(products, model, tmp_path):
    assert not any(p.requires_grad for p in model.parameters())
    model.transformer.wte.weight.requires_grad_(True)
    with pytest.raises(RuntimeError, match="no gradient"):
        model(torch.tensor([[21, 30]]))
    with pytest.raises(ValueError, match=f"this model has {products} products"):
        save_model(model, KmerTokenizer(3), tmp_path / "m", "folder")
    assert not (tmp_path / "m").exists()
    with pytest.raises(ValueError, match="load it again"):
        use_products(model, products)


def test_a_processor_without_the_instructions_refuses_unless_forced(products, monkeypatch, tmp_path):
    monkeypatch.setattr(traits, "processor_flags", lambda: frozenset({"avx2", "fma"}))
    assert traits.fast_products() == ["float32"]
    missing = " or ".join(traits.FAST_PRODUCTS[products])
    with pytest.raises(ValueError, match=f"lacks {missing}.*DNAGPT_FAST_IMPL=linear_{products}=torch"):
        load_model("no/such/model.pth", products=products)  # before the file is looked for
    save_model(load_tiny("tiny_bias").model(), KmerTokenizer(3), tmp_path / "tiny", "folder")
    with dispatch.using(**FORCED[products]):
        assert load_model(tmp_path / "tiny", products=products)[0].products == products
    with pytest.raises(ValueError, match=f"lacks {missing}"):
        load_pretrained("dna_gpt6m_m", products=products)


def test_other_models_and_names_are_refused(products, model):
    with pytest.raises(ValueError, match=r"'fp4'.*wanted one of float32, bfloat16, int8"):
        use_products(load_tiny("tiny_bias").model(), "fp4")
    with pytest.raises(ValueError, match=r"this one is torch\.bfloat16 on cpu"):
        use_products(load_tiny("tiny_bias").model().bfloat16(), products)
    plain = load_tiny("tiny_bias").model()
    assert use_products(plain, "float32") is plain
    assert plain.products == "float32"


def test_the_flags_of_this_processor_are_read():
    assert {"float32"} <= set(traits.fast_products()) <= set(traits.PRODUCTS)


def test_equal_rows_of_the_head_are_computed_once_and_give_the_same_probabilities(products, model):
    """As after pre-training with the occurring vocabulary: most rows of the last projection are equal."""
    plain = load_tiny("tiny_bias").model()
    last = plain.last_projection
    with torch.no_grad():
        last.weight[50:] = last.weight[50]
        last.bias[50:] = last.bias[50]
    hidden = torch.randn(7, plain.embedding_dim)
    inference = Inference(use_products(plain, products))
    distinct = inference.distinct_head
    assert distinct is not None
    assert type(distinct.rows) is LAYERS[products]
    assert len(distinct.rows.weight) == 51
    whole = inference.logits(hidden).log_softmax(-1)
    part = (inference.logits(hidden, distinct.rows).log_softmax(-1) - distinct.log_count)[:, distinct.place]
    torch.testing.assert_close(part, whole, atol=1e-5, rtol=1e-5)
    some = torch.tensor([3, 60, 7])
    assert torch.equal(inference.logits(hidden, inference.head_part(some)), inference.logits(hidden)[:, some])
