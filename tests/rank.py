"""What one process of test_distributed.py does under torchrun: `rank.py answer FILE` or `rank.py die`."""

import gc
import json
import os
import signal
import sys
import time
import weakref
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from test_distributed import samples, small_network
from torch import nn
from torch.nn.functional import mse_loss
from torch.nn.parallel import DistributedDataParallel

from torchgd import LinearModel, train
from torchgd.batches import Batches
from torchgd.data.dataset import Dataset
from torchgd.epoch.distributed import Group, epoch_of_shards, process_group
from torchgd.epoch.parallel import Pieces, mean_over_ranks


def answers(group: Group) -> dict[str, Any]:
    found: dict[str, Any] = {}
    data = Dataset(*samples(1001))
    for batch_size in (1, 7, 1001, 5000):
        (epoch,), moments = epoch_of_shards(data, 0.01, batch_size, group)
        found[f"epochs of {batch_size}"] = [epoch.after(k)(1.0) for k in (1, 50)]
    found["costs"] = [moments.cost(w) for w in (-1.0, 3.0)]

    x, y = samples(7)
    loss_fn = mean_over_ranks(mse_loss, group)
    for batch_size in (7, 3):
        model, trajectory = small_network(), []
        parallel = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.5)
        for _ in range(5):
            for piece in Pieces(Batches(7, batch_size), group):
                optimizer.zero_grad()
                loss = loss_fn(parallel(x[piece].unsqueeze(1)).squeeze(1), y[piece])
                loss.backward()
                optimizer.step()
                trajectory.append([loss.item(), *nn.utils.parameters_to_vector(model.parameters()).tolist()])
        found[f"network, batches of {batch_size}"] = trajectory

    begin, end = group.shard(7, 7)
    linear = DistributedDataParallel(LinearModel(1.0, dtype=torch.float64))
    optimizer = torch.optim.SGD(linear.parameters(), lr=0.05)
    history = train(linear, x[begin:end], y[begin:end], optimizer, epochs=20, loss_fn=loss_fn)
    found["train"] = [history.cost.tolist(), history.status]

    x = torch.ones(2, 1, dtype=torch.float64) * (1e150 if group.rank else 1.0)
    line = DistributedDataParallel(nn.Linear(1, 1, dtype=torch.float64))
    history = train(line, x, x, torch.optim.SGD(line.parameters(), lr=1e-290), epochs=3)
    found["diverged"] = [history.status, history.reason]
    return found


def main(how: str, file: str = "") -> None:
    with process_group() as group:
        world = weakref.ref(dist.group.WORLD)
        if how == "die":
            if group.rank == 1:
                time.sleep(2)  # rank 0 waits by then: before, torchrun's signal would end it without a word
                os.kill(os.getpid(), signal.SIGKILL)
            group.gather([1.0])
        else:
            found = answers(group)
            if group.rank == 0:
                Path(file).write_text(json.dumps(found))
    gc.collect()  # DistributedDataParallel and its reducer hold each other
    assert world() is None  # its threads have ended: alive at the exit, they would abort it


if __name__ == "__main__":
    main(*sys.argv[1:])
