"""Clauses about what an optimizer does with `.grad`, and where there is none."""

from __future__ import annotations

import torch
from torch import Tensor

from torchgd.compare.clauses.clause import Severity, clause
from torchgd.compare.scenario import NotApplicableError, expect, moved
from torchgd.compare.subject import Subject


@clause(".grad untouched", Severity.silent)
def grad_untouched(s: Subject) -> str:
    """Steps leave every `.grad` the same tensor with the same values, also when climbing."""
    if s.closure:
        raise NotApplicableError("its closure gives the gradients anew")
    for options in ({}, {"maximize": True}):
        p, words = s.parameter(), "climbing: " if options else ""
        given = list[tuple[Tensor, Tensor]]()
        try:
            optimizer = s.make([p], **options)
        except NotApplicableError:
            continue

        def give(p: Tensor = p, given: list[tuple[Tensor, Tensor]] = given) -> Tensor:
            p.grad = given[-1][0]
            return torch.zeros(())

        for _ in range(s.start + 1):
            grad = s.gradient(p)
            given.append((grad, grad.detach().clone()))
            s.step(optimizer, give)
            expect(p.grad is not None, f"{words}p.grad is None after the step")
            expect(p.grad is grad, f"{words}p.grad is another tensor after the step")
        kept = all(torch.equal(*(g.detach().to_dense() for g in pair)) for pair in given)
        expect(kept, f"{words}the step wrote into p.grad")
    return "the same tensors with the same values after the steps"


@clause("None gradients", Severity.silent)
def none_gradients(s: Subject) -> str:
    """A parameter whose `.grad` is None is skipped, the others are not."""
    p, skipped = s.parameter(), s.parameter()
    s.descend(s.make([skipped, p]), [p])
    expect(not moved(skipped), "a parameter without gradient moved")
    expect(moved(p), "a parameter beside one without gradient did not move")
    return "the parameter without gradient stayed, the other moved"


@clause("frozen parameters", Severity.silent, explained_by=("None gradients",))
def frozen_parameters(s: Subject) -> str:
    """A parameter that needs no gradient is accepted and left alone."""
    p, frozen = s.parameter(), s.parameter().requires_grad_(False)
    s.descend(s.make([frozen, p]), [p])
    expect(not moved(frozen) and moved(p), "a parameter that needs no gradient moved, or held up the other")
    expect(frozen.grad is None and not frozen.requires_grad, "a parameter that needs no gradient got one")
    return "accepted, and left alone"


@clause("sparse gradients", Severity.silent, may_refuse=True, once=True)
def sparse_gradients(s: Subject) -> str:
    """A sparse gradient with a repeated index moves its row as the dense one does."""
    if s.gradients == "sparse":
        raise NotApplicableError("it takes sparse gradients only")
    s.without_dice()
    p, dense = s.parameter(), s.parameter()
    values = torch.tensor([[0.5, -0.25, 1.0], [1.0, 0.5, -0.5]], dtype=s.dtype)
    grad = torch.sparse_coo_tensor(torch.tensor([[0, 0]]), values, (2, 3), check_invariants=True)
    for q, given in ((p, grad), (dense, grad.to_dense())):

        def give(q: Tensor = q, given: Tensor = given) -> Tensor:
            q.grad = given
            return torch.zeros(())

        optimizer = s.make([q])
        for _ in range(max(s.start, 1)):
            s.step(optimizer, give)
    s.close(p[0], dense[0], s.parameter()[0], "sparse against dense")
    return "moves its row as the dense gradient does"
