"""What import contracts cannot say: every file has its room, and pure files call no clock and no randomness.

The contracts in pyproject.toml are the list of rooms; these tests hold the tree against it. import-linter
sees modules, so a `datetime.now()` or `os.urandom()` in a pure file is for the syntax tree to find.
"""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parent.parent

#: Modules of which a pure file may use nothing at run time.
IMPURE_MODULES = frozenset(
    {"trio", "socket", "ssl", "select", "selectors", "asyncio", "threading", "multiprocessing"}
    | {"subprocess", "time", "random", "secrets", "tempfile"}
)
#: Single names that a pure file may not call, by the module they come from.
IMPURE_NAMES = {
    "os": {"urandom", "getrandom", "getpid", "environ", "getenv", "open", "stat", "listdir", "times"},
    "uuid": {"uuid1", "uuid3", "uuid4", "uuid6", "uuid7", "uuid8", "getnode"},
    "datetime": {"now", "utcnow", "today"},
    "datetime.datetime": {"now", "utcnow", "today"},
    "datetime.date": {"today"},
}
#: Builtins that reach outside, or differ from one process to the next.
IMPURE_BUILTINS = frozenset({"open", "input", "print", "hash"})


def _contract(identifier: str) -> dict[str, Any]:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts: list[dict[str, Any]] = document["tool"]["importlinter"]["contracts"]
    return next(contract for contract in contracts if contract["id"] == identifier)


def _layered() -> list[str]:
    return re.findall(r"[a-z_][\w.]*", " ".join(_contract("layers")["layers"]))


def _modules(package: str) -> Iterator[str]:
    """Yield the modules and packages right below a package."""
    for path in sorted(ROOT.joinpath(*package.split(".")).iterdir()):
        if path.suffix == ".py" and path.stem != "__init__":
            yield f"{package}.{path.stem}"
        elif path.is_dir() and any(path.glob("*.py")):
            yield f"{package}.{path.name}"


def _files(module: str) -> list[Path]:
    path = ROOT.joinpath(*module.split("."))
    # A module that the contract names and the tree lacks is import-linter's to report.
    return (
        sorted(path.rglob("*.py")) if path.is_dir() else [f for f in [path.with_suffix(".py")] if f.exists()]
    )


def _pure_files() -> list[Path]:
    return [file for module in _contract("pure")["source_modules"] for file in _files(module)]


def impurities(source: str) -> list[str]:
    """Name what a pure file may not use, each with its line; imports for type checking only do not count."""
    tree = ast.parse(source)
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    origin: dict[str, str] = {}
    found: list[str] = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                origin[alias.asname or alias.name] = alias.name
                if alias.name.partition(".")[0] in IMPURE_MODULES:
                    found.append(f"line {node.lineno}: import {alias.name}")
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                origin[alias.asname or alias.name] = f"{node.module}.{alias.name}"
                if node.module.partition(".")[0] in IMPURE_MODULES or alias.name in IMPURE_NAMES.get(
                    node.module, ()
                ):
                    found.append(f"line {node.lineno}: from {node.module} import {alias.name}")
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            base = _dotted(node.value, origin)
            if node.attr in IMPURE_NAMES.get(base, ()):
                found.append(f"line {node.lineno}: {base}.{node.attr}")
        elif (
            isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in IMPURE_BUILTINS
        ):
            found.append(f"line {node.lineno}: {node.func.id}()")
    return found


def _dotted(node: ast.expr, origin: dict[str, str]) -> str:
    if isinstance(node, ast.Name):
        return origin.get(node.id, node.id)
    if isinstance(node, ast.Attribute):
        return f"{_dotted(node.value, origin)}.{node.attr}"
    return ""


@pytest.mark.parametrize("package", ["meshd", "meshd.workers"])
def test_every_module_has_its_layer(package: str) -> None:
    layered = _layered()
    homeless = [
        module
        for module in _modules(package)
        if module not in layered and not any(name.startswith(f"{module}.") for name in layered)
    ]
    assert homeless == [], "enter them in the layers of pyproject.toml"


def test_the_pure_worker_files_are_those_of_the_pure_layer() -> None:
    pure_layer = next(layer for layer in _contract("layers")["layers"] if "meshd.workers.registry" in layer)
    in_layer = set(re.findall(r"[a-z_][\w.]*", pure_layer))
    in_contract = {name for name in _contract("pure")["source_modules"] if name.startswith("meshd.workers")}
    assert in_layer == in_contract


@pytest.mark.parametrize("file", _pure_files(), ids=lambda file: file.relative_to(ROOT).as_posix())
def test_a_pure_file_reads_no_clock_and_makes_no_randomness(file: Path) -> None:
    assert impurities(file.read_text(encoding="utf-8")) == []


@pytest.mark.parametrize(
    "source",
    [
        "import time",
        "import trio.abc",
        "from random import Random",
        "from os import urandom",
        "import os\nx = os.urandom(8)",
        "import os as system\nx = system.urandom(8)",
        "import uuid\nx = uuid.uuid4()",
        "from uuid import uuid4",
        "from datetime import datetime\nx = datetime.now()",
        "import datetime\nx = datetime.datetime.utcnow()",
        "def f():\n    import time",
        "x = open('file')",
        "x = hash('a')",
    ],
)
def test_an_impurity_is_seen(source: str) -> None:
    assert len(impurities(source)) == 1


@pytest.mark.parametrize(
    "source",
    [
        "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    import random",
        "import uuid\nx = uuid.uuid5(uuid.NAMESPACE_URL, 'a')",
        "from datetime import datetime, UTC\nx = datetime.fromtimestamp(0, UTC)",
        "class A:\n    def __hash__(self):\n        return 1",
    ],
)
def test_what_a_pure_file_may_do_is_let_be(source: str) -> None:
    assert impurities(source) == []


def test_the_lock_file_names_no_place_and_every_hash() -> None:
    text = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    assert not re.search(r"https?:|file:|index-url|find-links|/", text)
    for block in re.split(r"\n(?=\w)", text.strip()):
        assert re.match(r"[a-z0-9.-]+==\S+", block), block
        assert "--hash=sha256:" in block, block


def test_the_lock_file_holds_every_dependency() -> None:
    document = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    extras = document["optional-dependencies"]
    wanted = [*document["dependencies"], *extras["grpc"], *extras["dev"]]
    names = {re.split(r"[^a-z0-9-]", text)[0] for text in wanted} - {"meshd"}
    locked = set(
        re.findall(r"^([a-z0-9.-]+)==", (ROOT / "requirements.lock").read_text(encoding="utf-8"), re.M)
    )
    assert names - locked == set()
