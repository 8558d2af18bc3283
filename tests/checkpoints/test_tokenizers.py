"""BAD_INPUTS 43: tokenizers that do not fit their model, can't be read, or make too much of a text."""

import inspect
import json
import re
from base64 import b64encode
from math import prod
from pathlib import Path
from types import SimpleNamespace

import jinja2
import numpy as np
import pytest
import tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import save_file
from tokenizers import Tokenizer, decoders, normalizers, pre_tokenizers, processors

from graftwork.checkpoints import tokenizer_json
from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.checkpoints.tokenizer import CLASS_OF, NAMED_BY, check_tokenizer
from graftwork.checkpoints.tokenizer_json import (
    FORMS,
    MAX_ADDED_TOKENS,
    MAX_CHARSMAP,
    MAX_DEPTH,
    MAX_PATTERN,
    MAX_REPLACEMENT,
    MAX_STEPS,
    PARTS,
)
from graftwork.errors import CheckpointError
from graftwork.models.catalog import FAMILIES
from graftwork.models.serving.text import TextEncoder

BERT = FAMILIES["bert"]
FEW = {token: index for index, token in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad"])}
PLAIN = {"tokenizer_class": "PreTrainedTokenizerFast"} | {
    f"{kind}_token": f"[{kind.upper()}]" for kind in ("pad", "unk", "cls", "sep")
}
OFF = dict.fromkeys(tokenizer_json.FLAGS, False)


def described(**parts):
    """A whole tokenizer.json of few words, with other parts in the place of its own."""
    model = {"type": "WordLevel", "vocab": FEW, "unk_token": "[UNK]"}
    whole = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": [], "normalizer": None}
    return whole | {"pre_tokenizer": None, "post_processor": None, "decoder": None, "model": model} | parts


def added(content, index, **changed):
    return {"id": index, "content": content} | OFF | {"special": True} | changed


def sequence(*steps, inner="normalizers"):
    return {"type": "Sequence", inner: list(steps)}


def replacing(content, **pattern):
    return {"type": "Replace", "pattern": pattern or {"String": " "}, "content": content}


def text(letter="A"):
    return {"Sequence": {"id": letter, "type_id": 0}}


def special(name):
    return {"SpecialToken": {"id": name, "type_id": 0}}


def template(*single, pair=None, **specials):
    """A post-processor that puts `specials`, ids by their tokens, around a text."""
    pair = pair or [text("A"), text("B")]
    listed = {name: {"id": name, "ids": ids, "tokens": [name] * len(ids)} for name, ids in specials.items()}
    return {"type": "TemplateProcessing", "single": list(single), "pair": pair, "special_tokens": listed}


def charsmap(*replacements, tree=1024):
    """A table as SentencePiece has it, with a search tree in which nothing is found."""
    content = tree.to_bytes(4, "little") + bytes(tree) + b"".join(each + b"\0" for each in replacements)
    return {"type": "Precompiled", "precompiled_charsmap": b64encode(content).decode()}


def merged(*merges, **more):
    return {"type": "BPE", "vocab": FEW | {"a": 7, "b": 8, "ab": 9}, "merges": list(merges)} | more


def pieces(*listed, **more):
    return {"type": "Unigram", "vocab": listed or [["[UNK]", 0.0], ["a", -1.0]], "unk_id": 0} | more


def wrapped(depth):
    step = {"type": "NFC"}
    for _ in range(depth):
        step = sequence(step)
    return step


def write(folder: Path, files: dict, rows: int, model_type: str = "bert") -> Path:
    """A folder with these files, of JSON or of lines, and a table of so many rows."""
    folder.mkdir(exist_ok=True)
    for name, content in ({"config.json": {"model_type": model_type, "vocab_size": rows}} | files).items():
        (folder / name).write_text(content if isinstance(content, str) else json.dumps(content))
    save_file({BERT.table: np.zeros((rows, 2), np.float32)}, folder / "model.safetensors")
    return folder


def problems(folder: Path, family=BERT) -> list[str]:
    return [str(problem) for problem in check_tokenizer(folder, "here", family)]


@pytest.mark.parametrize("architecture", [name for name in tiny.CONFIGS if FAMILIES[name].table])
def test_a_good_tokenizer_passes(tmp_path, architecture):
    """Of every family's tiny checkpoint nothing is refused."""
    tiny.write_checkpoint(tmp_path / "tiny", architecture)
    assert problems(tmp_path / "tiny", FAMILIES[architecture]) == []


VOCABULARY = "".join(f"{token}\n" for token in FEW)
UNMASKED = {token: index for index, token in enumerate(token for token in FEW if token != "[MASK]")}
PADDING = {"strategy": "BatchLongest", "direction": "Right", "pad_to_multiple_of": None, "pad_id": 0, "pad_type_id": 0}
LATER = [added("n2", 8), added("n1", 7), added("good", 5)]
FITTING = {
    "plain": ({"tokenizer.json": described(), "tokenizer_config.json": PLAIN}, "bert"),
    "holes": (
        {
            "tokenizer.json": described(
                model={"type": "WordLevel", "vocab": FEW | {"far": 30}, "unk_token": "[UNK]"},
                added_tokens=[added("far", 30)],
            ),
            "tokenizer_config.json": PLAIN | {"extra_special_tokens": ["new"]},
        },
        "bert",
    ),
    "added in another order": (
        {"tokenizer.json": described(added_tokens=LATER), "tokenizer_config.json": PLAIN},
        "bert",
    ),
    "added with another's id": (
        {"tokenizer.json": described(added_tokens=[added("new", 3)]), "tokenizer_config.json": PLAIN},
        "bert",
    ),
    "added by the configuration": (
        {
            "tokenizer.json": described(),
            "tokenizer_config.json": PLAIN | {"added_tokens_decoder": {"7": {"content": "new"} | OFF}},
        },
        "bert",
    ),
    "added beside": (
        {"tokenizer.json": described(), "tokenizer_config.json": PLAIN, "added_tokens.json": {"new": 7}},
        "bert",
    ),
    "a mask that is not there": (
        {"tokenizer.json": described(), "tokenizer_config.json": PLAIN | {"mask_token": "<mask>"}},
        "bert",
    ),
    "a kind of its own": (
        {"tokenizer.json": described(), "tokenizer_config.json": PLAIN | {"image_token": "<image>"}},
        "bert",
    ),
    "extra": (
        {"tokenizer.json": described(), "tokenizer_config.json": PLAIN | {"extra_special_tokens": ["<x>", "<y>"]}},
        "bert",
    ),
    "extra by name": (
        {"tokenizer.json": described(), "tokenizer_config.json": PLAIN | {"extra_special_tokens": {"x_token": "<x>"}}},
        "bert",
    ),
    "additional in the map": (
        {
            "tokenizer.json": described(),
            "tokenizer_config.json": PLAIN,
            "special_tokens_map.json": {"additional_special_tokens": ["<x>"], "eos_token": "<y>"},
        },
        "bert",
    ),
    "padding": (
        {
            "tokenizer.json": described(padding=PADDING | {"pad_token": "<p>"}),
            "tokenizer_config.json": {"tokenizer_class": "PreTrainedTokenizerFast"},
        },
        "bert",
    ),
    "lines": ({"vocab.txt": VOCABULARY}, "bert"),
    "lines of which the last are blank": ({"vocab.txt": VOCABULARY + "\n\n"}, "bert"),
    "lines that are alike": ({"vocab.txt": VOCABULARY + "good\nfilm\n"}, "bert"),
    "lines without a mask": ({"vocab.txt": VOCABULARY.replace("[MASK]\n", "")}, "bert"),
    "lines, and no mask wanted": (
        {"vocab.txt": VOCABULARY.replace("[MASK]\n", ""), "tokenizer_config.json": {"mask_token": None}},
        "bert",
    ),
    "class of the type": (
        {"tokenizer.json": described(model={"type": "WordLevel", "vocab": UNMASKED, "unk_token": "[UNK]"})},
        "distilbert",
    ),
    "class with Fast": (
        {
            "tokenizer.json": described(model={"type": "WordLevel", "vocab": UNMASKED, "unk_token": "[UNK]"}),
            "tokenizer_config.json": {"tokenizer_class": "BertTokenizerFast"},
        },
        "bert",
    ),
    "another's class": ({"tokenizer.json": described(model=merged("a b"))}, "gpt2"),
    "sentinels": (
        {"tokenizer.json": described(model=pieces(["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -1.0]))},
        "t5",
    ),
    "fewer sentinels": (
        {
            "tokenizer.json": described(model=pieces(["<pad>", 0.0], ["</s>", 0.0], ["<unk>", 0.0], ["a", -1.0])),
            "tokenizer_config.json": {"extra_ids": 3},
        },
        "t5",
    ),
}


@pytest.mark.parametrize(("files", "model_type"), FITTING.values(), ids=FITTING)
def test_a_table_must_have_a_row_for_each_id_that_transformers_gives(tmp_path, files, model_type):
    """With rows for all ids of the loaded tokenizer nothing is refused, with one row less a token and its id are."""
    from transformers import AutoTokenizer

    folder = write(tmp_path / "it", files, rows=999, model_type=model_type)
    last = max(AutoTokenizer.from_pretrained(folder, local_files_only=True).get_vocab().values())
    family = SimpleNamespace(table=BERT.table, special_tokens=())
    assert problems(write(folder, files, rows=last + 1, model_type=model_type), family) == []
    late = problems(write(folder, files, rows=last, model_type=model_type), family)
    assert late
    assert re.search(rf"^here: \w+\.\w+: .*the token '.*' .*id {last}, the embedding has {last} rows", late[-1])


def test_what_a_class_names_is_what_transformers_says():
    """The defaults that are listed are those of the classes' signatures."""
    from transformers.models.auto.tokenization_auto import TOKENIZER_MAPPING_NAMES, tokenizer_class_from_name

    for name, tokens in NAMED_BY.items():
        kinds = [each for each in tokenizer_class_from_name(name).__mro__ if "unk_token" in _defaults(each)]
        stated = {key: str(each) for key, each in _defaults(kinds[0]).items() if key.endswith("_token") and each}
        assert stated == tokens, name
    texts = {name for name, family in FAMILIES.items() if family.table}
    assert {name: TOKENIZER_MAPPING_NAMES.get(name) for name in texts} == {
        name: CLASS_OF.get(name, "TokenizersBackend" if name == "modernbert" else None) for name in texts
    }


def _defaults(kind):
    parameters = inspect.signature(kind.__init__).parameters.values()
    return {each.name: each.default for each in parameters if each.default is not inspect.Parameter.empty}


def config(**keys):
    return {"tokenizer.json": described(), "tokenizer_config.json": PLAIN | keys}


def of(**parts):
    return {"tokenizer.json": described(**parts), "tokenizer_config.json": PLAIN}


def words(**tokens):
    return {"type": "WordLevel", "vocab": FEW | tokens, "unk_token": "[UNK]"}


PLACE = r"^here: tokenizer\.json: "
UNFIT = {
    # ids
    "id beyond": (
        of(model=words(far=99)),
        rf"{PLACE}model\.vocab: the token 'far' has id 99, the embedding has 40 rows",
    ),
    "ids beyond": (of(model=words(far=98, farther=99)), r"'farther' has id 99, .* rows \(and 1 more like it\) \(take"),
    "added beyond": (of(added_tokens=[added("new", 99)]), rf"{PLACE}added_tokens\.0: the token 'new' has id 99"),
    "configured beyond": (
        config(added_tokens_decoder={"99": {"content": "new"}}),
        r"^here: tokenizer_config\.json: added_tokens_decoder\.99: the token 'new' has id 99",
    ),
    "added beside beyond": (
        of() | {"added_tokens.json": {"new": 99}},
        r"^here: added_tokens\.json: the token 'new' has id 99",
    ),
    "put around beyond": (
        of(post_processor=template(special("[CLS]"), text(), **{"[CLS]": [99]})),
        rf"{PLACE}post_processor\.special_tokens\.\[CLS\]: the token '\[CLS\]' has id 99",
    ),
    "separator beyond": (
        of(post_processor={"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 99]}),
        rf"{PLACE}post_processor\.sep: the token '\[SEP\]' has id 99",
    ),
    "negative": (of(model=words(odd=-1)), r"the id of 'odd' is -1, expected a whole number from 0 \(save"),
    "fraction": (of(model=words(odd=7.0)), r"the id of 'odd' is 7\.0"),
    "truth": (of(model=words(odd=True)), "the id of 'odd' is True"),
    "words for a number": (of(model=words(odd="7")), "the id of 'odd' is '7'"),
    "more than 32 bits": (of(model=words(odd=1 << 32)), "the id of 'odd' is 4294967296"),
    "added negative": (of(added_tokens=[added("new", -1)]), r"added_tokens\.0: the id of 'new' is -1"),
    "added without": (of(added_tokens=[{"content": "new"} | OFF]), "the id of 'new' is None"),
    "configured negative": (config(added_tokens_decoder={"-1": {"content": "new"}}), "the id of 'new' is -1"),
    "configured as a word": (config(added_tokens_decoder={"x": {"content": "new"}}), "the id of 'new' is 'x'"),
    "added beside as a list": (of() | {"added_tokens.json": {"new": [7]}}, r"the id of 'new' is \[7\]"),
    "lines of a vocabulary elsewhere": (
        {"vocab.txt": VOCABULARY, "tokenizer_config.json": PLAIN | {"vocab": {"good": 9999}}},
        r"tokenizer_config\.json: the key vocab is refused: it would stand in for .* \(remove vocab\)",
    ),
    "a pipeline elsewhere": (
        of() | {"special_tokens_map.json": {"post_processor": "x"}},
        r"special_tokens_map\.json: the key post_processor is refused",
    ),
    # special tokens
    "no padding": (of() | {"tokenizer_config.json": PLAIN | {"pad_token": "<p>"}}, r"the pad_token <p> is not in"),
    "no separator": (
        {"vocab.txt": VOCABULARY.replace("[SEP]", "sep")},
        r"^here: tokenizer_config\.json: sep_token: the sep_token \[SEP\] or </s> is not in the vocabulary \(take",
    ),
    "mask that is no token": (config(mask_token=5), "the mask_token 5 is not in the vocabulary"),
    "class token in a list": (config(cls_token=["[CLS]"]), r"the cls_token \['\[CLS\]'\] is not in"),
    # what can't be read
    "torn": (of() | {"tokenizer.json": '{"model": '}, rf"{PLACE}not JSON: .* \(fetch the file again\)"),
    "list": (of() | {"tokenizer.json": "[]"}, rf"{PLACE}expected an object, found \[\]"),
    "torn map": (of() | {"special_tokens_map.json": "{"}, r"special_tokens_map\.json: not JSON"),
    "odd bytes": ({"vocab.txt": VOCABULARY}, r"vocab\.txt: it can't be read: 'utf-8' codec"),
    "decoder of a list": (config(added_tokens_decoder=[1]), r"added_tokens_decoder: expected an object with the token"),
    "decoder of texts": (config(added_tokens_decoder={"7": "new"}), r"added_tokens_decoder\.7: .*, found new"),
}


@pytest.mark.parametrize("name", UNFIT)
def test_what_does_not_fit_is_refused_with_its_file_and_key(tmp_path, name):
    """An id without a row, an id that is none, a token that does not exist: one problem that says which, and where."""
    files, message = UNFIT[name]
    folder = write(tmp_path / "it", files, rows=40)
    if name == "odd bytes":
        (folder / "vocab.txt").write_bytes(b"\xff\n")
    found = problems(folder)
    assert len(found) == 1
    assert re.search(message, found[0]), found


OTHER = "#" * (MAX_REPLACEMENT + 1)
AROUND = template(*[special("[CLS]")] * (MAX_ADDED_TOKENS + 1), text(), **{"[CLS]": [2]})
BOMBS = {
    "many tokens around": (
        {"post_processor": AROUND},
        f"post_processor: it puts {MAX_ADDED_TOKENS + 1} tokens around a single",
    ),
    "many tokens in one": (
        {"post_processor": template(special("[CLS]"), text(), **{"[CLS]": [2] * 900})},
        "it puts 900 tokens around a single",
    ),
    "many tokens between": (
        {"post_processor": template(text(), pair=[text(), *[special("[SEP]")] * 900, text("B")], **{"[SEP]": [3]})},
        "it puts 900 tokens around a pair",
    ),
    "many processors": (
        {
            "post_processor": sequence(
                *[{"type": "RobertaProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}] * 17, inner="processors"
            )
        },
        "it puts 68 tokens around a pair",
    ),
    "the text twice": (
        {"post_processor": template(text(), text())},
        r"its single takes 2 texts \(A, A\), expected A once",
    ),
    "the pair thrice": (
        {"post_processor": template(text(), pair=[text("A"), text("B"), text("B")])},
        r"its pair takes 3 texts \(A, B, B\), expected A and B once",
    ),
    "strangers around": (
        {"post_processor": template(special("[X]"), text(), **{"[X]": [1]})},
        r"special_tokens\.\[X\]: it puts '\[X\]' around a text, which is not in the vocabulary",
    ),
    "long replacement": (
        {"normalizer": replacing(OTHER)},
        rf"normalizer: its content has {len(OTHER)} bytes, at most {MAX_REPLACEMENT} are allowed \(no tokenizer",
    ),
    "long beginning": ({"normalizer": {"type": "Prepend", "prepend": OTHER}}, "its prepend has"),
    "long pattern": (
        {"normalizer": sequence({"type": "NFC"}, replacing("", Regex="a" * (MAX_PATTERN + 1)))},
        rf"normalizer\.1: its pattern has {MAX_PATTERN + 1} characters",
    ),
    "long pattern to split at": (
        {
            "pre_tokenizer": {
                "type": "Split",
                "pattern": {"String": "a" * (MAX_PATTERN + 1)},
                "behavior": "Removed",
                "invert": False,
            }
        },
        f"pre_tokenizer: its pattern has {MAX_PATTERN + 1} characters",
    ),
    "nothing replaced": (
        {"normalizer": replacing("a", Regex="")},
        "normalizer: its pattern is empty, and matches between all letters",
    ),
    "doubling": (
        {"normalizer": sequence(*[replacing("aa", String="a")] * 40)},
        r"normalizer and pre_tokenizer: together they may make 1\.1e\+12 bytes of one, at most 10000",
    ),
    "doubling between letters": (
        {"normalizer": sequence(*[replacing("a", Regex="b*")] * 40)},
        r"may make 1\.22e\+19 bytes",
    ),
    "bytes of bytes": ({"normalizer": sequence(*[{"type": "ByteLevel"}] * 40)}, "together they may make"),
    "one letter of many": (
        {"normalizer": sequence(*[replacing("\ufdfa", Regex="."), {"type": "NFKC"}] * 5)},
        "together they may make",
    ),
    "beyond all numbers": (
        {"normalizer": sequence(*[replacing("#" * MAX_REPLACEMENT, String="a")] * 200)},
        "together they may make inf bytes",
    ),
    "bytes of bytes in pieces": (
        {
            "pre_tokenizer": sequence(
                *[{"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": False}] * 9,
                inner="pretokenizers",
            )
        },
        "together they may make",
    ),
    "deep": (
        {"normalizer": wrapped(MAX_DEPTH + 1)},
        f"normalizer{r'.0' * MAX_DEPTH}: a Sequence is nested more than {MAX_DEPTH} deep",
    ),
    "very deep": ({"normalizer": wrapped(300)}, f"nested more than {MAX_DEPTH} deep"),
    "many steps": (
        {"normalizer": sequence(*[{"type": "Strip", "strip_left": True, "strip_right": True}] * (MAX_STEPS + 1))},
        f"normalizer: it has {MAX_STEPS + 1} steps, at most {MAX_STEPS} are allowed",
    ),
    "big table": (
        {"normalizer": charsmap(b"x" * MAX_CHARSMAP)},
        f"its precompiled_charsmap has .* characters, at most {MAX_CHARSMAP} are",
    ),
    "table that bursts": (
        {"normalizer": charsmap(b"fi", b"x" * 5000)},
        f"its precompiled_charsmap puts in 5000 bytes for a character, at most {MAX_REPLACEMENT}",
    ),
}
STEP = r"expected an object of a known type, found"
UNREADABLE = {
    "another key": ({"extra": 1}, rf"{PLACE}the key extra is none of the format's"),
    "another version": ({"version": "2.0"}, rf"{PLACE}version: the format's version is 2\.0, expected 1\.0"),
    "added of none": ({"added_tokens": None}, rf"{PLACE}added_tokens: expected a list, found None"),
    "added without flags": ({"added_tokens": [{"content": "good", "id": 5}]}, "'good' does not say true or false of"),
    "added with a number": ({"added_tokens": [added(5, 5)]}, r"added_tokens\.0: it has no text as content"),
    "no model": ({"model": None}, rf"{PLACE}model: expected an object, found None"),
    "another model": ({"model": {"type": "Evil", "vocab": FEW}}, "its type is Evil, known are BPE, Unigram"),
    "list of words": ({"model": words() | {"vocab": list(FEW)}}, "its vocab is no table of tokens and ids but list"),
    "no unknown word": ({"model": words() | {"unk_token": "<unk>"}}, "its unk_token <unk> is not in the vocabulary"),
    "half a WordPiece": ({"model": words() | {"type": "WordPiece"}}, "it lacks continuing_subword_prefix"),
    "no merges": ({"model": words() | {"type": "BPE"}}, "its merges are no list but None"),
    "merge of three": ({"model": merged("a b ab")}, "merge 0 is no pair of tokens: a b ab"),
    "merge of strangers": ({"model": merged(["a", "b"], ["a", "c"])}, "merge 1 is of 'c', which is not in the"),
    "merge to a stranger": ({"model": merged("b a")}, "merge 0 is of 'ba'"),
    "piece without a score": ({"model": pieces(["[UNK]"])}, r"piece 0 of its vocab is no pair .*: \['\[UNK\]'\]"),
    "unknown beyond": ({"model": pieces(unk_id=2)}, "its unk_id is 2, of 2 pieces"),
    "unknown nowhere": ({"model": pieces(unk_id=None)}, "it has no unk_id, so that a new character is an error"),
    "another normalizer": ({"normalizer": {"type": "Evil"}}, f"normalizer: {STEP} Evil"),
    "normalizer of text": ({"normalizer": "NFC"}, f"normalizer: {STEP} NFC"),
    "null inside": ({"normalizer": sequence({"type": "NFC"}, None)}, rf"normalizer\.1: {STEP} None"),
    "sequence of nothing": ({"normalizer": {"type": "Sequence"}}, f"normalizer: {STEP} Sequence"),
    "another pre-tokenizer": ({"pre_tokenizer": {"type": "NFC"}}, f"pre_tokenizer: {STEP} NFC"),
    "another decoder": ({"decoder": {"type": "Evil"}}, f"decoder: {STEP} Evil"),
    "pattern of text": ({"normalizer": replacing("") | {"pattern": "a"}}, "its pattern is neither String nor Regex: a"),
    "no content": ({"normalizer": {"type": "Replace", "pattern": {"String": "a"}}}, "its content is no text but None"),
    "two marks": ({"pre_tokenizer": {"type": "Metaspace", "replacement": "ab"}}, "its replacement is no single char"),
    "no table": ({"normalizer": {"type": "Precompiled"}}, "its precompiled_charsmap is no text but None"),
    "empty table": ({"normalizer": charsmap() | {"precompiled_charsmap": ""}}, "is no table of 0 bytes"),
    "table without a tree": ({"normalizer": charsmap(b"x", tree=0)}, "is no table of 6 bytes"),
    "table in no base64": ({"normalizer": charsmap() | {"precompiled_charsmap": "!"}}, "is not base64"),
    "another post-processor": ({"post_processor": {"type": "Evil"}}, f"post_processor: {STEP} Evil"),
    "separator without an id": (
        {"post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]"]}},
        r"post_processor: its sep is no pair of a token and an id: \['\[SEP\]'\]",
    ),
    "negative separator": (
        {"post_processor": {"type": "BertProcessing", "cls": ["[CLS]", 2], "sep": ["[SEP]", -1]}},
        "its sep is no pair of a token and an id",
    ),
    "template of text": ({"post_processor": template("[CLS]", text())}, r"its single has a piece that is neither"),
    "template of strangers": (
        {"post_processor": template(special("[CLS]"), text())},
        r"its single takes '\[CLS\]', which is not among its special_tokens",
    ),
    "template of the second": ({"post_processor": template(text("B"))}, r"its single takes 1 texts \(B\), expected A"),
    "template with a negative id": (
        {"post_processor": template(text(), **{"[CLS]": [-1]})},
        r"its special token '\[CLS\]' has an id that is no whole number from 0: \[-1\]",
    ),
}


@pytest.mark.parametrize("name", [*BOMBS, *UNREADABLE])
def test_a_tokenizer_that_makes_too_much_or_is_none_is_refused(tmp_path, name):
    """One problem, with the file, the key, what was found and what to do; nothing is loaded to find it."""
    parts, message = (BOMBS | UNREADABLE)[name]
    family = SimpleNamespace(table=BERT.table, special_tokens=())
    files = {"tokenizer.json": described(**parts), "tokenizer_config.json": {"tokenizer_class": "TokenizersBackend"}}
    found = problems(write(tmp_path / "it", files, rows=40), family)
    assert len(found) == 1
    assert re.search(message, found[0]), found
    assert found[0].startswith("here: tokenizer.json: ")
    assert found[0].endswith(")")


@pytest.mark.parametrize("name", UNREADABLE)
def test_what_is_called_unreadable_is(name):
    """The library, an oracle, does not load it, or fails at a text: of a new word, or of two halves."""

    def attempt():
        loaded = Tokenizer.from_str(json.dumps(described(**UNREADABLE[name][0])))
        for each in (("good unheard",), ("good", "bad")):
            loaded.encode(*each)

    with pytest.raises(BaseException):  # noqa: B017  a panic of Rust is no Exception
        attempt()


def test_every_step_of_the_library_is_known():
    """No type of step that the installed library can make is refused as unknown."""
    modules = (normalizers, pre_tokenizers, processors, decoders)
    for part, module in zip(PARTS, modules, strict=True):
        base = {"Sequence", "Normalizer", "PreTokenizer", "PostProcessor", "Decoder", "DecodeStream", "NORMALIZERS"}
        assert {name for name in dir(module) if name[0].isupper()} - base == set(part.types)


def _published():
    """Pipelines as published checkpoints have them, the table of characters apart."""
    unmarked = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always", "split": True}
    table = charsmap("صلى الله عليه وسلم".encode())
    bytes_of = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    spaces = {"type": "Split", "pattern": {"Regex": r"\s?\p{L}+"}, "behavior": "Isolated", "invert": False}
    quotes = [replacing('"', String="``"), replacing('"', String="''")]
    folded = [{"type": kind} for kind in ("NFKD", "StripAccents", "Lowercase")]
    ends = {"cls": ["[CLS]", 2], "sep": ["[SEP]", 3]}
    return {
        "BERT": {"normalizer": {"type": "BertNormalizer"}, "pre_tokenizer": {"type": "BertPreTokenizer"}},
        "ALBERT": {
            "normalizer": sequence(*quotes, *folded, table, replacing(" ", Regex=" {2,}")),
            "pre_tokenizer": sequence({"type": "WhitespaceSplit"}, unmarked, inner="pretokenizers"),
        },
        "ALBERT, saved twice": {"normalizer": sequence(*[*quotes, *folded, replacing(" ", Regex=" {2,}")] * 2, table)},
        "DeBERTa": {
            "normalizer": sequence({"type": "Strip"}, table, replacing("▁", Regex=" {2,}")),
            "pre_tokenizer": unmarked,
        },
        "Llama 2": {"normalizer": sequence({"type": "Prepend", "prepend": "▁"}, replacing("▁"))},
        "Llama 3": {
            "pre_tokenizer": sequence(spaces, bytes_of, inner="pretokenizers"),
            "post_processor": sequence(
                {"type": "ByteLevel"}, template(special("good"), text(), good=[5]), inner="processors"
            ),
        },
        "RoBERTa": {"pre_tokenizer": bytes_of, "post_processor": {"type": "RobertaProcessing"} | ends},
        "DeepSeek": {"pre_tokenizer": sequence(*[spaces] * 4, {"type": "Digits"}, bytes_of, inner="pretokenizers")},
        "CLIP": {"normalizer": sequence({"type": "NFC"}, replacing(" ", Regex=r"\s+"), {"type": "Lowercase"})},
    }


@pytest.mark.parametrize(("name", "parts"), _published().items(), ids=_published())
def test_what_is_published_stays_under_the_limits(tmp_path, name, parts):
    """The pipelines of well-known checkpoints pass."""
    assert problems(write(tmp_path / "it", of(**parts), rows=40)) == []


CONTENTS = st.text(st.sampled_from("ab é▁ﷺ"), max_size=3)
PATTERNS = ["a*", "é|b", r"\s+", "[ab]{1,}", r"\p{L}", "b?", r"\b", "(?=a)"]
STEPS = st.one_of(
    st.sampled_from(["NFC", "NFD", "NFKC", "NFKD", "Lowercase", "StripAccents", "ByteLevel"]).map(
        lambda kind: {"type": kind}
    ),
    st.builds(lambda content, pattern: replacing(content, String=pattern), CONTENTS, CONTENTS.filter(bool)),
    st.builds(lambda content, pattern: replacing(content, Regex=pattern), CONTENTS, st.sampled_from(PATTERNS)),
    st.builds(lambda content: {"type": "Prepend", "prepend": content}, CONTENTS),
    st.just({"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True, "strip_accents": None})
    .map(lambda step: step | {"lowercase": True}),
)  # fmt: skip


@settings(max_examples=150, deadline=None)
@given(steps=st.lists(STEPS, max_size=4), read=st.text(st.sampled_from("ab \n\té▁ﷺ語İ𐐀"), min_size=1, max_size=6))
def test_no_text_grows_beyond_the_bound(steps, read):
    """What the library makes of a text has at most as many bytes, for each of the text's, as the steps are held to.

    Forms of Unicode are one each on top: they come to a text of the user's.
    """
    bound = tokenizer_json._growth([(step, tokenizer_json._measure(PARTS[0], step)) for step in steps])
    bound *= prod(tokenizer_json.NORMALIZERS[form] for form in {step["type"] for step in steps} & set(FORMS))
    normalizer = Tokenizer.from_str(json.dumps(described(normalizer=sequence(*steps)))).normalizer
    try:
        made = normalizer.normalize_str(read)
    except BaseException as error:
        if type(error).__name__ != "PanicException":  # what some sequences of steps are answered with
            raise
        return
    assert len(made.encode()) <= bound * len(read.encode())


def test_all_reasons_are_told_at_once(checkpoint, recipe, workspace):
    """A bomb, a late id, a lost token and a file that is none are four problems of one refusal."""
    lost = {token: index for token, index in FEW.items() if token != "[SEP]"}
    model = {"type": "WordLevel", "vocab": lost | {"far": 99}, "unk_token": "[UNK]"}
    whole = described(model=model, normalizer=replacing(OTHER))
    (checkpoint / "tokenizer.json").write_text(json.dumps(whole))
    (checkpoint / "added_tokens.json").write_text("[]")
    with pytest.raises(CheckpointError) as caught:
        retrieve_checkpoint(recipe, workspace, {"bert": BERT})
    keys = [problem.where.removeprefix("file://tiny: ") for problem in caught.value.problems]
    wanted = ["added_tokens.json", "tokenizer.json: normalizer", "tokenizer.json: model.vocab"]
    assert keys == [*wanted, "tokenizer_config.json: sep_token"]
    assert all(problem.hint for problem in caught.value.problems)


BOMB = "{% for i in range(10**9) %}x{% endfor %}{{ ''.__class__.__mro__ }}"


@pytest.mark.parametrize("name", ["tokenizer_config.json", "special_tokens_map.json", "config.json"])
@pytest.mark.parametrize("value", [BOMB, [{"name": "default", "template": BOMB}]])
def test_a_template_is_refused_wherever_it_stands(checkpoint, recipe, workspace, name, value):
    """In each of the files that transformers takes arguments from."""
    path = checkpoint / name
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps(found | {"chat_template": value}))
    with pytest.raises(CheckpointError, match=rf"{name}: the key chat_template is refused: a template is a program"):
        retrieve_checkpoint(recipe, workspace, {"bert": BERT})


def test_a_template_in_a_file_of_its_own_is_left_behind(checkpoint, recipe, workspace):
    """Neither chat_template.jinja nor a folder of them is taken."""
    (checkpoint / "additional_chat_templates").mkdir()
    for name in ("chat_template.jinja", "chat_template.json", "additional_chat_templates/tool.jinja"):
        (checkpoint / name).write_text(BOMB)
    assert not [file for file in retrieve_checkpoint(recipe, workspace, {"bert": BERT}).files if "chat" in file.path]


def test_no_template_runs_even_where_one_is(tmp_path, monkeypatch):
    """A tokenizer with a template, as no retrieved one has it, reads texts without Jinja being asked for anything."""
    tiny.write_tokenizer(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    path = tmp_path / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"chat_template": BOMB}))
    (tmp_path / "chat_template.jinja").write_text(BOMB)

    def refuse(*_, **__):
        raise AssertionError("a template was compiled")

    monkeypatch.setattr(jinja2.Environment, "compile", refuse)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    assert len(TextEncoder(tmp_path, max_tokens=16).encode(["a good film"])[0]) == 5
