"""Reads settings from files, variables and flags, and makes one checked `Config` of them.

This file owns precedence. Strongest first:

    flags and --set  >  MESHD_* variables  >  conf.d/*.toml (later names win)  >  the file  >  defaults

Rules: an unknown setting is an error wherever it stands; every problem is found before anything is refused,
so that one run of `meshd validate` shows them all; nothing is read but the files named (and the host's
name, for a default).
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from meshd.config_rules import broken_relations, derive_defaults, warnings
from meshd.config_schema import Setting, settings_of
from meshd.config_sections import SECTIONS
from meshd.errors import ConfigError, ConfigProblem

#: Every setting by its dotted name.
SETTINGS: dict[str, Setting] = {s.name: s for name, cls in SECTIONS.items() for s in settings_of(name, cls)}

#: Variables that begin with MESHD_ and are no settings.
OTHER_VARIABLES = frozenset({"MESHD_CONFIG"})
# Kubernetes gives every container variables for each service; one called "meshd" or "meshd-api" makes these.
_KUBERNETES = re.compile(
    r"MESHD_(\w+_)?(SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?)?)\Z"
)


class Raw(NamedTuple):
    """A value before it is checked: as text (flags, variables) or as TOML gave it, and where it stood."""

    value: Any
    source: str
    is_text: bool


class Loaded(NamedTuple):
    """What came of loading: value and source of every key, the `[[worker]]` tables, and warnings."""

    values: dict[str, Any]
    sources: dict[str, str]
    workers: tuple[dict[str, Any], ...]
    warnings: tuple[ConfigProblem, ...]


def load(
    path: Path | None,
    env: Mapping[str, str],
    flags: Mapping[str, str | Sequence[str]],
    sets: Sequence[str],
    terminal: bool,
) -> Loaded:
    """Read and check everything; raises ConfigError with all problems found."""
    problems: list[ConfigProblem] = []
    layers: list[dict[str, Raw]] = []
    workers: list[tuple[dict[str, Any], str]] = []
    for file in _files(path, problems):
        layers.append(_from_file(file, workers, problems))
    layers.append(_from_env(env, problems))
    layers.append(_from_flags(flags, problems))
    layers.append(_from_sets(sets, problems))

    chosen: dict[str, Raw] = {}
    for layer in layers:
        chosen.update(layer)
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}
    for name, spec in SETTINGS.items():
        raw = chosen.get(name)
        if raw is None:
            continue
        try:
            values[name] = spec.from_text(raw.value) if raw.is_text else spec.from_toml(raw.value)
            sources[name] = raw.source
        except ValueError as error:
            problems.append(ConfigProblem(name, str(error), raw.source))
    refused = {problem.field for problem in problems}
    problems += derive_defaults(SETTINGS, values, sources, refused, terminal)
    problems += broken_relations(values, sources)
    checked_workers = _check_workers(workers, problems)
    if problems:
        raise ConfigError.from_problems(problems)
    return Loaded(values, sources, checked_workers, tuple(warnings(SETTINGS, values, sources)))


# --- where values stand ---------------------------------------------------------------------------


def _files(path: Path | None, problems: list[ConfigProblem]) -> list[Path]:
    if path is None:
        return []
    if not path.is_file():
        problems.append(
            ConfigProblem("config", f"there is no file {path}: name one with --config, or leave it out")
        )
        return []
    return [path, *sorted((path.parent / "conf.d").glob("*.toml"))]


def _from_file(
    path: Path, workers: list[tuple[dict[str, Any], str]], problems: list[ConfigProblem]
) -> dict[str, Raw]:
    source = str(path)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        problems.append(ConfigProblem("config", f"cannot be read: {error.strerror}", source))
        return {}
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        problems.append(ConfigProblem("config", f"is not TOML: {error}", source))
        return {}
    found: dict[str, Raw] = {}
    for section, body in document.items():
        if section == "worker":
            _collect_workers(body, source, workers, problems)
        elif section not in SECTIONS:
            hint = nearest(section, [*SECTIONS, "worker"])
            problems.append(ConfigProblem(section, f"there is no such section{hint}", source))
        elif not isinstance(body, dict):
            problems.append(
                ConfigProblem(section, f"is a section: write [{section}] and its settings below", source)
            )
        else:
            for key, value in body.items():
                name = f"{section}.{key}"
                if _known(name, source, problems):
                    found[name] = Raw(value, source, is_text=False)
    return found


def _from_env(env: Mapping[str, str], problems: list[ConfigProblem]) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    for variable in sorted(env):
        if not variable.startswith("MESHD_") or variable in OTHER_VARIABLES:
            continue
        if "__" not in variable and _KUBERNETES.match(variable):
            continue
        section, _, key = variable.removeprefix("MESHD_").lower().partition("__")
        name = f"{section}.{key}"
        if name in SETTINGS:
            found[name] = Raw(env[variable], f"${variable}", is_text=True)
        else:
            hint = nearest(variable, [variable_of(known) for known in SETTINGS])
            problems.append(
                ConfigProblem(variable, f"no setting belongs to this variable{hint}", "the environment")
            )
    return found


def _from_flags(flags: Mapping[str, str | Sequence[str]], problems: list[ConfigProblem]) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    for name, value in flags.items():
        if _known(name, "flags", problems):
            is_text = isinstance(value, str)
            found[name] = Raw(value if is_text else list(value), "flags", is_text)
    return found


def _from_sets(sets: Sequence[str], problems: list[ConfigProblem]) -> dict[str, Raw]:
    found: dict[str, Raw] = {}
    for text in sets:
        name, equals, value = text.partition("=")
        name = name.strip()
        if not equals:
            problems.append(
                ConfigProblem("--set", f"write KEY=VALUE, for example mesh.heartbeat_s=0.5, not {text!r}")
            )
        elif _known(name, "--set", problems):
            found[name] = Raw(value, "--set", is_text=True)
    return found


def variable_of(name: str) -> str:
    """Return the environment variable of a dotted setting: mesh.bind is MESHD_MESH__BIND."""
    section, _, key = name.partition(".")
    return f"MESHD_{section.upper()}__{key.upper()}"


def _known(name: str, source: str, problems: list[ConfigProblem]) -> bool:
    if name in SETTINGS:
        return True
    problems.append(ConfigProblem(name, f"there is no such setting{nearest(name, SETTINGS)}", source))
    return False


def nearest(name: str, known: Iterable[str]) -> str:
    """Return ": did you mean X?" for the known name that is nearest to a wrong one, else nothing."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    if not near and "." in name:  # the right key under the wrong section
        key = name.rpartition(".")[2]
        near = [candidate for candidate in known if candidate.rpartition(".")[2] == key][:1]
    return f": did you mean {near[0]}?" if near else ""


# --- workers --------------------------------------------------------------------------------------


def _collect_workers(
    body: Any, source: str, workers: list[tuple[dict[str, Any], str]], problems: list[ConfigProblem]
) -> None:
    if not isinstance(body, list) or not all(isinstance(entry, dict) for entry in body):
        problems.append(
            ConfigProblem("worker", "is a list: write [[worker]] before each worker's settings", source)
        )
        return
    workers.extend((entry, source) for entry in body)


def _check_workers(
    workers: Sequence[tuple[dict[str, Any], str]], problems: list[ConfigProblem]
) -> tuple[dict[str, Any], ...]:
    """Check what needs no knowledge of workers: each has a URL, and none stands twice."""
    seen: dict[str, str] = {}
    for number, (entry, source) in enumerate(workers):
        field = f"worker[{number}].url"
        url = entry.get("url")
        if not isinstance(url, str) or not url:
            problems.append(ConfigProblem(field, "must be a string such as http://127.0.0.1:8000", source))
        elif url in seen:
            problems.append(ConfigProblem(field, f"{url} is declared already in {seen[url]}", source))
        else:
            seen[url] = source
    return tuple(entry for entry, _ in workers)
