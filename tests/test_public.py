"""The package as it presents itself: its names, its examples, its size and which way its modules depend."""

import ast
import doctest
import importlib
import inspect
import pkgutil
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest
import torch

import torchgd

PACKAGE = Path(torchgd.__file__).parent
MODULES = sorted(
    module.name
    for module in pkgutil.walk_packages([str(PACKAGE)], "torchgd.")
    if module.name != "torchgd.__main__"
)
FILES = sorted(PACKAGE.rglob("*.py"))


def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


# Names


def test_every_public_name_is_there() -> None:
    assert set(dir(torchgd)) == {*torchgd.__all__, "__version__"}
    for name in torchgd.__all__:
        assert getattr(torchgd, name).__name__ == name
    assert torchgd.__version__ == version("torchgd")
    with pytest.raises(AttributeError, match="module 'torchgd' has no attribute 'stabillity'"):
        _ = torchgd.stabillity


def test_the_names_for_type_checkers_are_the_names() -> None:
    (block,) = [node for node in tree(PACKAGE / "__init__.py").body if isinstance(node, ast.If)]
    imports = [node for node in block.body if isinstance(node, ast.ImportFrom)]
    spelt = {alias.asname: (node.module, alias.name) for node in imports for alias in node.names}
    assert spelt == {name: (f"torchgd.{of}", name) for name, of in torchgd._MODULE_OF.items()}
    assert len(torchgd.__all__) == len(set(torchgd.__all__)) == len(spelt)


def test_the_names_that_others_build_on() -> None:
    promised = """LinearModel GradientDescent StochasticGradientDescent MiniBatchGradientDescent train History
        check_gradient check_optimizer compare_optimizers stability epoch_map EpochMap course hubble load"""
    assert set(promised.split()) <= set(torchgd.__all__)
    for name in ("losses", "cost", "gradients", "gradient"):
        assert callable(getattr(importlib.import_module("torchgd.gradient"), name))


def test_no_module_has_the_name_of_something_public() -> None:
    """An import of torchgd.train, a module, would hide torchgd.train, the function."""
    assert not {name.removeprefix("torchgd.") for name in MODULES} & set(torchgd.__all__)


@pytest.mark.parametrize("name", torchgd.__all__)
def test_everything_public_has_a_docstring_with_an_example_that_runs(name: str) -> None:
    documented = getattr(torchgd, name)
    text = inspect.getdoc(documented) or ""
    assert re.match(r"\S.*[.:]$", text.split("\n\n")[0].replace("\n", " ")), "one sentence first"
    if inspect.isfunction(documented) or not issubclass(documented, Exception):
        assert ">>> " in text or name in {"Cause", "Finding", "Comparison", "Certificate", "GradientReport"}


def examples() -> Iterator[tuple[str, doctest.DocTest]]:
    finder = doctest.DocTestFinder(exclude_empty=True)
    for name in MODULES:
        module: ModuleType = importlib.import_module(name)
        for test in finder.find(module, name, globs={**vars(module), "torch": torch}):
            if test.examples:
                yield test.name, test


EXAMPLES = dict(examples())


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_of(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # it may leave files where it stands
    runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS, verbose=False)
    said: list[str] = []
    failures, tried = runner.run(EXAMPLES[name], out=said.append)
    assert failures == 0, "".join(said)
    assert tried > 0


# Size and structure


def test_no_function_is_longer_than_80_lines() -> None:
    """Its docstring does not count."""
    long = []
    for path in FILES:
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.FunctionDef):
                documented = len((ast.get_docstring(node, clean=False) or "").splitlines())
                lines = (node.end_lineno or node.lineno) - node.lineno + 1 - documented
                long += [f"{path.name}:{node.name}: {lines}"] if lines > 80 else []
    assert not long


def test_no_file_is_longer_than_300_lines() -> None:
    for path in FILES:
        assert len(path.read_text(encoding="utf-8").splitlines()) <= 300, path.name


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank ones, no comments, no docstrings."""
    lines = set[int]()
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
            continue
        if isinstance(node, ast.stmt):
            own = [node.lineno, *(child.lineno for child in ast.walk(node) if isinstance(child, ast.expr))]
            lines.update(own)
    return len(lines)


def test_the_core_reads_in_a_quarter_of_an_hour() -> None:
    core = ("model", "gradient", "batches", "optim", "training")
    assert sum(code_lines(PACKAGE / f"{name}.py") for name in core) < 500


def imports_of(path: Path) -> set[str]:
    """The torchgd modules that a module imports, within functions too, but not for types alone."""
    module = tree(path)
    for_types = {
        id(node)
        for block in ast.walk(module)
        if isinstance(block, ast.If) and ast.unparse(block.test) == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    found = set[str]()
    for node in ast.walk(module):
        if id(node) in for_types:
            continue
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("torchgd"):
            found.add(node.module)
            found |= {f"{node.module}.{a.name}" for a in node.names if f"{node.module}.{a.name}" in MODULES}
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names if alias.name.startswith("torchgd")}
    return found


def test_dependencies_point_one_way() -> None:
    for path in FILES:
        found = imports_of(path)
        name = ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        if not name.startswith("cli") and name != "__main__":
            assert not {of for of in found if of.startswith("torchgd.cli")}, (
                f"{name} imports the command line"
            )
        if name in {"model", "gradient", "guard"}:
            assert found <= {"torchgd.errors", "torchgd.samples"}, name
        if name == "optim":
            assert found <= {"torchgd.errors", "torchgd.batches", "torchgd.guard"}


def test_one_module_writes_events_and_none_is_a_drawer() -> None:
    writers = [
        path.name
        for path in FILES
        if re.search(r"RecordWriter|SummaryWriter|EventFileWriter", path.read_text())
    ]
    assert writers == ["eventfile.py"]
    assert not {"utils", "misc", "helpers", "common"} & {path.stem for path in FILES}


def test_the_package_is_typed_and_asserts_nothing_of_a_user() -> None:
    assert (PACKAGE / "py.typed").is_file()
    for path in FILES:
        for node in ast.walk(tree(path)):
            assert not isinstance(node, ast.Assert), f"{path.name}:{node.lineno}"
            if isinstance(node, ast.Raise) and isinstance(node.exc, ast.Call):
                assert ast.unparse(node.exc.func) not in {"Exception", "BaseException"}, path.name


def test_importing_the_package_imports_nothing_else() -> None:
    code = "import sys, torchgd; print({'torch', 'numpy', 'matplotlib', 'typer'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "set()\n"


def test_what_training_need_not_import(tmp_path: Path) -> None:
    """torch._dynamo takes as long to import as half of torch, and what PyTorch decorates imports it."""
    code = (
        "import sys; from torchgd.cli import main; "
        f"assert main(['train', '--epochs=2', '--gradient=autograd', '--logdir', {str(tmp_path)!r}]) == 0; "
        f"assert main(['lesson', '--epochs', '2', '--logdir', {str(tmp_path)!r}]) == 0; "
        "print({'torch._dynamo', 'sympy', 'matplotlib.pyplot', 'numba', 'sklearn'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "set()"
