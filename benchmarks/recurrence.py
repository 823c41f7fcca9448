"""How much faster is a recurrence that autograd does not record?

Forward and backward of h_t = a_t h_{t-1} + b_t in single precision on one thread: a loop under
autograd, a doubling scan under autograd, and `linear_recurrence`. The three take turns within each
repeat; times are medians of processor time, so a busy machine shifts them less.

    python benchmarks/recurrence.py [repeats]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor

from seqlatent.recurrence import linear_recurrence

SIZES = [(32, 168, 32), (64, 512, 32), (32, 1024, 64)]  # B, T, K


def recorded_loop(a: Tensor, b: Tensor) -> Tensor:
    """The plain way: one recorded multiplication and addition per step."""
    h, path = torch.zeros_like(b[:, 0]), []
    for t in range(b.shape[1]):
        h = a[:, t] * h + b[:, t]
        path.append(h)
    return torch.stack(path, 1)


def doubling_scan(a: Tensor, b: Tensor) -> Tensor:
    """Each round composes a step with the one 1, 2, 4, ... before it (Hillis & Steele, 1986)."""
    reach = 1
    while reach < b.shape[1]:
        b = torch.cat([b[:, :reach], torch.addcmul(b[:, reach:], a[:, reach:], b[:, :-reach])], 1)
        a = torch.cat([a[:, :reach], a[:, reach:] * a[:, :-reach]], 1)
        reach *= 2
    return b


WAYS: list[Callable[[Tensor, Tensor], Tensor]] = [recorded_loop, doubling_scan, linear_recurrence]


def milliseconds(way: Callable[[Tensor, Tensor], Tensor], a: Tensor, b: Tensor, g: Tensor) -> float:
    """The processor time of one forward and backward pass."""
    start = time.process_time()
    torch.autograd.grad(way(a, b), (a, b), g)
    return 1e3 * (time.process_time() - start)


def main(repeats: int = 9) -> None:
    """Prints the table and its conclusion."""
    torch.set_num_threads(1)
    rng = torch.Generator().manual_seed(0)
    names = [way.__name__ for way in WAYS]
    print("| B, T, K | " + " | ".join(names) + " | loop / ours | scan / ours |")
    print("|---" * (len(names) + 3) + "|")
    ratios = []
    for B, T, K in SIZES:
        a = torch.rand(B, T, K, generator=rng).requires_grad_()
        b = torch.randn(B, T, K, generator=rng).requires_grad_()
        g = torch.randn(B, T, K, generator=rng)
        for way in WAYS[1:]:
            torch.testing.assert_close(way(a, b), recorded_loop(a, b), rtol=1e-4, atol=1e-4)
        rounds = [[milliseconds(way, a, b, g) for way in WAYS] for _ in range(repeats)]
        loop, scan, ours = (statistics.median(times) for times in zip(*rounds, strict=True))
        ratios.append(loop / ours)
        print(
            f"| {B}, {T}, {K} | {loop:.1f} | {scan:.1f} | {ours:.1f} "
            f"| {loop / ours:.1f} | {scan / ours:.1f} |"
        )
    print(
        f"\nOn one thread linear_recurrence is {min(ratios):.0f} to {max(ratios):.0f} times as "
        "fast as the loop that autograd records."
    )


if __name__ == "__main__":
    main(*(int(argument) for argument in sys.argv[1:]))
