"""The training loop: packed windows, truncated backpropagation, exact held-out perplexity, exact resume.

Everything that an update depends on is either in the training state (weights, optimiser, LSTM state) or a function of
the update's number (window, dropout, negatives, learning rate), so that a run continued from a saved state gives, on
CPU, bitwise the weights of a run that was never stopped. The rows of a batch may be shared by several processes, and
read in several parts; the gradient is that of the whole batch.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from elmokit.checkpoint import Arrays
from elmokit.errors import FormatError
from elmokit.head import AdaptiveSoftmax
from elmokit.network import BiLM, State, WordTable
from elmokit.train.dropout import Dropout
from elmokit.train.evaluate import Perplexity, perplexity, run_window
from elmokit.train.initial import initial_arrays, initial_head
from elmokit.train.prepare import Prepared
from elmokit.train.recipe import HeadKind, Recipe
from elmokit.train.softmax import TrainedHead, trained_head
from elmokit.train.streams import Streams, Window
from elmokit.train.workers import Workers


@dataclass
class Progress:
    """Where a run is. `step` counts updates from 0; `best` is the lowest held-out mean perplexity so far, `before` that
    of the model it started from; `since_best` counts evaluations without a better one; `evaluated` is the step of the
    last one."""

    step: int = 0
    places: int = 0
    seconds: float = 0.0
    best: float = math.inf
    before: float = math.inf
    since_best: int = 0
    evaluated: int = -1


class Objective(nn.Module):
    """What is minimised: the mean loss (nats) of both directions, of network and head together."""

    def __init__(self, network: BiLM, head: TrainedHead, recipe: Recipe) -> None:
        super().__init__()
        self.network, self.head, self.recipe = network, head, recipe
        self.generator = torch.Generator()

    def forward(
        self, window: Window, h: Tensor, c: Tensor, dropout: Dropout, negatives: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the loss of a window, and the state after it; `negatives` seeds their drawing."""
        device = self.network.device
        with torch.autocast(device.type, torch.bfloat16, enabled=self.recipe.precision == "bfloat16"):
            top_TZBP, state = run_window(self.network, window, State(h, c), dropout=dropout)
            x_ZNP = dropout(top_TZBP).transpose(0, 1).flatten(1, 2)
            targets_ZN = torch.from_numpy(window.targets_TZB).to(device).transpose(0, 1).flatten(1)
            loss = self.head.loss(x_ZNP, targets_ZN, self.generator.manual_seed(negatives))
        return loss, state.h.detach(), state.c.detach()


class Trainer:
    """A network, its head, its optimiser and its place in the text."""

    def __init__(self, recipe: Recipe, prepared: Prepared, workers: Workers, *, shuffled: bool = True) -> None:
        self.prepared, self.workers = prepared, workers
        self.recipe = recipe = recipe.decided_for(len(prepared.vocabulary), given=head_kind(prepared.start))
        arrays = _first_arrays(recipe, prepared)
        self.network = BiLM.from_arrays(prepared.config, arrays).to(workers.device)
        self.head = trained_head(arrays, recipe).to(workers.device)
        if recipe.tie:
            _tie(self.head, self.network)
        self.objective = Objective(self.network, self.head, recipe)
        self.parallel = workers.parallel(self.objective, some_unused=isinstance(self.head.exact, AdaptiveSoftmax))
        seed = recipe.seed if shuffled else None
        self.streams = Streams(
            prepared.train, prepared.rows, prepared.speller, rows=recipe.batch_size, unroll=recipe.unroll, seed=seed
        )
        self.total_steps = max(1, self.streams.total_steps(recipe.epochs))
        self.parts = _parts(workers.share(recipe.batch_size, parts=recipe.accumulate), recipe.accumulate)
        self.states = [self.network.zero_state(part.stop - part.start) for part in self.parts]
        self.optimizer = _optimizer(recipe, *self._groups())
        self.progress = Progress()

    @property
    def head_steps(self) -> int:
        """Updates at the beginning of which only a new head learns."""
        return round(self.recipe.head_share * self.total_steps) if self.prepared.new_head else 0

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """Yield every trained parameter once, under one name."""
        yield from self.objective.named_parameters()

    def _groups(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        network = list(self.network.parameters())
        known = {id(parameter) for parameter in network}
        return network, [parameter for parameter in self.head.parameters() if id(parameter) not in known]

    # ------------------------------------------------------------ updates

    def step(self) -> float:
        """Do one update; return the training loss of this process's rows, nats a place, mean of both directions."""
        started, step = time.perf_counter(), self.progress.step
        self._set_learning_rates(step)
        self.optimizer.zero_grad(set_to_none=True)
        loss = sum(self._part(step, number) for number in range(len(self.parts))) / len(self.parts)
        nn.utils.clip_grad_norm_((p for _, p in self.named_parameters()), self.recipe.clip_norm)
        self.optimizer.step()
        self.progress.step += 1
        self.progress.places += self.recipe.batch_size * self.recipe.unroll
        self.progress.seconds += time.perf_counter() - started
        return loss

    def _part(self, step: int, number: int) -> float:
        """Add the gradient of some rows of the batch."""
        rows = self.parts[number]
        negatives, seed = np.random.SeedSequence((self.recipe.seed, step)).generate_state(2).tolist()
        torch.manual_seed(seed + rows.start)  # for dropout on a GPU
        dropout = Dropout(self.recipe.dropout, seed=seed, first_row=rows.start)
        window = self.streams.window(step, rows)
        state = self.states[number]
        with self._unshared() if number < len(self.parts) - 1 else nullcontext():
            loss, h, c = self.parallel(window, state.h, state.c, dropout, negatives)
            times = self.recipe.unroll if self.recipe.optimizer == "adagrad" else 1
            (loss * (times / len(self.parts))).backward()
        self.states[number] = State(h, c)
        return float(loss.detach())

    def _unshared(self) -> AbstractContextManager[None]:
        """Let the processes talk about their gradients only after the last part."""
        return self.parallel.no_sync() if self.workers.world > 1 else nullcontext()  # type: ignore[operator]

    def _set_learning_rates(self, step: int) -> None:
        rate = self.recipe.learning_rate * _schedule(self.recipe, step, self.total_steps)
        network, head = self.optimizer.param_groups
        network["lr"], head["lr"] = rate if step >= self.head_steps else 0.0, rate

    # ------------------------------------------------------------ what comes of it

    def evaluate(self, max_places: int | None = None) -> Perplexity:
        """Return exact perplexities of the held-out text."""
        prepared = self.prepared
        return perplexity(
            self.network, self.head.exact, prepared.heldout, prepared.rows, prepared.speller, max_places=max_places
        )

    def tensors(self) -> dict[str, Tensor]:
        """Return everything that a continued run needs besides the progress; all processes must ask for it."""
        tensors = {name: parameter.data for name, parameter in self.named_parameters()}
        for name, parameter in self.named_parameters():
            for key, value in self.optimizer.state.get(parameter, {}).items():
                tensors[f"optimizer.{key}.{name}"] = value
        state = State.joined(self.states)
        gathered = {name: self.workers.all_rows(a, dim=2) for name, a in (("state.h", state.h), ("state.c", state.c))}
        return {**tensors, **gathered}

    def restore(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Take up what `tensors` and `progress` say; the run may have had more or fewer processes.

        Raises `FormatError` for what another run has saved.
        """
        device = self.workers.device
        self._check_saved(tensors, progress)
        for name, parameter in self.named_parameters():
            parameter.data.copy_(tensors[name])
            suffix = f".{name}"
            keys = [k for k in tensors if k.startswith("optimizer.") and k.endswith(suffix)]
            self.optimizer.state[parameter] = {
                key.removeprefix("optimizer.").removesuffix(suffix): tensors[key].clone().to(device) for key in keys
            }
        h, c = tensors["state.h"].to(device), tensors["state.c"].to(device)
        self.states = [State(h[:, :, part].clone(), c[:, :, part].clone()) for part in self.parts]
        self.progress = Progress(**progress)

    def _check_saved(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        shapes = {name: tuple(parameter.shape) for name, parameter in self.named_parameters()}
        all_rows = self.network.zero_state(self.recipe.batch_size)
        shapes |= {"state.h": tuple(all_rows.h.shape), "state.c": tuple(all_rows.c.shape)}
        for name, shape in shapes.items():
            found = tuple(tensors[name].shape) if name in tensors else "none"
            if found != shape:
                raise FormatError(
                    f"the saved state is that of another run: {name!r}: expected shape {shape}, found {found}; start "
                    "the run again in another folder"
                )
        if progress.keys() != asdict(Progress()).keys():
            raise FormatError("the saved state is that of another version of elmokit; go on with that one")

    def arrays(self) -> Arrays:
        """Return the weights of network and head under the names of `checkpoint`."""
        return {**self.network.arrays(), **self.head.exact.arrays()}


def _first_arrays(recipe: Recipe, prepared: Prepared) -> Arrays:
    """Return the weights before the first update: those of the model to go on from, and new ones where it has none."""
    config, V = prepared.config, len(prepared.vocabulary)
    head = {name: array for name, array in prepared.start.items() if name.startswith("softmax.")}
    network = {name: array for name, array in prepared.start.items() if name not in head}
    return {
        **(network or initial_arrays(config, seed=recipe.seed, n_words=V)),
        **(head or initial_head(recipe, prepared.target_counts, config.lstm.projection_dim)),
    }


def head_kind(arrays: Arrays) -> HeadKind | None:
    """Return the kind of the softmax head among a checkpoint's arrays, if there is one."""
    if "softmax.head.weight" in arrays:
        return "adaptive"
    return "full" if "softmax.weight" in arrays else None


def saved_head(tensors: dict[str, Tensor]) -> Arrays:
    """Return the head of a saved state, of the kind that it is, under the names of `checkpoint`."""
    exact = "head.exact."
    return {f"softmax.{name.removeprefix(exact)}": t.numpy() for name, t in tensors.items() if name.startswith(exact)}


def _tie(head: TrainedHead, network: BiLM) -> None:
    """Let the head predict with the vectors that words are read with, as bilm-tf's `share_embedding_softmax`."""
    assert isinstance(network.encoder, WordTable)  # checked where the settings are
    head.exact.weight = network.encoder.embedding


def _parts(rows: slice, number: int) -> list[slice]:
    """Cut this process's rows into equal parts."""
    size = (rows.stop - rows.start) // number
    return [slice(start, start + size) for start in range(rows.start, rows.stop, size)]


def _optimizer(recipe: Recipe, network: list[nn.Parameter], head: list[nn.Parameter]) -> torch.optim.Optimizer:
    groups = [{"params": network}, {"params": head}]
    if recipe.optimizer == "adagrad":
        return torch.optim.Adagrad(groups, lr=recipe.learning_rate, initial_accumulator_value=1.0, eps=0.0)
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=(0.9, 0.99), weight_decay=0.0, fused=True)


def _schedule(recipe: Recipe, step: int, total: int) -> float:
    """Return the share of the learning rate at a step: rising over `warmup`, then a cosine down to a tenth."""
    if recipe.optimizer == "adagrad":
        return 1.0
    warmup = min(recipe.warmup, total // 10)
    if step < warmup:
        return (step + 1) / warmup
    return 0.1 + 0.45 * (1.0 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))
