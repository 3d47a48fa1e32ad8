"""FILE.py:FUNCTION: the user's code becomes an object, and whatever is wrong with it one line."""

from __future__ import annotations

import difflib
import functools
import os
import sys
import traceback
from pathlib import Path
from types import ModuleType
from typing import Any

from torchgd.errors import InputError

_MODULE = "torchgd_checked_file"  # no name that a module of the user's could have


def load_object(word: str) -> Any:
    """Run the file and return what it calls by this name; a name may have dots."""
    file, colon, name = word.rpartition(":")
    if not (colon and file and name.replace(".", "_").isidentifier()):
        raise InputError(f"{word!r} names nothing in a file; write FILE.py:NAME, e.g. mine.py:gradient")
    path = Path(file)
    found: Any = _run(path, path.resolve(), path.stat().st_mtime_ns if path.exists() else 0)
    for part in name.split("."):
        if not hasattr(found, part):
            raise InputError(f"{file} has no {name!r}; {_suggestion(part, vars(found))}")
        found = getattr(found, part)
    return found


@functools.cache
def _run(path: Path, whole: Path, changed: int) -> ModuleType:
    """The file as a module, run once with its own folder on the path, as `python FILE` has it."""
    try:
        code = compile(path.read_bytes(), str(path), "exec")
    except FileNotFoundError:
        near = difflib.get_close_matches(path.name, [other.name for other in path.parent.glob("*.py")], n=1)
        mend = f"did you mean {near[0]}?" if near else "check the path"
        raise InputError(f"{path}: no such file; {mend}") from None
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; give a Python file that can be read") from None
    except SyntaxError as error:
        text = (error.text or "").strip()
        raise InputError(f"{path}, line {error.lineno}: {error.msg}; mend this line: {text}") from None
    except ValueError as error:  # a NUL byte, on older Pythons
        raise InputError(f"{path}: {error}; give a Python file") from None
    os.environ.setdefault("MPLBACKEND", "Agg")  # plt.show() in a lesson's script would wait for a person
    folder = str(whole.parent)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    module = ModuleType(_MODULE)
    module.__file__ = str(path)
    sys.modules[_MODULE] = module
    try:
        exec(code, module.__dict__)
    except (Exception, SystemExit) as error:
        frames = traceback.extract_tb(error.__traceback__)
        frame = [frame for frame in frames if frame.filename == str(path)][-1]
        kind = f"{type(error).__name__}: {error}"
        mend = "put what it does beside its functions under if __name__ == '__main__'"
        if isinstance(error, ModuleNotFoundError):
            mend = "install that module, or mend its name"
        raise InputError(
            f"{path}, line {frame.lineno}: running it raised {kind} ({frame.line}); {mend}"
        ) from None
    return module


def _suggestion(name: str, namespace: dict[str, Any]) -> str:
    own = [other for other, value in namespace.items() if callable(value) and not other.startswith("_")]
    near = difflib.get_close_matches(name, own, n=3)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"it has {', '.join(own)}" if own else "it has nothing to call"


def load_model(word: str, seed: int) -> Any:
    """The module that a word names, or that the class or function of this name makes."""
    import torch

    found = load_object(word)
    torch.manual_seed(seed)
    try:
        model = found if isinstance(found, torch.nn.Module) else found()
    except Exception as error:
        raise InputError(
            f"{word} raised {type(error).__name__}: {error}; name a module, or what makes one"
        ) from None
    if not isinstance(model, torch.nn.Module):
        raise InputError(f"{word} is a {type(model).__name__}; name a torch.nn.Module, or what makes one")
    return model


def load_loss(word: str) -> Any:
    """A loss of torch.nn.functional by its name, or the user's own."""
    from torch.nn import functional

    if ":" in word:
        return load_object(word)
    known = [name for name in dir(functional) if "loss" in name or "cross_entropy" in name]
    if word not in known:
        near = difflib.get_close_matches(word, known, n=3, cutoff=0.4) or ["mse_loss", "cross_entropy"]
        raise InputError(f"--loss is {word!r}; did you mean {' or '.join(near)}? Or give FILE.py:LOSS")
    return getattr(functional, word)
