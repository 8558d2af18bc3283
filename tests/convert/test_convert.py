"""Files that torch.save wrote, as checkpoints: what is taken, what is refused, and that nothing of them is run."""

import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from flows.cli import main
from graftwork import convert as converting
from graftwork.checkpoints.licences import licence_of
from graftwork.checkpoints.unpickle import load
from graftwork.convert import ARCHITECTURES, convert
from graftwork.errors import CheckpointError, RecipeError
from graftwork.models.pixels import read_pixels
from graftwork.models.serving.own import make_own_body
from graftwork.models.text import load_body

SMALL = {"layers": [8, "M", 8, "M", 16], "hidden_size": 16, "pooled_side": 2}


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same architectures with few channels: a file has 40 KB instead of 500 MB."""
    made = {name: {**config, **SMALL} for name, config in ARCHITECTURES.items()}
    monkeypatch.setattr(converting, "ARCHITECTURES", made)


def state_dict(architecture: str = "vgg16_bn") -> "OrderedDict[str, torch.Tensor]":
    """As torchvision's files have it, with a layer for ten classes."""
    torch.manual_seed(3)
    body, _ = make_own_body(Path(), converting.ARCHITECTURES[architecture], has_weights=False)
    last = {"classifier.6.weight": torch.rand(10, 16), "classifier.6.bias": torch.rand(10)}
    return OrderedDict(body.state_dict() | last)


def refused(folder: Path, held: Any, architecture: str = "vgg16_bn") -> str:
    """What is said of a file with this in it; of what was to be written nothing is left."""
    torch.save(held, folder / "model.pth")
    with pytest.raises(CheckpointError) as raised:
        convert(folder / "model.pth", architecture, "mit", folder / "made")
    assert [path.name for path in folder.iterdir()] == ["model.pth"]
    return str(raised.value)


@pytest.mark.parametrize("architecture", ["vgg16_bn", "vgg11", "alexnet"])
@pytest.mark.parametrize("is_zip", [True, False])
def test_a_state_dict_becomes_a_checkpoint(architecture: str, is_zip: bool, tmp_path: Path) -> None:
    """Tensor by tensor, in either format that torch.save has had; the layer for classes is left out."""
    held = state_dict(architecture)
    torch.save(held, tmp_path / "model.pth", _use_new_zipfile_serialization=is_zip)
    done = convert(tmp_path / "model.pth", architecture, "bsd-3-clause", tmp_path / "made")
    found = load_body(done.folder).state_dict()
    assert done.left_out == ("classifier.6.bias", "classifier.6.weight")
    assert found.keys() == held.keys() - {*done.left_out}
    assert all(torch.equal(found[name], held[name]) for name in found)
    assert found.keys() == load_file(done.folder / "model.safetensors").keys()
    assert {path.name for path in done.folder.iterdir()} == {
        "README.md",
        "config.json",
        "model.safetensors",
        "preprocessor_config.json",
    }
    assert licence_of(done.folder) == "bsd-3-clause"
    pixels = read_pixels(done.folder)
    assert (pixels.side, pixels.edge, pixels.mean[0], pixels.std[2]) == (224, 256, 0.485, 0.225)


def test_a_file_without_counts_of_batches_is_whole(tmp_path: Path) -> None:
    """torch had none before 0.4.1, and torchvision's files of VGG are older than that."""
    held = {name: tensor for name, tensor in state_dict().items() if not name.endswith("num_batches_tracked")}
    torch.save(held, tmp_path / "model.pth")
    body = load_body(convert(tmp_path / "model.pth", "vgg16_bn", "mit", tmp_path / "made").folder)
    assert body.state_dict()["features.1.num_batches_tracked"] == 0


class Canary:
    """Pickled, it makes a file when it is loaded."""

    def __reduce__(self) -> Any:
        return os.system, (f"touch {os.environ['CANARY']}",)


@pytest.mark.parametrize(
    "save",
    [
        lambda held, path: torch.save(held, path),
        lambda held, path: torch.save(held, path, _use_new_zipfile_serialization=False),
        lambda held, path: path.write_bytes(pickle.dumps(held, protocol=2)),
        lambda held, path: path.write_bytes(pickle.dumps(held)),
    ],
    ids=["zip", "old", "pickle 2", "pickle"],
)
def test_what_a_pickle_wants_to_run_is_not_run(
    save: Callable[[Any, Path], object], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """It is refused with exit code 4; loaded as any pickle is, the same file does run it."""
    canary, file = tmp_path / "canary", tmp_path / "model.pth"
    monkeypatch.setenv("CANARY", str(canary))
    save({"features.0.weight": Canary()}, file)
    command = ["convert", str(file), "--architecture", "vgg16", "--licence", "mit", "-o", str(tmp_path / "made")]
    with pytest.raises(SystemExit) as ended:
        main(command)
    complaint = capsys.readouterr().err
    assert ended.value.code == 4
    assert f"{file}: " in complaint
    assert "loading it would call posix.system, and nothing of it was run" in complaint or "no state dict" in complaint
    assert "torch.save(model.state_dict(), FILE)" in complaint
    assert not canary.exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model.pth"]
    with suppress(Exception):
        torch.load(file, weights_only=False)
    assert canary.exists()


def claims_to_be_large() -> torch.Tensor:
    """Of 4 bytes, shown 100 million times."""
    return torch.zeros(1).expand(10**8)


REFUSED = {
    "a whole model": (
        torch.nn.Sequential(torch.nn.Linear(2, 2)),
        r"loading it would call torch\.nn\.modules\.container\.Sequential, and nothing of it was run",
    ),
    "a state of training": (
        {"epoch": 3, "state_dict": {"features.0.weight": torch.zeros(2)}},
        "it is no plain state dict, from names to tensors: it holds epoch, state_dict",
    ),
    "a list": ([torch.zeros(2)], "it holds a list, not a state dict"),
    "a tensor": (torch.zeros(2), "it holds a Tensor, not a state dict"),
    "numbers for names": ({0: torch.zeros(2)}, "no plain state dict, from names to tensors: it holds 0"),
    "nothing": ({}, "it holds nothing"),
    "sparse": ({"a": torch.zeros(2).to_sparse()}, "no plain state dict.* it holds a"),
    "a bomb": ({"a": claims_to_be_large()}, "its tensors claim to be larger than the file"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_plain_state_dict_is_refused(what: str, tmp_path: Path) -> None:
    """In words."""
    held, complaint = REFUSED[what]
    torch.save(held, tmp_path / "model.pth")
    _, said = load(tmp_path / "model.pth")
    assert said is not None
    assert re.search(complaint, said), said


def test_what_is_refused_is_said_with_what_is_not(tmp_path: Path) -> None:
    """In words, by whoever ran the process that read it."""
    said = refused(tmp_path, {"epoch": 3})
    assert re.search(r"model\.pth: .* it holds epoch .what torch\.save\(model\.state_dict\(\), FILE\) writes", said)


@pytest.mark.parametrize("is_zip", [True, False])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.6, 0.999])
def test_a_file_that_is_cut_off_is_refused(is_zip: bool, share: float, tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "whole.pth", _use_new_zipfile_serialization=is_zip)
    whole = (tmp_path / "whole.pth").read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    _, said = load(tmp_path / "cut.pth")
    assert said is not None
    assert said.startswith(("it is not whole", "it is no state dict"))


@pytest.mark.parametrize("content", [b"<!doctype html>", b"PK\x03\x04 no zip", bytes(1000)])
def test_another_kind_of_file_is_refused(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "other.pth").write_bytes(content)
    _, said = load(tmp_path / "other.pth")
    assert said is not None
    assert said.startswith(("it is not whole", "it is no state dict"))


def test_each_tensor_that_is_not_the_architecture_s_is_named(tmp_path: Path) -> None:
    """Missing, of another shape, or of no part."""
    held = state_dict()
    del held["features.0.bias"]
    held["features.1.weight"] = torch.zeros(9)
    held["attention.weight"] = torch.zeros(2)
    said = refused(tmp_path, held)
    assert "model.pth, as vgg16_bn: tensor features.0.bias is missing from the checkpoint (is it another VGG?)" in said
    assert "tensor features.1.weight has shape (9,) in the checkpoint, (8,) in the model" in said
    assert "tensor attention.weight of the checkpoint belongs to no part of the model" in said


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    """Without normalisation the layers have other numbers."""
    assert "tensor features.1.weight is missing" in refused(tmp_path, state_dict("vgg16"))


def test_tensors_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    held = state_dict()
    held["features.0.weight"][0, 0, 0, 0] = torch.nan
    assert "model.pth: tensor features.0.weight holds 1 values that are NaN or infinite" in refused(tmp_path, held)


def test_a_folder_that_is_there_stays(tmp_path: Path) -> None:
    torch.save(state_dict(), tmp_path / "model.pth")
    (tmp_path / "made").mkdir()
    with pytest.raises(RecipeError, match=r"made: it is there already .choose another with -o"):
        convert(tmp_path / "model.pth", "vgg16_bn", "mit", tmp_path / "made")


def test_what_can_be_converted_is_listed(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"--architecture: vgg17 can't be converted .known are alexnet, vgg11, "):
        convert(tmp_path / "model.pth", "vgg17", "mit", tmp_path / "made")


def test_a_file_that_is_not_there_is_missed(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"model\.pth: there is no such file"):
        convert(tmp_path / "model.pth", "vgg16", "mit", tmp_path / "made")
