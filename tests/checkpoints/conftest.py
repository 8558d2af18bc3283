"""A tiny checkpoint with all the parts of a real one, and a server that speaks as much of the hub's API as we use."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork.database import Database
from graftwork.recipe import Recipe, load_recipe
from graftwork.settings import Settings
from graftwork.storage import Store
from graftwork.workspace import Workspace

COMMIT = "0123456789abcdef0123456789abcdef01234567"
TOKENS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "good", "bad", "film"]
CONFIG = {"model_type": "bert", "vocab_size": len(TOKENS), "hidden_size": 4, "num_hidden_layers": 1}
RECIPE = """\
name: reviews
problem_type: text-classification
data: {{sources: [{{name: s, path: s.csv}}], label: {{from: label, classes: [a, b]}}}}
input: {{text: text}}
checkpoint: {{source: "{source}", licences: [apache-2.0]}}  # from somewhere
stages: full
policy: policy.yaml
"""


def tensors() -> dict[str, np.ndarray]:
    """The weights of the tiny encoder; the same at each call."""
    chance = np.random.default_rng(7)
    shapes = {"embeddings.word_embeddings.weight": (len(TOKENS), 4), "encoder.layer.0.output.dense.weight": (4, 8)}
    return {name: chance.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A whole checkpoint in the project's folder `tiny`."""
    folder = tmp_path / "tiny"
    (folder / "1_Pooling").mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "vocab.txt").write_text("\n".join(TOKENS) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps({"pad_token": "[PAD]", "cls_token": "[CLS]"}))
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_mean_tokens": True}))
    (folder / "README.md").write_text("---\nlanguage: en\nlicense: Apache-2.0\n---\n# tiny\n")
    (folder / "notes.txt").write_text("not needed")
    save_file(tensors(), folder / "model.safetensors")
    return folder


@pytest.fixture
def recipe_of(tmp_path: Path) -> Callable[[str], Recipe]:
    """A recipe in the project that names the given checkpoint."""

    def write(source: str) -> Recipe:
        (tmp_path / ".graftwork").mkdir(exist_ok=True)
        (tmp_path / "recipe.yaml").write_text(RECIPE.format(source=source))
        return load_recipe(tmp_path / "recipe.yaml")

    return write


@pytest.fixture
def recipe(checkpoint: Path, recipe_of: Callable[[str], Recipe]) -> Recipe:
    """A recipe that names the tiny checkpoint by its folder."""
    return recipe_of("file://tiny")


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    """One migrated database for all tests: checkpoints write nothing into it."""
    return Database.open(f"sqlite:///{tmp_path_factory.mktemp('db') / 'graftwork.db'}")


@pytest.fixture
def workspace(tmp_path: Path, database: Database) -> Workspace:
    """A workspace whose store is empty."""
    home = tmp_path / "home"
    return Workspace(Settings(home=home), Store(home / "store"), database)


@dataclass
class Hub:
    """One repository on a local server: `main` means `commit`. A test may change what it serves, or take it away."""

    folder: Path
    commit: str = COMMIT
    repository: str = "owner/tiny"
    status: int = 200
    error_code: str = ""
    altered: dict[str, bytes] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def info(self, revision: str) -> bytes | None:
        """The answer to a question about a revision."""
        if revision not in ("main", self.commit):
            return None
        paths = [path for path in sorted(self.folder.rglob("*")) if path.is_file()]
        return json.dumps(
            {"id": self.repository, "sha": self.commit, "siblings": [self._sibling(path) for path in paths]}
        ).encode()

    def file(self, revision: str, name: str) -> bytes | None:
        """The bytes of a file at the one commit there is."""
        path = self.folder / name
        return self.altered.get(name, path.read_bytes()) if revision == self.commit and path.is_file() else None

    def _sibling(self, path: Path) -> dict[str, object]:
        content = path.read_bytes()
        entry = {"rfilename": path.relative_to(self.folder).as_posix(), "size": len(content)}
        if path.suffix != ".safetensors":
            return entry
        return entry | {
            "lfs": {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content), "pointerSize": 134}
        }


def _handler(hub: Hub) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(body=False)

        def do_GET(self) -> None:
            self.answer(body=True)

        def answer(self, body: bool) -> None:
            hub.requests.append(f"{self.command} {self.path}")
            content = self.content()
            status = hub.status if hub.status != 200 else 200 if content is not None else 404
            code = hub.error_code or ("" if content is not None else "RevisionNotFound")
            content = content if status == 200 and content is not None else b"{}"
            self.send_response(status)
            self.send_header("X-Repo-Commit", hub.commit)
            self.send_header("ETag", f'"{hashlib.sha256(content).hexdigest()}"')
            self.send_header("Content-Length", str(len(content)))
            if code:
                self.send_header("X-Error-Code", code)
            self.end_headers()
            if body:
                self.wfile.write(content)

        def content(self) -> bytes | None:
            path = self.path.partition("?")[0]
            if path.startswith(f"/api/models/{hub.repository}"):
                return hub.info(path.partition("/revision/")[2] or "main")
            revision, _, name = path.removeprefix(f"/{hub.repository}/resolve/").partition("/")
            return hub.file(revision, name)

        def log_message(self, *_: object) -> None:
            pass

    return Handler


@pytest.fixture
def online(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the hub's library speak, which tests otherwise keep offline; for addresses on this machine only."""
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")  # nobody listens there


@pytest.fixture
def hub(checkpoint: Path, online: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    """The tiny checkpoint on a hub of our own, which HF_ENDPOINT names."""
    hub = Hub(checkpoint)
    server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{server.server_port}")
    yield hub
    server.shutdown()
    server.server_close()
