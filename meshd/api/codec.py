"""JSON in and out of the API: bounded decoding, fast answers, and listings that never hold the loop for long.

Rules: a body that cannot be decoded raises `BadRequest` and nothing else; nesting is bounded (SEC-4); an
answer with more than `limits.LISTING_CHUNK` items is encoded and sent piece by piece, with a checkpoint
between the pieces.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from itertools import islice
from typing import TypeVar

import msgspec
import trio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from meshd.api import limits
from meshd.errors import BadRequest

Item = TypeVar("Item")

encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder()

JSON_TYPE = "application/json"


def decode_object(body: bytes) -> dict[str, object]:
    """Decode a request body that must be a JSON object.

    Raises BadRequest (field `body`) when it is empty, not JSON, nested deeper than the limit, or not an
    object.
    """
    if not body.strip():
        raise BadRequest("the request needs a JSON object as its body", field="body")
    try:
        value = _decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise BadRequest(f"the body is not JSON: {error}", field="body") from None
    except RecursionError:
        raise _too_deep() from None
    if not isinstance(value, dict):
        raise BadRequest(
            f"the body must be a JSON object, not {_kind(value)}; start it with {{", field="body"
        )
    # Cheap for real bodies: only one with more brackets than the limit can nest deeper than it.
    if body.count(b"[") + body.count(b"{") > limits.MAX_JSON_DEPTH and _deeper_than(
        value, limits.MAX_JSON_DEPTH
    ):
        raise _too_deep()
    return value


def _too_deep() -> BadRequest:
    return BadRequest(f"the body nests deeper than {limits.MAX_JSON_DEPTH} levels; flatten it", field="body")


def _deeper_than(value: object, depth: int) -> bool:
    level: list[object] = [value]
    for _ in range(depth):
        inner: list[object] = []
        for item in level:
            if isinstance(item, dict):
                inner.extend(part for part in item.values() if isinstance(part, dict | list))
            elif isinstance(item, list):
                inner.extend(part for part in item if isinstance(part, dict | list))
        if not inner:
            return False
        level = inner
    return True


def _kind(value: object) -> str:
    names = {list: "a list", str: "a string", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


class JSONAnswer(Response):
    """A JSON answer. `content` is anything msgspec can encode, or bytes that are JSON already."""

    media_type = JSON_TYPE

    def render(self, content: object) -> bytes:
        """Encode `content`; bytes pass through."""
        if isinstance(content, bytes):
            return content
        return encoder.encode(content)


Write = Callable[[bytes], Awaitable[None]]
"""Sends some bytes of an answer."""


async def write_list(items: Iterable[Item], encode: Callable[[list[Item]], bytes], write: Write) -> None:
    """Write `items` as a JSON list, a chunk at a time, with a checkpoint after each.

    `encode` turns a list of items into the bytes of one JSON list.
    """
    source = iter(items)
    opening = b"["
    while chunk := list(islice(source, limits.LISTING_CHUNK)):
        await write(opening + encode(chunk)[1:-1])
        opening = b","
        await trio.lowlevel.checkpoint()
    await write(b"[]" if opening == b"[" else b"]")


class ListingAnswer(Response):
    """A JSON object whose one long list is written in pieces.

    `{"<name>": [items...], <tail...>}`; `tail` is encoded at once. The sequence of items is fixed when the
    answer is made; what each item shows is read when its piece is encoded, so a slow reader sees later pieces
    fresher.
    """

    media_type = JSON_TYPE

    def __init__(
        self,
        name: str,
        items: Sequence[Item],
        encode: Callable[[list[Item]], bytes],
        tail: Mapping[str, object],
    ) -> None:
        self._head = b'{"' + name.encode() + b'":'
        self._items = items
        self._encode = encode
        self._tail = b"}" if not tail else b"," + encoder.encode(tail)[1:]
        # No `content`: there is no length to announce, the transfer is chunked.
        self.status_code = 200
        self.background = None
        self.init_headers()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the answer."""

        async def write(piece: bytes) -> None:
            await send({"type": "http.response.body", "body": piece, "more_body": True})

        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        if scope["method"] != "HEAD":
            await write(self._head)
            await write_list(self._items, self._encode, write)
        await send({"type": "http.response.body", "body": self._tail, "more_body": False})


def listing(
    name: str,
    items: Sequence[Item],
    encode: Callable[[list[Item]], bytes],
    tail: Mapping[str, object],
) -> Response:
    """Answer with a list: in one body when it is short, in pieces when it is long."""
    if len(items) > limits.LISTING_CHUNK:
        return ListingAnswer(name, items, encode, tail)
    body = b'{"' + name.encode() + b'":' + encode(list(items))
    return JSONAnswer(body + (b"}" if not tail else b"," + encoder.encode(tail)[1:]))
