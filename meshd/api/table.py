"""What an operation of the API is: one row drives its route, its guard, its OpenAPI entry and its docs.

The rows themselves are in `operations`. A row that is wrong cannot be half-wrong: there is no second place
that says which paths exist, which parameters they take, or what they answer.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from meshd.api.codec import decode_object
from meshd.api.guard import Access
from meshd.errors import BadRequest

if TYPE_CHECKING:
    from starlette.requests import Request
    from starlette.responses import Response

    from meshd.api.state import ApiState

Handler = Callable[["Call"], Awaitable["Response"]]


@dataclass(frozen=True, slots=True)
class Param:
    """One query parameter: its name, what it does, and the JSON schema of its value."""

    name: str
    doc: str
    schema: dict[str, Any]
    repeated: bool = False


@dataclass(frozen=True, slots=True)
class Reply:
    """One answer: its status, what it means, the type of its body (None for none), and its media type."""

    status: int
    doc: str
    body: Any = None
    media_type: str = "application/json"
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Operation:
    """One row of the table.

    `path` writes parameters as `{name}`, or `{name:path}` where slashes may follow.
    """

    method: str
    path: str
    handler: Handler
    summary: str
    group: str
    replies: tuple[Reply, ...]
    access: Access = Access.READ
    params: tuple[Param, ...] = ()
    body: Any = None
    body_required: bool = True
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(frozen=True, slots=True)
class Call:
    """One request on its way to a handler: the daemon's side of the API, and what the client sent."""

    api: ApiState
    operation: Operation
    request: Request
    body: bytes

    def path_value(self, name: str) -> str:
        """Return a parameter of the path."""
        return str(self.request.path_params[name])

    def query(self, name: str) -> str | None:
        """Return a query parameter, the last one if it was repeated, None if it was not sent."""
        return self.request.query_params.get(name)

    def query_list(self, name: str) -> list[str]:
        """Return every value of a repeated query parameter."""
        return self.request.query_params.getlist(name)

    def query_int(self, name: str, default: int | None, minimum: int, maximum: int) -> int | None:
        """Return a query parameter as a whole number; raises BadRequest naming it and its limits."""
        text = self.query(name)
        if text is None:
            return default
        if text.isascii() and text.isdigit() and len(text) <= 18 and minimum <= int(text) <= maximum:
            return int(text)
        raise BadRequest(
            f"{name} must be a whole number from {minimum} to {maximum}, not {text[:40]!r}", field=name
        )

    def query_flag(self, name: str, default: bool) -> bool:
        """Return a query parameter as yes or no: 1, true, yes, on, or 0, false, no, off."""
        text = self.query(name)
        if text is None:
            return default
        word = text.lower()
        if word in ("1", "true", "yes", "on"):
            return True
        if word in ("0", "false", "no", "off"):
            return False
        raise BadRequest(f"{name} must be 1 or 0, not {text[:40]!r}", field=name)

    def json(self) -> dict[str, object]:
        """Return the body as a JSON object; raises BadRequest."""
        return decode_object(self.body)

    def json_as(self, form: type[Any]) -> Any:
        """Return the body as `form`, a msgspec Struct; an absent body counts as `{}` where the row says so.

        Raises BadRequest naming the field at fault.
        """
        if not self.body.strip() and not self.operation.body_required:
            value: dict[str, object] = {}
        else:
            value = self.json()
        try:
            return msgspec.convert(value, form)
        except msgspec.ValidationError as error:
            raise field_error(error) from None

    def refuse_unknown_parameters(self) -> None:
        """Raise BadRequest if a query parameter was sent that the row does not list."""
        if not self.request.scope["query_string"]:
            return
        known = {param.name for param in self.operation.params}
        for name in self.request.query_params:
            if name not in known:
                takes = ", ".join(sorted(known)) or "none"
                raise BadRequest(
                    f"there is no query parameter {name[:40]!r} here; this operation takes: {takes}",
                    field=name[:40],
                )


def field_error(error: msgspec.ValidationError) -> BadRequest:
    """Turn msgspec's complaint into ours: its path becomes `field`, its sentence stays."""
    text = str(error)
    sentence, marker, path = text.partition(" - at `")
    field = path.rstrip("`").removeprefix("$.").removeprefix("$") if marker else ""
    if not field and "`" in sentence:
        # "Object missing required field `peers`", "Object contains unknown field `x`"
        field = sentence.rpartition("`")[0].rpartition("`")[2]
    return BadRequest(f"{field}: {sentence}" if field else sentence, field=field or "body")
