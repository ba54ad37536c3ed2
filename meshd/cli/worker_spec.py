"""From command line options to worker specs and patches. Pure, but for reading the files named.

Rule: only what was given is sent; every default is the daemon's, so that the two cannot disagree.
"""

import json
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from meshd.cli.exits import UsageProblem

HEALTH_KEYS = {
    "health_path": "health_path",
    "health_interval": "check_interval_secs",
    "health_timeout": "timeout_secs",
    "success_threshold": "success_threshold",
    "failure_threshold": "failure_threshold",
    "drain_settle": "drain_settle_secs",
    "health_check": "disable_health_check",
}
"""Option -> key of the spec's `health`; `health_check` is turned round, since people say what they want."""

TOP_KEYS = (
    "worker_type",
    "connection_mode",
    "runtime_type",
    "provider",
    "priority",
    "cost",
    "bootstrap_port",
)


def pairs(words: Iterable[str], option: str) -> dict[str, str]:
    """`k=v` words as a dict; raises `UsageProblem` naming the option."""
    found = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals or not key:
            raise UsageProblem(f"{option} {word!r} is not KEY=VALUE")
        found[key] = value
    return found


def spec_from(url: str | None, options: Mapping[str, Any]) -> dict[str, Any]:
    """The spec, or for `url` `None` the patch, that the options describe."""
    spec: dict[str, Any] = {} if url is None else {"url": url}
    for key in TOP_KEYS:
        if options.get(key) is not None:
            spec[key] = options[key]
    if models := options.get("model"):
        spec["models"] = [{"id": model} for model in models]
    if labels := options.get("label"):
        spec["labels"] = pairs(labels, "--label")
    if dropped := options.get("unlabel"):
        spec["labels"] = {**spec.get("labels", {}), **dict.fromkeys(dropped)}
    health = {}
    for option, key in HEALTH_KEYS.items():
        value = options.get(option)
        if value is not None:
            health[key] = not value if option == "health_check" else value
    if health:
        spec["health"] = health
    if key_file := options.get("api_key_file"):
        spec["api_key"] = read_secret(key_file)
    for name, text in pairs(options.get("set") or (), "--set").items():
        put_dotted(spec, name, value_of(text))
    return spec


def value_of(text: str) -> Any:
    """JSON where it is JSON, else the text itself: `3` is a number, `vllm` a string."""
    try:
        return json.loads(text)
    except ValueError:
        return text


def put_dotted(spec: dict[str, Any], name: str, value: Any) -> None:
    """Set `a.b=value` inside nested dicts."""
    *path, last = name.split(".")
    at = spec
    for part in path:
        inner = at.setdefault(part, {})
        if not isinstance(inner, dict):
            raise UsageProblem(f"--set {name}: {part} is not a group of fields")
        at = inner
    at[last] = value


def read_secret(path: Path) -> str:
    """A secret from a file (`-`: stdin), without its line end.

    Never from the command line itself, which `ps` shows to everybody.
    """
    text = read_text(path).strip("\r\n")
    if not text:
        raise UsageProblem(f"{path} holds no key")
    return text


def read_text(path: Path) -> str:
    """A file's text; `-` is stdin."""
    try:
        return sys.stdin.read() if str(path) == "-" else path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as problem:
        raise UsageProblem(f"cannot read {path}: {problem}") from problem


def specs_from_file(path: Path) -> list[dict[str, Any]]:
    """One or several specs from JSON or YAML: an object, a list, or `{"workers": [...]}`."""
    text = read_text(path)
    try:
        data: Any = json.loads(text)
    except ValueError:
        import yaml  # here, since it is slow to import and rarely wanted

        try:
            data = yaml.safe_load(text)
        except yaml.YAMLError as problem:
            raise UsageProblem(f"{path} is neither JSON nor YAML: {problem}") from problem
    if isinstance(data, dict) and isinstance(data.get("workers"), list):
        data = data["workers"]
    specs = data if isinstance(data, list) else [data]
    for spec in specs:
        if not isinstance(spec, dict) or not isinstance(spec.get("url"), str):
            raise UsageProblem(f"{path} must hold a worker with a url, or a list of them")
    if not specs:
        raise UsageProblem(f"{path} holds no workers")
    return specs
