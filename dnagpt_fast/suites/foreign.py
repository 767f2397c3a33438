"""Causal language models of other libraries, from a local Hugging Face folder, behind the interface of subjects.py.

Nothing is fetched and no code of the folder is run. The tokenizer must give the letters back: a likelihood of a text
needs tokens that spell it once.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from dnagpt_fast.extras import need
from dnagpt_fast.finetune.data.examples import LabelError
from dnagpt_fast.genome import Genome
from dnagpt_fast.input_files import sha256_of
from dnagpt_fast.suites.subjects import HowToRun, Subject, Variant
from dnagpt_fast.training.devices import pick_device, pick_dtype
from dnagpt_fast.vocab import reverse_complement

HASHED = (".safetensors", ".bin", ".json", ".txt", ".model")
CONTEXT_BP = 384
PROBE = "ACGTTGCAAGGCTCATTACGGATC"
UNLIMITED = 1 << 20


@dataclass(frozen=True)
class _Window:
    """A window of one text: `prefix` special tokens, `context` tokens that an earlier window has, then new ones."""

    text: int
    ids: list[int]
    prefix: int
    context: int


class ForeignModel:
    """A causal language model. name: hf:FOLDER. Raises ValueError that names the folder."""

    def __init__(self, name: str, run: HowToRun, random: tuple[Any, Any] | None = None) -> None:
        """random: a model with random weights and its tokenizer, in place of those of the folder."""
        self.name = name
        self._run = run
        self._is_random = random is not None
        self._folder = Path(name.removeprefix("hf:"))
        transformers = need("transformers", "hf")
        loaded = random
        if loaded is None:
            if not (self._folder / "config.json").is_file():
                raise ValueError(
                    f"{name}: no config.json in {self._folder}: wanted the folder of a saved model"
                )
            need("dnagpt_fast.hub", "hf")  # registers our own classes
            loaded = self._opened(transformers)
        device = pick_device(run.device, what="--device")
        self._model = loaded[0].to(device=device, dtype=pick_dtype(run.dtype, what="--dtype")).eval()
        self._tokenizer = loaded[1]
        self._device = device
        self._prefix = self._special_tokens_before()
        self._longest = self._most_tokens()
        with torch.no_grad():
            self.layers = len(self._states([self._ids(PROBE)])[0])
        self._check_causal()

    def _opened(self, transformers: Any) -> tuple[Any, Any]:
        from dnagpt_fast.hub.bars import without_bars

        try:
            settings = {"local_files_only": True, "trust_remote_code": False}
            with without_bars():
                tokenizer = transformers.AutoTokenizer.from_pretrained(self._folder, **settings)
                model = transformers.AutoModelForCausalLM.from_pretrained(self._folder, **settings)
        except Exception as error:  # every library raises its own kinds
            said = " ".join(str(error).split())[:300]
            raise ValueError(
                f"{self.name}: AutoTokenizer and AutoModelForCausalLM cannot open this folder: {said}"
            ) from error
        return model, tokenizer

    def facts(self) -> dict[str, Any]:
        if self._is_random:
            return {"kind": "hf", "random": {"seed": self._run.seed}}
        digest = hashlib.sha256()
        for path in sorted(self._folder.iterdir()):
            if path.suffix in HASHED:
                digest.update(f"{path.name} {sha256_of(path)}\n".encode())
        return {
            "kind": "hf",
            "sha256": digest.hexdigest(),
            "class": type(self._model).__name__,
            "parameters": sum(p.numel() for p in self._model.parameters()),
            "most_tokens": self._longest,
            "trained_on": [],
        }

    def check(self, texts: Iterable[tuple[str, str]]) -> None:
        for text, where in texts:
            ids = self._ids(text)
            if self._has_unknown(text):
                letters = "".join(sorted(set(text)))
                raise LabelError(
                    f"{where}: the tokenizer of {self.name} cannot read it (letters {letters}): "
                    f"{'an unknown token' if ids else 'no token at all'}"
                )
            back = self._letters(ids)
            if back != text:
                raise LabelError(
                    f"{where}: the tokenizer of {self.name} does not give the letters back: {text[:20]!r} became "
                    f"{back[:20]!r}; wanted tokens that spell the sequence once"
                )

    @torch.no_grad()
    def vectors(self, texts: Sequence[str]) -> np.ndarray:
        windows = [window for i, text in enumerate(texts) for window in self._windows(i, text, 0)]
        states = self._strand_vectors(texts, windows)
        if not self._run.both_strands:
            return states.astype(np.float32)
        others = [reverse_complement(text) for text in texts]
        windows = [window for i, text in enumerate(others) for window in self._windows(i, text, 0)]
        return ((states + self._strand_vectors(others, windows)) / 2).astype(np.float32)

    def _strand_vectors(self, texts: Sequence[str], windows: list[_Window]) -> np.ndarray:
        """float64 (n, layers, D)."""
        total: np.ndarray | None = None
        count = np.zeros(len(texts))
        for batch in _batches(windows, self._run.max_tokens):
            of_layers = self._states([window.ids for window in batch])
            for i, window in enumerate(batch):
                rows = torch.stack([layer[i, window.prefix :].float() for layer in of_layers])
                pooled = {"mean": rows.sum(1), "last": rows[:, -1], "max": rows.amax(1)}[self._run.pooling]
                value = pooled.double().cpu().numpy()
                if total is None:
                    start = -np.inf if self._run.pooling == "max" else 0.0
                    total = np.full((len(texts), *value.shape), start)
                at = window.text
                if self._run.pooling == "max":
                    total[at] = np.maximum(total[at], value)
                elif self._run.pooling == "last":
                    total[at] = value
                else:
                    total[at] += value
                    count[at] += rows.shape[1]
        assert total is not None
        return total / np.maximum(count, 1)[:, None, None] if self._run.pooling == "mean" else total

    def log_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        found = self._strand_likelihoods(texts)
        if self._run.both_strands:
            found = (found + self._strand_likelihoods([reverse_complement(text) for text in texts])) / 2
        return found

    @torch.no_grad()
    def _strand_likelihoods(self, texts: Sequence[str]) -> np.ndarray:
        found = np.zeros((len(texts), 2))
        windows = []
        for i, text in enumerate(texts):
            mine = list(self._windows(i, text, self._longest // 2))
            windows += mine
            # without a token before it, the first one is not predicted
            unscored = 0 if self._prefix else len(self._letters(mine[0].ids[:1]))
            found[i, 1] = len(text) - unscored
        for batch in _batches(windows, self._run.max_tokens):
            ids = torch.tensor([window.ids for window in batch], device=self._device)
            logs = self._model(input_ids=ids).logits[:, :-1].float().log_softmax(-1)
            picked = logs.gather(2, ids[:, 1:, None])[:, :, 0].double().cpu().numpy()
            for window, row in zip(batch, picked, strict=True):
                found[window.text, 0] += row[max(window.prefix + window.context, 1) - 1 :].sum()
        return found

    @torch.no_grad()
    def continuations(self, prompts: Sequence[str], bases: int) -> list[str]:
        made = []
        for text in prompts:
            # a token is a base or more
            ids = self._ids(text)[-max(self._longest - len(self._prefix) - bases, 1) :]
            letters = ""
            while len(letters) < bases and len(ids) + len(self._prefix) < self._longest:
                row = torch.tensor([[*self._prefix, *ids]], device=self._device)
                ids.append(int(self._model(input_ids=row).logits[0, -1].argmax()))
                more = self._letters(ids[-1:])
                if not more or set(more) - set("ACGTN"):
                    break  # a special token, or none of DNA
                letters += more
            made.append(letters[:bases])
        return made

    def variant_scores(self, genome: Genome, variants: Sequence[Variant]) -> np.ndarray:
        found = np.zeros(len(variants))
        unreadable = np.zeros(len(variants), bool)
        for flip in (False, True):
            texts = []
            for contig, start, reference, alternative in variants:
                length = int(genome.lengths[genome.contigs.find(contig)])
                end = start + len(reference)
                left = genome.sequence(contig, max(start - CONTEXT_BP, 0), start)
                right = genome.sequence(contig, end, min(end + CONTEXT_BP // 2, length))
                for allele in (alternative, reference):
                    text = left + allele + right
                    texts.append(reverse_complement(text) if flip else text)
            unreadable |= np.array([self._has_unknown(text) for text in texts]).reshape(-1, 2).any(1)
            nats = self._strand_likelihoods(texts)[:, 0].reshape(-1, 2)
            found += (nats[:, 0] - nats[:, 1]) / 2
        found[unreadable] = np.nan
        return found

    def control(self) -> Subject:
        transformers = need("transformers", "hf")
        torch.manual_seed(self._run.seed)
        model = transformers.AutoModelForCausalLM.from_config(self._model.config)
        return ForeignModel(f"{self.name}, random weights", self._run, (model, self._tokenizer))

    # Tokens

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    def _has_unknown(self, text: str) -> bool:
        """Whether the tokenizer gives no token for the text, or an unknown one."""
        ids, unknown = self._ids(text), self._tokenizer.unk_token_id
        return not ids or (unknown is not None and unknown in ids)

    def _letters(self, ids: Sequence[int]) -> str:
        text = self._tokenizer.decode(list(ids), skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return "".join(text.split()).upper()

    def _special_tokens_before(self) -> list[int]:
        """What the tokenizer puts before a text, such as a token for its beginning."""
        plain, whole = self._ids(PROBE), list(self._tokenizer(PROBE)["input_ids"])
        for start in range(len(whole) - len(plain) + 1):
            if plain and whole[start : start + len(plain)] == plain:
                return whole[:start]
        return []

    def _most_tokens(self) -> int:
        limits = [
            getattr(self._model.config, name, None) for name in ("max_position_embeddings", "n_positions")
        ]
        limits.append(getattr(self._tokenizer, "model_max_length", None))
        known = [int(limit) for limit in limits if limit and limit < UNLIMITED]
        return min(known) if known else UNLIMITED

    def _windows(self, number: int, text: str, overlap: int) -> Iterator[_Window]:
        ids, room = self._ids(text), self._longest - len(self._prefix)
        start = 0
        while True:
            context = min(overlap, start, room - 1)
            end = min(start + room - context, len(ids))
            yield _Window(number, [*self._prefix, *ids[start - context : end]], len(self._prefix), context)
            if end == len(ids):
                return
            start = end

    def _states(self, rows: list[list[int]]) -> tuple[torch.Tensor, ...]:
        ids = torch.tensor(rows, device=self._device)
        return tuple(self._model(input_ids=ids, output_hidden_states=True).hidden_states)

    @torch.no_grad()
    def _check_causal(self) -> None:
        """Raises ValueError if the prediction at a token changes with the tokens after it."""
        ids = self._ids(PROBE)
        if len(ids) < 3:
            return
        other = [*ids[:-1], ids[0] if ids[-1] != ids[0] else ids[1]]
        both = self._model(input_ids=torch.tensor([ids, other], device=self._device)).logits.float()
        if (both[0, :-1] - both[1, :-1]).abs().max() > 1e-5 * both.abs().max():
            raise ValueError(
                f"{self.name}: its predictions change with the tokens after them: it is no causal model, and its "
                f"likelihoods would mean nothing"
            )


def _batches(windows: Sequence[_Window], max_tokens: int) -> Iterator[list[_Window]]:
    """Windows of one length together, so that no row is padded."""
    # of one text in its order, because the last window wins where the last state is wanted
    order = sorted(range(len(windows)), key=lambda i: (-len(windows[i].ids), i))
    batch: list[_Window] = []
    for i in order:
        window = windows[i]
        size = len(window.ids)
        if batch and (len(batch[0].ids) != size or (len(batch) + 1) * size > max_tokens):
            yield batch
            batch = []
        batch.append(window)
    if batch:
        yield batch
