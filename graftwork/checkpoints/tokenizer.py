"""What a tokenizer must be to fit its model: its ids have rows in the embedding, its special tokens are there."""

from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from graftwork.checkpoints.safety import read_object, read_tensor_shapes
from graftwork.errors import Problem, shorten

# Where nothing is declared, a token goes by one of these names (BERT's or RoBERTa's).
CONVENTION = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}


class Architecture(Protocol):
    """table: the end of the name of the tensor with a row for each token. special_tokens: kinds it must have."""

    @property
    def table(self) -> str: ...
    @property
    def special_tokens(self) -> tuple[str, ...]: ...


Architectures = Mapping[str, Architecture]  # by `model_type`


def check_tokenizer(folder: Path, where: str, architecture: Architecture) -> Iterator[Problem]:
    """Ids beyond the embedding (an IndexError in the middle of training) and special tokens that do not exist."""
    try:
        vocabulary = _vocabulary(folder)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        yield Problem(f"the vocabulary can't be read: {type(error).__name__} {shorten(error)}", where)
        return
    if not vocabulary:
        yield Problem("there is no vocabulary: neither tokenizer.json, vocab.txt nor vocab.json lists a token", where)
        return
    shapes = read_tensor_shapes(folder)
    table = architecture.table
    rows = next((shape[0] for name, (shape, _) in shapes.items() if name.endswith(table) and len(shape) == 2), None)
    if rows is None:
        yield Problem(f"there is no embedding: no tensor ends with {table}", where)
        return
    declared = read_object(folder / "config.json").get("vocab_size")
    if declared != rows:
        yield Problem(f"vocab_size is {shorten(declared)}, the embedding has {rows} rows", f"{where}: config.json")
    token, last = max(vocabulary.items(), key=lambda item: item[1])
    if last >= rows:
        yield Problem(f"the token {shorten(token)!r} has id {last}, the embedding has {rows} rows", where)
    yield from _check_special(folder, vocabulary, where, architecture.special_tokens)


def _check_special(
    folder: Path, vocabulary: Mapping[str, int], where: str, needed: Collection[str]
) -> Iterator[Problem]:
    declared: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (folder / name).is_file():
            declared |= {key: value for key, value in read_object(folder / name).items() if key in CONVENTION and value}
    for kind, usual in CONVENTION.items():
        if kind not in needed and kind not in declared:
            continue
        token = declared.get(kind, usual)
        names = (token["content"],) if isinstance(token, dict) else (token,) if isinstance(token, str) else tuple(token)
        if not any(name in vocabulary for name in names):
            yield Problem(f"the {kind} {shorten(' or '.join(names))} is not in the vocabulary", where)


def _vocabulary(folder: Path) -> dict[str, int]:
    """Token -> id, from the file that the tokenizer itself would read first."""
    if (folder / "tokenizer.json").is_file():
        described = read_object(folder / "tokenizer.json")
        listed = described["model"]["vocab"]
        tokens = listed if isinstance(listed, dict) else {entry[0]: i for i, entry in enumerate(listed)}
        tokens |= {token["content"]: token["id"] for token in described.get("added_tokens", ())}
    elif (folder / "vocab.txt").is_file():
        lines = (folder / "vocab.txt").read_text(encoding="utf-8").rstrip("\n").split("\n")
        tokens = {token: i for i, token in enumerate(lines)} | _added(folder)
    elif (folder / "vocab.json").is_file():
        tokens = read_object(folder / "vocab.json") | _added(folder)
    else:
        return {}
    return {str(token): int(index) for token, index in tokens.items()}


def _added(folder: Path) -> dict[str, int]:
    return read_object(folder / "added_tokens.json") if (folder / "added_tokens.json").is_file() else {}
