"""Lecture 8: mini-batches through DataLoader.

By hand until now: ``x[batch], y[batch]``. Here: a ``DataLoader``, which takes the optimizer's ``batches`` as
its batch_sampler. The printed loss is that of the batch *before* the update; the picture shows the cost of
all samples after the epoch. The guard in the last lines is what Windows needs: there a worker process imports
this file again, and without the guard would start workers of its own.
"""

from pathlib import Path

import torch
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from torchgd import LinearModel, MiniBatchGradientDescent, course, train
from torchgd.figures import cost_curve

FOLDER = Path("runs") / "lecture8"


def fresh() -> tuple[LinearModel, MiniBatchGradientDescent]:
    model = LinearModel(1.0, dtype=torch.float64)
    order = torch.Generator().manual_seed(0)
    return model, MiniBatchGradientDescent(
        model.parameters(), lr=0.01, batch_size=2, order="shuffled", generator=order
    )


def main() -> None:
    x, y = course()
    model, optimizer = fresh()
    batches = optimizer.batches(len(x))
    loader = DataLoader(TensorDataset(x, y), batch_sampler=batches, num_workers=2, persistent_workers=True)
    for epoch in range(100):
        for i, (inputs, targets) in enumerate(loader):
            loss = mse_loss(model(inputs), targets)
            print(epoch, i, loss.item())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    print("w = ", model.weight.item())

    other, its_optimizer = fresh()
    history = train(other, x, y, its_optimizer, epochs=100)
    print("without DataLoader w = ", other.weight.item())
    FOLDER.mkdir(parents=True, exist_ok=True)
    cost_curve({"minibatch": history}, title="Lecture 8: shuffled mini-batches").savefig(FOLDER / "cost.png")


if __name__ == "__main__":
    main()
