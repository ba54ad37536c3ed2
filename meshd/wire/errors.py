"""The one error that bad bytes from a peer lead to."""

from __future__ import annotations


class WireError(Exception):
    """A peer sent what the protocol does not allow. Only its connection suffers; no state was changed."""
