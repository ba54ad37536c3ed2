from __future__ import annotations

import textwrap
from pathlib import Path

import pytest

from tests.support.reqs import Requirement, main, make_report, marks_in, read_requirements


def _tests(directory: Path, source: str) -> Path:
    path = directory / "tests" / "room" / "test_it.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(textwrap.dedent(source), encoding="utf-8")
    return directory / "tests"


SYN_4 = {"SYN-4": Requirement("SYN-4", "words", "")}


def test_marks_are_found_on_functions_classes_files_and_cases(tmp_path: Path) -> None:
    tests = _tests(
        tmp_path,
        """
        import pytest
        pytestmark = [pytest.mark.req("AAA-1"), pytest.mark.slow]

        @pytest.mark.req("BBB-1", "BBB-2")
        async def test_a_thing(): ...

        @pytest.mark.req("CCC-1")
        class TestMany:
            @pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.req("DDD-1"))])
            def test_one(self, x): ...

        @pytest.mark.req("EEE-1")
        def helper(): ...

        TestMachine = pytest.mark.req("FFF-1")(Machine.TestCase)
        """,
    )
    assert list(marks_in(tests / "room" / "test_it.py")) == [
        ("AAA-1", "test_a_thing"),
        ("BBB-1", "test_a_thing"),
        ("BBB-2", "test_a_thing"),
        ("AAA-1", "TestMany::test_one"),
        ("CCC-1", "TestMany::test_one"),
        ("DDD-1", "TestMany::test_one"),
        ("AAA-1", "TestMachine"),
        ("FFF-1", "TestMachine"),
    ]


def test_a_requirement_with_a_test_is_held(tmp_path: Path) -> None:
    tests = _tests(tmp_path, '@pytest.mark.req("SYN-4")\ndef test_a(): ...\n')
    report = make_report(SYN_4, tests)
    assert report.held == {"SYN-4": ["tests/room/test_it.py::test_a"]}
    assert report.problems == []


def test_a_requirement_without_a_test_is_wrong_unless_it_is_open(tmp_path: Path) -> None:
    tests = _tests(tmp_path, "")
    assert "SYN-4 has no test" in make_report(SYN_4, tests).problems[0]
    assert make_report({"SYN-4": Requirement("SYN-4", "words", "issue 4")}, tests).problems == []


def test_a_test_that_names_an_unknown_requirement_is_wrong(tmp_path: Path) -> None:
    tests = _tests(tmp_path, '@pytest.mark.req("SYN-4", "SYN-99")\ndef test_a(): ...\n')
    assert make_report(SYN_4, tests).problems == [
        "tests/room/test_it.py::test_a names SYN-99, which requirements.md does not list"
    ]


def test_a_mark_that_only_running_could_read_is_wrong(tmp_path: Path) -> None:
    tests = _tests(tmp_path, "@pytest.mark.req(NAME)\ndef test_a(): ...\n")
    assert "plain strings" in make_report(SYN_4, tests).problems[0]


def test_an_id_that_stands_twice_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "requirements.md"
    path.write_text("| SYN-4 | a | later |\n| SYN-4 | b | |\n", encoding="utf-8")
    with pytest.raises(ValueError, match="SYN-4 twice"):
        read_requirements(path)


def test_the_projects_own_requirements_are_all_held_or_open(
    requirements: dict[str, Requirement], capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(requirements) == 78
    assert main([]) == 0, capsys.readouterr().err


def test_one_area_is_shown_alone(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--area", "syn"]) == 0
    shown = capsys.readouterr().out
    assert "SYN-16" in shown
    assert "REG-1" not in shown


def test_an_unknown_area_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--area", "XYZ"]) == 2
    assert "there is no area XYZ" in capsys.readouterr().err
