"""`meshctl sim`: runs of simulated clusters, shown again. What plays them is imported only for that."""

from pathlib import Path

import click

from meshd.cli.exits import Exit
from meshd.cli.options import MeshGroup


@click.group(cls=MeshGroup)
def sim() -> None:
    """Work with simulated clusters (see meshd.testing)."""


@sim.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--log", "everything", is_flag=True, help="Show what the nodes log, too.")
@click.option(
    "--since", type=click.FloatRange(min=0), default=0.0, metavar="SECONDS", help="Leave out what was before."
)
@click.option(
    "--width", type=click.IntRange(16, 200), default=34, help="Characters of each node's column (34)."
)
@click.pass_context
def replay(ctx: click.Context, file: Path, everything: bool, since: float, width: int) -> None:
    """Play a replay file again and show the timeline, a column for each node.

    Exit code 0 if all invariants held, 1 if one did not, 2 for a file that cannot be played.
    """
    from meshd.testing.replay import read, report
    from meshd.testing.replay import replay as play

    try:
        plan = read(file)
    except (OSError, ValueError) as error:
        raise click.BadParameter(f"{file}: {error}", param_hint="FILE") from None
    outcome = play(plan)
    click.echo(report(outcome, everything=everything, since=since, width=width), nl=False)
    if outcome.violation is not None:
        ctx.exit(Exit.NO)
