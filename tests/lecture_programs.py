"""The programs of lectures 3 and 4 as the course shows them: each gives the lines that it prints."""

import torch

X, Y = [1.0, 2.0, 3.0], [2.0, 4.0, 6.0]


def gradient_descent() -> list[str]:
    """Lecture 3, the first program: full batch."""
    w = 1.0
    lines = [f"Predict (before training) 4 {4 * w}"]
    for epoch in range(100):
        cost = grad = 0.0
        for x, y in zip(X, Y, strict=True):
            cost += (x * w - y) ** 2
            grad += 2 * x * (x * w - y)
        cost, grad = cost / len(X), grad / len(X)
        w -= 0.01 * grad
        lines.append(f"Epoch: {epoch} w= {w} loss= {cost}")
    return [*lines, f"Predict (after training) 4 {4 * w}"]


def stochastic() -> list[str]:
    """Lecture 3, the second program: a sample an update."""
    w = 1.0
    lines = [f"Predict (before training) 4 {4 * w}"]
    for epoch in range(100):
        for x, y in zip(X, Y, strict=True):
            grad = 2 * x * (x * w - y)
            w = w - 0.01 * grad
            lines.append(f"\tgrad: {x} {y} {grad}")
            loss = (x * w - y) ** 2
        lines.append(f"progress: {epoch} w= {w} loss= {loss}")
    return [*lines, f"Predict (after training) 4 {4 * w}"]


def mini_batch() -> list[str]:
    """The second program with batches of two, which lecture 3 describes."""
    w = 1.0
    lines = [f"Predict (before training) 4 {4 * w}"]
    for epoch in range(100):
        for xs, ys in ((X[:2], Y[:2]), (X[2:], Y[2:])):
            grad = sum(2 * x * (x * w - y) for x, y in zip(xs, ys, strict=True)) / len(xs)
            w = w - 0.01 * grad
            lines.append(f"\tgrad: {xs} {ys} {grad}")
            loss = sum((x * w - y) ** 2 for x, y in zip(xs, ys, strict=True)) / len(xs)
        lines.append(f"progress: {epoch} w= {w} loss= {loss}")
    return [*lines, f"Predict (after training) 4 {4 * w}"]


def autograd() -> list[str]:
    """Lecture 4, in float32 as there."""
    w = torch.tensor([1.0], requires_grad=True)
    program = [f"predict (before training) 4 {(4 * w).item()}"]
    for epoch in range(100):
        for x, y in zip(X, Y, strict=True):
            loss = (x * w - y) ** 2
            loss.backward()
            assert w.grad is not None
            program.append(f"\tgrad: {x} {y} {w.grad.item()}")
            w.data = w.data - 0.01 * w.grad.data
            w.grad.data.zero_()
        program.append(f"progress: {epoch} {loss.item()}")
    program.append(f"predict (after training) 4 {(4 * w).item()}")
    return program
