"""`/config` and `/reload`: settings of the whole cluster, and reading this node's own files again.

A cluster-wide setting is in force on this node when the answer is sent, and on disk; the other nodes take it
on as soon as it reaches them. What is beaten here by this node's own configuration is told in the answer.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from meshd.api.codec import JSONAnswer
from meshd.api.schemas import SettingBody
from meshd.config_live import CLUSTER_WIDE, CONFIG_PREFIX, Row, cluster_setting
from meshd.errors import KeyNotFound

if TYPE_CHECKING:
    from starlette.responses import Response

    from meshd.api.table import Call


async def list_settings(call: Call) -> Response:
    """Answer `GET /config`."""
    return JSONAnswer({"settings": [_shown(call, row) for row in call.api.daemon.settings.rows()]})


async def get_setting(call: Call) -> Response:
    """Answer `GET /config/{key}`."""
    return JSONAnswer(_shown(call, _row(call, call.path_value("key"))))


async def set_setting(call: Call) -> Response:
    """Answer `PUT /config/{key}`."""
    name = call.path_value("key")
    cluster_setting(name)  # a wrong name is told before a wrong body
    body: SettingBody = call.json_as(SettingBody)
    row = call.api.daemon.settings.set_for_cluster(name, body.value)
    await call.api.written()
    return JSONAnswer(_shown(call, row))


async def unset_setting(call: Call) -> Response:
    """Answer `DELETE /config/{key}`. What a newer version set can be taken back too."""
    name = call.path_value("key")
    settings = call.api.daemon.settings
    _row(call, name)
    if call.api.daemon.mesh.node.store.visible(CONFIG_PREFIX + name) is None:
        raise _not_set(name)
    row = settings.unset_for_cluster(name)
    await call.api.written()
    return JSONAnswer({"key": name, "cluster": None} if row is None else _shown(call, row))


async def reload(call: Call) -> Response:
    """Answer `POST /reload`."""
    done = await call.api.daemon.reloader.reload()
    await call.api.written()
    message = "read again and in force"
    if done.restart:
        message = f"read again; these changed and wait for a restart: {', '.join(done.restart)}"
    return JSONAnswer({"status": "reloaded", "message": message, **done.as_dict()})


def _row(call: Call, name: str) -> Row:
    """Return a setting's row; raises BadRequest for a name that is neither known nor set by anybody."""
    try:
        return call.api.daemon.settings.row(name)
    except KeyNotFound:
        cluster_setting(name)
        raise


def _not_set(name: str) -> KeyNotFound:
    error = KeyNotFound(CONFIG_PREFIX + name)
    error.message = f"{name} is not set for the cluster; GET /config shows what is"
    return error


def _shown(call: Call, row: Row) -> dict[str, Any]:
    """Return a row as the API shows it: what is in force here, whence, and who set the cluster's value."""
    shown = row._asdict()
    entries = call.api.daemon.mesh.node.store_entry(CONFIG_PREFIX + row.key, call.api.wall_ms())
    visible = next((entry for entry in entries if entry["visible"] and not entry["tombstone"]), None)
    shown["set_on"] = None if row.cluster is None or visible is None else visible["owner"]
    shown["age_s"] = None if row.cluster is None or visible is None else visible["age_s"]
    shown["beaten_by"] = None
    if row.cluster is not None and row.problem is None and row.source != "cluster":
        shown["beaten_by"] = row.source
    shown["cluster_wide"] = row.key in CLUSTER_WIDE
    return shown
