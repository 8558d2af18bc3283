"""What the processes that train one run do together: deal rows, add gradients up, start from the same tensors.

All go through the same steps with the same weights, each on its share of the rows of a batch. Not here: how they are
started and ended, see `graftwork.training.followers`.
"""

import os
import socket
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
import torch.distributed as dist
from torch import Tensor, nn

from graftwork.data.batches import deal
from graftwork.errors import Problem, TrainingError
from graftwork.models.serving.inference import pick_device
from graftwork.training.followers import LEADER, LOCALHOST, Place

# A process that waits is ended when the one it waits for is; a limit would only end what takes long.
PATIENCE = timedelta(days=7)
POLL_S = 0.1


@dataclass(frozen=True)
class Replicas:
    """This process's place among those that train the run: by default it is alone. The first of them leads."""

    rank: int = LEADER
    size: int = 1

    @property
    def noise(self) -> tuple[int, ...]:
        """What a follower adds to the seed of a step, so that its dropout is not the leader's."""
        return () if self.rank == LEADER else (self.rank,)

    def share(self, rows: Sequence[int], lengths: Sequence[int]) -> list[int]:
        """The rows that are this process's; see `deal`."""
        if self.size == 1:
            return list(rows)
        return deal(rows, lengths, self.size)[self.rank]

    def add_up(self, loss: float, parameters: Iterable[nn.Parameter]) -> float:
        """The sum of all processes' losses; each parameter's gradient becomes the sum of theirs.

        One vector in the order of the parameters, so that the order of additions is the same in every step and run.
        """
        if self.size == 1:
            return loss
        gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
        vector = torch.cat([*(gradient.reshape(-1) for gradient in gradients), gradients[0].new_tensor([loss])])
        dist.all_reduce(vector)
        *sums, total = vector.split([*(gradient.numel() for gradient in gradients), 1])
        for gradient, summed in zip(gradients, sums, strict=True):
            gradient.copy_(summed.view_as(gradient))
        return total.item()

    def gather(self, values: Tensor, rows: Sequence[int], total: int) -> Tensor:
        """What all processes computed for their rows, (total, …).

        values: of this one's rows, in front of any others.
        """
        if self.size == 1:
            return values
        whole = values.new_zeros(total, *values.shape[1:])
        whole[rows] = values[: len(rows)]
        dist.all_reduce(whole)
        return whole

    def sum_up(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes, in place, the sum of what it is in all processes."""
        if self.size > 1:
            for tensor in tensors:
                dist.all_reduce(tensor)

    def copy_leader(self, tensors: Iterable[Tensor]) -> None:
        """Each tensor becomes, in place, what it is in the leader."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, LEADER)

    def tell(self, text: str = "") -> str:
        """What the leader says, in every process; the followers wait for it."""
        if self.size == 1:
            return text
        # Not by broadcast_object_list: that is pickle, from a socket.
        content = torch.tensor(list(text.encode()), dtype=torch.uint8)
        length = torch.tensor(len(content))
        dist.broadcast(length, LEADER)
        content.resize_(int(length))
        dist.broadcast(content, LEADER)
        return bytes(content.tolist()).decode()

    def wait(self, meanwhile: Callable[[], None]) -> None:
        """Until all processes are here; `meanwhile` is called as long as they are not, and may raise."""
        if self.size == 1:
            return
        arrival = dist.all_reduce(torch.zeros(1), async_op=True)
        while not arrival.is_completed():
            meanwhile()
            time.sleep(POLL_S)
        arrival.wait()


ALONE = Replicas()


@contextmanager
def gathered(place: Place) -> Iterator[Replicas]:
    """This process among the others, once all are there; each has its share of the threads, and a GPU of its own.

    Raises TrainingError if there are fewer GPUs.
    """
    if place.size == 1:
        yield ALONE
        return
    rank, size, device = place.rank, place.size, pick_device()
    _check_device(device, size)
    torch.set_num_threads(max(1, torch.get_num_threads() // size))
    if device.type == "cuda":
        torch.cuda.set_device(rank)
    os.environ.setdefault("GLOO_SOCKET_IFNAME", _loopback())
    store = dist.TCPStore(
        LOCALHOST, place.port, size, rank == LEADER, PATIENCE, wait_for_workers=False, master_listen_fd=place.listener
    )
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=PATIENCE)
    yield Replicas(rank, size)
    dist.destroy_process_group()  # not after an error: others may be in the middle of a step


def _check_device(device: torch.device, processes: int) -> None:
    where = "GRAFTWORK_PROCESSES"
    if device.type == "cuda" and torch.cuda.device_count() < processes:
        found = f"{processes} processes need as many GPUs, and {torch.cuda.device_count()} are visible"
        raise TrainingError(Problem(found, where, hint="auto takes those there are"))
    if device.type not in ("cpu", "cuda"):
        raise TrainingError(Problem(f"several processes can't train on {device.type}", where, hint="set it to 1"))


def _loopback() -> str:
    """The interface over which processes of one machine talk, and nobody else listens."""
    return next(name for _, name in socket.if_nameindex() if name.startswith("lo"))
