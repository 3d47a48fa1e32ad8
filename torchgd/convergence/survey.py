"""All methods side by side at one learning rate."""

from __future__ import annotations

from dataclasses import replace

from torchgd.convergence.certificate import Certificate, certify
from torchgd.convergence.methods import Epoch, epoch_of
from torchgd.plan import METHODS, Plan
from torchgd.samples import Numbers, samples


def survey(
    plan: Plan, x: Numbers, y: Numbers, tolerance: float, epochs: int
) -> dict[str, tuple[Plan, Epoch, Certificate]]:
    """Every method's plan, epoch and certificate, by its name: in the plan's order, at its learning rate.

    The mini-batches are of the plan's size, or else of 2.

    Arguments and errors as for :func:`torchgd.stability`.
    """
    found = dict[str, tuple[Plan, Epoch, Certificate]]()
    for method, kind in METHODS.items():
        size = (plan.batch_size or min(2, len(samples(x, y)[0]))) if kind.samples == "some" else None
        own = replace(plan, method=method, batch_size=size)
        epoch = epoch_of(x, y, **own.sampling)
        certificate = certify(
            epoch, own.lr, method=method, order=plan.order, tolerance=tolerance, epochs=epochs
        )
        found[method] = own, epoch, certificate
    return found
