"""A training run from text to a model folder: prepare, train, evaluate, save; and its continuation."""

from __future__ import annotations

import math
import multiprocessing
import signal
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from tqdm import tqdm

from elmokit.checkpoint import Checkpoint, Config, head_words, native_files
from elmokit.errors import MismatchError, MissingExtra, OutputError, TrainingError, expect, expect_path, require
from elmokit.memory import keep_freed_memory
from elmokit.model import Elmo
from elmokit.train import report
from elmokit.train.evaluate import Perplexity
from elmokit.train.loop import Trainer, head_kind, saved_head
from elmokit.train.prepare import Prepared, prepare, reopen
from elmokit.train.recipe import Recipe
from elmokit.train.saved import SavedRun
from elmokit.train.settings import Settings
from elmokit.train.workers import Workers, join, was_restarted

# Held-out sentences read to make the warmed state that is stored with the model.
_WARM_SENTENCES = 50
_LOG_EVERY = 50


@dataclass(frozen=True)
class Summary:
    """How a run ended: held-out perplexity of the kept (best) model and of the one it started from (infinite for none),
    updates, places read in one direction, whether it came to its end, early or not, and whether this process is the one
    that writes."""

    perplexity: float
    before: float
    steps: int
    places: int
    finished: bool
    is_first: bool = True


def train(settings: Settings, out: str | Path, *, start: Checkpoint | None = None, progress: bool = True) -> Summary:
    """Start a run that writes a model folder `out`; its own files are in `out`/training.

    `start`: the model named by `settings.start`, to go on from. Under `torchrun` every process calls this; started anew
    by it, the run goes on. Raises `OutputError` where a run has been started already, `TextError` for texts that cannot
    be used, `MismatchError` for settings that do not fit together.

    A script calls this under `if __name__ == "__main__":`, for the processes that split the text import the script.
    """
    _refuse_where_a_script_is_imported()
    expect(Settings, settings, "settings", "Settings")
    expect(Config, settings.config, "settings.config", "a Config")
    expect(Recipe, settings.recipe, "settings.recipe", "a Recipe")
    expect_path(out, "out")
    saved = SavedRun(Path(out))
    if was_restarted() and saved.was_told(settings.to_json()):
        return resume(out, progress=progress)
    _check(settings, start)
    with join(settings.device) as workers:
        workers.share(settings.recipe.batch_size, parts=settings.recipe.accumulate)  # or refuse before reading
        prepared = None
        if workers.is_first:
            _refuse_what_is_there(saved)
            prepared = prepare(settings, saved.corpus_folder, start, progress=progress)
            _say(prepared.notes, progress)
        final = workers.from_first(_prepared_settings(settings, prepared).to_json() if prepared else None)
        chosen = Settings.from_json(final)
        if prepared is None:
            prepared = replace(reopen(chosen, saved.corpus_folder), start=dict(start.arrays) if start else {})
        run = _Run(chosen, saved, prepared, workers, progress=progress)
        run.begin(told=settings)
        return run.go()


def resume(out: str | Path, *, progress: bool = True) -> Summary:
    """Continue the run in `out` from its last saved state; its texts are not read again."""
    expect_path(out, "out")
    saved = SavedRun(Path(out))
    if not saved.exists():
        raise OutputError(f"{out} holds no training run to continue; start one without --resume")
    settings = Settings.from_json(saved.read_settings())
    with join(settings.device) as workers:
        workers.share(settings.recipe.batch_size, parts=settings.recipe.accumulate)
        tensors, at = saved.read_state()
        head = {} if settings.recipe.tie else saved_head(tensors)
        prepared = replace(reopen(settings, saved.corpus_folder), start=head)
        run = _Run(settings, saved, prepared, workers, progress=progress)
        run.trainer.restore(tensors, at)
        return run.go()


def _prepared_settings(settings: Settings, prepared: Prepared) -> Settings:
    return replace(settings, config=prepared.config, new_head=prepared.new_head)


def _refuse_where_a_script_is_imported() -> None:
    """Raise `MismatchError` in a process that splits the text, where the script that it imports begins a run too."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):  # as multiprocessing itself finds it out
        raise MismatchError('a run was started where a script is imported; put it under  if __name__ == "__main__":')


def _refuse_what_is_there(saved: SavedRun) -> None:
    out = saved.folder.parent
    if saved.exists():
        raise OutputError(f"{out} holds a training run; continue it with --resume, or choose another folder")
    if not saved.may_begin():
        raise OutputError(f"{out} exists and is not an empty folder; choose another one")


def _check_start(settings: Settings, start: Checkpoint) -> None:
    """Raise `MismatchError` for a model that the run cannot go on from as it is told."""
    if start.config.lstm.joined:
        raise MismatchError(
            "the layers of this model read both directions, so it cannot predict words; take a model of another kind"
        )
    if settings.unit != "bytes":
        raise MismatchError("the model to go on from spells words in its own way; leave --unit out")
    if given := head_kind(start.arrays):
        settings.recipe.decided_for(head_words(start.arrays), given=given)
    if start.vocabulary is None:
        if given:
            raise MismatchError(
                f"the model to go on from ({start.source}) has a head and no list of its words; put vocab.txt beside it"
            )
        return
    if settings.vocabulary:
        raise MismatchError("the model to go on from has a vocabulary of its own; leave --vocabulary out")
    missing = [mark for mark in start.config.sentence_marks if mark not in start.vocabulary]
    if missing:
        raise MismatchError(f"the vocabulary of the model to go on from lacks {missing[0]}, which every text needs")


def _check(settings: Settings, start: Checkpoint | None) -> None:
    """Raise `MismatchError` for settings that do not fit together, `MissingExtra` for what is not installed."""
    if settings.tensorboard:
        require("tensorboard", extra="train")
    if settings.recipe.tie and (start is not None or settings.unit != "words"):
        raise MismatchError("only a new model whose words come from a table can be tied to it; take --unit words")
    if settings.recipe.tie and settings.recipe.softmax == "adaptive":
        raise MismatchError("an adaptive softmax has fewer values for rare words and cannot be tied; take another one")
    if start is not None:
        _check_start(settings, start)
    elif later := settings.config.later_options:
        raise MismatchError(
            f"a new model is not trained with the options {', '.join(later)} of its shape; leave them out"
        )
    elif settings.unit == "characters" and settings.config.char_cnn is None:
        raise MismatchError("the shape has no characters (char_cnn), which --unit characters needs; leave --unit out")


class _Run:
    """One process of a run: the trainer, what it reads, where it writes."""

    def __init__(
        self, settings: Settings, saved: SavedRun, prepared: Prepared, workers: Workers, *, progress: bool
    ) -> None:
        keep_freed_memory()
        self.saved, self.prepared, self.workers = saved, prepared, workers
        self.progress = progress and workers.is_first
        self.trainer = Trainer(settings.recipe, prepared, workers, shuffled=not settings.document_order)
        self.settings = replace(settings, recipe=self.trainer.recipe)
        events = saved.folder / "tensorboard" if settings.tensorboard and workers.is_first else None
        self.board = report.Board(events)

    def begin(self, *, told: Settings) -> None:
        """Save what the run starts from, and then its settings: a run that is there can always go on."""
        self._save()
        if self.workers.is_first:
            self.saved.write_settings(self.settings.to_json(), told.to_json())

    def go(self) -> Summary:
        """Train to the end, or to an interruption, and say how it went."""
        with _stop_flag() as stopped:
            finished = self._loop(stopped)
        if finished:
            self._evaluate()
        self._save()
        self.board.close()
        if self.workers.is_first and self.saved.log_file.exists():
            self._draw_curve()
        at = self.trainer.progress
        return Summary(at.best, at.before, at.step, at.places, finished, self.workers.is_first)

    def _draw_curve(self) -> None:
        """Draw the log; a model is no worse without the picture, so that what it needs is only said to be missing."""
        try:
            report.draw_curve(self.saved.log_file, self.saved.folder.parent / "curve.svg")
        except MissingExtra as missing:
            _say([f"curve.svg is not drawn: {missing}"], self.progress)
        except OSError as error:
            _say([f"curve.svg is not drawn: {error}"], self.progress)

    def _loop(self, stopped: Sequence[int]) -> bool:
        """Do updates; return whether the run has come to its end."""
        trainer, settings = self.trainer, self.settings
        losses: list[float] = []
        with self._training_bar() as bar:
            while trainer.progress.step < trainer.total_steps and not self._is_idle():
                if self.workers.any(bool(stopped)):
                    return False
                if settings.start and trainer.progress.step == trainer.head_steps:
                    self._evaluate()
                losses.append(self._checked(trainer.step()))
                step = trainer.progress.step
                bar.update()
                if step % _LOG_EVERY == 0 or step == trainer.total_steps:
                    self._report(bar, losses)
                    losses.clear()
                if step % settings.evaluate_every == 0:
                    self._evaluate()
                if step % settings.save_every == 0:
                    self._save()
        return True

    def _is_idle(self) -> bool:
        """Whether the held-out text has been predicted no better for too long."""
        return 0 < self.settings.patience <= self.trainer.progress.since_best

    def _checked(self, loss: float) -> float:
        """Return a loss, or raise `TrainingError` where it is no number: what follows would be lost time."""
        if math.isfinite(loss):
            return loss
        at, rate = self.trainer.progress, self.settings.recipe.learning_rate
        raise TrainingError(
            f"the loss of update {at.step:,} is {loss}: training has diverged at a learning rate of {rate:g}; start "
            "again in another folder with a smaller --learning-rate (a model kept in this one is the best before)"
        )

    def _training_bar(self) -> tqdm:
        at, total = self.trainer.progress.step, self.trainer.total_steps
        return tqdm(total=total, initial=at, desc="training", unit=" updates", disable=not self.progress)

    def _report(self, bar: tqdm, losses: list[float]) -> None:
        at = self.trainer.progress
        loss, speed = self.workers.mean(sum(losses) / len(losses)), at.places / at.seconds
        epoch = self.trainer.streams.epochs_at(at.step)
        heldout = f", held-out {at.best:.1f}" if at.best < math.inf else ""
        bar.set_postfix_str(f"epoch {epoch:.2f}, {speed:,.0f} tokens/s, loss {loss:.3f}{heldout}")
        self._log(step=at.step, epoch=epoch, places=at.places, seconds=at.seconds, loss=loss)
        self.board.add(at.step, loss=loss, tokens_per_second=speed)

    def _log(self, **entry: float | str) -> None:
        if self.workers.is_first:
            self.saved.log(**entry)

    def _evaluate(self) -> None:
        """Measure held-out perplexity, once a step, always on the same places; keep the model if it is the best so far.

        Patience begins when all weights learn: what a new head does alone says nothing of them.
        """
        at, head_steps = self.trainer.progress, self.trainer.head_steps
        if at.evaluated == at.step:
            return
        at.evaluated = at.step
        measured = self.trainer.evaluate(self.settings.evaluate_places or None) if self.workers.is_first else None
        result = self.workers.from_first(measured)
        self._checked(result.mean)
        self._log(step=at.step, places=at.places, seconds=at.seconds, time=time.time(), **_as_log(result))
        self.board.add(at.step, perplexity=result.mean, forward=result.forward, backward=result.backward)
        if self.progress:
            tqdm.write(_line(at.step, result), file=sys.stderr)
        if self.settings.start and at.step == head_steps:
            at.before = result.mean
        at.since_best = 0 if result.mean < at.best or at.step <= head_steps else at.since_best + 1
        if result.mean < at.best:
            at.best = result.mean
            self._keep(result)

    def _keep(self, result: Perplexity) -> None:
        if not self.workers.is_first:
            return
        prepared = self.prepared
        card = report.card(self.settings, self.trainer, result)
        arrays = self.trainer.arrays()
        model = Elmo(Checkpoint(prepared.config, arrays, prepared.vocabulary, card, characters=prepared.characters))
        warmed = model.warm(prepared.heldout_sentences(_WARM_SENTENCES))
        for name, content in native_files(warmed.checkpoint()).items():
            self.saved.write_beside(name, content)

    def _save(self) -> None:
        tensors = self.trainer.tensors()
        if self.workers.is_first:
            self.saved.write_state(tensors, asdict(self.trainer.progress))


def _say(notes: Sequence[str], progress: bool) -> None:
    if progress:
        for note in notes:
            tqdm.write(f"note: {note}", file=sys.stderr)


def _as_log(result: Perplexity) -> dict[str, float]:
    return {
        "forward": result.forward,
        "backward": result.backward,
        "mean": result.mean,
        "heldout_places": result.places,
    }


def _line(step: int, result: Perplexity) -> str:
    return (
        f"update {step:,}: held-out perplexity forward {result.forward:.2f}, backward {result.backward:.2f}, "
        f"mean {result.mean:.2f} ({result.places:,} places)"
    )


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that no step is cut in two; a second one stops at once.

    Only the main thread is told of signals: in another one the flag is never set.
    """
    stopped: list[int] = []
    if threading.current_thread() is not threading.main_thread():
        yield stopped
        return

    def note(number: int, _frame: object) -> None:
        if stopped:
            raise KeyboardInterrupt
        stopped.append(number)

    former = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield stopped
    finally:
        for number, handler in former.items():
            signal.signal(number, handler)
