"""Our own format: a folder of config.json, model.safetensors, vocab.txt, chars.txt and README.md, or a zip of these."""

from __future__ import annotations

import tempfile
import zipfile
from io import BytesIO
from pathlib import Path

from elmokit.checkpoint import (
    CARD,
    CHARACTERS,
    CONFIG,
    VOCABULARY,
    WEIGHTS,
    Checkpoint,
    read_native,
    replace_file,
    write_native,
    written_folder,
)
from elmokit.errors import FormatError
from elmokit.formats.files import Files, one_place, outermost
from elmokit.stored import StoredDtype

# The only names under which members of an archive are ever unpacked.
_NAMES = (CONFIG, WEIGHTS, VOCABULARY, CHARACTERS, CARD)


def recognises(files: Files) -> bool:
    """Tell by content whether a model of ours is here."""
    return bool(_tops(files))


def read(files: Files) -> Checkpoint:
    """Read the model; `recognises` must have said yes."""
    top = one_place(_tops(files), where=files.where)
    if files.folder is not None:
        return read_native(files.folder / top)
    with tempfile.TemporaryDirectory() as scratch:
        for name in _NAMES:
            if f"{top}{name}" in files.sizes:
                Path(scratch, name).write_bytes(files.read(f"{top}{name}", limit=1 << 34))
        try:
            return read_native(scratch)
        except FormatError as error:
            raise FormatError(str(error).replace(scratch, files.where)) from None


def _tops(files: Files) -> list[str]:
    """Return the outermost folders, "" or ending in "/", that hold both our files."""
    tops = (name.removesuffix(CONFIG) for name in files.find(CONFIG))
    return outermost([top for top in tops if f"{top}{WEIGHTS}" in files.sizes])


def write_file(checkpoint: Checkpoint, path: Path, *, dtype: StoredDtype = "float32") -> None:
    """Write the same files into one zip, not compressed: weights are noise."""
    content = BytesIO()
    with tempfile.TemporaryDirectory() as scratch, zipfile.ZipFile(content, "w", zipfile.ZIP_STORED) as archive:
        write_native(checkpoint, scratch, dtype=dtype)
        for name in _NAMES:
            if (member := Path(scratch, name)).exists():
                # A fixed date, so that the same model is the same file.
                archive.writestr(zipfile.ZipInfo(name), member.read_bytes())
    with written_folder(path.parent):
        replace_file(path, content.getvalue())
