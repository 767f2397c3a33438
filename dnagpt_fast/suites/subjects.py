"""The models that are evaluated, behind one interface: our own in any of their forms, and random ones of their shape.

Models of other libraries are in foreign.py.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch

from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome import Genome
from dnagpt_fast.json_files import read_json
from dnagpt_fast.model.dnagpt import DNAGPT
from dnagpt_fast.model.embed import embed
from dnagpt_fast.model.generation import generate_sequences
from dnagpt_fast.model.initial_values import compose_input_rows
from dnagpt_fast.model.score import score
from dnagpt_fast.model.token_windows import prefix_ids, usable_bp
from dnagpt_fast.model.tokenizer import KmerTokenizer
from dnagpt_fast.training.devices import pick_device, pick_dtype
from dnagpt_fast.variants.places import variant_scores
from dnagpt_fast.weights.forms import load_model
from dnagpt_fast.weights.packaged import is_packaged, packaged_models

Variant = tuple[str, int, str, str]
"""contig, 0-based position, reference, alternative"""


@dataclass(frozen=True)
class HowToRun:
    """Settings of all models. prefix: of our own ones, before every sequence; both_strands: vectors and likelihoods are
    the mean with the reverse complement; seed: of the random models."""

    device: str | None = None
    dtype: str | None = None
    prefix: str = "<R>"
    pooling: str = "mean"
    both_strands: bool = False
    max_tokens: int = 16_384
    seed: int = 0


class Subject(Protocol):
    """A model. name: as the report calls it; layers: number of layers of vectors, the embeddings first."""

    name: str
    layers: int

    def facts(self) -> dict[str, Any]:
        """What identifies it: hash, shape, where its weights come from."""

    def check(self, texts: Iterable[tuple[str, str]]) -> None:
        """Raises LabelError, which begins with the place, for the first of (text, place) that it cannot read."""

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (n, layers, D): the pooled states of each text."""

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        """float64 (n, 2): nats, and the number of bases that they are the sum of."""

    def continuations(self, prompts: Sequence[str], bases: int) -> list[str]:
        """The most likely next bases of each prompt, `bases` of them or fewer."""

    def variant_scores(self, genome: Genome, variants: Sequence[Variant]) -> np.ndarray:
        """float64 (n,): log P(alternative) - log P(reference) in its sequence, mean of both strands; NaN: no score."""

    def control(self) -> "Subject":
        """A model of the same shape with random weights."""


class OwnModel:
    """A DNAGPT. longest_bp: bases that it reads at once."""

    def __init__(
        self,
        name: str,
        run: HowToRun,
        loaded: tuple[DNAGPT, KmerTokenizer] | None = None,
        about: dict[str, Any] | None = None,
    ) -> None:
        """name: what `load_model` takes. loaded: in place of that model. Raises as `load_model` does."""
        self.name = name
        self._run = run
        device = pick_device(run.device, what="--device")
        dtype = pick_dtype(run.dtype, what="--dtype")
        self.model, self.tokenizer = loaded or load_model(name, device=device, dtype=dtype)
        if loaded:
            self.model.to(device=device, dtype=dtype).eval()
        if (
            dtype is None
            and device.type == "cpu"
            and self.model.transformer.wte.weight.dtype == torch.float16
        ):
            self.model = self.model.float()
        self.layers = len(self.model.blocks) + 1
        self.longest_bp = self.tokenizer.k * (
            self.model.max_len - len(prefix_ids(self.tokenizer, run.prefix))
        )
        self._about = about or {"trained_on": training_record(name)}

    def facts(self) -> dict[str, Any]:
        return {
            "kind": "dnagpt",
            "sha256": self.model.content_hash(),
            "shape": asdict(self.model.config),
            "k": self.tokenizer.k,
            **self._about,
        }

    def check(self, texts: Iterable[tuple[str, str]]) -> None:
        for text, where in texts:
            try:
                usable_bp(self.tokenizer, len(text))
            except ValueError as error:
                raise LabelError(f"{where}: {self.name} cannot read it: {error}") from error

    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        run = self._run
        rows = embed(
            self.model, self.tokenizer, texts, layer=list(range(self.layers)), pooling=run.pooling,
            both_strands=run.both_strands, prefix=run.prefix, max_tokens=run.max_tokens,
        )  # fmt: skip
        return np.stack(list(rows))

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        run = self._run
        scores = score(
            self.model, self.tokenizer, texts, prefix=run.prefix, both_strands=run.both_strands,
            max_tokens=run.max_tokens,
        )  # fmt: skip
        return np.array([(one.log_likelihood, one.scored_bp) for one in scores])

    def continuations(self, prompts: Sequence[str], bases: int) -> list[str]:
        k = self.tokenizer.k
        made = generate_sequences(
            self.model, self.tokenizer, [self._run.prefix + text[len(text) % k :] for text in prompts],
            max_new_tokens=-(-bases // k), do_sample=False, bases_only=True,
        )  # fmt: skip
        return [self.tokenizer.decode_bases(one.new_ids)[:bases] for one in made]

    def variant_scores(self, genome: Genome, variants: Sequence[Variant]) -> np.ndarray:
        found = variant_scores(
            self.model, self.tokenizer, genome, variants, prefix=self._run.prefix,
            max_tokens=self._run.max_tokens,
        )  # fmt: skip
        return np.array([np.nan if one.llr is None else one.llr for one in found], np.float64)

    def control(self) -> "OwnModel":
        """Composed initial values where the vocabulary is a published one: the fair control (docs/learning.md)."""
        torch.manual_seed(self._run.seed)
        model = DNAGPT.from_config(self.model.config)
        composed = len(self.tokenizer) == len(self.tokenizer.vocabulary)
        if composed:
            compose_input_rows(model.transformer.wte.weight, self.tokenizer.vocabulary)
        initial = "composed" if composed else "official"
        about = {"random": {"seed": self._run.seed, "initial": initial}}
        return OwnModel(f"{self.name}, random weights", self._run, (model, self.tokenizer), about)


def training_record(name: str) -> list[dict[str, Any]]:
    """The genomes that a model was trained on, each with path, species and held_out ranges, as its card or its run's
    config.json has them; empty if there is no record."""
    if is_packaged(name):
        genomes = packaged_models()[name].facts.get("genomes", [])
        return [
            {"path": g.get("package", ""), "species": g.get("species", ""), "held_out": g.get("held_out", [])}
            for g in genomes
        ]
    path = Path(name) / "config.json"
    if not path.is_file():
        return []
    data = read_json(path).get("settings", {}).get("data", {})
    genomes = data.get("genomes", []) if isinstance(data, dict) else []
    return [
        {"path": g.get("path", ""), "species": g.get("species", ""), "held_out": list(g.get("held_out", []))}
        for g in genomes
        if isinstance(g, dict)
    ]
