"""What a tokenizer must be to fit its model: its ids have rows in the embedding, its special tokens are there.

Judged by its files alone, read as transformers would read them; nothing is loaded. What a tokenizer.json may hold
besides is in `tokenizer_json`. Not here: templates, which no file may hold (see `safety`).
"""

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from graftwork.checkpoints.safety import MAX_JSON_BYTES, read_object, read_tensor_shapes
from graftwork.checkpoints.tokenizer_json import SAVE_AGAIN, check_format, check_pipeline, is_id, put_around
from graftwork.errors import CheckpointError, Problem, shorten

# Where nothing is declared, a token goes by one of these names (BERT's or RoBERTa's).
CONVENTION = {
    "pad_token": ("[PAD]", "<pad>"),
    "unk_token": ("[UNK]", "<unk>"),
    "cls_token": ("[CLS]", "<s>"),
    "sep_token": ("[SEP]", "</s>"),
}
KINDS = (*CONVENTION, "mask_token", "bos_token", "eos_token")
# What classes of transformers name where the files name nothing; what the vocabulary lacks of it is added.
OF_BERT = dict(zip(KINDS, ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"), strict=False))
OF_ROBERTA = dict(zip(KINDS, ("<pad>", "<unk>", "<s>", "</s>", "<mask>", "<s>", "</s>"), strict=True))
OF_DEBERTA = OF_BERT | {"bos_token": "[CLS]", "eos_token": "[SEP]"}
NAMED_BY = {
    "AlbertTokenizer": OF_DEBERTA | {"pad_token": "<pad>", "unk_token": "<unk>"},
    "BertTokenizer": OF_BERT,
    "CamembertTokenizer": OF_ROBERTA,
    "DebertaV2Tokenizer": OF_DEBERTA,
    "DistilBertTokenizer": OF_BERT,
    "ElectraTokenizer": OF_BERT,
    "GPT2Tokenizer": dict.fromkeys(("unk_token", "bos_token", "eos_token"), "<|endoftext|>"),
    "LlamaTokenizer": {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"},
    "MPNetTokenizer": OF_ROBERTA | {"unk_token": "[UNK]"},
    "RobertaTokenizer": OF_ROBERTA,
    "T5Tokenizer": {"pad_token": "<pad>", "unk_token": "<unk>", "eos_token": "</s>"},
    "XLMRobertaTokenizer": OF_ROBERTA,
}
CLASS_OF = {  # by `model_type`, where the files name no class
    "bert": "BertTokenizer",
    "deberta-v2": "DebertaV2Tokenizer",
    "distilbert": "BertTokenizer",
    "electra": "BertTokenizer",
    "ernie": "BertTokenizer",
    "gpt2": "GPT2Tokenizer",
    "roberta": "RobertaTokenizer",
    "t5": "T5Tokenizer",
}
CONFIG, MAP = "tokenizer_config.json", "special_tokens_map.json"
FILES = ("config.json", "tokenizer.json", CONFIG, MAP, "added_tokens.json", "vocab.json")
LISTS = ("extra_special_tokens", "additional_special_tokens")
SENTINELS = 100  # that T5's tokenizer adds of itself
# Arguments of the tokenizer's class that it would take from these files in the place of what others hold.
BUILT = {
    "gguf_file", "init_inputs", "merges", "post_processor", "tokenizer_object", "tokenizer_padding",
    "tokenizer_truncation", "vocab",
}  # fmt: skip
AGAIN = "fetch the file again"
GROW = "take the tokenizer that the model was trained with, or save the model with rows for all its tokens"
ADD = "take the tokenizer that the model was trained with; one that was added later means nothing to the model"

Files = Mapping[str, Mapping[str, Any]]  # the JSON files that are there, by name


class Token(NamedTuple):
    """A token as a file states it: in which one and under which key, its text, and what is said to be its id."""

    file: str
    key: str
    text: str
    id: Any

    @property
    def place(self) -> str:
        return f"{self.file}: {self.key}" if self.key else self.file


class Architecture(Protocol):
    """table: the end of the name of the tensor with a row for each token, "" of a model that reads no tokens.

    special_tokens: kinds that its tokenizer must have. tower: its name, where config.json is that of a model of two.
    """

    @property
    def table(self) -> str: ...
    @property
    def special_tokens(self) -> tuple[str, ...]: ...
    @property
    def tower(self) -> str: ...


Architectures = Mapping[str, Architecture]  # by `model_type`


def check_tokenizer(folder: Path, where: str, architecture: Architecture) -> Iterator[Problem]:
    """Why this tokenizer would fail in the middle of training, or leave nothing of a text.

    Ids beyond the embedding (an IndexError), special tokens that do not exist, a tokenizer.json that can't be read or
    makes far too much of a text.
    """
    files, problems = _read(folder, where)
    if "tokenizer.json" in files:
        problems += check_format(files["tokenizer.json"], f"{where}: tokenizer.json")
        problems += check_pipeline(files["tokenizer.json"], f"{where}: tokenizer.json")
    problems += _check_arguments(files, where)
    yield from problems
    rows = _rows(folder, architecture.table)
    if rows is None:
        yield Problem(f"there is no embedding: no tensor ends with {architecture.table}", where)
        return
    config = files.get("config.json", {})
    declared = config.get("text_config", config).get("vocab_size")
    if declared != rows:
        yield Problem(f"vocab_size is {shorten(declared)}, the embedding has {rows} rows", f"{where}: config.json")
    try:
        vocabulary = list(_vocabulary(folder, files))
    except ValueError as error:  # of bytes that are no text
        yield Problem(f"it can't be read: {shorten(error)}", f"{where}: vocab.txt", SAVE_AGAIN)
        return
    if vocabulary:
        yield from _check_tokens(files, vocabulary, rows, where, architecture.special_tokens)
    elif not problems:
        yield Problem("there is no vocabulary: neither tokenizer.json, vocab.txt nor vocab.json lists a token", where)


def _check_tokens(
    files: Files, vocabulary: Sequence[Token], rows: int, where: str, needed: Collection[str]
) -> Iterator[Problem]:
    added = list(_added(files))
    around = [Token("tokenizer.json", *each) for each in put_around(files.get("tokenizer.json", {}))]
    known = {token.text for token in (*vocabulary, *added)}
    stated = [*vocabulary, *added, *around]
    late = [token for token in stated if is_id(token.id) and token.id >= rows]
    yield from _odd_ids(stated, where)
    yield from _beyond(late, rows, where, "has")
    lacking = list(_lacking(files, known, needed))
    for token in lacking:
        yield Problem(f"the {token.key} {token.text} is not in the vocabulary", f"{where}: {token.place}", ADD)
    told, kinds = {token.text for token in late}, {token.key for token in lacking}
    given = [token for token in _give_ids(vocabulary, [*added, *_named(files)]) if token.id >= rows]
    untold = [token for token in given if token.text not in told and token.key not in kinds]
    yield from _beyond(untold, rows, where, "is not in the vocabulary and gets")
    for token in around:
        if token.text not in known:
            what = f"it puts {shorten(token.text)!r} around a text, which is not in the vocabulary"
            yield Problem(what, f"{where}: {token.place}", ADD)


def _check_arguments(files: Files, where: str) -> Iterator[Problem]:
    """What the tokenizer's class would take from its configuration in the vocabulary's place, or could not read."""
    for file in (CONFIG, MAP):
        for key in sorted(key for key in files.get(file, {}).keys() & BUILT if files[file][key]):
            what = "it would stand in for what the vocabulary's own file holds"
            yield Problem(f"the key {key} is refused: {what}", f"{where}: {file}", f"remove {key}")
    decoder = files.get(CONFIG, {}).get("added_tokens_decoder", {})
    listed = decoder.items() if isinstance(decoder, dict) else [("", decoder)]
    odd = [(index, token) for index, token in listed if not (isinstance(token, dict) and _content(token))]
    for index, token in odd[:1]:
        place = f"{where}: {CONFIG}: added_tokens_decoder.{shorten(index)}".removesuffix(".")
        yield Problem(f"expected an object with the token as content, found {shorten(token)}", place, SAVE_AGAIN)


def _odd_ids(tokens: Iterable[Token], where: str) -> Iterator[Problem]:
    for odd in _by_file(token for token in tokens if not is_id(token.id)):
        found = f"the id of {shorten(odd[0].text)!r} is {shorten(repr(odd[0].id))}"
        yield Problem(f"{found}, expected a whole number from 0{_others(odd)}", f"{where}: {odd[0].place}", SAVE_AGAIN)


def _beyond(tokens: Iterable[Token], rows: int, where: str, has: str) -> Iterator[Problem]:
    for late in _by_file(tokens):
        last = max(late, key=lambda token: token.id)
        what = f"the token {shorten(last.text)!r} {has} id {last.id}, the embedding has {rows} rows{_others(late)}"
        yield Problem(what, f"{where}: {last.place}", GROW)


def _by_file(tokens: Iterable[Token]) -> Iterable[list[Token]]:
    """Tokens that are wrong in one way: of a file's thousands one is told, and how many there are."""
    files: dict[str, list[Token]] = {}
    for token in tokens:
        files.setdefault(token.file, []).append(token)
    return files.values()


def _others(tokens: Sequence[Token]) -> str:
    return f" (and {len(tokens) - 1} more like it)" if len(tokens) > 1 else ""


def _read(folder: Path, where: str) -> tuple[Files, list[Problem]]:
    files, problems = {}, []
    for name in FILES:
        if (folder / name).is_file():
            try:
                files[name] = read_object(folder / name)
            except CheckpointError as error:
                problems += [replace(each, where=f"{where}: {name}", hint=AGAIN) for each in error.problems]
    return files, problems


def _rows(folder: Path, table: str) -> int | None:
    shapes = read_tensor_shapes(folder)
    return next((shape[0] for name, (shape, _) in shapes.items() if name.endswith(table) and len(shape) == 2), None)


def _vocabulary(folder: Path, files: Files) -> Iterator[Token]:
    """What the file lists that the tokenizer itself would read first; nothing where that is not what it should be."""
    if (folder / "tokenizer.json").is_file():
        model = files.get("tokenizer.json", {}).get("model")
        listed = model.get("vocab") if isinstance(model, dict) else None
        place = ("tokenizer.json", "model.vocab")
        if isinstance(listed, list):
            pairs = [(piece[0], i) for i, piece in enumerate(listed) if isinstance(piece, list) and piece]
            yield from (Token(*place, text, i) for text, i in pairs if isinstance(text, str))
        elif isinstance(listed, dict):
            yield from (Token(*place, text, i) for text, i in listed.items())
    elif (folder / "vocab.txt").is_file():
        yield from _lines(folder / "vocab.txt")
    else:
        yield from (Token("vocab.json", "", text, i) for text, i in files.get("vocab.json", {}).items())


def _lines(path: Path) -> Iterator[Token]:
    """Of two lines that are alike the last one counts; a blank line is a token, too."""
    if path.stat().st_size > MAX_JSON_BYTES:
        raise ValueError(f"more than {MAX_JSON_BYTES >> 20} MiB")
    lines = path.read_bytes().decode("utf-8").removesuffix("\n").split("\n")
    if lines != [""]:
        yield from (
            Token(path.name, "", text, i) for text, i in {line.rstrip(): i for i, line in enumerate(lines)}.items()
        )


def _added(files: Files) -> Iterator[Token]:
    """What the files add to the vocabulary, with the ids they state; the tokenizer itself gives others, see below."""
    listed = files.get("tokenizer.json", {}).get("added_tokens")
    for index, token in enumerate(listed if isinstance(listed, list) else ()):
        if isinstance(token, dict) and isinstance(token.get("content"), str):
            yield Token("tokenizer.json", f"added_tokens.{index}", token["content"], token.get("id"))
    decoder = files.get(CONFIG, {}).get("added_tokens_decoder")
    for index, token in decoder.items() if isinstance(decoder, dict) else ():
        number = int(index) if re.fullmatch(r"-?[0-9]{1,20}", index) else index
        yield Token(CONFIG, f"added_tokens_decoder.{shorten(index)}", _content(token) or "", number)
    for text, index in files.get("added_tokens.json", {}).items():
        yield Token("added_tokens.json", "", text, index)


def _declared(files: Files) -> dict[str, tuple[str, Any]]:
    """What each key names a token, or tokens, with the file that decides."""
    found: dict[str, tuple[str, Any]] = {}
    for file in (MAP, CONFIG):
        found |= {key: (file, value) for key, value in files.get(file, {}).items() if value and _names(key)}
    return found


def _names(key: str) -> bool:
    return key.endswith("_token") or key in LISTS


def _content(value: Any) -> str | None:
    """The text of a token, written as it is or as an object."""
    text = value.get("content") if isinstance(value, dict) else value
    return text if isinstance(text, str) else None


def _lacking(files: Files, known: Collection[str], needed: Collection[str]) -> Iterator[Token]:
    """Kinds that the family needs or the files declare, where there is no such token; `text` says which it would be."""
    declared = _declared(files)
    for kind in KINDS:
        file, value = declared.get(kind, (CONFIG, None))
        text, usual = _content(value), CONVENTION.get(kind, ())
        if value is None:
            if kind in needed and not any(name in known for name in usual):
                yield Token(file, kind, " or ".join(usual), None)
        elif text is None or (usual and text not in known):
            yield Token(file, kind, shorten(value if text is None else text), None)


def _named(files: Files) -> Iterator[Token]:
    """Tokens that are named for a use, by the files or by the tokenizer's class, and without an id."""
    name, config, declared = _class_name(files), files.get(CONFIG, {}), _declared(files)
    usual: dict[str, tuple[str, Any]] = {
        kind: (CONFIG, text) for kind, text in NAMED_BY.get(name, {}).items() if kind not in config
    }
    padding = files.get("tokenizer.json", {}).get("padding")
    if isinstance(padding, dict):
        usual.setdefault("pad_token", ("tokenizer.json", padding.get("pad_token")))
    for key, (file, value) in (usual | declared).items():
        several = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        for token in several if key in LISTS else (value,):
            text = _content(token)
            if text:
                yield Token(file, key, text, None)
    if name == "T5Tokenizer" and not declared.keys() & set(LISTS):
        count = config.get("extra_ids", SENTINELS)
        for index in range(min(count, SENTINELS) if is_id(count) else 0):
            yield Token(CONFIG, "extra_ids", f"<extra_id_{index}>", None)


def _class_name(files: Files) -> str:
    """The class of transformers that the tokenizer is of."""
    config = files.get("config.json", {})
    stated = files.get(CONFIG, {}).get("tokenizer_class") or config.get("tokenizer_class")
    return str(stated).removesuffix("Fast") if stated else CLASS_OF.get(str(config.get("model_type")), "")


def _give_ids(vocabulary: Sequence[Token], tokens: Iterable[Token]) -> Iterator[Token]:
    """The tokens that the vocabulary lacks, with the ids that the library gives them whatever their files say.

    Those follow the vocabulary's size, or the highest id that an added token has: of those added so far or, which is
    never too low, before this one.
    """
    ids = {token.text: token.id for token in vocabulary}
    following = len(vocabulary)
    for token in tokens:
        if token.text not in ids:
            ids[token.text] = following
            yield token._replace(id=following)
        if is_id(ids[token.text]):
            following = max(following, ids[token.text] + 1)
