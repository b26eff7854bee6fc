"""A training run from text files to a model folder: count, encode, train, evaluate, save; and its continuation."""

from __future__ import annotations

import hashlib
import math
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from elmokit.checkpoint import Checkpoint, Config, parse_config, write_native
from elmokit.errors import MismatchError, OutputError, TextError, TrainingError
from elmokit.model import Elmo
from elmokit.text import read_sentences
from elmokit.train.corpus import Corpus, encode
from elmokit.train.evaluate import Perplexity
from elmokit.train.loop import Trainer
from elmokit.train.recipe import Recipe
from elmokit.train.saved import SavedRun
from elmokit.train.vocabulary import build_vocabulary, count_words, load_vocabulary

# Without a held-out file every so many sentences one is held out.
_HELDOUT_EVERY = 100
# Held-out sentences read to make the warmed state that is stored with the model.
_WARM_SENTENCES = 50
_LOG_EVERY = 50


@dataclass(frozen=True)
class Settings:
    """Everything a run is told; written to disk, so that it can be continued with nothing but its folder.

    evaluate_every and save_every count updates; evaluate_places bounds the held-out places of an evaluation (0: all).
    """

    texts: list[str]
    config: Config
    recipe: Recipe
    heldout: str | None = None
    vocabulary: str | None = None
    min_count: int = 3
    max_vocab: int = 100_000
    tokenize: bool = False
    evaluate_every: int = 1000
    evaluate_places: int = 0
    save_every: int = 500


@dataclass(frozen=True)
class Summary:
    """How a run ended: held-out perplexity of the kept (best) model, updates, places read in one direction."""

    perplexity: float
    steps: int
    places: int
    finished: bool


def train(settings: Settings, out: str | Path, *, progress: bool = True) -> Summary:
    """Start a run that writes a model folder `out`; its own files are in `out`/training.

    Raises `OutputError` where a run has been started already, `TextError` for texts that cannot be used.
    """
    saved = SavedRun(Path(out))
    if saved.exists():
        raise OutputError(f"{out} holds a training run; continue it with --resume, or choose another folder")
    if not saved.may_begin():
        raise OutputError(f"{out} exists and is not an empty folder; choose another one")
    return _Run(settings, saved, progress=progress).go()


def resume(out: str | Path, *, progress: bool = True) -> Summary:
    """Continue the run in `out` from its last saved state."""
    saved = SavedRun(Path(out))
    if not saved.exists():
        raise OutputError(f"{out} holds no training run to continue; start one without --resume")
    return _Run(_settings_from_json(saved.read_settings()), saved, progress=progress).go()


def _settings_to_json(settings: Settings) -> dict[str, Any]:
    return {**asdict(settings), "config": settings.config.model_dump(), "recipe": asdict(settings.recipe)}


def _settings_from_json(values: dict[str, Any]) -> Settings:
    known = {name: value for name, value in values.items() if name not in ("fingerprint", "config", "recipe")}
    config = parse_config(values["config"], where="the run's settings")
    return Settings(config=config, recipe=Recipe(**values["recipe"]), **known)


class _Run:
    """One run in one process: the trainer, what it reads, where it writes."""

    def __init__(self, settings: Settings, saved: SavedRun, *, progress: bool) -> None:
        self.settings, self.saved, self.progress = settings, saved, progress
        self.vocabulary, train_corpus, heldout = self._corpora()
        needed = settings.recipe.batch_size * settings.recipe.unroll
        if train_corpus.n_places < needed:
            raise TextError(
                f"the text is too short: {train_corpus.n_places:,} places, a single update takes {needed:,}; "
                "give more text or a smaller batch"
            )
        self._check_same_text(train_corpus, heldout)
        self.trainer = Trainer(settings.config, settings.recipe, train_corpus, heldout)

    def go(self) -> Summary:
        """Train to the end, or to an interruption, and say how it went."""
        state = self.saved.read_state()
        if state is not None:
            self.trainer.restore(*state)
        with _stop_flag() as stopped:
            finished = self._loop(stopped)
        if finished:
            self._evaluate()
        self._save()
        at = self.trainer.progress
        return Summary(at.best, at.step, at.places, finished)

    # ------------------------------------------------------------ text

    def _corpora(self) -> tuple[tuple[str, ...], Corpus, Corpus]:
        if "-" in (*self.settings.texts, self.settings.heldout):
            raise TextError("training reads its texts more than once, which standard input cannot give; name files")
        counts = count_words(self._bar(self._train_sentences(), "counting"))
        settings = self.settings
        if settings.vocabulary:
            vocabulary = load_vocabulary(settings.vocabulary, counts)
        else:
            vocabulary = build_vocabulary(counts, min_count=settings.min_count, max_words=settings.max_vocab)
        train_corpus = self._encode(self._bar(self._train_sentences(), "encoding"), vocabulary, counts, "train")
        heldout_counts = count_words(self._heldout_sentences())
        if not heldout_counts:
            raise TextError(_nothing_held_out(settings))
        heldout = self._encode(self._heldout_sentences(), vocabulary, heldout_counts, "heldout")
        return vocabulary, train_corpus, heldout

    def _encode(
        self, sentences: Iterator[list[str]], vocabulary: tuple[str, ...], counts: Counter[str], name: str
    ) -> Corpus:
        speller = Checkpoint(self.settings.config, {}, vocabulary).speller()
        return encode(sentences, vocabulary, counts, speller, self.saved.corpus_folder / name)

    def _sentences(self) -> Iterator[list[str]]:
        for path in self.settings.texts:
            yield from read_sentences(path, tokenize=self.settings.tokenize)

    def _train_sentences(self) -> Iterator[list[str]]:
        if self.settings.heldout:
            return self._sentences()
        return (s for i, s in enumerate(self._sentences()) if i % _HELDOUT_EVERY != _HELDOUT_EVERY - 1)

    def _heldout_sentences(self) -> Iterator[list[str]]:
        if self.settings.heldout:
            return read_sentences(self.settings.heldout, tokenize=self.settings.tokenize)
        return (s for i, s in enumerate(self._sentences()) if i % _HELDOUT_EVERY == _HELDOUT_EVERY - 1)

    def _bar(self, sentences: Iterator[list[str]], what: str) -> Iterator[list[str]]:
        return iter(tqdm(sentences, what, unit=" sentences", unit_scale=True, disable=not self.progress, leave=False))

    def _check_same_text(self, *corpora: Corpus) -> None:
        """Write the settings of a new run; refuse to continue one whose text has changed."""
        digest = hashlib.sha256()
        for corpus in corpora:
            digest.update(np.ascontiguousarray(corpus.starts).tobytes())
            digest.update(corpus.tokens.tobytes())
        settings = {**_settings_to_json(self.settings), "fingerprint": digest.hexdigest()}
        if not self.saved.exists():
            self.saved.write_settings(settings)
        elif self.saved.read_settings()["fingerprint"] != settings["fingerprint"]:
            raise MismatchError(
                f"the texts of the run in {self.saved.folder.parent} have changed since it was started "
                f"({', '.join(self.settings.texts)[:200]}); put them back, or start a new run"
            )

    # ------------------------------------------------------------ training

    def _loop(self, stopped: Sequence[int]) -> bool:
        trainer, settings = self.trainer, self.settings
        losses: list[float] = []
        with self._training_bar() as bar:
            while trainer.progress.step < trainer.total_steps and not stopped:
                losses.append(self._checked(trainer.step()))
                step = trainer.progress.step
                bar.update()
                if step % _LOG_EVERY == 0 or step == trainer.total_steps:
                    self._report(bar, losses)
                    losses.clear()
                if step % settings.evaluate_every == 0 and step < trainer.total_steps:
                    self._evaluate()
                if step % settings.save_every == 0:
                    self._save()
        return not stopped

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
        loss, speed = sum(losses) / len(losses), at.places / at.seconds
        epoch = at.step / self.trainer.streams.steps
        heldout = f", held-out {at.best:.1f}" if at.best < math.inf else ""
        bar.set_postfix_str(f"epoch {epoch:.2f}, {speed:,.0f} tokens/s, loss {loss:.3f}{heldout}")
        self.saved.log(step=at.step, epoch=epoch, places=at.places, seconds=at.seconds, loss=loss)

    def _evaluate(self) -> None:
        """Measure held-out perplexity, always on the same places; keep the model if it is the best so far."""
        result, at = self.trainer.evaluate(self.settings.evaluate_places or None), self.trainer.progress
        self._checked(result.mean)
        self.saved.log(step=at.step, places=at.places, seconds=at.seconds, time=time.time(), **_as_log(result))
        if self.progress:
            tqdm.write(_line(at.step, result), file=sys.stderr)
        if result.mean < at.best:
            at.best = result.mean
            self._keep(result)

    def _keep(self, result: Perplexity) -> None:
        card = _card(self.settings, self.trainer, result)
        model = Elmo(Checkpoint(self.settings.config, self.trainer.arrays(), self.vocabulary, card))
        first = (s for s, _ in zip(self._heldout_sentences(), range(_WARM_SENTENCES), strict=False))
        write_native(model.warm(first).checkpoint(), self.saved.folder.parent)

    def _save(self) -> None:
        self.saved.write_state(self.trainer.tensors(), asdict(self.trainer.progress))


def _nothing_held_out(settings: Settings) -> str:
    if settings.heldout:
        return f"{settings.heldout} holds no sentence, expected held-out text; name another with --heldout"
    return (
        f"the text has fewer than {_HELDOUT_EVERY} sentences, of which every {_HELDOUT_EVERY}th is held out; give more "
        "text, or held-out text with --heldout"
    )


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


def _card(settings: Settings, trainer: Trainer, result: Perplexity) -> str:
    at, recipe = trainer.progress, settings.recipe
    texts = "\n".join(f"- {Path(text).name}" for text in settings.texts)
    return f"""# ELMo trained with elmokit

Text:

{texts}

- Tokens of the text, sentence marks included: {trainer.streams.corpus.n_places:,}
- Tokens read in training, each direction: {at.places:,} ({at.step:,} updates of {recipe.batch_size} x {recipe.unroll})
- Vocabulary of the softmax head: {trainer.streams.corpus.n_vocabulary:,} words
- Recipe: {recipe.optimizer}, learning rate {recipe.learning_rate}, dropout {recipe.dropout}, seed {recipe.seed}
- Held-out perplexity (exact, full softmax): forward {result.forward:.2f}, backward {result.backward:.2f}, mean \
{result.mean:.2f}, over {result.places:,} places
"""


@contextmanager
def _stop_flag() -> Iterator[list[int]]:
    """Turn the first Ctrl-C or SIGTERM into a flag, so that no step is cut in two; a second one stops at once."""
    stopped: list[int] = []

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
