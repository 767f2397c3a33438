"""`Embedder`: embeddings of sequences as a transformer of scikit-learn, for pipelines and cross-validation."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from dnagpt_fast.extras import need
from dnagpt_fast.model.embed import embed
from dnagpt_fast.weights.forms import load_model

if TYPE_CHECKING:
    from dnagpt_fast.model.dnagpt import DNAGPT
    from dnagpt_fast.model.tokenizer import KmerTokenizer

try:
    from sklearn.base import BaseEstimator, TransformerMixin
except ImportError:  # the extra is missing: making an Embedder says which

    class BaseEstimator:  # type: ignore[no-redef]
        pass

    class TransformerMixin:  # type: ignore[no-redef]
        pass


class Embedder(TransformerMixin, BaseEstimator):
    """Sequences -> float32 (n, D), one vector of `embed` for each; `fit` learns nothing.

    model         what `load_model` takes: the name of a packaged model, a file or a folder. It is loaded on first use
    layer, pooling, both_strands, prefix, max_tokens  as of `embed`; several layers are put side by side
    device, dtype  as of `load_model`

    Needs scikit-learn: the extra `[finetune]`. Copies (`clone`) and pickles hold the settings, not the weights: each
    loads the model again.

    >>> from sklearn.linear_model import LogisticRegression
    >>> from sklearn.pipeline import make_pipeline
    >>> classifier = make_pipeline(Embedder("dna_gpt6m_m"), LogisticRegression())
    >>> texts, labels = ["ACGCGCGCGGCC", "GCGCGGCCGCGA", "ATATTTAATTAA", "TTTAATATATAC"], [1, 1, 0, 0]
    >>> classifier.fit(texts, labels).predict(["GGCCGCGCGACC", "TATAATTTAAAT"]).tolist()
    [1, 0]
    """

    def __init__(
        self,
        model: str | Path = "dna_gpt6m_m",
        *,
        layer: "int | list[int]" = -1,
        pooling: str = "mean",
        both_strands: bool = False,
        prefix: str = "<R>",
        max_tokens: int = 4096,
        device: "torch.device | str" = "cpu",
        dtype: "torch.dtype | None" = None,
    ) -> None:
        need("sklearn.base")
        self.model = model
        self.layer = layer
        self.pooling = pooling
        self.both_strands = both_strands
        self.prefix = prefix
        self.max_tokens = max_tokens
        self.device = device
        self.dtype = dtype

    def fit(self, X: Any, y: Any = None) -> "Embedder":
        """Learns nothing, and reads nothing."""
        return self

    def transform(self, X: Any) -> np.ndarray:
        """X: n sequences as `embed` takes them; a table with one column, as ColumnTransformer gives, is that column.

        Raises ValueError and TypeError as `embed` does, CheckpointError or FileNotFoundError for the model.
        """
        model, tokenizer = self._loaded()
        shape: tuple[int, ...] = getattr(X, "shape", ())
        if len(shape) == 2:
            if shape[1] != 1:
                raise ValueError(f"X has {shape[1]} columns: wanted one column of sequences")
            X = np.asarray(X)[:, 0]
        rows = embed(
            model,
            tokenizer,
            X,
            layer=self.layer,
            pooling=self.pooling,
            both_strands=self.both_strands,
            prefix=self.prefix,
            max_tokens=self.max_tokens,
        )
        found = [row.reshape(-1) for row in rows]
        return np.stack(found) if found else np.empty((0, len(self.get_feature_names_out())), np.float32)

    def get_feature_names_out(self, input_features: Any = None) -> np.ndarray:
        """`dnagpt0`, `dnagpt1` ...; of several layers `layer3_dnagpt0` ..."""
        model, _ = self._loaded()
        names = [f"dnagpt{i}" for i in range(model.embedding_dim)]
        if not isinstance(self.layer, int):
            names = [f"layer{layer}_{name}" for layer in self.layer for name in names]
        return np.array(names, dtype=object)

    def _loaded(self) -> "tuple[DNAGPT, KmerTokenizer]":
        wanted = (str(self.model), str(self.device), self.dtype)
        if getattr(self, "_model_of", None) != wanted:
            self._model = load_model(self.model, device=self.device, dtype=self.dtype)
            self._model_of = wanted
        return self._model

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in ("_model", "_model_of")}

    def __sklearn_is_fitted__(self) -> bool:
        return True

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.requires_fit = False
        tags.input_tags.string, tags.input_tags.two_d_array = True, False
        return tags
