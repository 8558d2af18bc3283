"""The memory that training takes at most, and what there is of it: of its GPU, if it has one, else of the machine."""

import re
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    import torch

STATUS = Path("/proc/self/status")
CGROUPS = Path("/sys/fs/cgroup")
# By version: below which folder, and the files with the limit, with what is used, and what of it the kernel can drop.
CGROUP_FILES = {
    "": ("", "memory.max", "memory.current", "inactive_file"),
    "memory": ("memory", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
}


def reset_peak(device: "torch.device") -> None:
    """Let `peak_bytes` begin anew; where the system can't, it goes on counting from the start of the process."""
    if device.type == "cuda":
        import torch

        torch.cuda.reset_peak_memory_stats(device)
    else:
        with suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")


def peak_bytes(device: "torch.device") -> int:
    """The most memory that this process took since `reset_peak`: reserved on the GPU, or resident in the machine.

    Resident are also pages of mapped files, which the kernel can drop when it needs room.
    """
    if device.type == "cuda":
        import torch

        return int(torch.cuda.max_memory_reserved(device))
    if STATUS.exists():  # getrusage would count the process that forked this one
        found = re.search(r"VmHWM:\s+(\d+) kB", STATUS.read_text())
        return int(found[1]) << 10 if found else 0
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss << (0 if sys.platform == "darwin" else 10)


def free_bytes(device: "torch.device") -> int:
    """The memory that this process can have in all: what it has, and what it could get on top of that."""
    if device.type == "cuda":
        import torch

        return int(torch.cuda.mem_get_info(device)[0] + torch.cuda.memory_reserved(device))
    rooms = [psutil.virtual_memory().available, *_cgroup_rooms()]
    return max(0, min(rooms)) + int(psutil.Process().memory_info().rss)


def _cgroup_rooms() -> Iterator[int]:
    """What the control groups that this process is in, and those above them, leave of their limits."""
    groups = Path("/proc/self/cgroup")
    for line in groups.read_text().splitlines() if groups.exists() else []:
        _, controllers, path = line.split(":", 2)
        if controllers not in CGROUP_FILES:
            continue
        below, limit, used, droppable = CGROUP_FILES[controllers]
        root = CGROUPS / below
        place = root / path.lstrip("/")
        for folder in (place, *place.parents):
            if folder.is_relative_to(root):
                with suppress(OSError, ValueError, KeyError):  # no such group from inside a container, or "max"
                    stat = dict(entry.split() for entry in (folder / "memory.stat").read_text().splitlines())
                    most = int((folder / limit).read_text())
                    yield most - int((folder / used).read_text()) + int(stat[droppable])
