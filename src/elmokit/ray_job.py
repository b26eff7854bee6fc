"""The embed job on a Ray cluster: texts through models on several machines into one folder of Parquet parts.

Readers cut texts into blocks of sentences, workers that hold the model write a part for each block, and one line about
it comes back here. What makes that safe lies in `sinks.parts`, not in Ray: a part has its name when it is whole, the
name follows from the block, and a block whose part is there is not computed again. So Ray may run anything twice.
"""

from __future__ import annotations

import json
import math
import os
import socket
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cached_property, partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias

import torch
from tqdm import tqdm

from elmokit import errors
from elmokit.checkpoint import write_native
from elmokit.errors import ElmoError, MismatchError, OutputError, TextError, require
from elmokit.job import Summary, asked_for
from elmokit.model import Elmo, Layers, Pool, Precision, load
from elmokit.reading import expand, read_sentences

ray = require("ray", extra="ray")  # before the parts, which need what comes with it
data = require("ray.data", extra="ray")

from elmokit.sinks.parts import MODEL, Block, Parts, open_folder, publish  # noqa: E402 - a plain error must come first

# What Ray passes from stage to stage, a row for each block.
Row: TypeAlias = dict[str, Any]

# Groups of texts that readers take one after the other; each costs Ray a moment and some memory.
_MOST_GROUPS = 1000


def embed_texts(
    texts: str | Sequence[str],
    out: str | Path,
    *,
    elmo: Elmo,
    address: str = "local",
    workers: int | None = None,
    threads: int = 1,
    device: Literal["cpu", "cuda"] = "cpu",
    layers: Layers = "average",
    pool: Pool = "none",
    state: Literal["fresh", "warm"] = "fresh",
    batch_size: int | None = None,
    dtype: Literal["float32", "float16"] = "float32",
    tokenize: bool = False,
    symbols: bool = False,
    column: str | None = None,
    resume: bool = False,
    force: bool = False,
    save_every: int = 10_000,
    progress: bool = True,
) -> Summary:
    """Write the vectors of texts (files, folders, patterns) to a folder `out` of Parquet parts, on a Ray cluster.

    The rows are those of `job.embed_file`, with the column `text`, the file's name, beside the number of the sentence.
    Each part holds `save_every` sentences of one text. Texts and `out` must lie where every machine of the cluster
    finds them under the same path.

    `address`: "local" starts a cluster of this machine alone, "auto" joins the one that this machine is part of,
    "host:port" another; where this process is connected already, that connection is used. `workers`: models at work;
    by default one for each GPU, or for each `threads` processors; several may share a GPU. Each computes on `device`
    with the precision of `elmo`, which is itself used only to write the model for the others.

    While it runs, everything is in OUT.partial; after an interruption of this process `resume` goes on with the blocks
    that are missing. `force` replaces `out`. Errors are those of `embed_file`; Ray's own are told as `OutputError`.
    """
    start = time.monotonic()
    names = _found([texts] if isinstance(texts, str) else texts)
    _check_options(address, device=device, state=state)
    chosen: dict[str, Any] = {"layers": layers, "pool": pool, "state": state, "batch_size": batch_size}
    reading: dict[str, Any] = {"tokenize": tokenize, "symbols": symbols, "column": column}
    spec, settings = asked_for(elmo, chosen, reading, dtype=dtype, save_every=save_every)
    with open_folder(Path(out).absolute(), {**settings, "texts": names}, resume=resume, force=force) as folder:
        parts = Parts(folder, names, spec)
        _write_model(elmo, folder / MODEL)
        worker = partial(_Worker, parts, chosen, device=device, precision=_precision(elmo), threads=threads)
        read = partial(_read, parts=parts, paths=[str(Path(n).absolute()) for n in names], size=save_every, **reading)
        with _connected(address):
            rows = _rows(read, worker, texts=len(names), workers=workers or _room(device, threads), device=device)
            blocks, summary = _collect(rows, texts=len(names), progress=progress)
        if not summary.sentences:
            raise TextError(f"{', '.join(names[:3])}: no sentence in {len(names)} texts; there is nothing to embed")
        publish(parts, Path(out).absolute(), blocks)
    return replace(summary, seconds=time.monotonic() - start)


# ---------------------------------------------------------------- before Ray


def _found(texts: Sequence[str]) -> list[str]:
    if "-" in texts:
        raise TextError("standard input cannot be read again where a worker is lost; write it to a file for --ray")
    names = expand(texts)
    for name in names:
        if not Path(name).exists():
            raise TextError(f"{name} cannot be read (there is no such file); check the name")
    return names


def _check_options(address: str, *, device: str, state: str) -> None:
    if address.startswith("ray://"):
        raise MismatchError(
            f"the address {address} is that of Ray's client, which only passes calls on: run this on a machine of the "
            "cluster with the address auto"
        )
    if device not in ("cpu", "cuda"):
        raise MismatchError(f"device: expected 'cpu' or 'cuda', found {device!r}; Ray chooses the GPU of each worker")
    if state not in ("fresh", "warm"):
        raise MismatchError(
            f"state: expected 'fresh' or 'warm', found {state!r}; blocks are computed apart, so no state is carried "
            "from one to the next"
        )


def _precision(elmo: Elmo) -> Precision:
    return "bfloat16" if next(elmo.network.parameters()).dtype == torch.bfloat16 else "float32"


def _write_model(elmo: Elmo, folder: Path) -> None:
    """Write what the workers compute with; a softmax head may be larger than all of it, and is left out."""
    whole = elmo.checkpoint()
    arrays = {name: array for name, array in whole.arrays.items() if not name.startswith("softmax.")}
    words = whole.vocabulary if whole.config.word_dim else None
    write_native(replace(whole, arrays=arrays, vocabulary=words), folder)


# ---------------------------------------------------------------- Ray


@contextmanager
def _connected(address: str) -> Iterator[None]:
    """Join a cluster, or start one, and leave it at the end; a connection that the caller made stays."""
    if ray.is_initialized():
        yield
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # a cluster started here reports nothing to Ray's makers
    new: dict[str, Any] = {"include_dashboard": False} if address == "local" else {}
    try:
        _knock(address)
        ray.init(address=address, logging_level="error", log_to_driver=False, **new)
    except (OSError, RuntimeError, ValueError) as error:
        raise OutputError(
            f"no Ray cluster answers at {address} ({_first_line(error)}): start one with  ray start --head , or take "
            "the address local"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


def _knock(address: str) -> None:
    """Raise OSError where nobody listens at host:port; Ray would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host.strip("[]"), int(port)), timeout=10).close()


def _room(device: str, threads: int) -> int:
    """Return how many workers the cluster has room for."""
    return _gpus() if device == "cuda" else max(1, int(ray.cluster_resources().get("CPU", 1) // threads))


def _gpus() -> int:
    if found := int(ray.cluster_resources().get("GPU", 0)):
        return found
    raise MismatchError("device 'cuda' cannot be used (no machine of the cluster has a GPU); compute on the CPU")


def _share(workers: int) -> float:
    """Return each worker's share of a GPU: more workers than GPUs take turns, one computing while another writes."""
    return 1 / math.ceil(workers / _gpus())


def _rows(
    read: partial[Iterator[Row]], worker: partial[_Worker], *, texts: int, workers: int, device: str
) -> Iterator[Row]:
    """Yield the rows of all blocks as they are done; nothing is computed before the first is asked for."""
    source = data.from_items(
        [{"text": number} for number in range(texts)], override_num_blocks=min(texts, _MOST_GROUPS)
    )
    source.context.target_max_block_size = 1  # bytes: each of our blocks travels alone, whichever worker is free
    source.context.enable_progress_bars = source.context.print_on_execution_start = False
    # Readers ask for no processor: they must never wait for one that workers hold, who wait for them.
    readers = data.TaskPoolStrategy(size=min(texts, workers))
    blocks = source.flat_map(read, compute=readers, num_cpus=0)
    done = blocks.map(
        _Worker,
        fn_constructor_args=worker.args,
        fn_constructor_kwargs=worker.keywords,
        compute=data.ActorPoolStrategy(size=workers),
        num_cpus=worker.keywords["threads"],
        num_gpus=_share(workers) if device == "cuda" else None,
    )
    return _told_plainly(done)


def _told_plainly(rows: Any) -> Iterator[Row]:
    try:
        yield from rows.iter_rows()
    except ray.exceptions.RayError as error:
        raise OutputError(
            f"the job on Ray failed ({_first_line(error)}); finished parts are safe: run again with --resume"
        ) from error


def _first_line(error: BaseException) -> str:
    return str(error).strip().split("\n")[0] or type(error).__name__


def _collect(rows: Iterable[Row], *, texts: int, progress: bool) -> tuple[list[int], Summary]:
    """Return how many blocks each text has, and a summary without the time."""
    blocks = [0] * texts
    counts = {"sentences": 0, "tokens": 0, "resumed_sentences": 0, "resumed_tokens": 0}
    with tqdm(unit=" sentences", disable=not progress) as bar:
        for row in rows:
            if row["error"]:
                raise _error(row["error"])
            blocks[row["text"]] += row["sentences"] > 0
            for name in ("sentences", "tokens"):
                counts[name] += row[name]
                counts[f"resumed_{name}"] += row[name] * row["ready"]
            bar.update(row["sentences"])
    return blocks, Summary(**counts, seconds=0.0)


def _error(told: str) -> ElmoError:
    kind, sentence = told.split(": ", 1)
    found: ElmoError = getattr(errors, kind)(sentence)
    return found


# ---------------------------------------------------------------- on the cluster


def _read(row: Row, *, parts: Parts, paths: Sequence[str], size: int, **reading: Any) -> Iterator[Row]:
    """Yield a row for each block of a text, without its sentences where its part is there.

    How many rows come does not depend on what is there, because Ray counts them when it runs this again.
    """
    text = int(row["text"])
    first = 0
    try:
        sentences = read_sentences(paths[text], **reading)
        while taken := list(islice(sentences, size)):
            block = Block(text, first // size, first, json.dumps(taken, ensure_ascii=False).encode())
            ready = parts.holds(block)
            yield _row(block, sentences=len(taken), tokens=sum(map(len, taken)), ready=ready)
            first += len(taken)
    except ElmoError as error:
        yield _row(Block(text, 0, 0, b""), error=error)


def _row(
    block: Block, *, sentences: int = 0, tokens: int = 0, ready: bool = False, error: ElmoError | None = None
) -> Row:
    return {
        "text": block.text,
        "block": block.number,
        "first": block.first,
        "content": b"" if ready else block.content,
        "sentences": sentences,
        "tokens": tokens,
        "ready": ready,
        # Told in a row: an exception would stop Ray with pages of its own words.
        "error": f"{type(error).__name__}: {error}" if error else "",
    }


class _Worker:
    """A process that holds the model and writes the part of one block after the other."""

    def __init__(
        self, parts: Parts, options: dict[str, Any], *, device: str, precision: Precision, threads: int
    ) -> None:
        self.parts, self.options = parts, options
        self.device, self.precision, self.threads = device, precision, threads

    @cached_property
    def elmo(self) -> Elmo:
        """The model, opened with the first block, where an error can be told in a row."""
        torch.set_num_threads(self.threads)
        return load(self.parts.folder / MODEL, device=self.device, precision=self.precision)

    def __call__(self, row: Row) -> Row:
        """Return the row without its sentences, their part written."""
        block = Block(int(row["text"]), int(row["block"]), int(row["first"]), row["content"])
        told = {**row, "content": b""}
        try:
            # Its part may be there by now: a worker was lost after it wrote and before it answered.
            if block.content and not self.parts.holds(block):
                self.parts.write(block, self.elmo.embed(block.sentences, **self.options))
        except ElmoError as error:
            told["error"] = f"{type(error).__name__}: {error}"
        return told
