"""Every test starts from the same seed and the same default dtype."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import settings
from torch import Tensor, nn

# Small tensors in many threads wait for one another; the processes that tests start inherit this.
os.environ.setdefault("OMP_NUM_THREADS", "1")
torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))

# A shell that starts the tests in the background lets them ignore Ctrl-C; the tests of signals need it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("torchgd", deadline=None, derandomize=True, print_blob=True)
# pytest --hypothesis-profile=thorough tests/test_data_hostile.py
settings.register_profile(
    "thorough", parent=settings.get_profile("torchgd"), derandomize=False, max_examples=1500
)
settings.load_profile("torchgd")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests marked `cuda` run where there is a CUDA device."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("cuda"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(autouse=True)
def seeded() -> Iterator[None]:
    torch.manual_seed(0)
    default = torch.get_default_dtype()
    yield
    torch.set_default_dtype(default)


@pytest.fixture(scope="session", autouse=True)
def checkout_unchanged() -> Iterator[None]:
    """Tests write into folders of their own, never beside the code."""
    root = Path(__file__).parents[1]
    before = set(root.glob("[!.]*"))
    yield
    assert set(root.glob("[!.]*")) == before, "a test wrote into the checkout"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of the test's own to work in, so that messages show names as they were given."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def course_data() -> tuple[Tensor, Tensor]:
    """The course's three samples, as plain tensors."""
    return torch.tensor([1.0, 2.0, 3.0]).double(), torch.tensor([2.0, 4.0, 6.0]).double()


@pytest.fixture
def noisy_data() -> tuple[Tensor, Tensor]:
    """Seven samples on no line; 7 is prime, so every batch size above 1 leaves a rest."""
    generator = torch.Generator().manual_seed(7)
    x = torch.randn(7, generator=generator, dtype=torch.float64)
    return x, 3 * x + torch.randn(7, generator=generator, dtype=torch.float64)


@pytest.fixture
def network() -> nn.Module:
    """Three inputs, five hidden units, one output."""
    return nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 1)).double()


@pytest.fixture
def points() -> tuple[Tensor, Tensor]:
    """Twenty samples for the network."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    return x, torch.randn(20, 1, generator=generator, dtype=torch.float64)
