"""Several processes, "ranks", that train one model together.

Either ``torchrun`` started them, on one machine or many, and each runs the user's own script; or
this process is the first and starts the others (:mod:`skdiscovery.training.worker`) for the time of
one run. Ranks are never forked: CUDA does not survive it.
"""

import atexit
import os
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any, Literal, TypeVar
from weakref import WeakKeyDictionary

import torch
import torch.distributed as dist
from torch import Tensor

LOOPBACK = "127.0.0.1"
WORKER = "skdiscovery.training.worker"
# Ranks wait for each other while the first validates. One that dies breaks its connections, which
# the others notice at once.
_TIMEOUT = timedelta(days=1)
# What torchrun sets.
_LAUNCHED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")

# How gloo says that another rank is gone.
_LOST_PEER = re.compile("Connection (closed|reset) by peer|Broken pipe")

# The process groups of trainings that failed. What is raised keeps the model's DDP wrapper, and it
# must not be the last to let go of the group: it would wait, holding the GIL, for the group's
# threads, and one of these may be waiting for the GIL.
_of_failed_trainings: list[dist.ProcessGroup | None] = []

# The place in a process group that outlasts a training, for the next one too: its channel has
# threads and connections that live as long as the process group.
_joined: WeakKeyDictionary[dist.ProcessGroup, "Group"] = WeakKeyDictionary()

Value = TypeVar("Value")


@dataclass(frozen=True)
class Group:
    """The place of this process among the ranks.

    Parameters
    ----------
    rank : int, default=0
        Which one this is.
    size : int, default=1
        How many there are.
    local_size : int, default=1
        How many of them are on this machine.
    channel : ProcessGroup, default=None
        What they talk through on CPUs; gradients go through the default process group.
    """

    rank: int = 0
    size: int = 1
    local_size: int = 1
    channel: dist.ProcessGroup | None = None

    @property
    def is_first(self) -> bool:
        """Whether this is the rank that validates, writes and shows."""
        return self.rank == 0

    def share_of(self, n: int) -> slice:
        """Return this rank's of ``n`` things; the shares differ by one at most.

        Raises
        ------
        ValueError
            If there are more ranks than things.
        """
        if n < self.size:
            raise ValueError(
                f"batch_size={n} is less than one lane for each of {self.size} devices: raise it, "
                "or train on fewer devices."
            )
        return slice(n * self.rank // self.size, n * (self.rank + 1) // self.size)

    def sum(self, tensor: Tensor) -> Tensor:
        """Return the sum of all ranks' tensors."""
        if self.size > 1:
            tensor = tensor.cpu()
            dist.all_reduce(tensor, group=self.channel)
        return tensor

    def any(self, is_so: bool) -> bool:
        """Return whether it is so on any rank."""
        return is_so if self.size == 1 else bool(self.sum(torch.tensor(float(is_so), device="cpu")))

    def from_first(self, value: Value) -> Value:
        """Return the first rank's value, on all ranks."""
        if self.size > 1:
            box = [value]
            dist.broadcast_object_list(box, src=0, group=self.channel)
            (value,) = box
        return value


ALONE = Group()


def count_devices(n_devices: int | Literal["all"], device: torch.device, n_lanes: int) -> int:
    """Return how many ranks to train with; "all" is every GPU, or one process on a CPU.

    Raises
    ------
    ValueError
        If there are not as many devices, or lanes.
    """
    n_gpus = torch.cuda.device_count() if device.type == "cuda" else None
    if n_devices == "all":
        n_devices = n_gpus or 1
    if n_devices > 1 and (device.type not in ("cpu", "cuda") or device.index):
        raise ValueError(
            f"n_devices={n_devices} needs device 'cuda' or 'cpu', got {str(device)!r}."
        )
    if n_gpus is not None and n_devices > n_gpus:
        raise ValueError(f"n_devices={n_devices}, but there are {n_gpus} GPUs.")
    Group(size=n_devices).share_of(n_lanes)
    return n_devices


def n_launched() -> int:
    """Return how many ranks torchrun launched; 0 if it did not start this process."""
    is_launched = all(os.environ.get(name) for name in _LAUNCHED)
    return int(os.environ["WORLD_SIZE"]) if is_launched else 0


def join_launched(device: torch.device) -> tuple[Group, torch.device]:
    """Join the ranks that torchrun launched, for the rest of the process.

    Returns
    -------
    group : Group
        The ranks; this process alone where torchrun did not start it.
    device : torch.device
        What this rank trains on: of the GPUs of its machine, its own.
    """
    if not (n_launched() or dist.is_initialized()):
        return ALONE, device
    if n_launched() and device.type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", 0)))
    if not dist.is_initialized():
        _initialise(device, init_method="env://")
        atexit.register(lambda: dist.is_initialized() and dist.destroy_process_group())
    world = _world()
    if world not in _joined:
        _joined[world] = _group()
    return _joined[world], device


def complete(
    group: Group,
    n_devices: int | Literal["all"],
    device: torch.device,
    n_lanes: int,
    job: Any,
) -> AbstractContextManager[Group]:
    """Start what ranks are still wanted: those that torchrun launched are all there are.

    Parameters are those of :func:`count_devices` and :func:`spawned_ranks`.
    """
    if group is not ALONE:
        return nullcontext(group)
    n_ranks = count_devices(n_devices, device, n_lanes)
    return spawned_ranks(n_ranks, device, job) if n_ranks > 1 else nullcontext(group)


@contextmanager
def spawned_ranks(n_ranks: int, device: torch.device, job: Any) -> Iterator[Group]:
    """Start ``n_ranks - 1`` processes beside this one; stop them at the end.

    Parameters
    ----------
    n_ranks : int
        How many ranks to be, this one included.
    device : torch.device
        The kind of device to train on.
    job : object
        What to tell the others.

    Raises
    ------
    RuntimeError
        If one of them fails; the message has its error.
    """
    n_threads = torch.get_num_threads()
    workers: list[_Worker] = []
    is_over = threading.Event()
    try:
        if device.type == "cpu":
            torch.set_num_threads(max(1, n_threads // n_ranks))
        store = open_store(n_ranks)
        for rank in range(1, n_ranks):
            workers.append(_Worker(rank, n_ranks, store.port, device))
        _wait_until_ready(store, workers)
        _initialise(_of_rank(device, 0), store=store, rank=0, world_size=n_ranks)
        group = _group()
        group.from_first(job)
        if device.type == "cuda":
            _start_watch(workers, _world().abort, is_over)
        yield group
        # While the others are there: they do it too, and NCCL may wait for them.
        dist.destroy_process_group()
    except BaseException as error:
        if dist.is_initialized():
            _of_failed_trainings.append(dist.group.WORLD)
            if device.type == "cuda":
                _world().abort()  # for it would wait for those that are stopped below
        if isinstance(error, RuntimeError):
            _raise_first_failure(workers, error)
        raise
    finally:
        is_over.set()
        for worker in workers:
            worker.stop()
        if dist.is_initialized():
            dist.destroy_process_group()
        torch.set_num_threads(n_threads)


@contextmanager
def joined_as_worker(
    rank: int, n_ranks: int, port: int, device: torch.device
) -> Iterator[tuple[Group, Any]]:
    """Join the process that started this one, and give what it says."""
    store = open_store(n_ranks, port)
    store.set(_ready_key(rank), "")
    _initialise(device, store=store, rank=rank, world_size=n_ranks)
    group = _group()
    yield group, group.from_first(None)
    dist.destroy_process_group()


def open_store(n_ranks: int, port: int | None = None) -> dist.TCPStore:
    """Return the store through which ranks find each other: a new one, or the one at a port."""
    return dist.TCPStore(
        LOOPBACK,
        port or 0,
        n_ranks,
        is_master=port is None,
        wait_for_workers=False,
        use_libuv=False,  # for Windows and Debian build torch without it
    )


class _Worker:
    """A process of :mod:`skdiscovery.training.worker`."""

    def __init__(self, rank: int, n_ranks: int, port: int, device: torch.device):
        self.rank = rank
        self.log: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115
        arguments = (rank, n_ranks, port, _of_rank(device, rank))
        self.process = subprocess.Popen(
            [sys.executable, "-m", WORKER, *map(str, arguments)],
            stdin=subprocess.PIPE,  # nothing is written: it ends when this process does
            stdout=self.log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C is for the first rank, which stops the others
            env={
                **os.environ,
                "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                "OMP_NUM_THREADS": str(torch.get_num_threads()),
            },
        )

    @property
    def failed(self) -> bool:
        return self.process.poll() not in (None, 0)

    def report(self) -> str:
        """Return what it wrote before it failed."""
        self.log.seek(0)
        text = self.log.read().decode(errors="replace").strip()
        return f"Rank {self.rank} failed (exit status {self.process.returncode}).\n{text[-4000:]}"

    def stop(self) -> None:
        self.process.kill()
        self.process.communicate()
        self.log.close()


def _world() -> dist.ProcessGroup:
    """Return the process group that gradients go through, once it is initialised."""
    assert dist.group.WORLD is not None
    return dist.group.WORLD


def _wait_until_ready(store: dist.TCPStore, workers: list[_Worker]) -> None:
    while not all(store.check([_ready_key(worker.rank)]) for worker in workers):
        for worker in workers:
            if worker.process.poll() is not None:
                raise RuntimeError(worker.report())
        time.sleep(0.05)


def _start_watch(
    workers: list[_Worker], abort: Callable[[], None], is_over: threading.Event
) -> None:
    """Abort what waits for a worker that failed: unlike gloo, NCCL would not notice."""

    def watch() -> None:
        while not is_over.wait(0.2):
            if any(worker.failed for worker in workers):
                abort()
                return

    threading.Thread(target=watch, daemon=True).start()


def _raise_first_failure(workers: list[_Worker], error: RuntimeError) -> None:
    """Raise the error of the rank that broke the connections, unless it was this one."""
    deadline = time.monotonic() + 3
    while time.monotonic() < deadline:
        # Those that failed because of another say so; the one that says something else was first.
        failed = [worker.report() for worker in workers if worker.failed]
        first = [report for report in failed if not _LOST_PEER.search(report)]
        if first:
            raise RuntimeError(first[0]) from error
        time.sleep(0.05)


def _of_rank(device: torch.device, rank: int) -> torch.device:
    return torch.device("cuda", rank) if device.type == "cuda" else device


def _ready_key(rank: int) -> str:
    return f"skdiscovery/ready/{rank}"


def _initialise(device: torch.device, **how: Any) -> None:
    if device.type == "cuda":
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo", timeout=_TIMEOUT, **how)


def _group() -> Group:
    """Return this process's place in the process group that there is."""
    channel = dist.new_group(backend="gloo", timeout=_TIMEOUT)
    size = dist.get_world_size()
    local_size = int(os.environ.get("LOCAL_WORLD_SIZE", size)) if n_launched() else size
    return Group(dist.get_rank(), size, local_size, channel)
