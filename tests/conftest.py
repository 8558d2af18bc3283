"""Small real things that many tests share: tiny pretrained checkpoints built from a config, without a network."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from servers import postgres_server
from tiny import write_checkpoint

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")


@pytest.fixture(scope="session")
def make_checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Writes a tiny checkpoint folder of an architecture: config, tokenizer, safetensors, licence in the model card."""

    def make(architecture: str = "bert", licence: str = "apache-2.0", seed: int = 0) -> Path:
        folder = tmp_path_factory.mktemp(architecture)
        write_checkpoint(folder, architecture, licence, seed)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(make_checkpoint: Callable[..., Path]) -> Path:
    """A tiny BERT; read it, don't write to it."""
    return make_checkpoint()


@pytest.fixture(scope="session")
def postgres_url_of_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a running PostgreSQL's own database."""
    with postgres_server(tmp_path_factory.mktemp("postgres")) as server:
        yield server.get_uri().replace("postgresql://", "postgresql+psycopg://")


@pytest.fixture
def dead_owner() -> str:
    """A process of this machine that has ended."""
    ask = "from graftwork.owners import this_owner; print(this_owner())"
    return subprocess.run([sys.executable, "-c", ask], capture_output=True, text=True, check=True).stdout.strip()
