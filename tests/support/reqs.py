"""Which tests hold which requirement: `python -m tests.support.reqs [--area SYN]`, or `make reqs AREA=SYN`.

This file owns how requirements.md is read and how marks are found. Tests are read as syntax trees and never
imported, so the answer takes a moment and needs nothing that a test needs. It fails when a requirement has
neither a test nor an issue that it waits for, when a test names a requirement that is not listed, and when
a mark cannot be read without running the test.
"""

from __future__ import annotations

import argparse
import ast
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

_FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
TESTS = Path(__file__).resolve().parent.parent
_ROW = re.compile(r"\|\s*(?P<id>[A-Z]{3}-\d+)\s*\|(?P<text>.*)\|(?P<open>[^|]*)\|\s*\Z")


class Requirement(NamedTuple):
    """One row: its id, its words, and the issue that closes it while it is open (else the empty string)."""

    id: str
    text: str
    open: str

    @property
    def area(self) -> str:
        """The letters before the dash."""
        return self.id.partition("-")[0]


class Report(NamedTuple):
    """The tests of every requirement, in the order of requirements.md, and what is wrong."""

    held: dict[str, list[str]]
    problems: list[str]


def read_requirements(path: Path = TESTS / "requirements.md") -> dict[str, Requirement]:
    """Read the rows of requirements.md by id; raises ValueError when an id stands twice."""
    found: dict[str, Requirement] = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if row := _ROW.match(line):
            requirement = Requirement(row["id"], row["text"].strip(), row["open"].strip())
            if requirement.id in found:
                raise ValueError(f"{path.name} lists {requirement.id} twice")
            found[requirement.id] = requirement
    return found


def marks_in(path: Path) -> Iterator[tuple[str, str]]:
    """Yield (requirement, test) for every mark in a file; raises ValueError for one not of strings."""
    tree = ast.parse(path.read_text(encoding="utf-8"), filename=str(path))
    yield from _in_body(tree.body, [], "")


def make_report(requirements: dict[str, Requirement], tests: Path = TESTS) -> Report:
    """Hold every test file below `tests` against the requirements."""
    held: dict[str, list[str]] = {identifier: [] for identifier in requirements}
    problems: list[str] = []
    for path in sorted(tests.rglob("test_*.py")):
        name = path.relative_to(tests.parent).as_posix()
        try:
            for identifier, test in marks_in(path):
                if identifier in held:
                    held[identifier].append(f"{name}::{test}")
                else:
                    problems.append(f"{name}::{test} names {identifier}, which requirements.md does not list")
        except (ValueError, SyntaxError) as error:
            problems.append(f"{name}: {error}")
    for identifier, requirement in requirements.items():
        if not held[identifier] and not requirement.open:
            problems.append(f"{identifier} has no test, and requirements.md names no issue that it waits for")
    return Report(held, problems)


def _in_body(body: list[ast.stmt], inherited: list[str], prefix: str) -> Iterator[tuple[str, str]]:
    ids = list(inherited)
    for statement in body:
        if isinstance(statement, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == "pytestmark" for target in statement.targets
        ):
            ids += _ids_in(statement.value)
    for statement in body:
        if isinstance(statement, ast.ClassDef) and statement.name.startswith("Test"):
            own = [identifier for decorator in statement.decorator_list for identifier in _ids_in(decorator)]
            yield from _in_body(statement.body, ids + own, f"{prefix}{statement.name}::")
        elif isinstance(statement, _FUNCTIONS) and statement.name.startswith("test"):
            own = [identifier for decorator in statement.decorator_list for identifier in _ids_in(decorator)]
            for identifier in dict.fromkeys(ids + own):
                yield identifier, f"{prefix}{statement.name}"
        elif isinstance(statement, ast.Assign) and _is_state_machine_test(statement):
            own = _ids_in(statement.value)
            yield from ((identifier, prefix + _target(statement)) for identifier in dict.fromkeys(ids + own))


def _is_state_machine_test(statement: ast.Assign) -> bool:
    """Tell `TestX = Machine.TestCase` and marked forms of it, by which hypothesis runs state machines."""
    return _target(statement).startswith(("Test", "test_"))


def _target(statement: ast.Assign) -> str:
    target = statement.targets[0]
    return target.id if isinstance(target, ast.Name) else ""


def _ids_in(node: ast.expr) -> list[str]:
    """Collect the arguments of every `pytest.mark.req(...)` within, marks of parametrised cases included."""
    ids: list[str] = []
    for call in ast.walk(node):
        if not isinstance(call, ast.Call) or getattr(call.func, "attr", None) != "req":
            continue
        for argument in call.args:
            if not isinstance(argument, ast.Constant) or not isinstance(argument.value, str):
                raise ValueError(f"line {call.lineno}: write requirement ids as plain strings")
            ids.append(argument.value)
    return ids


def main(argv: list[str] | None = None) -> int:
    """Print every requirement with its tests; return 1 when something is wrong, 2 for an unknown area."""
    parser = argparse.ArgumentParser(
        prog="make reqs", description="Requirements and the tests that hold them."
    )
    parser.add_argument("--area", type=str.upper, help="only ids of this area, e.g. SYN")
    area: str | None = parser.parse_args(argv).area
    requirements = read_requirements()
    areas = sorted({requirement.area for requirement in requirements.values()})
    if area is not None and area not in areas:
        print(f"there is no area {area}: there are {', '.join(areas)}", file=sys.stderr)
        return 2
    report = make_report(requirements)
    shown = [r for r in requirements.values() if area in (None, r.area)]
    for requirement in shown:
        tests = report.held[requirement.id]
        waiting = f"  open: {requirement.open}" if requirement.open else ""
        print(f"{requirement.id:8}{len(tests)} test{'' if len(tests) == 1 else 's'}{waiting}")
        for test in tests:
            print(f"        {test}")
    held = sum(1 for requirement in shown if report.held[requirement.id])
    still_open = sum(1 for requirement in shown if requirement.open)
    print(f"\n{len(shown)} requirements, {held} with tests, {still_open} open")
    for problem in report.problems:
        print(f"wrong: {problem}", file=sys.stderr)
    return 1 if report.problems else 0


if __name__ == "__main__":
    sys.exit(main())
