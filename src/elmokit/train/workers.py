"""The processes of a run: one, or those that `torchrun` has started, each with its share of the rows of every batch.

Process 0 prepares the text, evaluates and writes; the others do updates only. They talk through `torch.distributed`:
gloo for what is on a CPU, nccl for what is on a GPU.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.distributed_c10d import PrefixStore
from torch.distributed.rendezvous import rendezvous

from elmokit.errors import MismatchError

T = TypeVar("T")

# Longer than any preparation of a text or evaluation, during which the other processes wait for the first.
_PATIENCE = timedelta(days=3)
# Longer than any update or saving of a state: who waits so long for the others waits in vain.
_TIMEOUT = timedelta(minutes=30)


@dataclass(frozen=True)
class Workers:
    """Which process this is, of how many, and where it computes; `patient`: the group in which the others wait for what
    the first does alone."""

    rank: int = 0
    world: int = 1
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))
    patient: Any = None

    @property
    def is_first(self) -> bool:
        """Whether this process prepares, evaluates and writes."""
        return self.rank == 0

    def share(self, rows: int, *, parts: int = 1) -> slice:
        """Return which rows of a batch are this process's, which reads them in so many equal parts."""
        if rows % self.world:
            raise MismatchError(
                f"a batch of {rows} rows cannot be shared by {self.world} processes; give a --batch-size that "
                f"{self.world} divides"
            )
        size = rows // self.world
        if size % parts:
            raise MismatchError(
                f"the {size} rows that each of {self.world} processes has of a batch of {rows} cannot be read in "
                f"{parts} equal parts; give a --accumulate that divides them"
            )
        return slice(self.rank * size, (self.rank + 1) * size)

    def parallel(self, module: nn.Module, *, some_unused: bool) -> nn.Module:
        """Return the module with its gradients averaged over all processes."""
        if self.world == 1:
            return module
        return nn.parallel.DistributedDataParallel(module, find_unused_parameters=some_unused)

    def from_first(self, value: T | None) -> T:
        """Return what process 0 gave, however long that takes it."""
        if self.world > 1:
            values = [value]
            dist.broadcast_object_list(values, src=0, group=self.patient, device=torch.device("cpu"))
            value = values[0]
        assert value is not None
        return value

    def mean(self, value: float) -> float:
        """Return the mean of all processes' values."""
        return float(self._reduced(torch.tensor(value, dtype=torch.float64))) / self.world

    def any(self, flag: bool) -> bool:
        """Tell whether any process says so."""
        return bool(self._reduced(torch.tensor(float(flag))))

    def _reduced(self, value: Tensor) -> Tensor:
        if self.world > 1:
            dist.all_reduce(value)
        return value

    def all_rows(self, mine: Tensor, *, dim: int) -> Tensor:
        """Return every process's rows, one process after the other along `dim`."""
        if self.world == 1:
            return mine
        parts: list[Any] = [torch.empty_like(mine) for _ in range(self.world)]
        dist.all_gather(parts, mine.contiguous())
        return torch.cat(parts, dim=dim)


@contextmanager
def join(device: str) -> Iterator[Workers]:
    """Join the processes that `torchrun` has started, or be the only one. `device`: "auto", "cpu", "cuda", "cuda:1"."""
    world, local = int(os.environ.get("WORLD_SIZE", "1")), int(os.environ.get("LOCAL_RANK", "0"))
    place = _device(device, local if world > 1 else None)
    if place.type == "cuda":
        torch.cuda.set_device(place)
    if world == 1:
        yield Workers(device=place)
        return
    store, rank, world = next(rendezvous("env://", timeout=_TIMEOUT))
    backend = "cpu:gloo,cuda:nccl" if place.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=_fresh(store), rank=rank, world_size=world, timeout=_TIMEOUT)
    try:
        yield Workers(rank, world, place, dist.new_group(backend="gloo", timeout=_PATIENCE))
    finally:
        gc.collect()  # what still holds the group keeps its threads, which abort a process that ends
        dist.destroy_process_group()


def _fresh(store: Any) -> Any:
    """Return a part of the store that no earlier start has written to: `torchrun` keeps the store, and with it the
    addresses of processes that are gone. On several machines the starts are counted differently, so that there
    TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 has to give every start its own store."""
    if os.environ.get("GROUP_WORLD_SIZE", "1") != "1":
        return store
    return PrefixStore(f"start {_restarts()}", store)


def was_restarted() -> bool:
    """Tell whether `torchrun` has started the processes anew after one was lost."""
    return _restarts() > 0


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


# Of smaller layers a processor gains little by bfloat16: an eighth with the preset `tiny` (docs/benchmarks.md).
_CELLS_FOR_BFLOAT16 = 1024


def gains_by_bfloat16(device: str, cells: int) -> bool:
    """Tell whether products in bfloat16 are faster than in float32 there: on GPUs, and for layers of many cells on
    processors made for it."""
    if _device(device, None).type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    # Not public, and not in every version of torch.
    asks = (getattr(torch.cpu, f"_is_{what}_supported", None) for what in ("avx512_bf16", "amx_tile"))
    return cells >= _CELLS_FOR_BFLOAT16 and any(ask() for ask in asks if ask)


def _device(name: str, local: int | None) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except RuntimeError:
        raise MismatchError(f"the device {name!r} is none; expected auto, cpu, cuda or cuda:1") from None
    if device.type not in ("cpu", "cuda"):
        raise MismatchError(f"the device {name!r} is not one that training knows; expected auto, cpu, cuda or cuda:1")
    if device.type == "cpu":
        return device
    if not torch.cuda.is_available():
        raise MismatchError(f"there is no {name} here; take --device cpu, or a build of torch for CUDA")
    number = local if local is not None else device.index or 0
    if number >= torch.cuda.device_count():
        raise MismatchError(
            f"there are {torch.cuda.device_count()} CUDA devices here, and {name} number {number} is none"
        )
    return torch.device("cuda", number)
