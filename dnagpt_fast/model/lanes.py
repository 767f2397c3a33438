"""The sequences of a batch of generation, a lane for each: caches, newest tokens and counters on the device.

A step is: newest tokens -> hidden states -> logits -> tokens -> counters, all on the device. On a GPU a batch keeps all
of its lanes until the last one ends, a step is one CUDA graph, and the host looks at the tokens every LOOK steps; lanes
that have ended make no more tokens and read one key. On the CPU the host looks at each step and drops lanes that have
ended. The tokens are the same either way.

At max_len a lane's context slides: then its hidden state comes from a pass over the last tokens (generation.py).
"""

from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from dnagpt_fast.cuda_graph import CudaGraph
from dnagpt_fast.model.inference import Inference, KeyValueCache
from dnagpt_fast.ops import dispatch
from dnagpt_fast.ops.sampling.op import advance_lanes, next_tokens
from dnagpt_fast.ops.sampling.reference import probabilities
from dnagpt_fast.ops.sampling.settings import Choice

LOOK = 16
"""Steps between two looks of the host at the tokens, on a GPU."""
WORTH_A_GRAPH = 16
"""A batch with fewer tokens to come is not captured: a capture costs about as much as four steps."""
WARM_UP = 2
"""Steps before a capture."""


class Draws(Protocol):
    """How tokens are drawn, as a function of probabilities (B, V) and the indices of the B sequences. With `how`, one
    of ops.sampling's, and `numbers`, steps need not return to the host for it. With `allowed`, a function from the
    indices to bool (B, V), only those tokens have a probability."""

    def __call__(self, probabilities: torch.Tensor, sequences: list[int]) -> torch.Tensor: ...


class Buffers:
    """What a step of so many lanes reads and writes, and the step itself. Made once for all batches that fit.

    steps  tokens between two looks of the host
    """

    def __init__(
        self,
        inference: Inference,
        lanes: int,
        slots: int,
        choice: Choice,
        stop_ids: Sequence[int],
        steps: int,
    ) -> None:
        def zeros(*shape: int, dtype: torch.dtype = torch.int64) -> torch.Tensor:
            return torch.zeros(shape, dtype=dtype, device=inference.device)

        self.inference, self.choice, self.steps = inference, choice, steps
        self.cache = KeyValueCache.empty(inference.model, lanes, slots)
        self.newest, self.left = zeros(lanes), zeros(lanes)
        self.made, self.turn = zeros(steps, lanes), zeros(1)
        self.numbers = zeros(steps, lanes, dtype=torch.float64)
        self.stop_ids = torch.tensor(list(stop_ids), dtype=torch.int64, device=inference.device)
        self._replay: Callable[[], None] | None = None

    def serves(self, choice: Choice, stop_ids: Sequence[int], steps: int) -> bool:
        """Whether they were made for these settings."""
        mine, others = self.choice.allowed, choice.allowed
        same = mine is others or (mine is not None and others is not None and torch.equal(mine, others))
        same = same and self.choice._replace(allowed=None) == choice._replace(allowed=None)
        return same and self.stop_ids.tolist() == list(stop_ids) and self.steps == steps

    def step(self) -> None:
        """One token of each lane, from its newest token."""
        (self._replay or self._step)()

    def capture(self) -> None:
        """From now on a step is one CUDA graph."""
        if self._replay is None:
            state = [self.cache.lengths, self.newest, self.left, self.made, self.turn]
            self._replay = self._captured(state)

    def _captured(self, state: Sequence[torch.Tensor]) -> Callable[[], None]:
        """A function that does what a step does, by one launch. The steps before the capture leave `state`, what a step
        changes and the next one reads, and the state of the device's random generator as they were."""
        device = self.inference.device
        saved, generator = [tensor.clone() for tensor in state], torch.cuda.get_rng_state(device)
        graph = CudaGraph(device)
        try:
            for _ in range(WARM_UP):
                graph.warm(self._step)
                for tensor, was in zip(state, saved, strict=True):
                    tensor.copy_(was)
            torch.cuda.set_rng_state(generator, device)
            graph.capture(self._step)
        except RuntimeError as error:
            raise RuntimeError(
                f"a step of generation could not be captured as a CUDA graph ({error}); run it launch by launch with "
                "DNAGPT_FAST_IMPL=decoding=eager"
            ) from error
        return graph.replay

    def _step(self) -> None:
        self.choose(self.inference.decode(self.newest, self.cache))

    def choose(self, hidden: torch.Tensor) -> None:
        """One token of each lane, from hidden states (R, D)."""
        logits = self.logits(hidden)
        numbers = None
        if self.choice.how == "uniform":
            numbers = self.numbers.index_select(0, self.turn)[0]
        elif self.choice.how == "race":
            # the draw of torch.multinomial, without its checks, which wait for the device
            numbers = torch.empty_like(logits).exponential_()
        self.enter(next_tokens(logits, self.choice, numbers))

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        return self.inference.logits(hidden)[: len(self.newest)]

    def enter(self, tokens: torch.Tensor) -> None:
        """Counts one token of each lane, and keeps it for the next step and for the host."""
        advance_lanes(tokens, self.stop_ids, self.left, self.newest, self.cache.lengths, self.made, self.turn)

    def keep(self, lanes: list[int]) -> None:
        """Only some of the lanes, in other memory."""
        kept = torch.tensor(lanes, device=self.inference.device)
        self.cache = self.cache.select(kept)
        self.newest, self.left = self.newest[kept], self.left[kept]
        self.made, self.numbers = (
            self.made[:, : len(lanes)].contiguous(),
            self.numbers[:, : len(lanes)].contiguous(),
        )


class Lanes:
    """The sequences of a batch that have not ended.

    sequences  an index for each sequence, for `draw` and `made`
    texts      their token ids; they grow
    left       how many tokens each may get, 1 or more
    slots      the most tokens that a cache will hold
    look       steps between two looks of the host; 1: lanes that have ended are dropped at once
    """

    def __init__(
        self,
        inference: Inference,
        sequences: list[int],
        texts: list[list[int]],
        left: list[int],
        slots: int,
        choice: Choice,
        stop_ids: Sequence[int],
        crop_to: int | None,
        draw: Draws,
        look: int | None = None,
    ) -> None:
        self._inference, self._max_len, self._crop_to = inference, inference.model.max_len, crop_to
        self._draw, self._on_device = draw, hasattr(draw, "how")
        self._graph = (
            self._on_device
            and inference.device.type == "cuda"
            and dispatch.choose("decoding", "cuda") == "graph"
        )
        if look is None:
            look = LOOK if self._on_device and inference.device.type == "cuda" else 1
        self._look = look
        self.sequences, self._texts, self._left = sequences, texts, left
        self.made: dict[int, list[int]] = {i: [] for i in sequences}
        self._state = self._buffers(len(texts), slots, choice, stop_ids)
        spare = len(self._state.left) - len(left)
        self._state.left.copy_(torch.tensor([*left, *[0] * spare]))
        self._state.newest.zero_()
        self._state.cache.lengths.zero_()
        contexts = [text if len(text) <= self._max_len else self._cropped(text) for text in texts]
        self._cached = [len(context) for context in contexts]
        self._slid = [False] * len(texts)
        hidden = inference.prefill(contexts, self._state.cache)
        self._hidden: torch.Tensor | None = torch.nn.functional.pad(hidden, (0, 0, 0, spare))

    def _buffers(self, lanes: int, slots: int, choice: Choice, stop_ids: Sequence[int]) -> Buffers:
        """Those of an earlier batch, if it had as many lanes and slots; their graph is used again."""
        for kept in self._inference.kept:
            fits = isinstance(kept, Buffers) and kept.serves(choice, stop_ids, self._look)
            if fits and lanes <= len(kept.left) <= 2 * lanes and slots <= kept.cache.keys[0].shape[2]:
                return kept
        made = Buffers(self._inference, lanes, slots, choice, stop_ids, self._look)
        if self._graph:
            self._inference.kept[:] = [made]
        return made

    @property
    def left(self) -> int:
        """Tokens that are still to be added, over all lanes."""
        return sum(self._left)

    def run(self) -> bool:
        """Adds tokens to the lanes; whether any lane goes on."""
        going = [lane for lane, left in enumerate(self._left) if left]
        if self._hidden is None:
            self._slide([lane for lane in going if not self._room(lane)])
        ready = self._hidden is not None
        room = min(self._room(lane) for lane in going) + ready
        steps = min(self._look, room, max(self._left[lane] for lane in going))
        state = self._state
        state.turn.zero_()
        if self._graph and max(self._left) >= WORTH_A_GRAPH and steps > ready:
            state.capture()
        if self._on_device and state.choice.how == "uniform":
            numbers = self._draw.numbers(self.sequences, steps)  # type: ignore[attr-defined]
            state.numbers[:steps, : len(self.sequences)].copy_(numbers)
        for _ in range(steps):
            if self._hidden is None:
                self._hidden = None if self._on_device else self._inference.decode(state.newest, state.cache)
            if self._hidden is None:
                state.step()
            else:
                self._choose(self._hidden)
            self._hidden = None
        self._take(state.made[:steps].tolist(), steps - ready)
        if self._look == 1 and not all(self._left):
            self._drop([lane for lane, left in enumerate(self._left) if left])
        return any(self._left)

    def _choose(self, hidden: torch.Tensor) -> None:
        state = self._state
        if self._on_device:
            state.choose(hidden)
        else:
            choice = state.choice
            if hasattr(self._draw, "allowed"):
                choice = choice._replace(allowed=self._draw.allowed(self.sequences).to(hidden.device))
            p = probabilities(state.logits(hidden), choice)
            state.enter(self._draw(p, self.sequences))

    def _take(self, rows: list[list[int]], decoded: int) -> None:
        """Enters the tokens of a block (steps, B), in which each lane's cache got `decoded` tokens."""
        for lane, text in enumerate(self._texts):
            self._cached[lane] += decoded
            for row in rows:
                if not self._left[lane]:
                    break
                token = row[lane]
                if token == -2:
                    raise RuntimeError(
                        f"the next token of sequence {self.sequences[lane]} cannot be drawn: its logits are not finite"
                    )
                self._left[lane] = self._left[lane] - 1 if token >= 0 else 0
                if token >= 0:
                    text.append(token)
                    self.made[self.sequences[lane]].append(token)

    def _drop(self, kept: list[int]) -> None:
        for name in ("sequences", "_texts", "_left", "_cached", "_slid"):
            listed = getattr(self, name)
            setattr(self, name, [listed[lane] for lane in kept])
        if kept:
            self._state.keep(kept)

    def _room(self, lane: int) -> int:
        """Tokens that may still be added to the lane's cache."""
        return 0 if self._slid[lane] else self._max_len - self._cached[lane]

    def _cropped(self, text: list[int]) -> list[int]:
        return text[-(self._crop_to or self._max_len) :]

    def _slide(self, lanes: list[int]) -> None:
        """The next hidden states, if the contexts of some lanes must be cropped before."""
        if not lanes:
            return
        state, inference = self._state, self._inference
        index = torch.tensor(lanes, device=inference.device)
        state.newest[index], state.cache.lengths[index] = 0, 0
        if len(lanes) < sum(left > 0 for left in self._left):
            hidden = inference.decode(state.newest, state.cache)
        else:
            weight = inference.model.transformer.wte.weight
            hidden = weight.new_zeros(len(state.newest), weight.shape[1])
        contexts = [self._cropped(self._texts[lane]) for lane in lanes]
        if self._crop_to is None:
            # One window at a time: each has max_len rows.
            hidden[index] = torch.cat([inference.prefill([context]) for context in contexts])
        else:
            hidden[index] = inference.prefill(contexts, state.cache, lanes)
        for lane in range(len(self._texts)):
            self._cached[lane] += 1
        for lane, context in zip(lanes, contexts, strict=True):
            self._cached[lane], self._slid[lane] = len(context), self._crop_to is None
        self._hidden = hidden
