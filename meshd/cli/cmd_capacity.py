"""Commands that ask why and how much: capacity, why."""

import click

from meshd.cli import human
from meshd.cli.exits import Exit
from meshd.cli.options import MeshCommand
from meshd.cli.session import Session, pass_session
from meshd.cli.table import Column, Row, field, fields, render

SOURCES = {
    "override": "pinned by capacity.override",
    "worker_reported": "every ready worker reports its own",
    "mixed": "ready workers that report count what they report, the others capacity.slots_per_worker",
    "legacy_fallback": "no worker is ready here: capacity.max_concurrent_requests",
}


def capacity_text(body: Row) -> str:
    """The value, where it comes from, and its breakdowns."""
    source = str(body.get("source"))
    parts = [
        fields(
            [
                ("capacity", body.get("capacity")),
                ("source", f"{source} ({SOURCES[source]})" if source in SOURCES else source),
                ("workers", body.get("workers_available")),
            ]
        )
    ]
    for key, head in (("per_model", "MODEL"), ("cluster", "OWNER")):
        breakdown = body.get(key)
        if isinstance(breakdown, dict) and breakdown:
            parts.append(render(_breakdown_columns(head, breakdown), _breakdown_rows(breakdown)))
    return "\n\n".join(parts)


def _breakdown_rows(breakdown: Row) -> list[Row]:
    return [
        {"name": name, **(value if isinstance(value, dict) else {"capacity": value})}
        for name, value in sorted(breakdown.items())
    ]


def _breakdown_columns(head: str, breakdown: Row) -> list[Column]:
    names = list(dict.fromkeys(key for row in _breakdown_rows(breakdown) for key in row if key != "name"))
    return [
        Column(head, field("name")),
        *(Column(name.upper().replace("_", " "), field(name), right=True) for name in names),
    ]


@click.command(cls=MeshCommand)
@click.option("--model", help="Only the workers that serve this model.")
@pass_session
def capacity(session: Session, model: str | None) -> None:
    """Show how many requests the ready workers can take at once, and how that is known."""
    body = session.api().get_object("/capacity", {"model": model})
    session.emit(body, lambda: capacity_text(body))


def why_text(body: Row) -> str:
    """The verdict first, then each reason, then the claims."""
    url = body.get("url")
    routable = body.get("routable")
    head = f"{url} is {'' if routable else 'not '}routable here"
    if status := body.get("status"):
        head += f": {status}"
    lines = [head]
    lines += [f"  - {reason}" for reason in body.get("reasons") or []]
    told = {"url", "known", "routable", "status", "reasons", "claims"}
    facts = ((name, value) for name, value in body.items() if name not in told)
    if rest := fields((_humanised(name, value) for name, value in facts), indent="  "):
        lines.append(rest)
    claims = body.get("claims")
    if isinstance(claims, list) and claims:
        names = list(dict.fromkeys(name for claim in claims for name in claim))
        columns = [
            Column(name.upper().replace("_", " "), field(name), state=name == "status") for name in names
        ]
        lines += ["", render(columns, claims)]
    return "\n".join(lines)


def _humanised(name: str, value: object) -> tuple[str, object]:
    """`since_s 63.2` reads `since 1m3s`; `checked_s_ago` likewise."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        if name.endswith("_s_ago"):
            return name.removesuffix("_s_ago"), human.age(value) + " ago"
        if name.endswith("_s"):
            return name.removesuffix("_s"), human.duration(value)
    return name, value


@click.command(cls=MeshCommand)
@click.argument("url")
@click.pass_context
def why(ctx: click.Context, url: str) -> None:
    """Explain why a worker is or is not routable on this node.

    Exit code 0 if it is routable, 1 if it is not.
    """
    session = ctx.ensure_object(Session)
    body = session.api().get_object("/mesh/why", {"url": url})
    session.emit(body, lambda: why_text(body))
    if not body.get("routable"):
        ctx.exit(Exit.NO)
