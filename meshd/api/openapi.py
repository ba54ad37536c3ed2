"""OpenAPI 3.1 and the docs page, both made from the table of operations.

The page is self-contained: no script, no style, no font comes from elsewhere, so it works on a machine
without a network and under a strict content policy.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from html import escape
from typing import Any

import msgspec

from meshd.api.guard import Access
from meshd.api.schemas import ErrorBody
from meshd.api.table import Operation, Reply

_REF = "#/components/schemas/{name}"


def build(operations: Sequence[Operation], version: str) -> dict[str, Any]:
    """Return the OpenAPI document for the table."""
    bodies = [*_body_types(operations), ErrorBody]
    schemas, components = msgspec.json.schema_components(bodies, ref_template=_REF)
    by_type = dict(zip(map(id, bodies), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        path = operation.path.replace(":path}", "}")
        paths.setdefault(path, {})[operation.method.lower()] = _operation(operation, by_type)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "meshd",
            "version": version,
            "description": "One list of inference servers, shared between gateways. "
            "The workers' part is compatible with the worker API of the Shepherd Model Gateway.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "Asked for on TCP, once token files are set (api.*_token_file).",
                }
            },
        },
    }


def _body_types(operations: Iterable[Operation]) -> list[Any]:
    found: dict[int, Any] = {}
    for operation in operations:
        for body in (operation.body, *(reply.body for reply in operation.replies)):
            if body is not None:
                found[id(body)] = body
    return list(found.values())


def _operation(operation: Operation, by_type: dict[int, Any]) -> dict[str, Any]:
    parameters: list[dict[str, Any]] = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"\{(\w+)(?::path)?\}", operation.path)
    ]
    for param in operation.params:
        parameters.append(
            {"name": param.name, "in": "query", "description": param.doc, "schema": param.schema}
        )
    for name, doc in operation.headers:
        parameters.append({"name": name, "in": "header", "description": doc, "schema": {"type": "string"}})
    entry: dict[str, Any] = {
        "operationId": operation.handler.__name__,
        "summary": operation.summary,
        "tags": [operation.group],
        "responses": {str(reply.status): _reply(reply, by_type) for reply in operation.replies},
    }
    entry["responses"]["default"] = {
        "description": "An error: what is wrong and what to do.",
        "content": {"application/json": {"schema": by_type[id(ErrorBody)]}},
    }
    if parameters:
        entry["parameters"] = parameters
    if operation.body is not None:
        entry["requestBody"] = {
            "required": operation.body_required,
            "content": {"application/json": {"schema": by_type[id(operation.body)]}},
        }
    # An empty requirement beside it: without tokens, and on the unix socket, nothing is asked for.
    entry["security"] = [] if operation.access is Access.OPEN else [{"bearer": []}, {}]
    return entry


def _reply(reply: Reply, by_type: dict[int, Any]) -> dict[str, Any]:
    answer: dict[str, Any] = {"description": reply.doc}
    if reply.body is not None:
        answer["content"] = {reply.media_type: {"schema": by_type[id(reply.body)]}}
    elif reply.media_type != "application/json":
        answer["content"] = {reply.media_type: {"schema": {"type": "string"}}}
    if reply.headers:
        answer["headers"] = {
            name: {"description": doc, "schema": {"type": "string"}} for name, doc in reply.headers
        }
    return answer


_STYLE = """
:root{color-scheme:light dark} body{font:16px/1.5 system-ui,sans-serif;max-width:60rem;margin:2rem
auto;padding:0 1rem} code{font:14px/1.4 ui-monospace,monospace} details{border:1px solid
#8886;border-radius:6px;margin:.4rem 0;padding:.4rem .8rem} summary{cursor:pointer} summary
b{display:inline-block;min-width:4.5rem} table{border-collapse:collapse;margin:.5rem 0;width:100%}
td{border-top:1px solid #8884;padding:.2rem .6rem;vertical-align:top}
pre{overflow:auto;background:#8881;padding:.6rem;border-radius:6px}
"""

_WORDS = {
    Access.OPEN: "needs no token",
    Access.READ: "needs a read or write token on TCP, once tokens are set",
    Access.WRITE: "needs a write token on TCP, once tokens are set",
}


def docs_page(operations: Sequence[Operation], version: str) -> str:
    """Return the docs as one HTML page."""
    groups: dict[str, list[Operation]] = {}
    for operation in operations:
        groups.setdefault(operation.group, []).append(operation)
    parts = [
        '<!doctype html><html lang="en"><head><meta charset="utf-8"><title>meshd API</title>',
        '<meta name="viewport" content="width=device-width,initial-scale=1">',
        f"<style>{_STYLE}</style></head><body><h1>meshd API</h1>",
        f"<p>Version {escape(version)}. Programs read ",
        '<a href="openapi.json">openapi.json</a>. Errors are JSON: <code>error</code> (what to do), ',
        "<code>code</code>, and <code>field</code> where one is at fault.</p>",
    ]
    for group, rows in groups.items():
        parts.append(f"<h2>{escape(group)}</h2>")
        parts.extend(_section(operation) for operation in rows)
    parts.append("<h2>Bodies</h2>")
    _, components = msgspec.json.schema_components(_body_types(operations), ref_template=_REF)
    for name, schema in components.items():
        text = msgspec.json.format(msgspec.json.encode(schema), indent=2).decode()
        parts.append(
            f'<details id="{escape(name)}"><summary><code>{escape(name)}</code></summary>'
            f"<pre>{escape(text)}</pre></details>"
        )
    parts.append("</body></html>")
    return "".join(parts)


def _section(operation: Operation) -> str:
    rows = [(f"?{param.name}=", param.doc) for param in operation.params] + [
        (f"{name}:", doc) for name, doc in operation.headers
    ]
    rows += [(str(reply.status), reply.doc + _type_link(reply.body)) for reply in operation.replies]
    if operation.body is not None:
        rows.insert(0, ("body", "JSON" + _type_link(operation.body)))
    table = "".join(
        f"<tr><td><code>{escape(name)}</code></td><td>{_linked(doc)}</td></tr>" for name, doc in rows
    )
    path = operation.path.replace(":path}", "}")
    return (
        f"<details><summary><b>{operation.method}</b> <code>{escape(path)}</code> "
        f"{escape(operation.summary)}</summary><p>{_WORDS[operation.access]}.</p><table>{table}</table></details>"
    )


def _type_link(body: Any) -> str:
    name = getattr(body, "__name__", "")
    return f" [{name}]" if name and isinstance(body, type) and issubclass(body, msgspec.Struct) else ""


def _linked(doc: str) -> str:
    return re.sub(r"\[(\w+)\]", r'<a href="#\1"><code>\1</code></a>', escape(doc))
