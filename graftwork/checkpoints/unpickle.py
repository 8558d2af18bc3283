"""A program: the tensors of a file that torch.save wrote, as safetensors. Nothing else here reads a pickle.

    python -I unpickle.py FILE TARGET

It is run in a process of its own, by its path, and imports nothing of the package. torch's restricted unpickler reads
FILE: it makes containers, numbers, texts and tensors, and stops at whatever else a pickle asks for. Standard output is
one JSON object: `problem`, in words, or nothing where TARGET was written.
"""

import json
import re
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors.torch import save_file

SHOWN_KEYS = 8


def main(file: Path, target: Path) -> None:
    """Write the target, or say why not."""
    held, problem = load(file)
    if problem is None:
        whole = {name: tensor.detach().clone(memory_format=torch.contiguous_format) for name, tensor in held.items()}
        save_file(whole, target)
    sys.stdout.write(json.dumps({} if problem is None else {"problem": problem}))


def load(file: Path) -> tuple[Any, str | None]:
    """What the file holds, and why that is no plain state dict, or None if it is one."""
    try:
        held = torch.load(file, map_location="cpu", weights_only=True, mmap=zipfile.is_zipfile(file))
        return held, next(_problems(held, file.stat().st_size), None)
    except UnpicklingError as error:
        return None, _refused(str(error))
    except Exception as error:  # noqa: BLE001 - it may be any: it comes from what the file holds
        return None, f"it is not whole, or no state dict that torch.save wrote: {type(error).__name__}"


def _refused(complaint: str) -> str:
    """What torch's unpickler stopped at."""
    named = re.search(r"GLOBAL (\S+)", complaint)
    if named is None:
        return "it is no state dict that torch.save wrote"
    return f"it is more than tensors: loading it would call {named[1]}, and nothing of it was run"


def _problems(held: Any, size: int) -> Iterator[str]:
    """Why this is no plain state dict, from a file of so many bytes."""
    if not isinstance(held, dict):
        yield f"it holds a {type(held).__name__}, not a state dict"
        return
    others = [str(name) for name, value in held.items() if not (isinstance(name, str) and _is_plain(value))]
    if others or not held:
        shown = ", ".join(others[:SHOWN_KEYS]) or "nothing"
        yield f"it is no plain state dict, from names to tensors: it holds {shown}"
        return
    if sum(tensor.numel() * tensor.element_size() for tensor in held.values()) > size:
        yield "its tensors claim to be larger than the file"


def _is_plain(value: Any) -> bool:
    return isinstance(value, torch.Tensor) and value.layout == torch.strided and not value.is_quantized


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
