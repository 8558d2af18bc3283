"""Ed25519 keys of people, in the files that OpenSSH keeps them in."""

from collections.abc import Callable
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from graftwork.errors import Problem, RecipeError


def public_key(line: str) -> Ed25519PublicKey:
    """The key of a line as in a .pub file. Raises ValueError if it is none, or of another kind."""
    try:
        key = load_ssh_public_key(line.encode("utf-8"))
    except UnsupportedAlgorithm as error:
        raise ValueError("not an Ed25519 key") from error
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("not an Ed25519 key")
    return key


def read_private_key(path: Path, ask: Callable[[], str]) -> Ed25519PrivateKey:
    """The key of an OpenSSH private key file; `ask` is called if it has a passphrase.

    Raises RecipeError if the file can't be read, holds another kind of key, or the passphrase is wrong.
    """
    try:
        content = path.read_bytes()
        try:
            key = load_ssh_private_key(content, None)
        except TypeError:  # it has a passphrase
            key = load_ssh_private_key(content, ask().encode("utf-8"))
    except OSError as error:
        raise RecipeError(Problem(f"can't be read: {error.strerror}", str(path))) from error
    except (ValueError, UnsupportedAlgorithm) as error:
        hint = "`ssh-keygen -t ed25519` makes one"
        raise RecipeError(Problem(f"no key that can be used: {error}", str(path), hint)) from error
    if not isinstance(key, Ed25519PrivateKey):
        raise RecipeError(Problem("it is no Ed25519 key", str(path), "`ssh-keygen -t ed25519` makes one"))
    return key
