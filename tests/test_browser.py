"""TensorBoard in a real browser: what a person sees of a lesson's runs."""

from __future__ import annotations

import json
import os
import re
import shutil
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from test_cli_board import board

from torchgd.cli import main
from torchgd.runs.checkpoint import load

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser") or ""
ARGUMENTS = (
    "--headless --no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)
RUNS = ["course/gd", "course/minibatch", "course/sgd"]

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(not CHROMIUM, reason="there is no chromium; set CHROMIUM to its path"),
]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The runs of the course's lesson."""
    logdir = tmp_path_factory.mktemp("runs")
    assert main(["lesson", "--logdir", str(logdir), "--json"]) == 0
    return logdir


@pytest.fixture(scope="module")
def address(runs: Path) -> Iterator[str]:
    """A TensorBoard that shows them."""
    with board("--logdir", str(runs), "--port", "0") as (_, address):
        yield address


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as tool:
        browser = tool.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS.split())
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Any) -> Iterator[Any]:
    """A tab of a browser, as large as a projector's picture."""
    page = browser.new_page(viewport={"width": 1400, "height": 900})
    page.set_default_timeout(60_000)
    yield page
    page.close()


def asked(address: str, path: str, body: dict[str, Any] | None = None) -> Any:
    """What TensorBoard answers to its own page."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(f"{address}data/{path}", data, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def test_the_costs_of_all_methods_stand_on_one_card(page: Any, address: str, tmp_path: Path) -> None:
    page.goto(f"{address}?smoothing=0#timeseries")
    cards = page.locator("scalar-card", has_text=re.compile("(^|[^_])cost"))  # not log10_cost
    card = cards.first
    card.get_by_text("course/sgd").wait_for()
    assert cards.count() == 1
    assert page.locator("scalar-card", has_text="log10_cost").count() == 1
    page.get_by_label("Ignore outliers in chart scaling").uncheck()
    page.get_by_label("Enable step selection and data table").uncheck()  # it shows small costs as 0
    page.get_by_role("button", name="Settings").last.click()
    card.get_by_role("button", name="More line chart options").click()
    page.get_by_role("menuitem", name="Toggle Y-axis log scale").click()
    chart = card.locator("line-chart .series-view")
    chart.wait_for()
    tooltip = page.locator(".cdk-overlay-container table")
    chart.hover(position={"x": 150, "y": 100})
    tooltip.wait_for()
    shown = sorted(line for line in tooltip.inner_text().split() if line.startswith("course/"))
    assert shown == RUNS
    page.screenshot(path=tmp_path / "tensorboard.png")
    assert (tmp_path / "tensorboard.png").stat().st_size > 50_000


def test_there_are_no_stray_runs(address: str) -> None:
    assert sorted(asked(address, "runs")) == RUNS
    tags = asked(address, "plugin/scalars/tags")
    assert sorted(tags) == RUNS
    curves = [
        "epoch/cost",
        "epoch/log10_cost",
        "epoch/weight",
        "update/gradient",
        "update/loss",
        "update/weight",
    ]
    assert all(sorted(tags[run]) == curves for run in RUNS)


def test_the_curves_hold_the_history(address: str, runs: Path) -> None:
    for run in RUNS:
        points = asked(address, f"plugin/scalars/scalars?run={run}&tag=epoch/cost")
        history = load(runs / run / "checkpoint.pt").history
        assert [step for _, step, _ in points] == history.epoch.tolist()
        # an event holds a float32
        assert [value for *_, value in points] == history.cost.to(torch.float32).double().tolist()


def test_the_pictures_are_under_images(page: Any, address: str) -> None:
    page.goto(f"{address}#images")
    for tag in ("picture/parabola", "picture/cost"):
        page.get_by_text(tag, exact=True).first.wait_for()
    pictures = page.locator("tf-image-loader img")
    pictures.nth(5).wait_for()
    assert pictures.count() == 6
    for picture in pictures.all():
        picture.scroll_into_view_if_needed()
        assert picture.evaluate("async image => { await image.decode(); return image.naturalWidth }") == 800
    for run in RUNS:
        assert page.get_by_text(run, exact=True).count() >= 2


def test_the_table_of_hyperparameters(page: Any, address: str, runs: Path) -> None:
    page.goto(f"{address}#hparams")
    page.get_by_text("course/sgd").first.wait_for()
    table = page.locator("vaadin-grid").first
    names = table.locator("vaadin-grid-cell-content").all_inner_texts()
    for word in ("lr", "method", "batch_size", "epoch/cost", "0.010000", "gd", "sgd", "minibatch"):
        assert word in names
    body = {"experimentName": "", "allowedStatuses": ["STATUS_SUCCESS"], "colParams": [], "sliceSize": 10}
    rows = asked(address, "plugin/hparams/session_groups", body)["sessionGroups"]
    assert sorted(row["hparams"]["method"] for row in rows) == ["gd", "minibatch", "sgd"]
    for row in rows:
        assert row["hparams"]["lr"] == 0.01
        cost = load(runs / "course" / row["hparams"]["method"] / "checkpoint.pt").history.cost[-1]
        final = row["metricValues"][0]
        assert final["name"]["tag"] == "epoch/cost"
        assert final["value"] == cost.to(torch.float32).item()
        assert f"{cost:.5g}".replace("e-0", "e-") in names
