"""The examples of meshd/testing/README.md, run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from meshd.testing import SimCluster

README = Path(__file__).resolve().parents[2] / "meshd" / "testing" / "README.md"


def examples() -> dict[str, Callable[..., None]]:
    """Test functions of the README, by name."""
    names: dict[str, Any] = {}
    for block in re.findall(
        r"^```python\n(.*?)^```$", README.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    ):
        exec(compile(block, str(README), "exec"), names)
    return {name: made for name, made in names.items() if name.startswith("test_")}


EXAMPLES = examples()


@pytest.mark.req("SIM-4")
@pytest.mark.parametrize("name", EXAMPLES)
def test_the_readme_says_what_is_so(name: str, mesh_cluster: Callable[..., SimCluster]) -> None:
    EXAMPLES[name](mesh_cluster)


def test_the_readme_has_three_worked_examples() -> None:
    assert len(EXAMPLES) == 3
