"""The log likelihood of torch-kf, or of Pyro's parallel filter; see ``turns.py``.

    python torch_kalman.py torch_kf
    python torch_kalman.py pyro

torch-kf has no likelihood of a sequence: its steps are called in a loop, as its documentation does.
Pyro's ``GaussianHMM`` takes no singular covariance, so that every state gets a variance of 1e-6.

References:
    Pyro: Deep Universal Probabilistic Programming (Bingham et al., 2019).
"""

import sys
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor
from turns import Arrays, Evaluate, matrices, serve

_JITTER = 1e-6


def with_torch_kf(m: dict[str, Tensor], y: Tensor) -> Tensor:
    """Log likelihoods ``(B,)``; the state has an axis of series only where the matrices do."""
    from torch_kf import GaussianState, KalmanFilter

    kalman = KalmanFilter(m["F"], m["H"], m["Q"], m["R"])
    mean = torch.zeros(len(y), len(m["P0"]), 1, dtype=y.dtype)
    state = GaussianState(mean, m["P0"])
    total = torch.zeros(len(y), dtype=y.dtype)
    for t, value in enumerate(y[..., None].unbind(1)):
        if t:
            state = kalman.predict(state)
        projection = kalman.project(state)
        total = total + projection.log_likelihood(value)
        state = kalman.update(state, value, projection=projection)
    return total


def with_pyro(m: dict[str, Tensor], y: Tensor) -> Tensor:
    """Log likelihoods ``(B,)``; its first state is the one before the first observation."""
    import pyro.distributions as dist

    normal = torch.distributions.MultivariateNormal
    size, width = len(m["P0"]), y.shape[-1]
    zero = torch.zeros(size, dtype=y.dtype)
    Q = m["Q"] + (0 if size <= 4 else _JITTER) * torch.eye(size, dtype=y.dtype)
    back = torch.linalg.inv(m["F"])
    before = back @ (m["P0"] - Q) @ back.mT
    distribution = dist.GaussianHMM(
        normal(zero, (before + before.mT) / 2, validate_args=False),
        m["F"].mT,
        normal(zero, Q[..., None, :, :], validate_args=False),
        m["H"].mT,
        normal(torch.zeros(width, dtype=y.dtype), m["R"][..., None, :, :], validate_args=False),
        validate_args=False,
        duration=y.shape[1],
    )
    return distribution.log_prob(y)


def prepare(model: Arrays, free: list[str], gradient: bool) -> Evaluate:
    """Makes leaves of what is free."""
    run = with_pyro if sys.argv[1] == "pyro" else with_torch_kf
    parts: dict[str, Any] = {name: torch.as_tensor(value) for name, value in model.items()}
    y = parts.pop("y")
    theta = [parts[name].requires_grad_(gradient) for name in free]

    def evaluate() -> tuple[Tensor, dict[str, Any] | None]:
        with torch.set_grad_enabled(gradient):
            values = run(matrices(parts, torch), y)
        if not gradient:
            return values, None
        slopes = torch.autograd.grad(values.sum(), theta)
        return values.detach(), dict(zip(free, slopes, strict=True))

    return evaluate


if __name__ == "__main__":
    torch.set_num_threads(1)
    name = {"pyro": "pyro-ppl", "torch_kf": "torch-kf"}[sys.argv[1]]
    serve(f"{name} {version(name)}, torch {torch.__version__}", prepare)
