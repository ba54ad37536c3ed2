"""What settings mean to one another: defaults that follow from others, relations that must hold, warnings.

This file owns every rule that takes more than one setting. Rules: a default is derived only if what it
derives from was accepted, and a relation is checked only if all its settings were, so that one mistake is
told once.
"""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import platformdirs

from meshd.config_address import is_loopback, parse_address
from meshd.config_schema import Setting
from meshd.errors import ConfigProblem

#: A unix socket's path fits 108 bytes with its closing zero.
MAX_SOCKET_PATH_BYTES = 107

#: Settings of protection that do not work yet: refusing them beats running without what was asked for.
NOT_YET: dict[str, str] = {
    "tls.ca": "this version does not speak TLS yet",
    "tls.cert": "this version does not speak TLS yet",
    "tls.key": "this version does not speak TLS yet",
}

#: Settings that do no harm and nothing else yet: who sets one is warned.
NO_EFFECT_YET: dict[str, str] = {
    "mesh.full_mesh_max": "has no effect yet: every node connects to every other",
    "mesh.active_view": "has no effect yet: every node connects to every other",
}

Values = dict[str, Any]


def derive_defaults(
    settings: Mapping[str, Setting],
    values: Values,
    sources: dict[str, str],
    refused: set[str],
    terminal: bool,
) -> list[ConfigProblem]:
    """Fill in what was not set, in `values` and `sources`; return the defaults that are no use on this host.

    `refused` names the settings whose given values were no good: those stay missing, and so does every
    default that would follow from them. `terminal` tells whether the log goes to a terminal.
    """
    problems: list[ConfigProblem] = []
    for name, spec in settings.items():
        if name not in values and name not in refused and (spec.default is not None or spec.optional):
            values[name] = spec.default
            sources[name] = "default"

    def derive(name: str, premise: str | None, why: str, make: Callable[[], Any]) -> None:
        if name in values or name in refused or (premise is not None and premise not in values):
            return
        try:
            values[name] = settings[name].from_toml(make())
            sources[name] = f"default ({why})"
        except ValueError as error:
            problems.append(ConfigProblem(name, f"must be set, since its default ({why}) is no use: {error}"))

    loopback = "mesh.bind" in values and is_loopback(parse_address(values["mesh.bind"]).host)
    by_bind = f"mesh.bind is {'' if loopback else 'not '}loopback"
    with_tls = values.get("tls.cert") is not None
    derive("node.name", None, "the host's name", lambda: platform.node().split(".")[0])
    derive("node.data_dir", None, "the platform's", lambda: platformdirs.user_data_dir("meshd", False))
    derive("mesh.advertise", "mesh.bind", "mesh.bind", lambda: values["mesh.bind"])
    derive("sync.publish_loopback", "mesh.bind", by_bind, lambda: loopback)
    derive("security.allow_plaintext", "mesh.bind", by_bind, lambda: loopback)
    derive(
        "security.strict_ownership", "tls.cert", f"{'with' if with_tls else 'without'} TLS", lambda: with_tls
    )
    derive(
        "api.socket", "node.data_dir", "node.data_dir", lambda: str(values["node.data_dir"] / "meshd.sock")
    )
    derive(
        "log.format",
        None,
        f"{'' if terminal else 'not '}on a terminal",
        lambda: "console" if terminal else "json",
    )
    return problems


def broken_relations(values: Values, sources: Mapping[str, str]) -> Iterator[ConfigProblem]:
    """Yield every relation between accepted settings that does not hold, under the setting to change."""
    for needs, broken in _RELATIONS:
        if all(name in values for name in needs) and (message := broken(values)) is not None:
            yield ConfigProblem(needs[0], message, sources[needs[0]])


def warnings(
    settings: Mapping[str, Setting], values: Values, sources: Mapping[str, str]
) -> Iterator[ConfigProblem]:
    """Yield what is allowed and may not be what was meant; every setting must have its value."""
    for name, message in NO_EFFECT_YET.items():
        if values[name] != settings[name].default:
            yield ConfigProblem(name, message, sources[name])
    if not is_loopback(parse_address(values["mesh.bind"]).host) and values["tls.cert"] is None:
        yield ConfigProblem(
            "security.allow_plaintext",
            f"whoever reaches {values['mesh.bind']} can read and write this cluster's workers, in clear",
            sources["security.allow_plaintext"],
        )
    if values["health.remove_failed_workers"] and values["health.recover_failed_workers"]:
        yield ConfigProblem(
            "health.recover_failed_workers",
            "has no effect with health.remove_failed_workers, which leaves no failed worker to recover",
            sources["health.recover_failed_workers"],
        )


def _active_view(values: Values) -> str | None:
    most = values["mesh.full_mesh_max"]
    return f"must be at most mesh.full_mesh_max ({most})" if values["mesh.active_view"] > most else None


def _fences_outlive_forgetting(values: Values) -> str | None:
    forget_after_s = values["sync.forget_after_s"]
    if values["sync.fence_keep_s"] > forget_after_s:
        return None
    return f"must be above sync.forget_after_s ({forget_after_s:.10g} seconds)"


def _no_plaintext_unasked(values: Values) -> str | None:
    bind = values["mesh.bind"]
    if is_loopback(parse_address(bind).host) or values["tls.cert"] or values["security.allow_plaintext"]:
        return None
    return (
        f"{bind} can be reached from other machines, and nothing is encrypted without TLS: "
        "bind to loopback, or accept that with security.allow_plaintext = true"
    )


def _two_listeners(values: Values) -> str | None:
    same = values["api.bind"] == values["mesh.bind"] and parse_address(values["api.bind"]).port != 0
    return f"must differ from mesh.bind ({values['mesh.bind']})" if same else None


def _socket_path(values: Values) -> str | None:
    size_bytes = len(str(values["api.socket"]).encode())
    if size_bytes <= MAX_SOCKET_PATH_BYTES:
        return None
    return (
        f"is {size_bytes} bytes long, and a unix socket's path takes at most {MAX_SOCKET_PATH_BYTES}: "
        "set api.socket to a shorter one"
    )


def _not_yet(name: str, reason: str) -> Callable[[Values], str | None]:
    return lambda values: f"{reason}: remove the setting" if values[name] is not None else None


def _strict_without_tls(values: Values) -> str | None:
    # With TLS it is on by default, and then tls.cert is what cannot be.
    asked_for = values["security.strict_ownership"] and values["tls.cert"] is None
    return "this version does not sign entries yet: remove the setting" if asked_for else None


#: Each relation: the settings it takes, the one to blame first, and what is broken about them, if anything.
_RELATIONS: list[tuple[tuple[str, ...], Callable[[Values], str | None]]] = [
    *(((name,), _not_yet(name, reason)) for name, reason in NOT_YET.items()),
    (("security.strict_ownership", "tls.cert"), _strict_without_tls),
    (("mesh.active_view", "mesh.full_mesh_max"), _active_view),
    (("sync.fence_keep_s", "sync.forget_after_s"), _fences_outlive_forgetting),
    (("mesh.bind", "tls.cert", "security.allow_plaintext"), _no_plaintext_unasked),
    (("api.bind", "mesh.bind"), _two_listeners),
    (("api.socket",), _socket_path),
]
