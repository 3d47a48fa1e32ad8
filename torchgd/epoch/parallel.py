"""Any module on many processes: what DistributedDataParallel needs to weight unequal shares correctly.

    with process_group() as group:
        parallel = DistributedDataParallel(model)
        loss_fn = mean_over_ranks(mse_loss, group)
        for piece in Pieces(batches, group):
            optimizer.zero_grad()
            loss_fn(parallel(x[piece]), y[piece]).backward()
            optimizer.step()

The optimizers need no change. For the full batch, contiguous shares of the samples serve as well as pieces.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torch.utils.data import Sampler

from torchgd.batches import Batches
from torchgd.epoch.distributed import Group

LossFunction = Callable[[Tensor, Tensor], Tensor]


def mean_over_ranks(loss_fn: LossFunction, group: Group) -> LossFunction:
    """A mean loss over the samples of all ranks, for a module in DistributedDataParallel.

    DDP averages the ranks' gradients, whatever their numbers of samples. Here rank r descends
    (nᵣ · ranks / n) · lossᵣ, so that the average is the gradient of the mean over all n samples; the value
    is that mean, the same on every rank. A rank without samples takes part with a gradient of zero.

    Example:
        >>> loss_fn = mean_over_ranks(torch.nn.functional.mse_loss, Group())
        >>> loss_fn(torch.tensor([1.0, 2.0]), torch.tensor([2.0, 4.0]))
        tensor(2.5000)
    """

    def loss(prediction: Tensor, target: Tensor) -> Tensor:
        count = len(target)
        own = loss_fn(prediction, target) if count else prediction.sum()
        total, n = group.sum(torch.stack([own.detach().double() * count, own.new_tensor(count).double()]))
        weighed = own * (count * group.size / n).to(own)
        value: Tensor = weighed + ((total / n).to(own) - weighed).detach()
        return value

    return loss


class Pieces(Sampler[list[int]]):
    """This rank's contiguous piece of each batch, in the order of the batches; a small batch has empty ones.

    All ranks must have the same batches: if they are random, give the generators the same seed.

    Example:
        >>> [list(Pieces(Batches(5, batch_size=3), Group(rank, 2))) for rank in range(2)]
        [[[0], [3]], [[1, 2], [4]]]
    """

    def __init__(self, batches: Batches, group: Group) -> None:
        self.batches, self.group = batches, group

    def __iter__(self) -> Iterator[list[int]]:
        rank, size = self.group.rank, self.group.size
        for batch in self.batches:
            yield batch[len(batch) * rank // size : len(batch) * (rank + 1) // size]

    def __len__(self) -> int:
        return len(self.batches)
