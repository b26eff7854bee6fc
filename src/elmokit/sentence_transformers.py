"""`Elmo`: an input module of sentence-transformers, to stand before its `Pooling`.

Axes: B texts, T tokens, C symbols of a token, D width of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from elmokit import model as models
from elmokit.errors import MismatchError, require
from elmokit.nn import ElmoEmbedding, Trainable
from elmokit.reading import words

modules: Any = require("sentence_transformers.base.modules", extra="sentence-transformers")


class Elmo(modules.InputModule):  # type: ignore[misc]  # it is looked up when this is imported
    """Texts to vectors of tokens, for `SentenceTransformer(modules=[Elmo(), Pooling(...)])`.

    `model`: what `elmokit.load` opens, or a model; it must spell words in bytes. `trainable`: "none", "mix" or "all",
    as of `ElmoEmbedding`. `tokenize`: texts are split into words and punctuation (syntok), else at white space.

    A pipeline that was saved is loaded with `SentenceTransformer(folder, trust_remote_code=True)`: that is how
    sentence-transformers asks about every module that is not its own, installed or not.
    """

    config_file_name = "elmo_module.json"  # config.json is the model's
    config_keys = ("trainable", "tokenize")
    save_in_root = False

    def __init__(
        self,
        model: models.Elmo | str | Path | None = None,
        *,
        trainable: Trainable = "all",
        tokenize: bool = True,
    ) -> None:
        super().__init__()
        self.trainable, self.tokenize_texts = trainable, tokenize
        self.embedding = ElmoEmbedding(model, trainable=trainable)
        self.embedding.ids([""])  # refuses a model that does not spell in bytes

    def preprocess(self, inputs: Sequence[str], prompt: str | None = None, **_: Any) -> dict[str, Tensor]:
        """Return `input_ids` (B, T, C) int64 and `attention_mask` (B, T) int64 of texts.

        A text without tokens has one place of zeros, so that every pooling has something to be over.
        """
        for number, text in enumerate(inputs):
            if not isinstance(text, str):
                raise MismatchError(f"text {number}: expected a string, found {text!r}")
        split = words if self.tokenize_texts else str.split
        ids = self.embedding.ids([split((prompt or "") + text) for text in inputs])
        if not ids.shape[1]:
            ids = ids.new_zeros(len(ids), 1, ids.shape[2])
        mask = (ids != 0).any(-1).long()
        mask[:, 0] = 1
        return {"input_ids": ids, "attention_mask": mask}

    def forward(self, features: dict[str, Any], **_: Any) -> dict[str, Any]:
        """Add `token_embeddings` (B, T, D) to the features."""
        vectors, _mask = self.embedding(features["input_ids"])
        missing = features["input_ids"].shape[1] - vectors.shape[1]
        return {**features, "token_embeddings": nn.functional.pad(vectors, (0, 0, 0, missing))}

    def get_embedding_dimension(self) -> int:
        """Width D of a vector."""
        return self.embedding.dim

    def get_config_dict(self) -> dict[str, Any]:
        """Return the options, as they are saved beside the model."""
        return {"trainable": self.trainable, "tokenize": self.tokenize_texts}

    def save(self, output_path: str, *_: Any, **__: Any) -> None:
        """Write the model, as a folder that `elmokit.load` opens too, and the options."""
        self.embedding.to_elmo().save(output_path)
        self.save_config(output_path)

    @classmethod
    def load(cls, model_name_or_path: str, subfolder: str = "", **options: Any) -> Elmo:
        """Read what `save` wrote: a folder, or a repository on the Hugging Face hub."""
        known = ("token", "cache_folder", "revision", "local_files_only")
        hub = {name: options[name] for name in known if name in options}
        config = cls.load_config(model_name_or_path, subfolder=subfolder, **hub)
        return cls(models.load(cls.load_dir_path(model_name_or_path, subfolder=subfolder, **hub)), **config)
