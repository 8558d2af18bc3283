"""What a tokenizer.json must be: readable by the library `tokenizers`, and unable to make much of a short text.

Judged without loading it: the library's own refusal is a Rust panic in the worst case, and comes in the middle of
training in the usual one. Not here: which ids have rows in the embedding (see `tokenizer`), and whether a regular
expression is one, or a slow one, which only the library's own engine could say.
"""

import binascii
import re
from base64 import b64decode
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from graftwork.errors import Problem, shorten

# No tokenizer that is known to be of use comes near to these.
MAX_ADDED_TOKENS = 32  # that are put around one text, or two; BERT's are 2 and 3, RoBERTa's 2 and 4
MAX_STEPS = 256  # of a normalizer, and so on; those of ALBERT are 7
MAX_DEPTH = 8  # of a Sequence inside a Sequence; of published ones 2
MAX_PATTERN = 16_384  # characters; DeepSeek's list of letters has under 1,000
MAX_REPLACEMENT = 256  # bytes of UTF-8; the longest in SentencePiece's tables, of U+FDFA, has 33
MAX_CHARSMAP = 4 << 20  # characters of base64; SentencePiece's own tables have 330,000
MAX_GROWTH = 10_000  # bytes that one byte of text may become at the very worst; DeBERTa's bound is 396

# Regular expressions that certainly match something: one letter or class, a number of times.
REPEATED = re.compile(r"([\w ]|\\[sSdDwW]|\\[pP]\{\w+\}|\[[^\[\]\\&]+\])(\+|\{[1-9][0-9]*(,[0-9]*)?\})?")
KEYS = {
    "version", "truncation", "padding", "added_tokens", "normalizer", "pre_tokenizer", "post_processor", "decoder",
    "model",
}  # fmt: skip
FLAGS = ("single_word", "lstrip", "rstrip", "normalized", "special")
SAVE_AGAIN = "save it again with the transformers that is installed, or take the tokenizer of another revision"
CUT_DOWN = "no tokenizer needs so much: do not use this checkpoint, or ask its owner what it is for"
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")

# Bytes that one byte may become: for normal forms UAX #15 gives the factor, a byte of ByteLevel becomes one or two.
NORMALIZERS: Mapping[str, float] = {
    "BertNormalizer": 3, "ByteLevel": 2, "Lowercase": 1.5, "NFC": 3, "NFD": 3, "NFKC": 11, "NFKD": 11, "Nmt": 1,
    "Precompiled": 1, "Prepend": 1, "Replace": 1, "Strip": 1, "StripAccents": 1,
}  # fmt: skip
PRE_TOKENIZERS: Mapping[str, float] = {
    "BertPreTokenizer": 1, "ByteLevel": 4, "CharDelimiterSplit": 1, "Digits": 1, "FixedLength": 1, "Metaspace": 1,
    "Punctuation": 1, "Split": 1, "UnicodeScripts": 1, "Whitespace": 1, "WhitespaceSplit": 1,
}  # fmt: skip
POST_PROCESSORS = ("BertProcessing", "ByteLevel", "RobertaProcessing", "TemplateProcessing")
DECODERS = ("BPEDecoder", "ByteFallback", "ByteLevel", "CTC", "Fuse", "Metaspace", "Replace", "Strip", "WordPiece")


# Forms that a text has or has not: they make it longer once, and by a lot only where it holds a few odd letters. They
# count where a step before them may have put in such letters.
FORMS = ("Lowercase", "NFC", "NFD", "NFKC", "NFKD")


@dataclass(frozen=True)
class Part:
    """A part of the pipeline: its key, what it calls the steps of a Sequence, and the types of step there are."""

    key: str
    inner: str
    types: Collection[str]


PARTS = (
    Part("normalizer", "normalizers", NORMALIZERS),
    Part("pre_tokenizer", "pretokenizers", PRE_TOKENIZERS),
    Part("post_processor", "processors", POST_PROCESSORS),
    Part("decoder", "decoders", DECODERS),
)
Piece = tuple[str | None, str | None]  # of a template: a special token's name, or a text's letter


class _Unfit(Exception):  # of one step: caught where its place is known
    """What is wrong with a step, and what to do."""

    def __init__(self, message: str, hint: str = SAVE_AGAIN) -> None:
        super().__init__(message)
        self.message, self.hint = message, hint


def check_format(document: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """What `tokenizers` could not read, or could not do with a text, outside the pipeline.

    document: of tokenizer.json. where: names the file.
    """
    for key in sorted(document.keys() - KEYS):
        yield Problem(f"the key {shorten(key)} is none of the format's", where, SAVE_AGAIN)
    version = document.get("version", "1.0")
    if version != "1.0":
        yield Problem(f"the format's version is {shorten(version)}, expected 1.0", f"{where}: version", SAVE_AGAIN)
    yield from _check_added(document.get("added_tokens"), f"{where}: added_tokens")
    model = document.get("model")
    if not isinstance(model, dict):
        yield Problem(f"expected an object, found {shorten(model)}", f"{where}: model", SAVE_AGAIN)
        return
    try:
        CHECKS[model_type(model)](model)
    except _Unfit as error:
        yield Problem(error.message, f"{where}: model", error.hint)


def check_pipeline(document: Mapping[str, Any], where: str) -> Iterator[Problem]:
    """Steps that are of no known type, not whole, too many, too deep, or could make too much of a text."""
    sizes: list[tuple[Mapping[str, Any], float]] = []
    for part in PARTS:
        found = list(_steps(document, part))
        if len(found) > MAX_STEPS:
            yield Problem(
                f"it has {len(found)} steps, at most {MAX_STEPS} are allowed", f"{where}: {part.key}", CUT_DOWN
            )
            continue
        for place, step in found:
            try:
                sizes.append((step, _measure(part, step)))
            except _Unfit as error:
                yield Problem(error.message, f"{where}: {place}", error.hint)
    growth = _growth(sizes)
    if growth > MAX_GROWTH:
        what = f"together they may make {growth:.3g} bytes of one, at most {MAX_GROWTH} are allowed"
        yield Problem(what, f"{where}: normalizer and pre_tokenizer", CUT_DOWN)
    yield from _check_around(document, where)


def put_around(document: Mapping[str, Any]) -> Iterator[tuple[str, str, Any]]:
    """The tokens that the post-processor puts around a text: key, token, id, of steps that are whole."""
    for place, step in _post_steps(document):
        if step["type"] != "TemplateProcessing":
            yield from ((f"{place}.{end}", *step[end]) for end in ("cls", "sep"))
            continue
        for name, special in step["special_tokens"].items():
            for token, index in zip(special["tokens"], special["ids"], strict=True):
                yield f"{place}.special_tokens.{shorten(name)}", token, index


def model_type(model: Mapping[str, Any]) -> str:
    """The model's type, which files of 2020 leave to be guessed. "": none that is known."""
    stated = model.get("type")
    if stated is not None:
        return stated if isinstance(stated, str) and stated in MODELS else ""
    if isinstance(model.get("vocab"), list):
        return "Unigram"
    if "merges" in model:
        return "BPE"
    return "WordPiece" if "continuing_subword_prefix" in model else "WordLevel"


def is_id(value: Any) -> bool:
    """True of a number that can be a token's id: whole, not negative, of 32 bits."""
    return type(value) is int and 0 <= value < 1 << 32


def _check_added(added: Any, where: str) -> Iterator[Problem]:
    if not isinstance(added, list):
        yield Problem(f"expected a list, found {shorten(added)}", where, SAVE_AGAIN)
        return
    for index, token in enumerate(added):
        if not isinstance(token, dict) or not isinstance(token.get("content"), str):
            yield Problem(f"it has no text as content: {shorten(token)}", f"{where}.{index}", SAVE_AGAIN)
        else:
            missing = [flag for flag in FLAGS if not isinstance(token.get(flag), bool)]
            if missing:
                what = f"{shorten(token['content'])!r} does not say true or false of {', '.join(missing)}"
                yield Problem(what, f"{where}.{index}", SAVE_AGAIN)


def _check_no_model(model: Mapping[str, Any]) -> None:
    raise _Unfit(f"its type is {shorten(model.get('type'))}, known are {', '.join(MODELS)}")


def _check_words(model: Mapping[str, Any]) -> None:
    unknown = model.get("unk_token")
    if not isinstance(unknown, str) or unknown not in _table(model):
        raise _Unfit(f"its unk_token {shorten(unknown)} is not in the vocabulary, so that a new word is an error")


def _check_wordpiece(model: Mapping[str, Any]) -> None:
    _check_words(model)
    if not isinstance(model.get("continuing_subword_prefix"), str) or not is_id(model.get("max_input_chars_per_word")):
        raise _Unfit("it lacks continuing_subword_prefix or max_input_chars_per_word")


def _check_bpe(model: Mapping[str, Any]) -> None:
    table, merges = _table(model), model.get("merges")
    if not isinstance(merges, list):
        raise _Unfit(f"its merges are no list but {shorten(merges)}")
    prefix = len(model.get("continuing_subword_prefix") or "")
    for index, merge in enumerate(merges):
        pair = merge.split(" ") if isinstance(merge, str) else merge
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(half, str) for half in pair)):
            raise _Unfit(f"merge {index} is no pair of tokens: {shorten(merge)}")
        left, right = pair
        lost = [token for token in (left, right, left + right[prefix:]) if token not in table]
        if lost:
            raise _Unfit(f"merge {index} is of {shorten(lost[0])!r}, which is not in the vocabulary")


def _check_unigram(model: Mapping[str, Any]) -> None:
    pieces, unknown = model.get("vocab"), model.get("unk_id")
    if not isinstance(pieces, list):
        raise _Unfit(f"its vocab is no list but {type(pieces).__name__}")
    for index, piece in enumerate(pieces):
        if not (isinstance(piece, list) and len(piece) == 2 and isinstance(piece[0], str) and _is_number(piece[1])):
            raise _Unfit(f"piece {index} of its vocab is no pair of a token and a score: {shorten(piece)}")
    if unknown is None and not model.get("byte_fallback"):
        raise _Unfit("it has no unk_id, so that a new character is an error")
    if unknown is not None and not (is_id(unknown) and unknown < len(pieces)):
        raise _Unfit(f"its unk_id is {shorten(unknown)}, of {len(pieces)} pieces")


CHECKS = {
    "": _check_no_model,
    "BPE": _check_bpe,
    "Unigram": _check_unigram,
    "WordLevel": _check_words,
    "WordPiece": _check_wordpiece,
}


def _table(model: Mapping[str, Any]) -> Mapping[str, Any]:
    table = model.get("vocab")
    if not isinstance(table, dict):
        raise _Unfit(f"its vocab is no table of tokens and ids but {type(table).__name__}")
    return table


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _steps(document: Mapping[str, Any], part: Part) -> Iterator[tuple[str, Any]]:
    """The steps of a part with their keys, in order; a Sequence is one itself where it is too deep, or has no list."""
    waiting = [(part.key, document.get(part.key), 0)]
    while waiting:
        place, step, depth = waiting.pop()
        inner = step.get(part.inner) if isinstance(step, dict) and step.get("type") == "Sequence" else None
        if isinstance(inner, list) and depth < MAX_DEPTH:
            waiting += [(f"{place}.{index}", each, depth + 1) for index, each in reversed(list(enumerate(inner)))]
        elif step is not None or depth:
            yield place, step


def _measure(part: Part, step: Any) -> float:
    """The bytes that a step makes of one, at most. Raises _Unfit if it is not as the library reads it."""
    kind = step.get("type") if isinstance(step, dict) else None
    if kind == "Sequence" and isinstance(step.get(part.inner), list):
        raise _Unfit(f"a Sequence is nested more than {MAX_DEPTH} deep", CUT_DOWN)
    if not isinstance(kind, str) or kind not in part.types:
        raise _Unfit(f"expected an object of a known type, found {shorten(kind or step)}")
    if isinstance(part.types, Mapping):
        check = {
            "Replace": _replaces,
            "Prepend": _prepends,
            "Precompiled": _maps,
            "Metaspace": _marks,
            "Split": _splits,
        }
        return check[kind](step) if kind in check else float(part.types[kind])
    if part.key == "post_processor":
        _check_post(kind, step)
    return 1.0


def _growth(sizes: Sequence[tuple[Mapping[str, Any], float]]) -> float:
    """The bytes that steps make of one together, at most, but for what Unicode's forms make of odd letters."""
    growth, waiting = 1.0, set[str]()
    for step, size in sizes:
        kind = step["type"]
        growth *= size if kind not in FORMS or kind in waiting else 1.0
        waiting.discard(kind)
        texts = (step.get(key) for key in ("content", "prepend", "replacement"))
        if kind in ("ByteLevel", "Precompiled") or any(isinstance(each, str) and not each.isascii() for each in texts):
            waiting.update(FORMS)
    return growth


def _replaces(step: Mapping[str, Any]) -> float:
    kind, pattern = _pattern(step)
    size = _size(step, "content")
    if not pattern:
        raise _Unfit("its pattern is empty, and matches between all letters", CUT_DOWN)
    if kind == "String":
        return max(1.0, size / len(pattern.encode("utf-8", "replace")))
    # Others may match nothing at all, before and behind every byte.
    return max(1.0, size) if REPEATED.fullmatch(pattern) else 2.0 * size + 1


def _prepends(step: Mapping[str, Any]) -> float:
    return _size(step, "prepend") + 1.0


def _marks(step: Mapping[str, Any]) -> float:
    size = _size(step, "replacement")
    if len(step["replacement"]) != 1:
        raise _Unfit(f"its replacement is no single character: {shorten(step['replacement'])}")
    return size + 1.0  # each piece may get one in front


def _splits(step: Mapping[str, Any]) -> float:
    _pattern(step)
    return 1.0


def _maps(step: Mapping[str, Any]) -> float:
    """Of SentencePiece's table: the size of its search tree, the tree, and what it may put in, each ended by a NUL."""
    table = step.get("precompiled_charsmap")
    if not isinstance(table, str):
        raise _Unfit(f"its precompiled_charsmap is no text but {shorten(table)}")
    if len(table) > MAX_CHARSMAP:
        raise _Unfit(
            f"its precompiled_charsmap has {len(table)} characters, at most {MAX_CHARSMAP} are allowed", CUT_DOWN
        )
    try:
        content = b64decode(table, validate=True)
    except binascii.Error as error:
        raise _Unfit(f"its precompiled_charsmap is not base64: {error}") from error
    tree = int.from_bytes(content[:4], "little")
    if not 4 <= tree < len(content) - 4 or tree % 4:
        raise _Unfit(f"its precompiled_charsmap is no table of {len(content)} bytes")
    longest = max(map(len, content[4 + tree :].split(b"\0")))
    if longest > MAX_REPLACEMENT:
        what = (
            f"its precompiled_charsmap puts in {longest} bytes for a character, at most {MAX_REPLACEMENT} are allowed"
        )
        raise _Unfit(what, CUT_DOWN)
    return max(1.0, longest)


def _pattern(step: Mapping[str, Any]) -> tuple[str, str]:
    pattern = step.get("pattern")
    kind, text = next(iter(pattern.items())) if isinstance(pattern, dict) and len(pattern) == 1 else ("", None)
    if kind not in ("String", "Regex") or not isinstance(text, str):
        raise _Unfit(f"its pattern is neither String nor Regex: {shorten(pattern)}")
    if len(text) > MAX_PATTERN:
        raise _Unfit(f"its pattern has {len(text)} characters, at most {MAX_PATTERN} are allowed", CUT_DOWN)
    return kind, text


def _size(step: Mapping[str, Any], key: str) -> int:
    """The bytes of a text that a step puts in."""
    text = step.get(key)
    if not isinstance(text, str):
        raise _Unfit(f"its {key} is no text but {shorten(text)}")
    size = len(text.encode("utf-8", "replace"))
    if size > MAX_REPLACEMENT:
        raise _Unfit(f"its {key} has {size} bytes, at most {MAX_REPLACEMENT} are allowed", CUT_DOWN)
    return size


def _check_post(kind: str, step: Mapping[str, Any]) -> None:
    """Raises _Unfit where the library would not read the step, or panic or repeat the text when it takes it."""
    if kind in ("BertProcessing", "RobertaProcessing"):
        for end in ("cls", "sep"):
            pair = step.get(end)
            if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and is_id(pair[1])):
                raise _Unfit(f"its {end} is no pair of a token and an id: {shorten(pair)}")
    if kind == "TemplateProcessing":
        specials = _specials(step)
        for name, texts in (("single", ["A"]), ("pair", ["A", "B"])):
            _check_template(name, _pieces(step, name), specials, texts)


def _check_template(name: str, pieces: Sequence[Piece], specials: Collection[str], texts: Sequence[str]) -> None:
    lost = [special for special, _ in pieces if special is not None and special not in specials]
    if lost:
        raise _Unfit(f"its {name} takes {shorten(lost[0])!r}, which is not among its special_tokens")
    found = sorted(text for _, text in pieces if text is not None)
    if found != texts:
        times = f"{len(found)} texts ({shorten(', '.join(found))})"
        raise _Unfit(f"its {name} takes {times}, expected {' and '.join(texts)} once")


def _specials(step: Mapping[str, Any]) -> Mapping[str, Any]:
    specials = step.get("special_tokens")
    if not isinstance(specials, dict):
        raise _Unfit(f"its special_tokens are no table but {shorten(specials)}")
    for name, special in specials.items():
        ids, tokens = (special.get(key) if isinstance(special, dict) else None for key in ("ids", "tokens"))
        if not (isinstance(ids, list) and isinstance(tokens, list) and len(ids) == len(tokens)):
            raise _Unfit(f"its special token {shorten(name)!r} has not as many ids as tokens")
        if not (all(map(is_id, ids)) and all(isinstance(token, str) for token in tokens)):
            raise _Unfit(
                f"its special token {shorten(name)!r} has an id that is no whole number from 0: {shorten(ids)}"
            )
    return specials


def _pieces(step: Mapping[str, Any], name: str) -> list[Piece]:
    pieces = step.get(name)
    if not isinstance(pieces, list):
        raise _Unfit(f"its {name} is no list but {shorten(pieces)}")
    found: list[Piece] = []
    for piece in pieces:
        kind, content = next(iter(piece.items())) if isinstance(piece, dict) and len(piece) == 1 else ("", None)
        written = content.get("id") if isinstance(content, dict) else None
        if kind not in ("SpecialToken", "Sequence") or not isinstance(written, str):
            raise _Unfit(f"its {name} has a piece that is neither a text nor a token: {shorten(piece)}")
        found.append((written, None) if kind == "SpecialToken" else (None, written))
    return found


def _post_steps(document: Mapping[str, Any]) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The steps that put tokens around a text, as far as they are whole."""
    part = next(part for part in PARTS if part.key == "post_processor")
    for place, step in _steps(document, part):
        try:
            _measure(part, step)
        except _Unfit:
            continue
        if step["type"] != "ByteLevel":
            yield place, step


def _check_around(document: Mapping[str, Any], where: str) -> Iterator[Problem]:
    steps = list(_post_steps(document))
    counts = {name: sum(_count(step, name, ends) for _, step in steps) for name, ends in (("single", 2), ("pair", 4))}
    name, count = max(counts.items(), key=lambda item: item[1])
    if count > MAX_ADDED_TOKENS:
        what = f"it puts {count} tokens around a {name}, at most {MAX_ADDED_TOKENS} are allowed"
        yield Problem(what, f"{where}: post_processor", CUT_DOWN)


def _count(step: Mapping[str, Any], name: str, ends: int) -> int:
    """The tokens that a step puts around; ends: how many those types put that have no template."""
    if step["type"] != "TemplateProcessing":
        return ends
    sizes = {special: len(entry["ids"]) for special, entry in step["special_tokens"].items()}
    return sum(sizes[special] for special, _ in _pieces(step, name) if special is not None)
