"""Physical systems whose truth is known: a pendulum, and the Lorenz attractor."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from seqlatent.datasets.simulated import (
    GapDistribution,
    Settings,
    Simulated,
    observe,
    one_regime,
    require_positive,
    require_sizes,
    scalars,
    settings,
    times,
)

PENDULUM = (
    "angle_1 ~ U(-pi, pi), velocity_1 ~ N(0, 1); z_t = flow(z_{t-1}; step dt_t), then "
    "velocity_t += process_scale sqrt(step dt_t) N(0, 1), where flow solves angle' = velocity, "
    "velocity' = -gravity / length sin(angle) - damping velocity; "
)
COORDINATES = PENDULUM + "y_t ~ N((sin angle_t, cos angle_t), obs_scale^2)"
IMAGES = PENDULUM + "y_t ~ Bernoulli(pendulum_images(angle_t)) for each pixel"
LORENZ = (
    "z_1 on the attractor; z_t = flow(z_{t-1}; step dt_t) + process_scale sqrt(step dt_t) N(0, I), "
    "where flow solves x' = sigma (y - x), y' = x (rho - z) - y, z' = x y - beta z; "
    "y_t ~ N(H z_t, obs_scale^2 I)"
)

PIXELS = 16


def pendulum(
    batch: int = 16,
    steps: int = 100,
    *,
    step: float = 0.1,
    gravity: float = 9.81,
    length: float = 1.0,
    damping: float = 0.1,
    process_scale: float = 0.1,
    obs_scale: float = 0.1,
    images: bool = False,
    irregular: bool | GapDistribution = False,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""A damped pendulum with random kicks, seen as noisy coordinates or as small binary images.

    .. math::
        d\vartheta = \omega\,dt, \qquad
        d\omega = -(g/l) \sin\vartheta\,dt - c\,\omega\,dt + \text{kicks}

    The state is the angle from hanging down (rad, not wrapped) and the velocity (rad/s). Between
    two observations it follows the equation without noise (fourth-order Runge-Kutta, steps of at
    most 20 ms), and the velocity is then kicked by :math:`N(0, \sigma^2 \Delta)` where
    :math:`\Delta` is the gap in seconds. Coordinates are :math:`(\sin\vartheta, \cos\vartheta)`
    with Gaussian noise; images are 16 x 16 pixels, each Bernoulli with the intensity that
    :func:`pendulum_images` gives, flattened row by row.

    Args:
        batch: Number of independent series.
        steps: Number of steps.
        step: Seconds of one sampling step.
        gravity: Acceleration :math:`g` in m/s².
        length: Length :math:`l` in m.
        damping: Friction :math:`c` in 1/s.
        process_scale: Standard deviation :math:`\sigma` of the kicks after one second, in rad/s.
        obs_scale: Standard deviation of the noise of the coordinates; images do not use it.
        images: Whether to observe images instead of coordinates.
        irregular: ``True`` for exponential gaps of mean 1, or a distribution such as
            :func:`lognormal_gaps`.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns values ``(B, T, 2)``, or ``(B, T, 256)`` for images, and states ``(B, T, 2)``.

    Example:
        >>> pendulum(2, 10, images=True).complete.unique()
        tensor([0., 1.])

    References:
        Deep Variational Bayes Filters (Karl et al., 2017), whose images these resemble.
    """
    width = {"pixels": PIXELS**2} if images else {"coordinates": 2}
    require_sizes(missing, batch=batch, steps=steps, **width)
    for name, value in {"step": step, "gravity": gravity, "length": length}.items():
        require_positive(name, value)
    scales = {"damping": damping, "process_scale": process_scale, "obs_scale": obs_scale}
    for name, value in scales.items():
        require_positive(name, value, or_zero=True)
    how = settings(generator, dtype)
    t, gaps = times(irregular, batch, steps, how)
    angle = math.pi * (2 * torch.rand(batch, **how) - 1)
    start = torch.stack([angle, torch.randn(batch, **how)], -1)

    def drift(z: Tensor) -> Tensor:
        angle, velocity = z.unbind(-1)
        return torch.stack([velocity, -gravity / length * angle.sin() - damping * velocity], -1)

    kick = torch.tensor([0.0, process_scale], dtype=how["dtype"], device=how["device"])
    states = _path(drift, start, step * gaps, kick, longest=0.02, how=how)
    par = scalars(how, step=step, gravity=gravity, length=length, **scales)
    if images:
        intensity = pendulum_images(states[..., 0])
        y = (torch.rand(intensity.shape, **how) < intensity).to(intensity)
        del par["obs_scale"]
        return Simulated(observe(y, t, missing, how), y, states, par, IMAGES, one_regime(states))
    y = torch.stack([states[..., 0].sin(), states[..., 0].cos()], -1)
    y = y + obs_scale * torch.randn(y.shape, **how)
    return Simulated(observe(y, t, missing, how), y, states, par, COORDINATES, one_regime(states))


def pendulum_images(angle: Tensor) -> Tensor:
    r"""Pixel intensities of a pendulum: a soft disc at :math:`(\sin\vartheta, -\cos\vartheta)`.

    .. math:: 0.01 + 0.98 \exp(-r^2 / (2 \cdot 0.2^2))

    where :math:`r` is the distance of the pixel's centre from the disc's, in pendulum lengths. The
    picture shows [-1.25, 1.25] in both directions, first row on top.

    Args:
        angle: Angle from hanging down, in rad.

    Shape:
        ``(*)`` -> ``(*, 256)``.

    Example:
        >>> pendulum_images(torch.zeros(())).view(16, 16).argmax() // 16
        tensor(14)
    """
    pixel = 2.5 / PIXELS
    axis = torch.arange(PIXELS, dtype=angle.dtype, device=angle.device) * pixel + pixel / 2 - 1.25
    across = axis - angle.sin()[..., None]
    down = axis - angle.cos()[..., None]
    squared = down[..., :, None] ** 2 + across[..., None, :] ** 2
    return (0.01 + 0.98 * torch.exp(-squared / (2 * 0.2**2))).flatten(-2)


def lorenz(
    batch: int = 16,
    steps: int = 200,
    *,
    step: float = 0.05,
    sigma: float = 10.0,
    rho: float = 28.0,
    beta: float = 8 / 3,
    process_scale: float = 0.0,
    obs_scale: float = 1.0,
    H: Tensor | None = None,
    irregular: bool | GapDistribution = False,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""Lorenz' chaotic attractor, observed linearly with Gaussian noise.

    .. math::
        \dot x = \sigma (y - x), \qquad \dot y = x (\rho - z) - y, \qquad \dot z = x y - \beta z

    The flow is integrated by fourth-order Runge-Kutta in steps of at most 0.01 time units (a turn
    of the attractor takes about 0.75). With ``process_scale`` :math:`q > 0` the state is moved by
    :math:`N(0, q^2 \Delta I)` after each gap :math:`\Delta`. Series start on the attractor, after
    10 units from random points. Coordinates run over about -20 to 20, -25 to 25 and 0 to 50.

    Args:
        batch: Number of independent series.
        steps: Number of steps.
        step: Time units of one sampling step.
        sigma: Prandtl number :math:`\sigma`.
        rho: Rayleigh number :math:`\rho`, relative to its critical value.
        beta: Geometric factor :math:`\beta`.
        process_scale: Standard deviation :math:`q` of the state's noise after one time unit.
        obs_scale: Standard deviation of the noise of the observations.
        H: Observation matrix; the identity by default.
        irregular: ``True`` for exponential gaps of mean 1, or a distribution such as
            :func:`lognormal_gaps`.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        ``H`` ``(D, 3)``. Returns values ``(B, T, D)`` and states ``(B, T, 3)``.

    Example:
        >>> lorenz(2, 50, H=torch.eye(3)[:1]).complete.shape
        torch.Size([2, 50, 1])

    References:
        Deterministic Nonperiodic Flow (Lorenz, 1963).
    """
    require_sizes(missing, batch=batch, steps=steps)
    for name, value in {"step": step, "sigma": sigma, "rho": rho, "beta": beta}.items():
        require_positive(name, value)
    scales = {"process_scale": process_scale, "obs_scale": obs_scale}
    for name, value in scales.items():
        require_positive(name, value, or_zero=True)
    how = settings(generator, dtype, H)
    like = {"dtype": how["dtype"], "device": how["device"]}
    H = torch.eye(3, **like) if H is None else H.detach().to(**like)
    if H.ndim != 2 or H.shape[1] != 3 or not H.shape[0]:
        raise ValueError(
            f"H must have shape (D, 3), one row per observed dimension, found {tuple(H.shape)}."
        )

    def drift(z: Tensor) -> Tensor:
        x, y, z = z.unbind(-1)
        return torch.stack([sigma * (y - x), x * (rho - z) - y, x * y - beta * z], -1)

    t, gaps = times(irregular, batch, steps, how)
    start = torch.randn(batch, 3, **how) + torch.tensor([0.0, 1.0, rho], **like)
    start = _flow(drift, start, torch.full((batch,), 10.0, **like), longest=0.01)
    noise = torch.full((3,), process_scale, **like)
    states = _path(drift, start, step * gaps, noise, longest=0.01, how=how)
    y = states @ H.mT
    y = y + obs_scale * torch.randn(y.shape, **how)
    par = scalars(how, step=step, sigma=sigma, rho=rho, beta=beta, **scales) | {"H": H}
    return Simulated(observe(y, t, missing, how), y, states, par, LORENZ, one_regime(states))


def _path(
    drift: Callable[[Tensor], Tensor],
    start: Tensor,
    gaps: Tensor,
    noise: Tensor,
    *,
    longest: float,
    how: Settings,
) -> Tensor:
    """Flows over every gap and adds noise of variance ``noise**2`` times the gap; ``(B, T, K)``."""
    shocks = noise * gaps[..., None].sqrt() * torch.randn(*gaps.shape, start.shape[-1], **how)
    path = [start]
    for t in range(1, gaps.shape[1]):
        path.append(_flow(drift, path[-1], gaps[:, t], longest=longest) + shocks[:, t])
    return torch.stack(path, 1)


def _flow(drift: Callable[[Tensor], Tensor], z: Tensor, gap: Tensor, *, longest: float) -> Tensor:
    """Fourth-order Runge-Kutta over ``gap`` ``(B,)`` in equal steps no longer than ``longest``."""
    count = max(1, math.ceil(gap.max().item() / longest - 1e-6))
    h = (gap / count)[:, None]
    for _ in range(count):
        k1 = drift(z)
        k2 = drift(z + h / 2 * k1)
        k3 = drift(z + h / 2 * k2)
        k4 = drift(z + h * k3)
        z = z + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return z
