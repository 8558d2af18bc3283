"""What a checkpoint from elsewhere must be before anything loads it.

Only files on a list are taken, weights are safetensors (a pickle runs code when it is loaded), config keys that make
transformers fetch or run code are refused, and each tensor is finite. `from_pretrained` checks none of this.
"""

import json
import re
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.errors import CheckpointError, Problem, shorten

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARD = re.compile(r"model-\d{5}-of-\d{5}\.safetensors")
POOLING = "1_Pooling/config.json"
# How sentence-transformers calls what we can do, after "pooling_mode_".
POOLING_KEYS = {"mean": "mean_tokens", "cls": "cls_token", "max": "max_tokens", "last": "lasttoken"}
CONFIGS = (
    "config.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "preprocessor_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    POOLING,
)
VOCABULARIES = ("tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "added_tokens.json")
PAPERS = ("README.md", "LICENSE", "LICENSE.txt", "LICENSE.md")
# Weights that are unpickled, or read by code that has run what it read (HDF5 with lambda layers).
EXECUTABLE = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt", ".h5", ".keras", ".msgpack", ".joblib", ".npy", ".npz")
MAX_JSON_BYTES = 64 << 20

# Keys that make transformers import code, fetch kernels, or open files that are not the checkpoint's.
REFUSED_KEYS = (
    (re.compile(r"auto_map|custom_pipelines|custom_generate|trust_remote_code"), "it loads code from the checkpoint"),
    (
        re.compile(r".*(attn|attention|experts)_implementation.*|.*kernel_config|use_kernels"),
        "it steers kernel loading",
    ),
    (re.compile(r"quantization_config"), "quantised weights can't be fine-tuned"),
    (re.compile(r"chat_template"), "a template is a program, and a classifier needs none"),
    (re.compile(r"fast_tokenizer_files"), "it names files that are not taken"),
)
FILE_KEY = re.compile(r"(vocab|merges|tokenizer)_file")


def select_files(names: Collection[str], where: str) -> tuple[str, ...]:
    """Of a checkpoint's file names those that are taken, sorted. Raises CheckpointError if the weights are not safe."""
    shards = tuple(name for name in names if SHARD.fullmatch(name))
    weights = (WEIGHTS,) if WEIGHTS in names else (INDEX, *shards) if INDEX in names else ()
    if not weights:
        raise CheckpointError(_no_weights(names, where))
    if "config.json" not in names:
        raise CheckpointError(Problem("config.json is missing", where))
    return tuple(sorted({*weights, *(set(names) & {*CONFIGS, *VOCABULARIES, *PAPERS})}))


def check_configs(folder: Path, where: str, architectures: Collection[str]) -> Iterator[Problem]:
    """What the JSON files ask for that is refused; the architecture, if it is none of those that are known."""
    for name in CONFIGS:
        if (folder / name).is_file():
            yield from _refused_keys(read_json(folder / name), f"{where}: {name}")
    architecture = read_object(folder / "config.json").get("model_type")
    if not isinstance(architecture, str) or architecture not in architectures:
        known = f"known are {', '.join(sorted(architectures))}; another is an entry in graftwork/models/catalog.py"
        yield Problem(f"model_type {shorten(repr(architecture))} is not supported", f"{where}: config.json", known)


def check_weights(folder: Path, where: str) -> Iterator[Problem]:
    """Shards that are not what the index says, and tensors that hold NaN or infinity or can't be checked for it."""
    if (folder / INDEX).is_file():
        yield from _check_index(folder, f"{where}: {INDEX}")
    for path in sorted(folder.glob("*.safetensors")):
        for name, dtype in _not_finite(path):
            yield Problem(f"tensor {name} {dtype}", f"{where}: {path.name}")


def read_tensor_shapes(folder: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    """Tensor name -> (shape, dtype as safetensors names it: F32, BF16 …), from the headers alone.

    Raises CheckpointError if a file is not whole.
    """
    tensors: dict[str, tuple[tuple[int, ...], str]] = {}
    for path in sorted(folder.glob("*.safetensors")):
        for name, entry in read_header(path)[0].items():
            tensors[name] = tuple(entry["shape"]), entry["dtype"]
    return tensors


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The tensors a safetensors file lists, and the byte its data starts at. Raises CheckpointError naming the file."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="numpy"):  # checks lengths, offsets and shapes; its errors do not name the file
            pass
    except (SafetensorError, OSError) as error:
        raise CheckpointError(Problem(f"not a whole safetensors file: {shorten(error)}", str(path))) from error
    with path.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        header = json.loads(stream.read(length))
    header.pop("__metadata__", None)
    return header, 8 + length


def read_json(path: Path) -> Any:
    """A JSON file of a checkpoint. Raises CheckpointError naming it."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise CheckpointError(Problem(f"more than {MAX_JSON_BYTES >> 20} MiB of JSON", str(path)))
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(Problem(f"not JSON: {shorten(error)}", str(path))) from error


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file of a checkpoint that holds an object. Raises CheckpointError naming it."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise CheckpointError(Problem(f"expected an object, found {shorten(found)}", str(path)))
    return found


def _no_weights(names: Collection[str], where: str) -> Problem:
    executable = sorted(name for name in names if PurePosixPath(name).suffix in EXECUTABLE)
    if executable:
        what = f"its only weights are {shorten(', '.join(executable))}, and loading those runs code they hold"
        hint = "ask its owner for safetensors, or convert it on a machine you can lose; `graftwork convert` is for VGG"
        return Problem(what, where, f"{hint} and AlexNet")
    return Problem(f"neither {WEIGHTS} nor {INDEX} is there", where)


def _refused_keys(document: Any, where: str) -> Iterator[Problem]:
    waiting = [("", document)]  # a stack of our own: a hostile file may nest as deep as Python's
    while waiting:
        above, value = waiting.pop()
        items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        for key, inner in items:
            reason = _refusal(str(key), inner)
            if reason:
                yield Problem(f"the key {shorten(f'{above}{key}')} is refused: {reason}", where)
            waiting.append((f"{above}{key}.", inner))


def _refusal(key: str, value: Any) -> str | None:
    if FILE_KEY.fullmatch(key) and isinstance(value, str) and PurePosixPath(value).name != value:
        return f"it points to a file elsewhere, {shorten(value)}"
    reasons = (reason for pattern, reason in REFUSED_KEYS if pattern.fullmatch(key))
    return None if value is None else next(reasons, None)


def _check_index(folder: Path, where: str) -> Iterator[Problem]:
    listed = read_object(folder / INDEX).get("weight_map")
    if not (isinstance(listed, dict) and all(isinstance(shard, str) for shard in listed.values())):
        yield Problem("it has no weight_map from tensor to shard", where)
        return
    strange = sorted({shard for shard in listed.values() if not SHARD.fullmatch(shard)})
    yield from (
        Problem(f"it points to {shorten(shard)}, which is no shard of this checkpoint", where) for shard in strange
    )
    yield from _compare_index(listed, _shards_of(folder), where)


def _shards_of(folder: Path) -> dict[str, str]:
    return {name: path.name for path in sorted(folder.glob("*.safetensors")) for name in read_header(path)[0]}


def _compare_index(listed: Mapping[str, str], found: Mapping[str, str], where: str) -> Iterator[Problem]:
    for name in sorted(listed.keys() | found.keys()):
        if SHARD.fullmatch(listed.get(name, found.get(name, ""))) and listed.get(name) != found.get(name):
            places = f"{listed.get(name, 'in no shard')} by the index, {found.get(name, 'in no shard')} in fact"
            yield Problem(f"tensor {shorten(name)} is {places}", where)


def _not_finite(path: Path) -> Iterator[tuple[str, str]]:
    """Tensors that are not finite, or of a dtype that can't be checked, with what is wrong in words."""
    import numpy as np

    # A float is NaN or infinite exactly when all its exponent bits are set. NumPy itself knows no bfloat16.
    exponents: dict[str, Any] = {
        "F64": np.uint64(0x7FF0 << 48),
        "F32": np.uint32(0x7F80_0000),
        "F16": np.uint16(0x7C00),
        "BF16": np.uint16(0x7F80),
    }
    header, start = read_header(path)
    for name, entry in sorted(header.items()):
        if entry["dtype"].startswith(("I", "U", "BOOL")):
            continue
        exponent = exponents.get(entry["dtype"])
        if exponent is None:
            yield shorten(name), f"is of dtype {entry['dtype']}, which is not supported"
            continue
        begin, end = entry["data_offsets"]
        if begin == end:
            continue
        bits = np.memmap(path, exponent.dtype, "r", start + begin, ((end - begin) // exponent.itemsize,))
        bad = int(np.count_nonzero((bits & exponent) == exponent))
        if bad:
            yield shorten(name), f"holds {bad} values that are NaN or infinite"
