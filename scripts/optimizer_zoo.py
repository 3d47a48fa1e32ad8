"""The contract of torch.optim.Optimizer, checked on every optimizer class of the packages below.

    python scripts/optimizer_zoo.py --env FOLDER      # the folder gets the pinned packages; about an hour

It writes optimizer_zoo.md and optimizer_zoo.csv beside itself: class, version, clause, outcome, one line of
evidence. Each package runs in a process of its own, with a time limit for each class.
"""

from __future__ import annotations

import argparse
import csv
import importlib
import json
import os
import re
import subprocess
import venv
from collections import Counter
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PINNED = """torch==2.13.0 numpy einops setuptools
pytorch-optimizer==4.1.0 torch-optimizer==0.3.0 timm==1.0.31 torchium==0.1.5 heavyball==3.2.1
schedulefree==1.4.1 adabelief-pytorch==0.2.1 adabelief-slim==0.0.1 adam-mini==1.1.1 adamp==0.3.0
adamr==0.0.2 adamwclip==0.1.4 adan-pytorch==0.1.0 adv-optm==2.5.16 ano-optimizer==1.0.0
apollo-torch==1.0.3 came-pytorch==0.1.3 core-optimizer==1.1.0 dadaptation==3.2 dog-optimizer==1.0.3
dowgopt==0.13 galore-torch==1.0 gefen==1.2.3 grokadamw==0.1.2 kron-torch==0.3.3 lion-pytorch==0.2.5
madgrad==1.3 mechanic-pytorch==0.0.1 muon-optimizer==0.1.0 nadir==0.1.1 ncg-optimizer==0.2.2
parameterfree==0.0.1 prodigyopt==1.1.2 pytorch-ranger==0.1.1 quad-torch==0.4.5
ranger-adabelief==0.1.0 rangerlite==1.0.3 relativistic-adam==1.0.0 salsa-optimizer==0.1.0
sgd-boost==1.0.2 sgd-sai==1.0.3 tadam==0.0.1 torch-SM3==0.1.0 torch-optimi==0.3.3
transformers==5.23.0"""

# The modules of each package that hold its classes.
MODULES = {
    "torch": "torch.optim",
    "pytorch-optimizer": "pytorch_optimizer",
    "torch-optimizer": "torch_optimizer",
    "timm": "timm.optim",
    "torchium": "torchium.optimizers",
    "heavyball": "heavyball",
    "schedulefree": "schedulefree",
    "adabelief-pytorch": "adabelief_pytorch",
    "adabelief-slim": "adabelief",
    "adam-mini": "adam_mini",
    "adamp": "adamp",
    "adamr": "adamr",
    "adamwclip": "AdamWClip",
    "adan-pytorch": "adan_pytorch",
    "adv-optm": "adv_optm",
    "ano-optimizer": "ano_optimizer",
    "apollo-torch": "apollo_torch.apollo",
    "came-pytorch": "came_pytorch",
    "core-optimizer": "core_optimizer",
    "dadaptation": "dadaptation dadaptation.experimental",
    "dog-optimizer": "dog",
    "dowgopt": "dowg",
    "galore-torch": "galore_torch.adafactor galore_torch.adamw",
    "gefen": "gefen.gefen gefen.gefen_muon",
    "grokadamw": "grokadamw",
    "kron-torch": "kron_torch kron_torch.kronos",
    "lion-pytorch": "lion_pytorch lion_pytorch.cautious_lion lion_pytorch.foreach",
    "madgrad": "madgrad",
    "mechanic-pytorch": "mechanic_pytorch",
    "muon-optimizer": "muon",
    "nadir": "nadir nadir.NAG nadir.adabelief nadir.adamw nadir.nadam",
    "ncg-optimizer": "ncg_optimizer",
    "parameterfree": "parameterfree",
    "prodigyopt": "prodigyopt prodigyopt.prodigy_reference",
    "pytorch-ranger": "pytorch_ranger",
    "quad-torch": "quad_torch",
    "ranger-adabelief": "ranger_adabelief",
    "rangerlite": "rangerlite",
    "relativistic-adam": "relativistic_adam",
    "salsa-optimizer": "salsa.SaLSA",
    "sgd-boost": "sgd_boost",
    "sgd-sai": "sgd_sai",
    "tadam": "tadam",
    "torch-SM3": "SM3",
    "torch-optimi": "optimi",
    "transformers": "transformers.optimization",
}
# Bases, classes for several processes or for a model's own backward pass, and searches without a gradient.
LEFT_OUT = {
    *("Optimizer", "BaseOptimizer", "PSGDBase", "SOAPBase", "SplitOpt", "StochLineSearchBase", "GSAM"),
    *("DistributedMuon", "DistributedKron", "DistributedOneSidedKron", "MuonWithAuxAdam", "muon.Muon"),
    *("LOMO", "AdaLOMO", "DeMo", "LayerWiseDummyOptimizer", "CMAES", "DifferentialEvolution"),
    *("GeneticAlgorithm", "ParticleSwarmOptimization", "QuantumAnnealing", "SimulatedAnnealing"),
}
SECONDS = 180.0


def groups_with(cls: Any, **keys: Any) -> Callable[..., Any]:
    """Every group needs these keys."""

    def factory(params: Any, **options: Any) -> Any:
        params = list(params)
        groups = params if isinstance(params[0], dict) else [{"params": params}]
        optimizer = cls([{**keys, **group} for group in groups], **options)
        optimizer.add_param_group = lambda group: cls.add_param_group(optimizer, {**keys, **group})
        return optimizer

    return factory


def around_sgd(cls: Any, **keys: Any) -> Callable[..., Any]:
    """A wrapper of another optimizer."""
    from torch.optim import SGD

    return lambda params, **options: cls(SGD(params, **{"lr": 0.1, **options}), **keys)


def named(cls: Any) -> Callable[..., Any]:
    """It takes named parameters."""
    return lambda params, **options: cls([(f"layer{i}.weight", p) for i, p in enumerate(params)], **options)


def refuse(group: Any = None) -> None:
    raise ValueError("it takes a model, not groups")


def of_model(cls: Any, *parameters: bool, **keys: Any) -> Callable[..., Any]:
    """It takes a module."""
    from torch import nn

    def factory(params: Any, **options: Any) -> Any:
        params = list(params)
        if isinstance(params[0], dict):
            refuse()
        model = nn.Module()
        for i, p in enumerate(params):
            model.register_parameter(f"weight{i}", p)
        optimizer = cls(model, *([params] if parameters else []), **{**keys, **options})
        optimizer.add_param_group = refuse
        return optimizer

    return factory


def factory_of(package: str, name: str, cls: Any) -> Callable[..., Any]:
    """How this class is made: as it is, or in a way of its own."""
    from functools import partial

    from torch.optim import SGD

    if package == "mechanic-pytorch":
        return partial(cls(SGD), lr=1.0)
    if name in {"AdaGO", "AdaMuon", "Muon", "MuonClip", "NorMuon"} and package == "pytorch-optimizer":
        return groups_with(cls, use_muon=True)
    if name == "SingleDeviceMuonWithAuxAdam":
        return groups_with(cls, use_muon=True)
    wrappers = {"Lookahead", "OrthoGrad", "PCGrad", "SafeFP16Optimizer", "ScheduleFreeWrapper", "TRAC"}
    if name in wrappers and package in {"pytorch-optimizer", "torch-optimizer", "timm"}:
        return around_sgd(cls)
    if package == "pytorch-optimizer" and name in {"SAM", "LookSAM", "FriendlySAM"}:
        return partial(cls, base_optimizer=SGD, lr=0.1)
    if package == "pytorch-optimizer" and name == "WSAM":
        return of_model(cls, True, base_optimizer=SGD, lr=0.1)
    if package == "pytorch-optimizer" and name == "AdamMini":
        return of_model(cls)
    if package == "pytorch-optimizer" and name in {"BSAM", "Ranger21"}:
        return partial(cls, **({"num_data": 1_000_000} if name == "BSAM" else {"num_iterations": 1000}))
    if package in {"adam-mini", "gefen"}:
        return named(cls)
    return cls  # type: ignore[no-any-return]


def classes_of(package: str) -> dict[str, Any]:
    """The optimizer classes of a package, by module and name."""
    import torch

    if package in {
        "timm",
        "torchium",
    }:  # a torchvision for CUDA lacks its operators beside a torch for the CPU
        register = torch.library.register_fake
        torch.library.register_fake = lambda op, *a, **k: (
            (lambda f: f) if str(op).startswith("torchvision::") else register(op, *a, **k)
        )
    found: dict[str, Any] = {}
    for number, module_name in enumerate(MODULES[package].split()):
        module = importlib.import_module(module_name)
        if package == "heavyball":
            module.utils.compile_mode = None
        if package == "mechanic-pytorch":
            return {"mechanize(SGD)": module.mechanize}
        root = module_name.split(".")[0]
        for name, value in sorted(vars(module).items()):
            own = (
                isinstance(value, type)
                and value.__module__.split(".")[0] == root
                and not {name, f"{root}.{name}"} & LEFT_OUT
            )
            if own and issubclass(value, torch.optim.Optimizer) and value not in found.values():
                prefix = "" if number == 0 else module_name.removeprefix(f"{root}.") + "."
                found[prefix + name] = value
    return found


def work(package: str, done: Path) -> None:
    """Check every class of one package that is not in the file yet, a line of JSON each."""
    import warnings
    from functools import partial

    import torch

    from torchgd import InputError
    from torchgd.compare.contract import check_optimizer

    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    past = {json.loads(line)["class"] for line in done.read_text().splitlines()} if done.exists() else set()
    for name, cls in classes_of(package).items():
        if name in past:
            continue
        record: dict[str, Any] = {"package": package, "version": version(package), "class": name}
        with done.open("a") as file:  # should the process be killed, it goes on after this class
            file.write(json.dumps({**record, "error": f"no answer within {3 * SECONDS:g} s"}) + "\n")
        factory = factory_of(package, name.split(".")[-1], cls)
        try:
            try:
                findings = check_optimizer(factory, seconds=SECONDS)
            except InputError:
                findings = check_optimizer(partial(factory, lr=0.1), seconds=SECONDS)
            record["findings"] = [[f.name, f.outcome.value, f.severity.value, f.evidence] for f in findings]
        except InputError as error:
            record["error"] = str(error)
        with done.open("a") as file:
            file.write(json.dumps(record) + "\n")


def run_all(env: Path, logs: Path, only: list[str]) -> None:
    """Each package in a process of its own; one that hangs is ended, and goes on with its next class."""
    logs.mkdir(parents=True, exist_ok=True)
    python = env / ("Scripts" if os.name == "nt" else "bin") / "python"
    environment = {**os.environ, "PYTHONPATH": str(HERE.parent), "OMP_NUM_THREADS": "1"}
    for package in only or MODULES:
        done = logs / f"{package}.jsonl"
        command = [str(python), __file__, "--work", package, "--logs", str(logs)]
        while True:
            before = done.stat().st_size if done.exists() else 0
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            while process.poll() is None:
                size = done.stat().st_size if done.exists() else 0
                try:
                    process.wait(3 * SECONDS)
                except subprocess.TimeoutExpired:
                    if done.exists() and done.stat().st_size == size:
                        process.kill()
            grown = (done.stat().st_size if done.exists() else 0) > before
            if process.returncode == 0 or not grown:
                break
        print(package, len(read(done)) if done.exists() else "not imported", flush=True)


def read(done: Path) -> list[dict[str, Any]]:
    """The last record of each class."""
    records = [json.loads(line) for line in done.read_text().splitlines()]
    return list({record["class"]: record for record in records}.values())


def write(logs: Path) -> None:
    """The table as CSV, and as Markdown: the clauses, the classes, and what breaks training in silence."""
    records = [
        record for package in MODULES if (f := logs / f"{package}.jsonl").exists() for record in read(f)
    ]
    checked = [record for record in records if "findings" in record]
    names = [finding[0] for finding in checked[0]["findings"]]
    rows = [
        (f"{r['package']}:{r['class']}", r["version"], *finding[:3], re.sub(r"/\S+/", "", finding[3]))
        for r in checked
        for finding in r["findings"]
    ]
    with (HERE / "optimizer_zoo.csv").open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["class", "version", "clause", "outcome", "severity", "evidence"])
        table.writerows(
            [*row[:4], row[4] if row[3] == "failed" else "", row[5][:160] if row[3] != "passed" else ""]
            for row in rows
        )
    counts = Counter((clause, outcome) for _, _, clause, outcome, _, _ in rows)
    lines = [
        "# The contract of torch.optim.Optimizer on real classes",
        "",
        f"{len(checked)} classes of {len({r['package'] for r in checked})} packages, "
        f"torch {checked[0]['version']}, on the CPU; written by `python scripts/optimizer_zoo.py`.",
        "Each row states what this version of a package does on the ground of `torchgd/compare/scenario.py`;",
        "`optimizer_zoo.csv` has every outcome with its evidence. P passed, **F** failed, n not applicable.",
        "",
        "| clause | number | passed | failed | not applicable |",
        "|---|---|---|---|---|",
        *(
            f"| {name} | {number} | "
            + " | ".join(str(counts[name, o]) for o in ("passed", "failed", "not applicable"))
            + " |"
            for number, name in enumerate(names, start=1)
        ),
        "",
        f"| class | version | {' | '.join(str(number) for number in range(1, len(names) + 1))} |",
        "|---" * (len(names) + 2) + "|",
    ]
    letters = {"passed": "P", "failed": "**F**", "not applicable": "n"}
    for r in checked:
        cells = " | ".join(letters[outcome] for _, outcome, _, _ in r["findings"])
        lines.append(f"| {r['package']}:{r['class']} | {r['version']} | {cells} |")
    lines += [
        "",
        "## What breaks training in silence",
        "",
        "| class | version | clause | outcome | evidence |",
    ]
    lines.append("|---|---|---|---|---|")
    for name, of, clause, outcome, severity, evidence in rows:
        if outcome == "failed" and severity == "breaks training in silence":
            told = evidence[:200].replace("|", "\\|").replace("<", "&lt;")
            lines.append(f"| {name} | {of} | {clause} | {outcome} | {told} |")
    unchecked = [r for r in records if "findings" not in r]
    if unchecked:
        lines += ["", "## Not checked", "", "| class | version | reason |", "|---|---|---|"]
    for r in unchecked:
        told = r["error"][:200].replace("|", "/")
        lines.append(f"| {r['package']}:{r['class']} | {r['version']} | {told} |")
    (HERE / "optimizer_zoo.md").write_text("\n".join(lines) + "\n", encoding="utf-8")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--env", type=Path, help="where the packages are installed; made if it is not there")
    parser.add_argument("--logs", type=Path, default=Path("optimizer_zoo_logs"), help="what is done so far")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("packages", nargs="*", help="only these")
    given = parser.parse_args()
    if given.work:
        work(given.work, given.logs / f"{given.work}.jsonl")
        return
    if given.env:
        if not given.env.exists():
            venv.create(given.env, with_pip=True)
            python = str(given.env / ("Scripts" if os.name == "nt" else "bin") / "python")
            install = [python, "-m", "pip", "install", "-q"]
            for line in PINNED.splitlines():
                if subprocess.run([*install, *line.split()], check=False).returncode:
                    for pinned in line.split():  # one that pins an old torch comes without what it asks for
                        subprocess.run([*install, "--no-deps", pinned], check=False)
        run_all(given.env.resolve(), given.logs.resolve(), given.packages)
    write(given.logs.resolve())


if __name__ == "__main__":
    main()
