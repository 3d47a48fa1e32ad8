"""``torchgd compare``: our optimizer beside anyone's, and anyone's against the contract."""

from __future__ import annotations

import ast
import difflib
import importlib
import inspect
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from torchgd.cli import app, terminal
from torchgd.cli import options as opt
from torchgd.cli.source import load_object
from torchgd.errors import InputError

if TYPE_CHECKING:
    from torch.optim import Optimizer

    from torchgd.compare.comparison import Comparison

AgainstOption = Annotated[
    str | None,
    typer.Option(metavar="MODULE:CLASS", help="Any optimizer, e.g. torch.optim.Adam or mine.py:MySGD."),
]
WithOption = Annotated[
    list[str] | None,
    typer.Option(
        "--with", metavar="NAME=VALUE", help="An argument of that class; may be repeated; lr is ours."
    ),
]


StepsOption = Annotated[
    int | None,
    typer.Option(parser=opt.whole(1), metavar="N", help="How many updates.", show_default="1000"),
]
PassesOption = Annotated[
    int | None,
    typer.Option(parser=opt.whole(1), metavar="N", help="How many passes over the data instead."),
]
ContractOption = Annotated[
    bool, typer.Option("--contract", help="Check the optimizer's contract instead: theirs, or else ours.")
]


@app.command(epilog="Example: torchgd compare hubble --against torch.optim.SGD --with momentum=0.9")
def compare(
    data: opt.DataArgument = "course",
    x: opt.XOption = None,
    y: opt.YOption = None,
    encoding: opt.EncodingOption = None,
    drop_missing: opt.DropMissingOption = False,
    method: opt.MethodOption = "gd",
    against: AgainstOption = None,
    with_: WithOption = None,
    lr: opt.LrOption = "0.01",
    steps: StepsOption = None,
    epochs: PassesOption = None,
    batch_size: opt.BatchSizeOption = None,
    order: opt.OrderOption = "sequential",
    seed: opt.SeedOption = 0,
    weight: opt.WeightOption = 1.0,
    device: opt.DeviceOption = "auto",
    dtype: opt.DtypeOption = "float64",
    contract: ContractOption = False,
    picture: opt.PictureOption = None,
    as_json: opt.JsonOption = False,
) -> None:
    """Run our optimizer and another in lock-step; exit status 1 where they are different rules."""
    plan = opt.plan(method, batch_size, order, seed, lr)
    if steps is not None and epochs is not None:
        raise InputError("--steps and --epochs both say how long; leave one of them out")
    if with_ and against is None and contract:
        raise InputError("--with is for the class of --against; give one, e.g. --against torch.optim.SGD")
    dataset = opt.read_data(data, x, y, dtype, device, encoding, drop_missing)

    import torch

    from torchgd.convergence.rate import with_lr

    inputs, targets = dataset
    plan, why = with_lr(plan, inputs, targets, epochs or 100)
    if why:
        terminal.say(why, to_stderr=as_json)
    ours, rate = plan.optimizer, plan.rate
    example = ours([torch.nn.Parameter(torch.zeros(()))])
    our_name = type(example).__name__
    name = against or "torch.optim.SGD"
    with redirect_stdout(sys.stderr):  # anyone's code may print; the answer alone is on standard output
        # a contract is that of the class as it is: our learning rate goes only to one that needs it
        theirs = _with_options(_optimizer_class(name), name, with_ or [], rate, as_it_is=contract)
    if contract:
        checked = (theirs, name) if against else (ours, our_name)
        _check_contract(*checked, as_json=as_json)
        return

    from torchgd.compare.comparison import Verdict, compare_optimizers
    from torchgd.lessons.peers import curves
    from torchgd.model import LinearModel
    from torchgd.runs.atomic import write_whole

    batches = example.batches(len(inputs))
    length = steps or (epochs * len(batches) if epochs else 1000)
    model = LinearModel(weight, device=inputs.device, dtype=inputs.dtype)
    with _anyones_steps(name):
        found = compare_optimizers(ours, theirs, model, inputs, targets, steps=length, batches=batches)
        if picture:
            two: dict[str, Callable[..., Optimizer]] = {our_name: ours, name: theirs}
            drawn = curves(two, plan, dataset, weight=weight, epochs=-(-length // len(batches)))
            write_whole(picture, drawn)
    answer = {
        "verdict": found.verdict.value,
        "steps": found.steps,
        "method": method,
        "lr": rate,
        "against": name,
        "with": {key: str(value) for key, value in theirs.keywords.items()},
        "largest_ulps": found.ulps.max().item(),
        "first": found.first and {**asdict(found.first), "index": list(found.first.index)},
        "sentence": f"{our_name} and {name}: {found}",
    }
    if as_json:
        terminal.print_json(answer)
    else:
        _print_comparison(found, our_name, name, picture)
    if found.verdict is Verdict.different:
        raise typer.Exit(1)


@contextmanager
def _anyones_steps(name: str) -> Iterator[None]:
    """What their class prints goes to standard error, and what it raises is one line."""
    try:
        with redirect_stdout(sys.stderr):
            yield
    except (InputError, OSError):
        raise
    except Exception as error:
        raise InputError(f"--against {name}: a step raised {type(error).__name__}: {error}") from error


def _print_comparison(found: Comparison, ours: str, theirs: str, picture: Path | None) -> None:
    """The table, the sentence, and where the picture is."""
    first = found.first
    rows = [["verdict", found.verdict.value], ["steps compared", str(found.steps)]]
    rows += [["largest distance", f"{found.ulps.max().item():.6g} ulps"]]
    if first:
        rows += [["first difference", f"step {first.step}, {first.parameter}"]]
        rows += [[ours, repr(first.a)], [theirs, repr(first.b)]]
        rows += [["distance there", f"{first.ulps:.6g} ulps"]]
    terminal.table(["", "value"], rows)
    terminal.say(f"{ours} and {theirs}: {found}")
    terminal.say(f"picture: {picture}" if picture else "to see the two curves: --picture FILE.png")


def _check_contract(factory: Callable[..., Optimizer], name: str, *, as_json: bool) -> None:
    """Print the findings, the worst first; exit with 1 where one failed."""
    from torchgd.compare.contract import CONTRACT, Outcome, by_severity, check_optimizer

    with terminal.progress(len(CONTRACT), "clauses") as show, redirect_stdout(sys.stderr):
        findings = by_severity(check_optimizer(factory, on_progress=lambda done, of: show(done)))
    counts = {outcome: sum(finding.outcome is outcome for finding in findings) for outcome in Outcome}
    sentence = f"{name}: " + ", ".join(f"{count} {outcome.value}" for outcome, count in counts.items())
    if as_json:
        listed = [{**asdict(f), "outcome": f.outcome.value, "severity": f.severity.value} for f in findings]
        terminal.print_json({"optimizer": name, "findings": listed, "sentence": sentence})
    else:
        told = ""
        for finding in findings:
            if not finding and finding.severity.value != told:
                told = finding.severity.value
                terminal.say(f"{told}:")
            terminal.say(f"{finding.name:<24} {finding.outcome.value:<15} {finding.evidence}", hang=41)
        terminal.say(sentence)
    if counts[Outcome.failed]:
        raise typer.Exit(1)


def _optimizer_class(name: str) -> type[Optimizer]:
    """The class that `module:Class`, `module.Class` or `file.py:Class` names."""
    from torch.optim import Optimizer

    module_name, _, class_name = name.rpartition(":" if ":" in name else ".")
    if not (module_name and class_name):
        raise InputError(f"--against {name}: give a module and a class, e.g. torch.optim.SGD")
    found = load_object(name) if module_name.endswith(".py") else _in_module(module_name, class_name, name)
    if not (isinstance(found, type) and issubclass(found, Optimizer)):
        raise InputError(
            f"--against {name}: {class_name} is not a subclass of torch.optim.Optimizer; give one"
        )
    return found


def _in_module(module_name: str, class_name: str, name: str) -> Any:
    """What a module that can be imported, from this folder too, calls by this name."""
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        raise InputError(f"--against {name}: {error}; check the name, and the folder it is in") from error
    except Exception as error:  # anyone's module
        raise InputError(f"--against {name}: its import raised {type(error).__name__}: {error}") from error
    finally:
        sys.path.remove(folder)
    found = getattr(module, class_name, None)
    if found is None:
        near = difflib.get_close_matches(class_name, [key for key in vars(module) if key[:1] != "_"], n=1)
        mend = f"did you mean {near[0]}?" if near else "check its name"
        raise InputError(f"--against {name}: {module_name} has no {class_name}; {mend}")
    return found


def _with_options(
    made: Callable[..., Optimizer], name: str, words: list[str], lr: float, *, as_it_is: bool
) -> partial[Optimizer]:
    """The class with the arguments of --with, tried on one parameter; lr is ours unless given.

    As it is: its own lr where it has one, and a parameter of shape (2, 3), which matrix methods take too.
    """
    import torch

    taken = inspect.signature(made).parameters
    anything = any(p.kind is p.VAR_KEYWORD for p in taken.values())
    has_lr = "lr" in taken and as_it_is and isinstance(taken["lr"].default, float)
    ours = "lr" in taken or (anything and not as_it_is)
    options: dict[str, Any] = {"lr": lr} if ours and not has_lr else {}
    for word in words:
        key, equals, text = word.partition("=")
        if not (equals and key.isidentifier()):
            raise InputError(f"--with {word}: give a name and a value, e.g. --with momentum=0.9")
        if not (anything or key in taken) or key == "params":
            offered = ", ".join(key for key in taken if key != "params")
            raise InputError(f"--with {word}: {name} takes no argument {key}; it takes {offered}")
        try:
            options[key] = ast.literal_eval(text)
        except (ValueError, SyntaxError):
            options[key] = text
    factory = partial(made, **options)
    try:
        factory([torch.nn.Parameter(torch.zeros((2, 3) if as_it_is else ()))])
    except Exception as error:  # anyone's code
        given = ", ".join(f"{key}={value!r}" for key, value in options.items())
        raise InputError(f"--against {name}: {type(error).__name__}: {error} (given {given})") from error
    return factory
