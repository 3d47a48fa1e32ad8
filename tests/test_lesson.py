"""The lesson's witnesses: they see what is right, and they see what is not."""

from dataclasses import replace

import pytest
import torch
from course_run import CONFIG
from torch import Tensor

from torchgd import course, hubble
from torchgd import gradient as by_hand
from torchgd.lessons.lesson import MOST_UPDATES, Witness, witness
from torchgd.optim import GradientDescent
from torchgd.plan import Plan
from torchgd.runs.run import experiment_name

METHODS = [("gd", None, 100), ("sgd", None, 300), ("minibatch", 2, 200)]


@pytest.mark.parametrize(("method", "batch_size", "updates"), METHODS)
@pytest.mark.parametrize("order", ["sequential", "shuffled", "replacement"])
def test_right_is_right(method: str, batch_size: int | None, updates: int, order: str) -> None:
    config = replace(CONFIG, method=method, batch_size=batch_size, order=order)
    seen = witness(config, *course())
    assert seen.updates == seen.equal_updates == updates
    assert 0 <= seen.gradient < 1e-12
    assert seen.ok


def test_single_precision_data_are_watched_in_double() -> None:
    x, y = course(dtype=torch.float32)
    seen = witness(replace(CONFIG, dtype="float32"), x, y)
    assert seen == witness(CONFIG, *course())


@pytest.mark.parametrize("factor", [0.5, 2.0, 1 + 1e-9])
def test_a_wrong_gradient_is_seen(factor: float, monkeypatch: pytest.MonkeyPatch) -> None:
    """A factor 2 or ½ still ends at the right weight: the end tells nothing, every step does."""
    right = by_hand.gradient

    def wrong(w: Tensor, x: Tensor, y: Tensor) -> Tensor:
        return factor * right(w, x, y)

    monkeypatch.setattr(by_hand, "gradient", wrong)
    seen = witness(CONFIG, *course())
    assert seen.gradient == pytest.approx(abs(factor - 1), rel=1e-6)
    assert not seen.ok


def test_a_wrong_step_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    """From its fourth step on an optimizer is off by one ulp."""

    class Wrong(GradientDescent):
        steps = 0

        def step(self, closure=None):  # type: ignore[no-untyped-def]
            super().step(closure)
            Wrong.steps += 1
            if Wrong.steps == 4:
                (w,) = self.param_groups[0]["params"]
                with torch.no_grad():
                    w.copy_(torch.nextafter(w, w + 1))

    monkeypatch.setattr(Plan, "optimizer", lambda plan, params: Wrong(params, lr=plan.rate))
    seen = witness(replace(CONFIG, method="gd", epochs=5), *course())
    assert seen.updates == 5
    assert seen.equal_updates == 3
    assert not seen.ok


def test_it_watches_no_more_than_it_says() -> None:
    n = 10 * MOST_UPDATES
    x = torch.linspace(0.1, 1, n, dtype=torch.float64)
    for method, batch_size in (("sgd", None), ("minibatch", 16), ("gd", None)):
        config = replace(CONFIG, method=method, batch_size=batch_size, epochs=3)
        seen = witness(config, x, 2 * x)
        assert seen.updates == {"sgd": MOST_UPDATES, "minibatch": n / 16, "gd": 3}[method]
        assert seen.ok


def test_a_run_that_diverges_is_watched_to_its_end() -> None:
    for method, batch_size, _ in METHODS:
        seen = witness(replace(CONFIG, method=method, batch_size=batch_size, lr=2.0, epochs=400), *course())
        assert 10 < seen.updates == seen.equal_updates
        assert seen.gradient < 1e-12


@pytest.mark.parametrize(("gradient", "equal", "ok"), [(1e-16, 7, True), (1e-11, 7, False), (0.0, 6, False)])
def test_what_is_ok(gradient: float, equal: int, ok: bool) -> None:
    assert Witness(updates=7, gradient=gradient, equal_updates=equal).ok == ok


def test_the_name_of_an_experiment_is_a_folders_name() -> None:
    table = {
        "course": "course",
        "/data/My kitchen (2).csv": "My-kitchen-2",
        "数据.csv": "数据",
        "...": "data",
        "a:b?.csv": "a-b",
        "x" * 300: "x" * 60,
    }
    for name, folder in table.items():
        assert experiment_name(replace(hubble(), name=name)) == folder
