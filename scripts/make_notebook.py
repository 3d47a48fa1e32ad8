"""Writes lecture3.ipynb from the scripts of lecture 3, for teachers: run it again after a change of a script.

The docstring of a script becomes text, its imports and each paragraph of its main() a cell of code. A picture
is shown below its cell, instead of written to a file. A test compares the notebook with the scripts.
"""

import ast
import json
from pathlib import Path
from textwrap import dedent
from typing import Any

HERE = Path(__file__).parent
NOTEBOOK = HERE / "lecture3.ipynb"
SCRIPTS = ("lecture3_gradient_descent", "lecture3_stochastic", "lecture3_mini_batch")
TITLE = """# Lecture 3: gradient descent

Three programs: the full batch, one sample an update, and mini-batches. Run the cells from top to bottom.
`python scripts/make_notebook.py` writes this notebook from the scripts `lecture3_*.py`: change those."""


def cells_of(source: str) -> list[tuple[str, str]]:
    """The cells of one script, each its kind and its text."""
    tree, lines = ast.parse(source), source.splitlines()
    first, _, rest = (ast.get_docstring(tree) or "").partition("\n")
    imports = [
        ast.unparse(node)
        for node in tree.body
        if isinstance(node, ast.ImportFrom) and node.module != "pathlib"  # only FOLDER is a path
    ]
    main = next(node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name == "main")
    body = dedent("\n".join(lines[main.body[0].lineno - 1 : main.end_lineno]))
    shown = [
        "figure" if line.startswith("figure.savefig(") else line
        for line in body.splitlines()
        if not line.startswith("FOLDER.")
    ]
    paragraphs = "\n".join(shown).split("\n\n")
    return [
        ("markdown", f"## {first}\n{rest}"),
        ("code", "\n".join(imports)),
        *(("code", text) for text in paragraphs),
    ]


def notebook() -> str:
    """The notebook as text, the same at every run, without outputs."""
    texts = [("markdown", TITLE)]
    for script in SCRIPTS:
        texts += cells_of((HERE / f"{script}.py").read_text(encoding="utf-8"))
    cells = list[dict[str, Any]]()
    for number, (kind, text) in enumerate(texts):
        source = text.splitlines(keepends=True)
        cell = {"cell_type": kind, "id": f"cell-{number}", "metadata": {}, "source": source}
        cells.append(cell | ({"execution_count": None, "outputs": []} if kind == "code" else {}))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    whole = {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}
    return json.dumps(whole, ensure_ascii=False, indent=1) + "\n"


def main() -> None:
    NOTEBOOK.write_text(notebook(), encoding="utf-8")


if __name__ == "__main__":
    main()
