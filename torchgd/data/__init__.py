"""The samples: where they come from, and the cost that they make of a weight."""

from torchgd.data.dataset import Dataset, course, hubble
from torchgd.data.loading import load, open_data

__all__ = ["Dataset", "course", "hubble", "load", "open_data"]
