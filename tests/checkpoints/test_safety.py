import json
import os
import pickle
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.numpy import load_file, save_file

from graftwork.checkpoints.retrieve import retrieve_checkpoint
from graftwork.checkpoints.safety import check_weights, read_tensor_shapes, select_files
from graftwork.errors import CheckpointError
from graftwork.models.catalog import FAMILIES

BERT = {"bert": FAMILIES["bert"]}
EMBEDDING = "embeddings.word_embeddings.weight"


class Canary:
    """Pickled, it makes a file when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch canary",)


def pickled(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").unlink()
        (folder / name).write_bytes(pickle.dumps(Canary()))

    return spoil


def key(name: str, value: object, file: str = "config.json") -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / file
        found = json.loads(path.read_text()) if path.exists() else {}
        path.write_text(json.dumps(found | {name: value}))

    return spoil


def text(name: str, content: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_text(content) and None


def weights(**changed: np.ndarray) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        path = folder / "model.safetensors"
        save_file(load_file(path) | {name.replace("__", "."): value for name, value in changed.items()}, path)

    return spoil


def cut(folder: Path) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:-5])


def huge_header(folder: Path) -> None:
    (folder / "model.safetensors").write_bytes((1 << 60).to_bytes(8, "little") + b"{}")


def negative_offsets(folder: Path) -> None:
    header = json.dumps({"x": {"dtype": "F32", "shape": [2], "data_offsets": [8, 0]}}).encode()
    (folder / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"\0" * 8)


def sharded(weight_map: dict[str, str]) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        (folder / "model.safetensors").rename(folder / "model-00001-of-00001.safetensors")
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))

    return spoil


def linked(name: str) -> Callable[[Path], None]:
    def spoil(folder: Path) -> None:
        blob = folder.parent / "blob"
        (folder / name).rename(blob)
        (folder / name).symlink_to(blob)

    return spoil


def vocabulary(tokens: list[str]) -> Callable[[Path], None]:
    return text("vocab.txt", "\n".join(tokens))


NESTED = "[" * 100_000 + "]" * 100_000
SHARD = "model-00001-of-00001.safetensors"
BASIC = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
FIRST = {"encoder.layer.0.output.dense.weight": SHARD}

CORPUS = {
    # BAD_INPUTS 41: weights that are not what they seem
    "cut": (cut, r"not a whole safetensors file: .*model\.safetensors|model\.safetensors: not a whole"),
    "empty": (text("model.safetensors", ""), r"model\.safetensors: not a whole safetensors file"),
    "huge header": (huge_header, "not a whole safetensors file"),
    "negative offsets": (negative_offsets, "not a whole safetensors file"),
    "web page": (text("model.safetensors", "<!doctype html><p>Not found"), "not a whole safetensors file"),
    "nan": (weights(x=np.array([1, np.nan, np.nan], np.float32)), "tensor x holds 2 values that are NaN or infinite"),
    "inf in half": (weights(x=np.array([np.inf], np.float16)), "tensor x holds 1 values that are NaN or infinite"),
    "rows": (
        weights(embeddings__word_embeddings__weight=np.zeros((9, 4), np.float32)),
        "vocab_size is 8, .* has 9",
    ),
    "no embedding": (weights(embeddings__word_embeddings__weight=np.zeros(4, np.float32)), "there is no embedding"),
    "lost tensor": (sharded(FIRST | {"gone": SHARD}), f"tensor gone is {SHARD} by the index, in no shard in fact"),
    "extra tensor": (sharded(FIRST), f"tensor {EMBEDDING} is in no shard by the index, {SHARD} in fact"),
    # BAD_INPUTS 42: what would run or fetch code, or leave the folder
    "pickle": (pickled("pytorch_model.bin"), r"its only weights are pytorch_model\.bin, and loading those runs code"),
    "pt": (pickled("model.pt"), r"its only weights are model\.pt"),
    "pkl": (pickled("model.pkl"), r"its only weights are model\.pkl"),
    "ckpt": (pickled("model.ckpt"), r"its only weights are model\.ckpt"),
    "h5": (pickled("tf_model.h5"), r"its only weights are tf_model\.h5"),
    "msgpack": (pickled("flax_model.msgpack"), r"its only weights are flax_model\.msgpack"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), r"neither model\.safetensors nor .*"),
    "auto_map": (key("auto_map", {"AutoModel": "evil.Model"}), "the key auto_map is refused: it loads code"),
    "tokenizer auto_map": (
        key("auto_map", {"AutoTokenizer": ["evil.T", None]}, "tokenizer_config.json"),
        r"tokenizer_config\.json: the key auto_map is refused",
    ),
    "custom_pipelines": (key("custom_pipelines", {"x": {"impl": "evil.P"}}), "the key custom_pipelines is refused"),
    "trust": (key("trust_remote_code", True), "the key trust_remote_code is refused"),
    "kernel": (key("_attn_implementation", "evil/kernel"), "the key _attn_implementation is refused: it steers kernel"),
    "inner kernel": (
        key("text_config", {"attn_implementation_internal": "evil/kernel"}),
        r"the key text_config\.attn_implementation_internal is refused",
    ),
    "quantised": (key("quantization_config", {"quant_method": "x"}), "quantised weights can't be fine-tuned"),
    "unknown type": (
        key("model_type", "evil"),
        r"model_type 'evil' is not supported \(known are bert; another is an entry in",
    ),
    "type that is no name": (key("model_type", ["bert"]), r"model_type \['bert'\] is not supported"),
    "no type": (text("config.json", "{}"), "model_type None is not supported"),
    "file elsewhere": (
        key("tokenizer_file", "/etc/passwd", "tokenizer_config.json"),
        "the key tokenizer_file is refused: it points to a file elsewhere, /etc/passwd",
    ),
    "index up": (sharded({"x": f"../other/{SHARD}"}), rf"it points to \.\./other/{SHARD}, which is no"),
    "index absolute": (sharded({"x": "/etc/passwd"}), "it points to /etc/passwd, which is no shard"),
    "index list": (sharded([]), "it has no weight_map"),
    "linked weights": (linked("model.safetensors"), r"model\.safetensors: a symbolic link is not followed \(copy"),
    "linked config": (linked("config.json"), r"config\.json: a symbolic link is not followed"),
    "linked folder": (linked("1_Pooling"), "1_Pooling: a symbolic link is not followed"),
    "deep json": (text("config.json", NESTED), r"config\.json: not JSON: .*recursion"),
    "deep but harmless": (text("modules.json", NESTED[:300] + NESTED[-300:]), None),
    "torn json": (text("config.json", '{"model_type": '), r"config\.json: not JSON"),
    "list for config": (text("config.json", "[]"), r"config\.json: expected an object, found \[\]"),
    # BAD_INPUTS 43: tokenizers that do not fit
    "id beyond": (vocabulary([*BASIC, "more"]), "the token 'more' has id 8, the embedding has 8 rows"),
    "no padding": (vocabulary(["x", *BASIC[1:]]), r"the pad_token \[PAD\] is not in the vocabulary"),
    "no separator": (vocabulary([*BASIC[:3], "x", *BASIC[4:]]), r"the sep_token \[SEP\] or </s> is not in"),
    "no vocabulary": (lambda folder: (folder / "vocab.txt").unlink(), "there is no vocabulary"),
    "strange vocabulary": (
        text("tokenizer.json", '{"model": []}'),
        r"tokenizer\.json: model: expected an object, found \[\]",
    ),
    "added beyond": (
        text(
            "tokenizer.json",
            json.dumps(
                {
                    "model": {"vocab": {t: i for i, t in enumerate(BASIC)}},
                    "added_tokens": [{"content": "<new>", "id": 99}],
                }
            ),
        ),
        "the token '<new>' has id 99",
    ),
    "template bomb": (
        key("chat_template", "{% for i in range(10**9) %}x{% endfor %}", "tokenizer_config.json"),
        "the key chat_template is refused: a template is a program",
    ),
}


@pytest.mark.parametrize("name", [name for name, (_, message) in CORPUS.items() if message])
def test_a_bad_checkpoint_is_refused_with_its_reason(checkpoint, recipe, workspace, name):
    """What is not whole, finite, plain or fitting is refused, and neither store nor lockfile is written."""
    spoil, message = CORPUS[name]
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        retrieve_checkpoint(recipe, workspace, BERT)
    assert caught.value.exit_code == 4
    assert not [path for path in workspace.store.root.rglob("*") if path.is_file()]
    assert not (recipe.path.parent / "recipe.lock.json").exists()


def test_all_reasons_are_told_at_once(checkpoint, recipe, workspace):
    """A kernel, a NaN and a lost token are one error with three problems."""
    for name in ("kernel", "nan", "no padding"):
        CORPUS[name][0](checkpoint)
    with pytest.raises(CheckpointError) as caught:
        retrieve_checkpoint(recipe, workspace, BERT)
    assert len(caught.value.problems) == 3


def test_pickles_beside_safetensors_are_left_behind(checkpoint, recipe, workspace):
    """Only listed files are taken: not a pickle, not code, not a hidden file."""
    for name in ("pytorch_model.bin", "modeling_evil.py", ".hidden", "training_args.bin", "model.safetensors.exe"):
        (checkpoint / name).write_bytes(b"x")
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    taken = [
        "1_Pooling/config.json",
        "README.md",
        "config.json",
        "model.safetensors",
        "tokenizer_config.json",
        "vocab.txt",
    ]
    assert [file.path for file in lock.files] == taken


def test_nothing_of_a_bad_checkpoint_runs(checkpoint, recipe, tmp_path):
    """Over the whole corpus no process starts, no socket opens, nothing is unpickled, and no file outside is opened."""
    for number, (spoil, _) in enumerate(CORPUS.values()):
        folder = tmp_path / "corpus" / f"{number}" / "tiny"
        folder.parent.mkdir(parents=True)
        subprocess.run(["cp", "-r", checkpoint, folder], check=True)
        spoil(folder)
    code = """
        import sys
        from pathlib import Path
        from types import SimpleNamespace as Bare
        import numpy, safetensors
        from graftwork.checkpoints.references import Reference
        from graftwork.checkpoints.retrieve import _take_in
        from graftwork.errors import CheckpointError
        from graftwork.models.catalog import FAMILIES
        from graftwork.settings import Settings
        from graftwork.storage import Store

        corpus, refused, opened = Path(sys.argv[1]), 0, set()

        def watch(event, arguments):
            if event.startswith(("subprocess", "os.system", "os.exec", "os.fork", "socket", "pickle", "compile")):
                print("FORBIDDEN", event, arguments)
            if event == "open" and isinstance(arguments[0], str | Path):
                opened.add(str(arguments[0]))

        place = Bare(store=Store(corpus / "store"), settings=Settings(home=corpus))
        root = corpus.resolve()
        hosts = sorted(root.iterdir())
        def attempt(folder):
            try:
                _take_in(Reference("file", str(folder)), root, place, FAMILIES)
            except CheckpointError:
                return 1
            return 0
        attempt(hosts[0] / "tiny")  # so that what is imported late is imported before we watch
        sys.addaudithook(watch)
        refused = sum(attempt(host / "tiny") for host in hosts)
        # rmtree opens the inner folder by its bare name, from the outer one it holds open.
        outside = {name for name in opened - {"1_Pooling"} if not name.startswith(str(root))}
        print("refused", refused, "outside", sorted(outside))
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "corpus"], capture_output=True, text=True, cwd=tmp_path
    )
    accepted = sum(message is None for _, message in CORPUS.values())
    assert done.stdout == f"refused {len(CORPUS) - accepted} outside []\n", done.stdout + done.stderr
    assert not list(tmp_path.rglob("canary"))


KINDS = {"float16": (np.float16, 16), "float32": (np.float32, 32), "float64": (np.float64, 64)}


@given(kind=st.sampled_from(list(KINDS)), data=st.data())
def test_finite_means_what_numpy_means(tmp_path_factory, kind, data):
    """The bit test finds exactly the values that NumPy calls not finite, in every width."""
    dtype, width = KINDS[kind]
    values = np.array(data.draw(st.lists(st.floats(width=width), min_size=1, max_size=6)), dtype)
    folder = tmp_path_factory.mktemp("tensors")
    save_file({"x": values}, folder / "model.safetensors")
    bad = int((~np.isfinite(values)).sum())
    problems = [problem.message for problem in check_weights(folder, "here")]
    assert problems == ([f"tensor x holds {bad} values that are NaN or infinite"] if bad else [])


def brain_floats(path: Path, values: np.ndarray) -> None:
    """Write float32 values as bfloat16, which is their upper half."""
    halves = (values.view(np.uint32) >> 16).astype(np.uint16).tobytes()
    header = json.dumps(
        {"x": {"dtype": "BF16", "shape": list(values.shape), "data_offsets": [0, len(halves)]}}
    ).encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + halves)


@pytest.mark.parametrize(("values", "bad"), [([1.5, -3e38, 1e-40], 0), ([1.0, np.inf, -np.inf, np.nan], 3)])
def test_brain_floats_are_checked_too(tmp_path, values, bad):
    """bfloat16, which NumPy lacks, is checked like the others, and its shape is read."""
    brain_floats(tmp_path / "model.safetensors", np.array(values, np.float32))
    assert read_tensor_shapes(tmp_path) == {"x": ((len(values),), "BF16")}
    assert [problem.message for problem in check_weights(tmp_path, "")] == (
        [f"tensor x holds {bad} values that are NaN or infinite"] if bad else []
    )


def test_a_sharded_checkpoint_is_taken_whole(checkpoint, recipe, workspace):
    """Shards that the index describes rightly are taken with their index."""
    sharded({"encoder.layer.0.output.dense.weight": SHARD, EMBEDDING: SHARD})(checkpoint)
    lock = retrieve_checkpoint(recipe, workspace, BERT)
    assert {SHARD, "model.safetensors.index.json"} <= {file.path for file in lock.files}
    assert read_tensor_shapes(workspace.store.open(lock.key))[EMBEDDING] == ((8, 4), "F32")


@settings(max_examples=30)
@given(names=st.sets(st.text(max_size=12), max_size=4))
def test_no_name_but_a_listed_one_is_taken(names):
    """Whatever a listing holds, only plain names of the list come out: no path leaves the folder."""
    taken = select_files({*names, "../config.json", "/config.json", "config.json", "model.safetensors"}, "here")
    assert set(taken) <= {"config.json", "model.safetensors", "README.md", "LICENSE", "vocab.txt", "merges.txt"}
