"""A `.pth` file of VGG or AlexNet as a checkpoint: safetensors, and beside them what such a model is and reads.

Such a file is a pickle, which may run code when it is loaded. Here it is read in a process of its own, by a program
that imports nothing of ours (graftwork.checkpoints.unpickle); what that writes is judged as any checkpoint is.
"""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from graftwork import checkpoints
from graftwork.checkpoints.safety import WEIGHTS, check_weights
from graftwork.errors import CheckpointError, Problem, RecipeError, raise_if, shorten
from graftwork.export import check_new, write_papers
from graftwork.fingerprint import file_digest
from graftwork.models.catalog import FAMILIES, Family
from graftwork.models.configs import PREPROCESSOR
from graftwork.models.pixels import MEAN, STD
from graftwork.phrases import duration
from graftwork.storage import whole_folder

if TYPE_CHECKING:
    from torch import Tensor

UNPICKLE = Path(checkpoints.__file__).with_name("unpickle.py")
TOLD = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "TMPDIR")  # no home, no credentials
LIMIT_S = 600
HINT = "what torch.save(model.state_dict(), FILE) writes can be converted"

WIDE: Mapping[str, Any] = {"hidden_size": 4096, "dropout": 0.5, "image_size": 224}
# https://github.com/pytorch/vision/blob/main/torchvision/models/vgg.py, where these are A, B, D and E, as in the paper.
VGG = {
    "vgg11": "64 M 128 M 256 256 M 512 512 M 512 512 M",
    "vgg13": "64 64 M 128 128 M 256 256 M 512 512 M 512 512 M",
    "vgg16": "64 64 M 128 128 M 256 256 256 M 512 512 512 M 512 512 512 M",
    "vgg19": "64 64 M 128 128 M 256 256 256 256 M 512 512 512 512 M 512 512 512 512 M",
}
ALEXNET = "64 M 192 M 384 256 256 M"


def _layers(words: str) -> list[int | str]:
    return [int(word) if word.isdigit() else word for word in words.split()]


# torchvision's names -> what config.json says.
ARCHITECTURES: Mapping[str, Mapping[str, Any]] = {
    "alexnet": {"model_type": "alexnet", "layers": _layers(ALEXNET), "pooled_side": 6, **WIDE}
} | {
    f"{name}{'_bn' * has_norms}": {
        "model_type": "vgg",
        "layers": _layers(words),
        "batch_norm": has_norms,
        "pooled_side": 7,
        **WIDE,
    }
    for name, words in VGG.items()
    for has_norms in (False, True)
}
# As torchvision prepares pictures for all of them.
PREPARED = {
    "do_resize": True,
    "size": {"shortest_edge": 256},
    "do_center_crop": True,
    "crop_size": {"height": 224, "width": 224},
    "do_normalize": True,
    "image_mean": MEAN,
    "image_std": STD,
}


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote. parameters: of the body. left_out: tensors of the file that told its own classes."""

    architecture: str
    folder: Path
    parameters: int
    left_out: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"folder": str(self.folder), "source": f"file://{self.folder}"}


def convert(file: Path, architecture: str, licence: str, folder: Path) -> Converted:
    """Write a new folder with the body of the model in the file, as a checkpoint that a recipe can start from.

    architecture: as torchvision calls it. licence: of the weights, as recipes name it; whoever converts them answers
    for it. Raises RecipeError for a folder that is there already or an unknown architecture, CheckpointError if the
    file is no plain state dict, or not of this architecture, tensor by tensor.
    """
    if architecture not in ARCHITECTURES:
        known = f"known are {', '.join(ARCHITECTURES)}"
        raise RecipeError(Problem(f"{shorten(architecture)} can't be converted", "--architecture", known))
    check_new(folder)
    if not file.is_file():
        raise CheckpointError(Problem("there is no such file", str(file)))
    config = ARCHITECTURES[architecture]
    try:
        with whole_folder(folder) as aside:
            found = _unpickled(file, aside / "unpickled")
            family = FAMILIES[config["model_type"]]
            kept = {name: tensor for name, tensor in found.items() if not name.startswith(family.unused)}
            _write(aside, file, architecture, licence, kept | _uncounted(kept))
            parameters = _check(aside, file, family, architecture)
    except OSError as error:
        raise RecipeError(Problem(f"can't be written: {error.strerror}", str(folder))) from error
    return Converted(architecture, folder, parameters, tuple(sorted(found.keys() - kept.keys())))


def _unpickled(file: Path, target: Path) -> "dict[str, Tensor]":
    """The tensors of the file, by name, mapped from one that is gone. Raises CheckpointError."""
    from safetensors.torch import load_file

    command = [sys.executable, "-I", str(UNPICKLE), str(file.absolute()), str(target.absolute())]
    environment = {name: os.environ[name] for name in TOLD if name in os.environ}
    environment |= {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    try:
        done = subprocess.run(  # noqa: S603 - our own program
            command,
            cwd=target.parent,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            encoding="utf-8",
            errors="replace",
            timeout=LIMIT_S,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        problem = f"it was not read within {duration(LIMIT_S)}, and its process was ended"
        raise CheckpointError(Problem(problem, str(file))) from error
    if done.returncode < 0:
        name = signal.Signals(-done.returncode).name
        hint = "SIGKILL is most often a want of memory"
        raise CheckpointError(Problem(f"the process that read it died of {name}", str(file), hint))
    if done.returncode:
        said = shorten(done.stderr.strip().rpartition("\n")[2], 300)
        raise CheckpointError(Problem(f"the process that read it failed: {said}", str(file)))
    problem = json.loads(done.stdout).get("problem")
    if problem:
        raise CheckpointError(Problem(problem, str(file), HINT))
    found = load_file(target)
    target.unlink()
    return found


def _uncounted(tensors: "Mapping[str, Tensor]") -> "dict[str, Tensor]":
    """What files of before torch 0.4.1 lack, as torch itself adds it: batches that a normalisation saw, none."""
    import torch

    mean = "running_mean"
    names = [f"{name.removesuffix(mean)}num_batches_tracked" for name in tensors if name.endswith(f".{mean}")]
    return {name: torch.tensor(0) for name in names if name not in tensors}


def _write(folder: Path, file: Path, architecture: str, licence: str, tensors: "Mapping[str, Tensor]") -> None:
    from safetensors.torch import save_file

    save_file(dict(tensors), folder / WEIGHTS, metadata={"format": "pt"})
    for name, facts in (("config.json", ARCHITECTURES[architecture]), (PREPROCESSOR, PREPARED)):
        (folder / name).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
    origin = f"The body of {architecture}, converted by Graftwork from a file with the SHA-256 {file_digest(file)}."
    write_papers(folder, "body", licence, origin)


def _check(folder: Path, file: Path, family: Family, architecture: str) -> int:
    """The parameters of the body that is loaded from the folder. Raises CheckpointError, naming each tensor."""
    from graftwork.models.text import load_body

    raise_if((Problem(each.message, str(file)) for each in check_weights(folder, "")), CheckpointError)
    try:
        body = load_body(folder)
    except CheckpointError as error:
        where, hint = f"{file}, as {architecture}", f"is it another {family.known_as}?"
        raise CheckpointError(*(Problem(each.message, where, hint) for each in error.problems)) from error
    return sum(parameter.numel() for parameter in body.parameters())
