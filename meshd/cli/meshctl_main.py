"""The `meshctl` program: its commands, and nothing else."""

import click

from meshd.cli.cmd_admin import check, completion, log_level, version
from meshd.cli.cmd_capacity import capacity, why
from meshd.cli.cmd_config import config, reload
from meshd.cli.cmd_converge import converge
from meshd.cli.cmd_diff import diff
from meshd.cli.cmd_doctor import doctor
from meshd.cli.cmd_inspect import explain, partitions, rtt
from meshd.cli.cmd_kv import kv
from meshd.cli.cmd_mesh import forget, info, join, leave, members
from meshd.cli.cmd_sim import sim
from meshd.cli.cmd_snapshot import snapshot
from meshd.cli.cmd_watch import watch
from meshd.cli.cmd_worker import worker
from meshd.cli.options import MeshGroup


@click.group(
    cls=MeshGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Exit codes: 0 yes, 1 no (different, unhealthy, refused), 2 usage, 3 no daemon, 4 timed out.",
)
def main() -> None:
    """Ask a meshd daemon, and tell it what to do."""


for _command in (
    members,
    info,
    worker,
    kv,
    config,
    snapshot,
    watch,
    converge,
    explain,
    diff,
    partitions,
    rtt,
    capacity,
    why,
    join,
    leave,
    forget,
    check,
    doctor,
    reload,
    log_level,
    sim,
    version,
    completion,
):
    main.add_command(_command)

if __name__ == "__main__":
    main(prog_name="meshctl")
