"""Sealing of API keys, so that importers can check protected backends and nobody else can read the keys
(SYN-12).

Owns the sealed form and the cluster secret's file format. Rules it keeps: authenticated encryption (AES-SIV)
under a key derived from the cluster's secret and name; the worker's id is bound in, so that a sealed key
cannot be moved to another worker's record; sealing is deterministic, so that equal workers stay equal bytes
and nothing is published again without a change; key lengths are padded. The first secret of the file seals,
all of them open: to rotate, put the new secret first, reload every node, then drop the old one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from meshd.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV

MIN_SECRET_CHARS: Final = 16
"""Shorter secrets could be guessed from the records that everybody holds."""

_VERSION: Final = b"\x01"
_NAME_BYTES: Final = 4
_PAD_TO: Final = 32


class ClusterSealer:
    """Seals and opens API keys with a cluster's secrets; `secrets` is not empty, the first one seals."""

    def __init__(self, cluster: str, secrets: Sequence[str]) -> None:
        self._keys = [_derived(cluster, secret) for secret in secrets]

    def seal(self, id: str, api_key: str) -> bytes:
        """Return the key sealed for the worker with this id; equal input gives equal bytes."""
        name, key = self._keys[0]
        plain = api_key.encode() + b"\x80"
        plain += bytes(-len(plain) % _PAD_TO)
        return _VERSION + name + key.encrypt(plain, [_VERSION, id.encode()])

    def unseal(self, id: str, sealed: bytes) -> str | None:
        """Return the key; None if no secret known here opens it, or it was sealed for another worker."""
        from cryptography.exceptions import InvalidTag

        head = len(_VERSION) + _NAME_BYTES
        if sealed[:1] != _VERSION or len(sealed) <= head:
            return None
        for name, key in self._keys:
            if name != sealed[1:head]:
                continue
            try:
                plain = key.decrypt(sealed[head:], [_VERSION, id.encode()])
            except (InvalidTag, ValueError):
                continue  # damaged, of another worker, or of another secret that happens to have this name
            text, mark, _ = plain.rpartition(b"\x80")
            return text.decode(errors="replace") if mark else None
        return None


def parse_secrets(text: str) -> tuple[str, ...]:
    """Read a secret file: one secret a line, empty lines and lines that start with # left out.

    Raises ConfigError for a file without secrets, or with one that is too short.
    """
    secrets = tuple(
        line.strip() for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    )
    if not secrets:
        raise ConfigError("security.secret_file", "holds no secret; write one on a line of its own")
    if any(len(secret) < MIN_SECRET_CHARS for secret in secrets):
        raise ConfigError(
            "security.secret_file",
            f"holds a secret of fewer than {MIN_SECRET_CHARS} characters; make a longer one",
        )
    return secrets


def _derived(cluster: str, secret: str) -> tuple[bytes, AESSIV]:
    """Return the name under which sealed keys refer to a secret, and the key derived from it."""
    # Imported here: few nodes have a secret, and the library costs memory that the others need not spend.
    from cryptography.hazmat.primitives.ciphers.aead import AESSIV
    from cryptography.hazmat.primitives.hashes import SHA256
    from cryptography.hazmat.primitives.kdf.hkdf import HKDF

    derived = HKDF(SHA256(), 64 + _NAME_BYTES, cluster.encode(), b"meshd worker api keys 1").derive(
        secret.encode()
    )
    return derived[64:], AESSIV(derived[:64])
