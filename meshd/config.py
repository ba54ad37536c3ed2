"""The configuration of one daemon: read once at start, checked whole, never changed after.

This file owns `Config`. The keys, with units and limits, are in `config_sections`; where values come from
and which wins is in `config_load`; how one value is checked is in `config_schema`. Everything below takes
its settings as plain values from here and never reads a variable or a file for them.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from meshd.config_address import Address, is_loopback, parse_address
from meshd.config_load import SETTINGS, load, variable_of
from meshd.config_sections import (
    SECTIONS,
    ApiConfig,
    CapacityConfig,
    DiscoveryConfig,
    HealthConfig,
    LogConfig,
    MeshConfig,
    NodeConfig,
    SecurityConfig,
    StoreConfig,
    SyncConfig,
    TlsConfig,
)
from meshd.errors import ConfigProblem

__all__ = [
    "Address",
    "ApiConfig",
    "CapacityConfig",
    "Config",
    "DiscoveryConfig",
    "Explained",
    "HealthConfig",
    "LogConfig",
    "MeshConfig",
    "NodeConfig",
    "SecurityConfig",
    "StoreConfig",
    "SyncConfig",
    "TlsConfig",
    "is_loopback",
    "load_config",
    "parse_address",
]


class Explained(NamedTuple):
    """One setting as people are shown it: its value as TOML, its source, its meaning, what it takes."""

    name: str
    value: str
    source: str
    doc: str
    wanted: str
    variable: str


@dataclass(frozen=True, slots=True)
class Config:
    """Every setting, checked, with the defaults that follow from other settings filled in.

    `worker` holds the `[[worker]]` tables as they were read, each with a `url`; the rest of a table is
    checked where worker specs are known. `sources` tells for each dotted name where its value came from.
    `warnings` are for the log at start: settings that are allowed and may not be what was meant.
    """

    node: NodeConfig
    mesh: MeshConfig
    discovery: DiscoveryConfig
    store: StoreConfig
    sync: SyncConfig
    health: HealthConfig
    capacity: CapacityConfig
    api: ApiConfig
    log: LogConfig
    tls: TlsConfig
    security: SecurityConfig
    worker: tuple[dict[str, Any], ...] = field(default=(), repr=False)  # may hold api_key
    sources: Mapping[str, str] = field(default_factory=dict, compare=False)
    warnings: tuple[ConfigProblem, ...] = field(default=(), compare=False)

    def get(self, name: str) -> Any:
        """Return the value of a dotted setting; raises KeyError when there is none of that name."""
        if name not in SETTINGS:
            raise KeyError(name)
        section, _, key = name.partition(".")
        return getattr(getattr(self, section), key)

    def explain(self) -> Iterator[Explained]:
        """Yield every setting with value and source. No secret is among them: those stay in their files."""
        for name, spec in SETTINGS.items():
            yield Explained(
                name=name,
                value=_as_toml(self.get(name)),
                source=self.sources.get(name, "default"),
                doc=spec.doc,
                wanted=spec.wanted(),
                variable=variable_of(name),
            )


def load_config(
    path: Path | None = None,
    env: Mapping[str, str] | None = None,
    flags: Mapping[str, str | Sequence[str]] | None = None,
    sets: Sequence[str] = (),
    *,
    terminal: bool | None = None,
) -> Config:
    """Read and check the whole configuration.

    `path` is the TOML file (with `conf.d/*.toml` beside it), or None for none. `env` is the environment, of
    which only MESHD_* counts. `flags` maps dotted names to what the command line gave (text, or a list of
    texts for a repeated flag); `sets` holds `KEY=VALUE` texts and beats `flags`. `terminal` tells whether
    the log goes to a terminal (None asks standard error). Raises ConfigError naming every setting that is
    wrong.
    """
    if terminal is None:
        terminal = sys.stderr is not None and sys.stderr.isatty()
    loaded = load(path, env or {}, flags or {}, sets, terminal)
    sections = {
        section: cls(**{f.name: loaded.values[f"{section}.{f.name}"] for f in fields(cls)})
        for section, cls in SECTIONS.items()
    }
    return Config(**sections, worker=loaded.workers, sources=loaded.sources, warnings=loaded.warnings)


def _as_toml(value: Any) -> str:
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_as_toml(item) for item in value) + "]"
    if isinstance(value, (str, Path)):
        text = str(value).replace("\\", "\\\\").replace('"', '\\"')
        return f'"{text}"'
    return repr(value)
