"""What a run keeps on disk beside the model, in OUT/training: its settings, its state, its log."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from elmokit.checkpoint import read_json, replace_file
from elmokit.errors import FormatError, OutputError

# In the settings file: what the run was told, before its shape and its recipe were decided.
_TOLD = "told"


class SavedRun:
    """The folder of one run. Every file in it is replaced whole or not at all."""

    def __init__(self, out: Path) -> None:
        self.folder = out / "training"
        self.settings_file = self.folder / "settings.json"
        self.state_file = self.folder / "state.safetensors"
        self.log_file = self.folder / "log.jsonl"
        self.corpus_folder = self.folder / "corpus"

    def exists(self) -> bool:
        """Tell whether a run has been started here."""
        return self.settings_file.is_file()

    def may_begin(self) -> bool:
        """Tell whether a run may start here: nothing is there but what a run leaves that ended before it had begun."""
        out = self.folder.parent
        return not out.exists() or (out.is_dir() and all(path == self.folder for path in out.iterdir()))

    def write_settings(self, settings: dict[str, Any], told: dict[str, Any]) -> None:
        """Write the settings of the run and what they were when it was told; from now on there is a run here."""
        self._replace(self.settings_file, json.dumps({**settings, _TOLD: told}, indent=2).encode() + b"\n")

    def read_settings(self) -> dict[str, Any]:
        """Read the settings of the run."""
        settings = self._read_settings()
        settings.pop(_TOLD, None)
        return settings

    def was_told(self, told: dict[str, Any]) -> bool:
        """Tell whether the run here, if there is one, was told just this."""
        return self.exists() and self._read_settings().get(_TOLD) == json.loads(json.dumps(told))

    def _read_settings(self) -> dict[str, Any]:
        settings = read_json(self.settings_file.read_bytes(), where=str(self.settings_file))
        if not isinstance(settings, dict) or not {"config", "recipe", "texts"} <= settings.keys():
            raise FormatError(f"{self.settings_file} is not the settings of a run; start a new one in another folder")
        return settings

    def write_state(self, tensors: dict[str, Tensor], progress: dict[str, Any]) -> None:
        """Replace the saved state; on a full disk the former one stays."""
        with self._writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: t.contiguous().cpu() for name, t in tensors.items()}
        self._replace(self.state_file, save(tensors, {"progress": json.dumps(progress)}))

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Read the saved state: tensors and progress."""
        try:
            with safe_open(self.state_file, framework="pt") as file:
                tensors: dict[str, torch.Tensor] = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
                progress = json.loads((file.metadata() or {}).get("progress", "null"))
        except (SafetensorError, OSError, ValueError) as error:
            raise FormatError(
                f"{self.state_file} is not a whole saved state ({error}); start the run again in another folder"
            ) from None
        if not isinstance(progress, dict):
            raise FormatError(f"{self.state_file} is not a saved state; start the run again in another folder")
        return tensors, progress

    def write_beside(self, name: str, content: bytes) -> None:
        """Replace a file of the model, in the folder above."""
        self._replace(self.folder.parent / name, content)

    def log(self, **entry: float | str) -> None:
        """Append one line of JSON to the log; a last line that was cut stays alone."""
        with self._writing(self.log_file), self.log_file.open("ab+") as file:
            cut = file.tell() > 0 and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n"
            file.write(b"\n" * cut + json.dumps(entry).encode() + b"\n")

    def _replace(self, path: Path, content: bytes) -> None:
        with self._writing(path):
            replace_file(path, content)

    @contextmanager
    def _writing(self, path: Path) -> Iterator[None]:
        """Say of a file that cannot be written which it is and how the run goes on."""
        try:
            yield
        except OSError as error:
            advice = (
                "the last saved state is whole: make room, then run again with --resume"
                if self.exists()
                else "make room, then start the run again"
            )
            raise OutputError(f"{path} cannot be written ({error.strerror or error}); {advice}") from None
