"""The law of the house: an import goes to a lower layer, or stays in its own package."""

import ast
from pathlib import Path

import torchgd

LAYER = {
    "errors": 0,
    "interruption": 0,
    "samples": 1,
    "model": 1,
    "gradient": 2,
    "batches": 1,
    "table": 1,
    "picture": 1,
    "guard": 1,
    "features": 2,
    "moments": 1,
    "optim": 2,
    "epoch_maps": 2,
    "history": 2,
    "data": 2,
    "plan": 3,
    "recorder": 3,
    "settling": 3,
    "check": 3,
    "compare": 3,
    "testing": 4,
    "update": 4,
    "training": 5,
    "figures": 4,
    "animation": 5,
    "epoch": 6,
    "convergence": 6,
    "runs": 7,
    "lessons": 8,
    "experiments": 8,
    "cli": 9,
    "__init__": 10,
    "__main__": 10,
}
ROOT = Path(torchgd.__file__).parent


def _imported(node: ast.AST) -> list[str]:
    """The modules of torchgd that a statement imports, without the package's name."""
    if isinstance(node, ast.Import):
        return [name.name.removeprefix("torchgd.") for name in node.names if name.name.startswith("torchgd.")]
    if isinstance(node, ast.ImportFrom) and node.module == "torchgd":
        return [name.name for name in node.names]
    if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("torchgd."):
        return [str(node.module).removeprefix("torchgd.")]
    return []


def test_every_import_goes_to_a_lower_layer_lazy_ones_included() -> None:
    wrong = []
    for file in sorted(ROOT.rglob("*.py")):
        importer = file.relative_to(ROOT).with_suffix("").parts[0]
        wrong += [
            f"{file.relative_to(ROOT)} imports {imported}"
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))
            for imported in (name.split(".")[0] for name in _imported(node))
            if imported != importer and not LAYER[importer] > LAYER[imported]
        ]
    assert not wrong, wrong
