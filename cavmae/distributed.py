"""The processes of a run: one alone, or the ranks that torchrun or Slurm's srun started."""

from __future__ import annotations

import atexit
import gc
import os
import re
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
import torch.distributed.nn
from torch import Tensor

from avprep.errors import UserError, WorkFailed, out_of_memory

Result = TypeVar("Result")
_ASKING_SECONDS = 0.05
_FIRST_PORT, _PORTS = 20000, 12000  # below those that Linux gives to outgoing connections

# Groups that ended, until the process does, see `_let_go`.
_ended: list[dist.ProcessGroup] = []


@dataclass(frozen=True)
class World:
    """This process among its peers."""

    rank: int
    size: int
    device: torch.device

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files."""
        return self.rank == 0

    def sum(self, values: list[float]) -> list[float]:
        """Element-wise sum over all ranks."""
        return [sum(column) for column in zip(*self.exchange(values), strict=True)]

    def exchange(self, values: list[float]) -> list[list[float]]:
        """Every rank's numbers, as many as this one's, in rank order, on every rank.

        They pass from CPU to CPU, so that nothing waits for what a GPU was given.
        """
        if self.size == 1:
            return [values]
        own = torch.tensor(values, dtype=torch.float64)
        everyone = [torch.empty_like(own) for _ in range(self.size)]
        dist.all_gather(everyone, own)
        return [theirs.tolist() for theirs in everyone]

    def any(self, flag: bool) -> bool:
        """Whether the flag is set on any rank; all ranks get the same answer."""
        return self.sum([float(flag)])[0] > 0

    def gather(self, value: Any) -> list[Any]:
        """Every rank's value, in rank order, on every rank."""
        if self.size == 1:
            return [value]
        values: list[Any] = [None] * self.size
        dist.all_gather_object(values, value)
        return values

    def raise_together(self, failure: Exception | None) -> None:
        """Raise on every rank what ends one of them; the others give None."""
        if error := next(filter(None, self.gather(failure)), None):
            raise error

    def on_main(self, work: Callable[[], object]) -> None:
        """Let one rank do what is done once; what ends it there ends every rank."""
        self.gather_results(lambda: work() if self.is_main else None)

    def gather_results(self, work: Callable[[], Result]) -> list[Result]:
        """What a piece of work gives on every rank, in rank order, on every rank.

        Raises:
            UserError, WorkFailed: what ended it on one of them; on every rank, so that none waits
                for ever.
        """
        result: Result | None = None
        failure: UserError | WorkFailed | None = None
        try:
            result = work()
        except (UserError, WorkFailed) as error:
            failure = error
        self.raise_together(failure)
        return self.gather(result)

    def barrier(self) -> None:
        """Wait for all ranks."""
        if self.size > 1:
            dist.barrier()

    def gather_rows(self, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """The rows [B, D] of all ranks, in rank order, with gradient.

        Args:
            rows: of this rank.
            counts: B of each rank.
        """
        padded = torch.cat([rows, rows.new_zeros(max(counts) - len(rows), rows.shape[1])])
        parts = torch.distributed.nn.functional.all_gather(padded)
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


@dataclass(frozen=True)
class Launch:
    """How this process was started among others.

    Attributes:
        rank: of this process, over all machines.
        size: number of processes.
        local_rank: among those of this machine; decides the GPU.
        meeting: URL of the place where they find each other; None where `env://` says it.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    meeting: str | None = None


def read_launch(environment: Mapping[str, str]) -> Launch:
    """What torchrun (or anything that sets its variables) says, else srun, else one process.

    Raises:
        UserError: the variables contradict each other.
    """
    try:
        if "WORLD_SIZE" in environment:
            return Launch(
                int(environment["RANK"]),
                int(environment["WORLD_SIZE"]),
                int(environment.get("LOCAL_RANK", "0")),
            )
        # Only srun sets it. A batch script that starts the command without srun has the number of
        # tasks that were asked for, but is one process and must not wait for the others.
        if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) == 1:
            return Launch()
        host = environment.get("MASTER_ADDR") or first_host(environment["SLURM_STEP_NODELIST"])
        # Jobs that share a machine must not meet at the same port.
        port = environment.get("MASTER_PORT") or str(
            _FIRST_PORT + int(environment["SLURM_JOB_ID"]) % _PORTS
        )
        return Launch(
            int(environment["SLURM_PROCID"]),
            int(environment["SLURM_STEP_NUM_TASKS"]),
            int(environment["SLURM_LOCALID"]),
            f"tcp://{host}:{port}",
        )
    except (KeyError, ValueError) as error:
        raise UserError(
            f"RANK and WORLD_SIZE, or the SLURM_ variables, are incomplete or wrong ({error!r}). "
            "Start the processes with torchrun or srun."
        ) from error


def is_main_process() -> bool:
    """Whether this process is the one of those started together that speaks for all."""
    return read_launch(os.environ).rank == 0


def first_host(nodes: str) -> str:
    """The first machine of a Slurm list: `gpu[07-09,12],x3` → `gpu07`."""
    first = re.match(r"(?:[^,\[]|\[[^\]]*\])+", nodes)
    if first is None:
        raise ValueError(nodes)
    return re.sub(r"\[([^\],-]*)[^\]]*\]", r"\1", first.group())


@contextmanager
def joined_world(device: str, batch_size: int = 1) -> Iterator[World]:
    """Join the ranks that were started together, if any were, for the length of a block.

    Within another such block they are joined already, and stay so until that ends.

    Args:
        device: see `choose_device`.
        batch_size: of the block's work.

    Raises:
        UserError: see `read_launch` and `choose_device`.
        WorkFailed: memory ran out, of the device or of this machine.
    """
    advice = "Use a smaller one, fewer --workers, or another --device."
    with _joined(device) as world, memory_for(batch_size, lambda: advice):
        yield world


@contextmanager
def memory_for(batch_size: int, advice: Callable[[], str]) -> Iterator[None]:
    """For a block that needs more memory the larger its batches are.

    Raises:
        WorkFailed: memory ran out, of a GPU or of this machine; with the advice.
    """
    try:
        yield
    except (OSError, RuntimeError, MemoryError) as error:
        if reason := out_of_memory(error):
            raise WorkFailed(
                f"out of memory with --batch-size {batch_size} ({reason}). {advice()}"
            ) from error
        raise


@contextmanager
def _joined(device: str) -> Iterator[World]:
    launch = read_launch(os.environ)
    chosen = choose_device(device, launch.local_rank)
    if launch.size == 1 or dist.is_initialized():
        yield World(launch.rank, launch.size, chosen)
        return
    if chosen.type == "cuda":
        torch.cuda.set_device(chosen)
    meeting = launch.meeting or "env://"
    store, *_ = next(dist.rendezvous(meeting, launch.rank, launch.size))
    dist.init_process_group(
        "cpu:gloo,cuda:nccl" if chosen.type == "cuda" else "gloo",
        store=_fresh_part(store, launch),
        rank=launch.rank,
        world_size=launch.size,
        device_id=chosen if chosen.type == "cuda" else None,
    )
    try:
        yield World(launch.rank, launch.size, chosen)
    finally:
        if dist.group.WORLD is not None:
            _ended.append(dist.group.WORLD)
        dist.destroy_process_group()


def _fresh_part(store: dist.Store, launch: Launch) -> dist.Store:
    """A part of the store that nobody has written to; the same on all ranks.

    When torchrun starts the ranks again, it keeps the store with the addresses of the dead, for
    which a rank would wait. So the first rank names a part of its own. The others may read the name
    that it had before, and believe only one that answers a name of theirs.
    """
    own = uuid.uuid4().hex
    if launch.rank == 0:
        store.set("first", own)
        for rank in range(1, launch.size):
            store.set(store.get(f"{own}/{rank}").decode(), own)
        return dist.PrefixStore(own, store)
    while not store.check([own]):
        store.set(f"{store.get('first').decode()}/{launch.rank}", own)
        time.sleep(_ASKING_SECONDS)
    return dist.PrefixStore(store.get(own).decode(), store)


@atexit.register
def _let_go() -> None:
    """Delete the groups that ended, while the interpreter is whole, and Python last of all owners.

    Threads of a gloo group may still hold tensors, for which they need the GIL. If DDP deleted the
    group, it would wait for them with the GIL in its hands; if nobody did, they would abort the
    process when the interpreter has gone.
    """
    gc.collect()  # models that were not yet deleted
    _ended.clear()


def choose_device(name: str, local_rank: int = 0) -> torch.device:
    """`auto` is this rank's GPU where there is one, else the CPU.

    Raises:
        UserError: a GPU is asked for and there is none.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda":
        # Slurm may show each process only the one GPU that it may use.
        name = f"cuda:{local_rank % max(torch.cuda.device_count(), 1)}"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise UserError(f"--device {name}: not a device; use auto, cpu or cuda.") from error
    if device.type == "cuda" and not torch.cuda.is_available():
        raise UserError(f"--device {name}: PyTorch finds no GPU here; use --device cpu.")
    return device
