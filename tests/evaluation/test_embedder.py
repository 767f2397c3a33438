"""Embedder: scikit-learn's contract for a transformer, and the vectors of `embed`."""

import pickle

import numpy as np
import pytest

from dnagpt_fast import embed, load_model
from dnagpt_fast.evaluation.embedder import Embedder

pytest.importorskip("sklearn")
from sklearn.base import clone
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

MODEL = "dna_gpt6m_m"


@pytest.fixture(scope="module")
def labelled():
    """Sequences of two compositions, as a model can tell apart."""
    rng = np.random.default_rng(2)
    rich, poor = (["".join(rng.choice(list("ACGT"), 36, p=p)) for _ in range(10)] for p in
                  ([0.1, 0.4, 0.4, 0.1], [0.4, 0.1, 0.1, 0.4]))  # fmt: skip
    return [*rich, *poor], [1] * 10 + [0] * 10


def test_the_vectors_are_those_of_embed(labelled):
    texts, _ = labelled
    wanted = np.stack(list(embed(*load_model(MODEL), texts)))
    found = Embedder(MODEL).fit_transform(texts)
    assert found.dtype == np.float32
    assert np.array_equal(found, wanted)
    assert np.array_equal(Embedder(MODEL).transform(np.array(texts)[:, None]), wanted)
    several = Embedder(MODEL, layer=[1, -1]).transform(texts[:2])
    assert several.shape == (2, 256)
    assert np.array_equal(several[:, 128:], wanted[:2])
    assert Embedder(MODEL).transform([]).shape == (0, 128)


def test_settings_copies_and_pickles(labelled):
    texts, _ = labelled
    embedder = Embedder(MODEL, pooling="max", max_tokens=100)
    first = embedder.transform(texts[:3])
    assert embedder.get_params()["pooling"] == "max"
    copied = clone(embedder)
    assert copied.get_params() == embedder.get_params()
    stored = pickle.dumps(embedder)
    assert len(stored) < 2000, "the weights are in the pickle"
    for other in (copied, pickle.loads(stored)):
        assert np.array_equal(other.transform(texts[:3]), first)
    changed = embedder.set_params(pooling="mean").transform(texts[:3])
    assert not np.array_equal(changed, first)
    assert "pooling" not in repr(embedder)


def test_a_pipeline_and_cross_validation(labelled):
    texts, labels = labelled
    classifier = make_pipeline(Embedder(MODEL), StandardScaler(), LogisticRegression())
    classifier.fit(texts, labels)
    assert classifier.score(texts, labels) == 1.0
    names = classifier[:-1].get_feature_names_out()
    assert names[:2].tolist() == ["dnagpt0", "dnagpt1"]
    assert len(names) == 128
    assert cross_val_score(classifier, texts, labels, cv=3).mean() > 0.8


def test_a_column_of_a_table(labelled):
    texts, _ = labelled
    pandas = pytest.importorskip("pandas")
    table = pandas.DataFrame({"sequence": texts[:3], "number": [1.0, 2.0, 3.0]})
    one_of_two = make_column_transformer((Embedder(MODEL), "sequence"), ("passthrough", ["number"]))
    found = one_of_two.fit_transform(table)
    assert found.shape == (3, 129)
    assert np.array_equal(found[:, :128].astype(np.float32), Embedder(MODEL).transform(table["sequence"]))
    as_table = Embedder(MODEL).set_output(transform="pandas").fit_transform(table["sequence"])
    assert as_table.columns[0] == "dnagpt0"
    assert np.array_equal(Embedder(MODEL).transform(table[["sequence"]]), as_table.to_numpy())
    with pytest.raises(ValueError, match="X has 2 columns"):
        Embedder(MODEL).transform(table)


def test_what_cannot_be_used_is_named():
    with pytest.raises(ValueError, match="pooling = 'median'"):
        Embedder(MODEL, pooling="median").transform(["ACGTAC"])
    with pytest.raises(TypeError, match=r"sequences\[1\]"):
        Embedder(MODEL).transform(["ACGTAC", None])
    with pytest.raises(FileNotFoundError, match="no packaged model"):
        Embedder("nothing").transform(["ACGTAC"])
