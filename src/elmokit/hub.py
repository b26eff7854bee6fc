"""Models on the Hugging Face hub: fetch a repository's model files, send a model folder."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elmokit.checkpoint import CARD, CHARACTERS, CONFIG, VOCABULARY, WEIGHTS, read_bytes, read_json
from elmokit.errors import DownloadError, FormatError, UnknownModel
from elmokit.formats import softmax

if TYPE_CHECKING:
    from huggingface_hub import CommitOperationAdd

OPTIONS = "options.json"
# What a model is: our folder, or AllenNLP's files. Nothing else is fetched or sent, pickles least of all.
_DESCRIPTIONS = [CONFIG, OPTIONS]
_FILES = [CONFIG, WEIGHTS, VOCABULARY, CHARACTERS, CARD, OPTIONS, "*.hdf5", softmax.WEIGHTS]

_TAGS = "---\nlibrary_name: elmokit\ntags:\n- elmo\n- word-embeddings\n---\n\n"


def is_repo_id(text: str) -> bool:
    """Whether `text` could name a repository of the hub: "user/name"."""
    return re.fullmatch(r"[\w.-]+/[\w.-]+", text, re.ASCII) is not None and not text.startswith(".")


def resolve(repo: str, *, revision: str | None = None, offline: bool = False, token: str | None = None) -> Path:
    """Return a local folder with the model of a hub repository, fetching what the hub's cache does not hold.

    `revision`: branch, tag or commit. `offline`: use the cache only, as with HF_HUB_OFFLINE=1. Raises `UnknownModel`
    (no such repository or revision), `DownloadError` (not reachable, or not in the cache), `FormatError` (no ELMo).
    """
    described = _snapshot(repo, revision, _DESCRIPTIONS, offline=offline, token=token)
    _check_described(described, repo)  # before gigabytes of something else come
    folder = _snapshot(repo, described.name, _FILES, offline=offline, token=token)  # its name is the commit
    if not _is_model(folder):
        raise FormatError(f"{repo} on the hub holds {_names(folder)}, expected {_expected()}")
    return folder


def push(folder: str | Path, repo: str, *, private: bool = False, token: str | None = None, message: str = "") -> str:
    """Send the model in `folder` to a hub repository, made if it is not there; return the address of the commit.

    The card (README.md) goes with it, tagged for the hub. Raises `FormatError` where `folder` holds no model,
    `DownloadError` where the hub refuses or cannot be reached.
    """
    folder = Path(folder)
    if not _is_model(folder):
        raise FormatError(f"{folder} holds {_names(folder)}, expected {_expected()}")
    from huggingface_hub import HfApi

    api = HfApi(endpoint=_endpoint(), token=token, library_name="elmokit")
    with _explained(repo):
        api.create_repo(repo, private=private, exist_ok=True)
        done = api.create_commit(repo, _operations(folder, repo), commit_message=message or "Send with elmokit")
    return str(done.commit_url)


# ---------------------------------------------------------------- fetching


def _endpoint() -> str | None:
    """Return HF_ENDPOINT as it is now, not as it was when the library was imported."""
    return os.environ.get("HF_ENDPOINT") or None


def _snapshot(repo: str, revision: str | None, patterns: list[str], *, offline: bool, token: str | None) -> Path:
    from huggingface_hub import is_offline_mode, snapshot_download

    offline = offline or is_offline_mode()
    with _explained(repo, revision=revision, offline=offline):
        return Path(
            snapshot_download(
                repo,
                revision=revision,
                allow_patterns=patterns,
                local_files_only=offline,
                token=token,
                endpoint=_endpoint(),
                library_name="elmokit",
            )
        )


def _check_described(folder: Path, repo: str) -> None:
    if (folder / OPTIONS).is_file():
        return
    config: Any = None
    if (folder / CONFIG).is_file():
        config = read_json(read_bytes(folder / CONFIG), where=f"{repo} on the hub, {CONFIG}")
    if not isinstance(config, dict) or config.get("model_type") != "elmo":
        raise FormatError(f"{repo} on the hub is no ELMo: expected {_expected()}")


def _is_model(folder: Path) -> bool:
    """Whether a folder holds our two files, or AllenNLP's."""
    if (folder / CONFIG).is_file() and (folder / WEIGHTS).is_file():
        return True
    return (folder / OPTIONS).is_file() and any(folder.glob("*.hdf5"))


def _expected() -> str:
    return f"{CONFIG} with {WEIGHTS}, or {OPTIONS} with an HDF5 file of weights"


def _names(folder: Path) -> str:
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    return ", ".join(names[:8]) or "nothing"


@contextmanager
def _explained(repo: str, *, revision: str | None = None, offline: bool = False) -> Iterator[None]:
    """Turn the many errors of the hub's library into one sentence of ours."""
    from huggingface_hub import errors

    try:
        yield
    except errors.HFValidationError:
        raise UnknownModel(f"{repo!r} cannot name a repository of the hub; expected user/name") from None
    except errors.RevisionNotFoundError:
        raise UnknownModel(f"{repo} on the hub has no revision {revision!r}; look at its branches and tags") from None
    except errors.GatedRepoError:
        raise DownloadError(f"{repo} on the hub asks for consent; give it there, then pass a token") from None
    except errors.RepositoryNotFoundError:
        raise UnknownModel(
            f"there is no repository {repo} on the hub that you may see; check it, or pass a token"
        ) from None
    except errors.LocalEntryNotFoundError as error:
        if offline:
            raise DownloadError(
                f"{repo} is not in the hub's cache, and this is offline; fetch it online once"
            ) from None
        raise DownloadError(f"{repo} cannot be fetched from the hub ({_line(error)}); try again later") from None
    except Exception as error:  # of HTTP, of the system, of hf_xet, ValueError, RuntimeError: they share no base
        raise DownloadError(f"the hub did not do as asked for {repo} ({_line(error)}); try again later") from None


def _line(error: BaseException) -> str:
    """Return what is said in one line of an error's text, at most 200 characters."""
    return " ".join(str(error).split())[:200] or type(error).__name__


# ---------------------------------------------------------------- sending


def _operations(folder: Path, repo: str) -> list[CommitOperationAdd]:
    from huggingface_hub import CommitOperationAdd

    paths = sorted(path for pattern in _FILES for path in folder.glob(pattern) if path.name != CARD)
    files = [CommitOperationAdd(path_in_repo=path.name, path_or_fileobj=path) for path in paths]
    return [*files, CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=_card(folder, repo).encode())]


def _card(folder: Path, repo: str) -> str:
    """Return the model's card with what the hub sorts by at its top."""
    text = read_bytes(folder / CARD).decode("utf-8", "replace") if (folder / CARD).is_file() else ""
    if text.startswith("---\n"):
        return text
    opened = f'Open it with `elmokit.load("{repo}")`.\n'
    return _TAGS + (text or f"# {repo.rpartition('/')[2]}\n\nAn ELMo model. {opened}")
