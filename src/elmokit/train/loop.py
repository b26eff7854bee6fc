"""The training loop: packed windows, truncated backpropagation, exact held-out perplexity, exact resume.

Everything that a step depends on is either in the training state (weights, optimiser, LSTM state) or a function of the
step's number (window, dropout, negatives, learning rate), so that a run continued from a saved state gives, on CPU,
bitwise the weights of a run that was never stopped.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays, Config
from elmokit.network import BiLM, State
from elmokit.train.corpus import Corpus
from elmokit.train.evaluate import Perplexity, perplexity, run_window
from elmokit.train.initial import initial_arrays, unigram_head
from elmokit.train.recipe import Recipe
from elmokit.train.softmax import Softmax
from elmokit.train.streams import Streams, Window


@dataclass
class Progress:
    """Where a run is. `step` counts updates from 0; `best` is the lowest held-out mean perplexity so far."""

    step: int = 0
    places: int = 0
    seconds: float = 0.0
    best: float = math.inf


class Trainer:
    """A network, its head, its optimiser and its place in the text."""

    def __init__(self, config: Config, recipe: Recipe, corpus: Corpus, heldout: Corpus) -> None:
        n_words = corpus.n_vocabulary
        arrays = initial_arrays(config, seed=recipe.seed, n_words=n_words)
        if recipe.optimizer == "adamw":
            arrays |= unigram_head(corpus.target_counts(), config.lstm.projection_dim)
        self.recipe, self.heldout = recipe.with_samples_for(n_words), heldout
        self.network = BiLM.from_arrays(config, arrays)
        self.softmax = Softmax.from_arrays(arrays)
        self.streams = Streams(corpus, rows=recipe.batch_size, unroll=recipe.unroll, seed=recipe.seed)
        self.state = self.network.zero_state(recipe.batch_size)
        self.optimizer = _optimizer(self.recipe, self.parameters())
        self.generator = torch.Generator()
        self.progress = Progress()

    @property
    def total_steps(self) -> int:
        """Updates of the whole run."""
        return max(1, round(self.recipe.epochs * self.streams.steps))

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every trained parameter under one name each."""
        yield from self.network.named_parameters(prefix="network")
        yield from self.softmax.named_parameters(prefix="softmax")

    def parameters(self) -> list[nn.Parameter]:
        """Return every trained parameter."""
        return [parameter for _, parameter in self.named_parameters()]

    def step(self) -> float:
        """Do one update; return the training loss, nats a place, mean of both directions."""
        started, step = time.perf_counter(), self.progress.step
        self._seed(step)
        self._set_learning_rate(step)
        window = self.streams.window(*divmod(step, self.streams.steps))
        loss = self._loss(window)
        self.optimizer.zero_grad(set_to_none=True)
        (loss * (self.recipe.unroll if self.recipe.optimizer == "adagrad" else 1.0)).backward()
        nn.utils.clip_grad_norm_(self.parameters(), self.recipe.clip_norm)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.places += window.n_places
        self.progress.seconds += time.perf_counter() - started
        return loss.item()

    def _loss(self, window: Window) -> Tensor:
        dropout, device = self.recipe.dropout, self.network.device
        top_TZBP, state = run_window(self.network, window, self.state, dropout=dropout)
        self.state = state.detach()
        x_ZNP = nn.functional.dropout(top_TZBP, dropout).transpose(0, 1).flatten(1, 2)
        targets_ZN = torch.from_numpy(window.targets_TZB).to(device).transpose(0, 1).flatten(1)
        if not self.recipe.samples:
            return self.softmax.full_loss(x_ZNP.flatten(0, 1), targets_ZN.flatten())
        # Each direction draws its own negatives: as much arithmetic as shared ones, and twice as many words learn.
        losses = [
            self.softmax.sampled_loss(x_NP, targets_N, samples=self.recipe.samples, generator=self.generator)
            for x_NP, targets_N in zip(x_ZNP, targets_ZN, strict=True)
        ]
        return torch.stack(losses).mean()

    def _seed(self, step: int) -> None:
        """Make dropout (torch's own generator) and negatives functions of the run's seed and the step."""
        dropout, negatives = np.random.SeedSequence((self.recipe.seed, step)).generate_state(2).tolist()
        torch.manual_seed(dropout)
        self.generator.manual_seed(negatives)

    def _set_learning_rate(self, step: int) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.recipe.learning_rate * _schedule(self.recipe, step, self.total_steps)

    def evaluate(self, max_places: int | None = None) -> Perplexity:
        """Return exact perplexities of the held-out text."""
        return perplexity(self.network, self.softmax, self.heldout, max_places=max_places)

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a continued run needs besides the step's number."""
        tensors = {name: parameter.data for name, parameter in self.named_parameters()}
        for name, parameter in self.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        return {**tensors, "state.h": self.state.h, "state.c": self.state.c}

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Take up what `tensors` and `progress` say."""
        for name, parameter in self.named_parameters():
            parameter.data = tensors[name].clone()
            suffix = f".{name}"
            keys = [k for k in tensors if k.startswith("optimizer.") and k.endswith(suffix)]
            self.optimizer.state[parameter] = {
                key.removeprefix("optimizer.").removesuffix(suffix): tensors[key].clone() for key in keys
            }
        self.state = State(tensors["state.h"].clone(), tensors["state.c"].clone())
        self.progress = Progress(**progress)

    def arrays(self) -> Arrays:
        """Return the weights of network and head under the names of `checkpoint`."""
        head = {f"softmax.{name}": p.detach().cpu().numpy() for name, p in self.softmax.named_parameters()}
        return {**self.network.arrays(), **head}


def _optimizer(recipe: Recipe, parameters: list[nn.Parameter]) -> torch.optim.Optimizer:
    if recipe.optimizer == "adagrad":
        return torch.optim.Adagrad(parameters, lr=recipe.learning_rate, initial_accumulator_value=1.0, eps=0.0)
    return torch.optim.AdamW(parameters, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0)


def _schedule(recipe: Recipe, step: int, total: int) -> float:
    """Return the share of the learning rate at a step: rising over `warmup`, then a cosine down to a tenth."""
    if recipe.optimizer == "adagrad":
        return 1.0
    warmup = min(recipe.warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
