"""Everything a run is told; written to disk, so that it can be continued with nothing but its folder."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from elmokit.config import Config, parse_config
from elmokit.errors import FormatError, expect_whole
from elmokit.train.recipe import Recipe

# What a word is spelled with: UTF-8 bytes, the characters that the text holds, or nothing (a table of words).
Unit = Literal["bytes", "characters", "words"]
_LEAST = {
    "min_count": 1, "max_vocab": 1, "evaluate_every": 1, "evaluate_places": 0, "save_every": 1, "patience": 0,
    "processes": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """What a run is told. Of a run that has begun `config` is the final shape and `recipe` is decided.

    texts: files, folders, patterns or "-"; column: of a Parquet file; symbols: every character is a token; start: a
    model to go on from; document_order: sentences are not shuffled; evaluate_every and save_every count updates;
    evaluate_places bounds the held-out places of an evaluation (0: all); patience: evaluations without a better model
    after which the run ends (0: it does not); processes: how many split the text (0: one a processor); new_head: of a
    run that has begun, whether the model that it goes on from had no head.
    """

    texts: list[str]
    config: Config
    recipe: Recipe
    unit: Unit = "bytes"
    heldout: str | None = None
    vocabulary: str | None = None
    start: str | None = None
    min_count: int = 3
    max_vocab: int = 100_000
    tokenize: bool = False
    symbols: bool = False
    column: str | None = None
    document_order: bool = False
    evaluate_every: int = 1000
    evaluate_places: int = 100_000
    save_every: int = 500
    patience: int = 5
    device: str = "auto"
    processes: int = 0
    tensorboard: bool = False
    new_head: bool = False

    def __post_init__(self) -> None:
        """Raise `MismatchError` for counts that nothing can be done with."""
        for name, least in _LEAST.items():
            expect_whole(getattr(self, name), name, least=least)

    def to_json(self) -> dict[str, Any]:
        """Return plain values."""
        return {**asdict(self), "config": self.config.model_dump(), "recipe": asdict(self.recipe)}

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Settings:
        """Make settings of what `to_json` returned; `FormatError` for what it did not."""
        config = parse_config(values["config"], where="the run's settings")
        try:
            return cls(**{**values, "config": config, "recipe": Recipe(**values["recipe"])})
        except TypeError:
            raise FormatError(
                "the run was started by another version of elmokit, whose settings are others; go on with that one"
            ) from None
