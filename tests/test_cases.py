"""docs/cases.md is true: every case is there, and every test it names exists, runs, and is named by its case."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "cases.md").read_text()
CASES = [f"S{number:02}" for number in range(1, 31)]
ROWS = {line[2:5]: line for line in PAGE.splitlines() if re.match(r"\| S\d\d \|", line)}
NAMED = {case: re.findall(r"`(tests/[\w/]+\.py)::(\w+)`", row) for case, row in ROWS.items()}
ALL = sorted({(case, *test) for case, tests in NAMED.items() for test in tests})
# Cases of which nothing can hold yet, because what they are about is not there.
ONLY_LATER = {"S05", "S12"}


@cache
def functions_of(path: Path) -> dict[str, ast.FunctionDef | ast.AsyncFunctionDef]:
    """The test functions of a file, unless all of it is skipped."""
    tree = ast.parse(path.read_text())
    for node in tree.body:
        if isinstance(node, ast.Assign) and any(getattr(name, "id", "") == "pytestmark" for name in node.targets):
            assert "mark.skip" not in ast.unparse(node), f"{path} is skipped"
    functions = [node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)]
    return {node.name: node for node in functions if node.name.startswith("test_")}


def test_every_case_has_its_row() -> None:
    assert list(ROWS) == CASES
    assert all(row.count(" | ") == 3 for row in ROWS.values()), "four columns"


@pytest.mark.parametrize(("case", "file", "name"), ALL)
def test_a_named_test_exists_and_runs(case: str, file: str, name: str) -> None:
    function = functions_of(ROOT / file).get(name)
    assert function is not None, f"{case}: {file} has no {name}"
    for decorator in function.decorator_list:
        text = ast.unparse(decorator)
        assert not re.match(r"pytest\.mark\.(skip\b|skip\(|xfail)", text), f"{case}: {name} is marked {text}"
    first = function.body[1] if ast.get_docstring(function) and len(function.body) > 1 else function.body[0]
    assert not ast.unparse(first).startswith("pytest.skip("), f"{case}: {name} always skips"


def test_what_has_no_test_is_later_and_says_whose_work_it_is() -> None:
    works = set(re.findall(r"^- \*\*([\w -]+)\*\*:", PAGE, re.MULTILINE))
    owners = {case: re.findall(r"later \(([\w -]+)\): \S", row) for case, row in ROWS.items()}
    assert all(row.count("later (") == len(owners[case]) for case, row in ROWS.items()), "later (work): what is missing"
    assert {case for case, tests in NAMED.items() if not tests} == ONLY_LATER
    assert all(owners[case] for case in ONLY_LATER)
    assert {owner for each in owners.values() for owner in each} == works


def test_tests_that_are_called_after_a_case_are_in_its_row() -> None:
    for path in sorted((ROOT / "tests").rglob("test_*.py")):
        for name in functions_of(path):
            called = re.match(r"test_s(\d\d)_", name)
            case = f"S{called[1]}" if called else ""
            if case in ROWS:
                assert (str(path.relative_to(ROOT)), name) in NAMED[case], f"{case} does not name {name}"
