"""The READMEs are run: what they print is what they say, and both give the same commands."""

from __future__ import annotations

import ast
import contextlib
import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import torchgd
from torchgd.cli import main

ROOT = Path(__file__).parent.parent
READMES = ("README.md", "README.zh-CN.md")


def blocks(readme: str, language: str) -> list[str]:
    text = (ROOT / readme).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("readme", READMES)
@pytest.mark.parametrize("number", range(len(blocks(READMES[0], "python"))))
def test_every_python_block_prints_what_its_comments_say(
    readme: str, number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    code = blocks(readme, "python")[number]
    expected = re.findall(r"^print\(.*\)\s+# (.*)$", code, flags=re.MULTILINE)
    assert expected, "a block that prints nothing shows nothing"
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        exec(compile(code, readme, "exec"), {"__name__": "__main__"})
    assert printed.getvalue().splitlines() == expected


@pytest.mark.parametrize("readme", READMES)
def test_every_command_answers_what_stands_below_it(
    readme: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (mine,) = blocks(readme, "py")
    (tmp_path / "mine.py").write_text(mine, encoding="utf-8")
    sessions = [part for block in blocks(readme, "console") for part in block.split("$ ")[1:]]
    assert len(sessions) == 7
    for session in sessions:
        line, expected = session.split("\n", 1)
        command, _, head = line.partition(" | head -")
        main(command.removeprefix("torchgd ").split())
        printed = capsys.readouterr().out.splitlines()
        assert printed[: int(head) if head else None] == expected.splitlines(), command


def test_both_readmes_run_the_same_code() -> None:
    def without_prose(code: str) -> list[str]:
        """The statements and printed values; comments on other lines are prose in the reader's language."""
        return [
            line.rstrip() if line.startswith("print(") else line.split("  #")[0].rstrip()
            for line in code.splitlines()
        ]

    for language in ("python", "py", "sh", "console"):
        english, chinese = (list(map(without_prose, blocks(readme, language))) for readme in READMES)
        assert english == chinese
        assert english


@pytest.mark.parametrize("readme", READMES)
def test_the_first_thirty_lines_hold_what_a_newcomer_needs(readme: str) -> None:
    head = "\n".join((ROOT / readme).read_text(encoding="utf-8").splitlines()[:30])
    for part in ("C(w) = ", "torchgd lesson", "pytest", "import torch", "scripts/pictures/"):
        assert part in head


@pytest.mark.parametrize("readme", READMES)
def test_every_picture_and_file_that_a_readme_names_exists(readme: str) -> None:
    text = (ROOT / readme).read_text(encoding="utf-8")
    targets = re.findall(r"\]\(([^)#:]+)\)", text)
    assert targets
    for target in targets:
        assert (ROOT / target).is_file(), target


@pytest.mark.parametrize("readme", READMES)
def test_the_public_names_in_it_exist(readme: str) -> None:
    """Those of the paragraph that lists them."""
    text = (ROOT / readme).read_text(encoding="utf-8")
    listed = next(part for part in text.split("\n\n") if "`LinearModel`" in part and "`epoch_map`" in part)
    names = re.findall(r"`([A-Za-z_]+)`", listed.split("`losses`")[0])
    assert len(names) > 15
    assert set(names) <= set(torchgd.__all__) | {"torchgd"}


def lines_of_code(file: Path) -> int:
    """The lines with a token on them, without comments and docstrings."""
    documented: set[int] = set()
    for node in ast.walk(ast.parse(file.read_bytes())):
        if (
            isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef))
            and ast.get_docstring(node) is not None
        ):
            documented.update(range(node.body[0].lineno, (node.body[0].end_lineno or 0) + 1))
    blank = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT}
    with tokenize.open(file) as opened:
        tokens = [one for one in tokenize.generate_tokens(opened.readline) if one.type not in blank]
    code = {line for one in tokens[:-1] for line in range(one.start[0], one.end[0] + 1)}
    return len(code - documented)


def test_the_package_is_as_small_as_the_readmes_say() -> None:
    package = Path(torchgd.__file__).parent
    files = list(package.rglob("*.py"))
    program = (
        "import sys, torchgd.training\n"
        "print(*[m.__file__ for n, m in sys.modules.items() if n.partition('.')[0] == 'torchgd'], sep='\\n')"
    )
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    core = [Path(line) for line in printed.splitlines()]
    first = [package / f"{name}.py" for name in ("model", "gradient", "batches", "optim", "training")]
    size = {
        name: sum(map(lines_of_code, some))
        for name, some in (("first", first), ("core", core), ("all", files))
    }
    assert size["first"] < 500
    assert size["core"] < 1500
    assert len(core) < 20
    assert size["all"] < 14500
    with_documentation = sum(len(file.read_text(encoding="utf-8").splitlines()) for file in files)
    assert with_documentation == pytest.approx(20000, rel=0.04)
    for readme in READMES:
        text = (ROOT / readme).read_text(encoding="utf-8")
        for number in ("500", "1,500", "20", "14,500", "20,000"):
            assert re.search(rf"(?<![\d,]){number}(?!,?\d)", text.split("\n## ")[-1]), (readme, number)
