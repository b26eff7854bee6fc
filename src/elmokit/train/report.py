"""What a run says of itself: its log, event files for TensorBoard, a drawing of its losses, the card of its model."""

from __future__ import annotations

import json
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from elmokit.checkpoint import Config
from elmokit.errors import require
from elmokit.train.evaluate import Perplexity
from elmokit.train.loop import Trainer
from elmokit.train.settings import Settings


class Board:
    """Event files for TensorBoard in a folder, or nothing at all."""

    def __init__(self, folder: Path | None) -> None:
        self.writer: Any = None
        if folder is not None:
            require("tensorboard", extra="train")
            from torch.utils.tensorboard import SummaryWriter

            self.writer = SummaryWriter(str(folder))

    def add(self, step: int, **values: float) -> None:
        """Add one point to each curve."""
        if self.writer is not None:
            for name, value in values.items():
                self.writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Write what is left."""
        if self.writer is not None:
            self.writer.close()


def read_log(log: Path) -> Iterator[dict[str, Any]]:
    """Yield the entries of a log; a line that was cut when the run was killed is none."""
    for line in log.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            entry = json.loads(line)
        except ValueError:
            continue
        if isinstance(entry, dict) and "places" in entry:
            yield entry


def draw_curve(log: Path, target: Path) -> None:
    """Draw training loss and held-out perplexity against the tokens read, as SVG.

    Raises `MissingExtra` without the extra `train`.
    """
    altair, _ = require("altair", extra="train"), require("vl_convert", extra="train")
    points = list(read_log(log))
    curves = {
        "training loss, nats a token": [(p["places"], p["loss"]) for p in points if "loss" in p],
        "held-out perplexity": [(p["places"], p["mean"]) for p in points if "mean" in p],
    }
    charts = [_chart(altair, title, curve) for title, curve in curves.items() if curve]
    if charts:
        altair.hconcat(*charts).save(str(target))


def _chart(altair: Any, title: str, curve: list[tuple[float, float]]) -> Any:
    values = [{"tokens": x, "value": y} for x, y in curve]
    axes = {
        "x": altair.X("tokens:Q", title="tokens read"),
        "y": altair.Y("value:Q", title=title, scale=altair.Scale(type="log", zero=False)),
    }
    return (
        altair.Chart(altair.Data(values=values), width=320, height=220).mark_line(point=len(curve) < 30).encode(**axes)
    )


def card(settings: Settings, trainer: Trainer, result: Perplexity) -> str:
    """Return the model card, Markdown: data, vocabulary, recipe, perplexities, hardware, time."""
    at, recipe, prepared = trainer.progress, trainer.recipe, trainer.prepared
    facts = prepared.train.facts
    texts = "\n".join(f"- {_name(text)}" for text in settings.texts)
    lines = [
        f"{facts.sentences:,} sentences, {facts.tokens:,} tokens; held out: {prepared.heldout.facts.sentences:,} "
        f"sentences {'of ' + _name(settings.heldout) if settings.heldout else 'of the same text'}",
        f"Tokens read in training, each direction: {at.places:,} ({at.step:,} updates of {recipe.batch_size} x "
        f"{recipe.unroll})",
        f"Words are spelled in {_spelling(prepared.config)}",
        f"Vocabulary of the softmax head: {len(prepared.vocabulary):,} words",
        f"Recipe: {recipe.optimizer}, learning rate {recipe.learning_rate:g}, {recipe.softmax} softmax"
        f"{f' ({recipe.samples:,} negatives)' if recipe.softmax == 'sampled' else ''}, dropout {recipe.dropout:g}, "
        f"{recipe.precision}, seed {recipe.seed}",
        f"Held-out perplexity (exact): forward {result.forward:.2f}, backward {result.backward:.2f}, mean "
        f"{result.mean:.2f}, over {result.places:,} places",
        *([f"Started from {settings.start}; {_before(trainer, at.before)}"] if settings.start else []),
        f"Hardware: {_hardware(trainer)}; {at.seconds / 3600:.2f} hours of updates, torch {torch.__version__}",
    ]
    return f"# ELMo trained with elmokit\n\nText:\n\n{texts}\n\n" + "".join(f"- {line}\n" for line in lines)


def _name(text: str) -> str:
    return "standard input" if text == "-" else Path(text).name or Path(text).absolute().name


def _spelling(config: Config) -> str:
    if config.char_cnn is None:
        return "no characters (a table of words)"
    table = ", and looked up in a table" if config.word_dim else ""
    return ("characters" if config.char_cnn.has_lexicon else "UTF-8 bytes") + table


def _before(trainer: Trainer, before: float) -> str:
    fitted = ", its new head fitted," if trainer.prepared.new_head else ""
    return f"its perplexity{fitted} before training on this text: {before:.2f}"


def _hardware(trainer: Trainer) -> str:
    workers = trainer.workers
    if workers.device.type == "cuda":
        return f"{workers.world} x {torch.cuda.get_device_name(workers.device)}"
    several = f"{workers.world} processes of " if workers.world > 1 else ""
    return f"{several}{torch.get_num_threads()} threads, {platform.processor() or platform.machine()}"
