"""Linear Gaussian systems whose truth is known: one regime, and several that switch."""

import torch
from torch import Tensor

from seqlatent.datasets.simulated import (
    Settings,
    Simulated,
    observe,
    one_regime,
    require_sizes,
    settings,
    times,
)
from seqlatent.linalg import factor

LINEAR = "z_1 ~ N(m0, P0); z_t = F z_{t-1} + b + N(0, Q); y_t = H z_t + d + N(0, R)"
SWITCHING = (
    "s_1 uniform; s_t ~ transition[s_{t-1}]; z_1 ~ N(m0, P0); "
    "z_t = F[s_t] z_{t-1} + b[s_t] + N(0, Q[s_t]); y_t = H z_t + N(0, R)"
)


def linear_gaussian(
    batch: int = 16,
    steps: int = 100,
    *,
    latent_dim: int = 2,
    obs_dim: int = 1,
    F: Tensor | None = None,
    b: Tensor | None = None,
    Q: Tensor | None = None,
    H: Tensor | None = None,
    d: Tensor | None = None,
    R: Tensor | None = None,
    m0: Tensor | None = None,
    P0: Tensor | None = None,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""A linear Gaussian state-space model, the system that a Kalman filter solves exactly.

    .. math::
        z_t = F z_{t-1} + b + N(0, Q), \qquad y_t = H z_t + d + N(0, R),
        \qquad z_1 \sim N(m_0, P_0)

    What is not given is filled in: with no matrix given, a random stable :math:`F` with singular
    values in [0.7, 0.98] and :math:`Q = I - F F^\top`, so that the state is stationary with unit
    variance; with :math:`F` alone, :math:`Q = I`. :math:`H` has random rows of unit length,
    :math:`R = I / 4`, and the first state follows the stationary distribution. The parameters have
    the names of the Kalman filter's arguments.

    Args:
        batch: Number of independent series of one system.
        steps: Number of steps.
        latent_dim: Size of the state; read off a given matrix instead where there is one.
        obs_dim: Number of observed dimensions; read off a given matrix instead where there is one.
        F: Transition matrix.
        b: Offset of the transition.
        Q: Covariance of the transition, possibly singular.
        H: Observation matrix.
        d: Offset of the observation.
        R: Covariance of the observation, possibly singular.
        m0: Mean of the first state.
        P0: Covariance of the first state; needed when ``F`` is not stable.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        ``F``, ``Q``, ``P0`` ``(K, K)``; ``b``, ``m0`` ``(K,)``; ``H`` ``(D, K)``; ``R`` ``(D, D)``;
        ``d`` ``(D,)``. Returns values ``(B, T, D)`` and states ``(B, T, K)``.

    Raises:
        ValueError: If a size, rate or matrix does not fit, or a stationary distribution is needed
            that does not exist.

    Example:
        >>> walk = linear_gaussian(8, 30, F=torch.eye(1), P0=torch.eye(1))
        >>> walk.sequences
        Sequences(batch=8, steps=30, obs_dim=1, covariate_dim=0, observed=100.0%, regular=True)

    References:
        A New Approach to Linear Filtering and Prediction Problems (Kalman, 1960).
    """
    require_sizes(missing, batch=batch, steps=steps, latent_dim=latent_dim, obs_dim=obs_dim)
    how = settings(generator, dtype, F, b, Q, H, d, R, m0, P0)
    given = {"F": F, "b": b, "Q": Q, "H": H, "d": d, "R": R, "m0": m0, "P0": P0}
    par = _complete_system(
        {k: v for k, v in given.items() if v is not None}, latent_dim, obs_dim, how
    )
    F, b, H, d = par["F"], par["b"], par["H"], par["d"]
    P0_factor = factor(par["P0"], what="P0")
    Q_factor = factor(par["Q"], what="Q")
    R_factor = factor(par["R"], what="R")
    z = par["m0"] + torch.randn(batch, P0_factor.shape[-1], **how) @ P0_factor.mT
    shocks = torch.randn(batch, steps, Q_factor.shape[-1], **how) @ Q_factor.mT
    path = [z]
    for t in range(1, steps):
        path.append(path[-1] @ F.mT + b + shocks[:, t])
    states = torch.stack(path, 1)
    y = states @ H.mT + d + torch.randn(batch, steps, R_factor.shape[-1], **how) @ R_factor.mT
    t, _ = times(False, batch, steps, how)
    return Simulated(observe(y, t, missing, how), y, states, par, LINEAR, one_regime(states))


def switching(
    batch: int = 16,
    steps: int = 100,
    *,
    regimes: int = 2,
    latent_dim: int = 2,
    obs_dim: int = 2,
    persistence: float = 0.95,
    generator: torch.Generator | None = None,
    missing: float = 0.0,
    dtype: torch.dtype | None = None,
) -> Simulated:
    r"""A linear Gaussian system whose dynamics switch with a hidden Markov chain :math:`s_t`.

    .. math:: z_t = F_{s_t} z_{t-1} + b_{s_t} + N(0, Q_{s_t}), \qquad y_t = H z_t + N(0, R)

    Every regime turns and contracts the state around a centre of its own; the regimes' :math:`F`
    are random and stable, :math:`Q = I - F F^\top`, and the centres lie about three standard
    deviations from 0. The chain keeps its regime with probability ``persistence`` and else moves to
    any other with equal probability, so it stays for :math:`1 / (1 - p)` steps on average.

    Args:
        batch: Number of independent series of one system.
        steps: Number of steps.
        regimes: Number of regimes :math:`M`.
        latent_dim: Size of the continuous state.
        obs_dim: Number of observed dimensions.
        persistence: Probability of keeping the regime for another step.
        generator: Source of randomness; torch's global one by default.
        missing: Probability with which each cell is hidden.
        dtype: Floating type; torch's default by default.

    Shape:
        Returns values ``(B, T, D)``, states ``(B, T, K)``, regimes ``(B, T)``; parameters
        ``transition`` ``(M, M)``, ``F``, ``Q`` ``(M, K, K)``, ``b`` ``(M, K)``.

    Example:
        >>> data = switching(4, 60, regimes=3)
        >>> data.regimes.shape, data.parameters["F"].shape
        (torch.Size([4, 60]), torch.Size([3, 2, 2]))

    References:
        Variational Learning for Switching State-Space Models (Ghahramani and Hinton, 2000).
        A New Approach to the Economic Analysis of Nonstationary Time Series (Hamilton, 1989).
    """
    require_sizes(
        missing, batch=batch, steps=steps, regimes=regimes, latent_dim=latent_dim, obs_dim=obs_dim
    )
    if not 0 <= persistence < 1:
        raise ValueError(
            f"persistence must be a probability in [0, 1), found {persistence}; 0.95 keeps a "
            "regime for 20 steps."
        )
    how = settings(generator, dtype)
    eye = torch.eye(latent_dim, dtype=how["dtype"], device=how["device"])
    F = torch.stack([_stable(latent_dim, how) for _ in range(regimes)])
    Q = eye - F @ F.mT
    centres = 3 * _directions(regimes, latent_dim, how)
    b = ((eye - F) @ centres[..., None]).squeeze(-1)
    H = _directions(obs_dim, latent_dim, how)
    noise = torch.eye(obs_dim, dtype=how["dtype"], device=how["device"]) / 4
    leave = (1 - persistence) / max(regimes - 1, 1)
    transition = torch.full((regimes, regimes), leave, dtype=how["dtype"], device=how["device"])
    transition.fill_diagonal_(persistence if regimes > 1 else 1.0)

    labels = _markov_chain(transition, batch, steps, how)
    Q_factor = torch.linalg.cholesky(Q)
    shocks = (Q_factor[labels] @ torch.randn(batch, steps, latent_dim, 1, **how)).squeeze(-1)
    path = [torch.randn(batch, latent_dim, **how)]
    for t in range(1, steps):
        s = labels[:, t]
        path.append((F[s] @ path[-1][..., None]).squeeze(-1) + b[s] + shocks[:, t])
    states = torch.stack(path, 1)
    y = states @ H.mT + 0.5 * torch.randn(batch, steps, obs_dim, **how)
    t, _ = times(False, batch, steps, how)
    par = {"transition": transition, "F": F, "b": b, "Q": Q, "H": H, "R": noise}
    par |= {"m0": torch.zeros_like(eye[0]), "P0": eye}
    return Simulated(observe(y, t, missing, how), y, states, par, SWITCHING, labels)


def _markov_chain(transition: Tensor, batch: int, steps: int, how: Settings) -> Tensor:
    regimes = transition.shape[0]
    edges = transition.cumsum(1)[:, :-1].contiguous()  # the last edge is 1 but for rounding
    uniform = torch.rand(batch, steps, **how)
    path = [(uniform[:, 0] * regimes).long().clamp_max(regimes - 1)]
    for t in range(1, steps):
        path.append((uniform[:, t, None] >= edges[path[-1]]).sum(1))
    return torch.stack(path, 1)


def _stable(size: int, how: Settings) -> Tensor:
    """A random matrix with singular values in [0.7, 0.98], hence stable."""
    turn = torch.linalg.qr(torch.randn(size, size, **how)).Q
    return turn * (0.7 + 0.28 * torch.rand(size, **how))


def _directions(rows: int, size: int, how: Settings) -> Tensor:
    """Random rows of unit length."""
    return torch.nn.functional.normalize(torch.randn(rows, size, **how), dim=-1)


def _complete_system(
    given: dict[str, Tensor], latent_dim: int, obs_dim: int, how: Settings
) -> dict[str, Tensor]:
    """Checks the matrices that were given and fills in the others."""
    K = next(
        (given[k].shape[-1] for k in ("F", "Q", "P0", "H", "b", "m0") if _shaped(given, k)),
        latent_dim,
    )
    D = next((given[k].shape[0] for k in ("H", "R", "d") if _shaped(given, k)), obs_dim)
    shapes = {"F": (K, K), "b": (K,), "Q": (K, K), "H": (D, K), "d": (D,), "R": (D, D)}
    shapes |= {"m0": (K,), "P0": (K, K)}
    like = {"dtype": how["dtype"], "device": how["device"]}
    for name, value in given.items():
        _require_matrix(name, value, shapes[name])
    par = {name: value.detach().to(**like) for name, value in given.items()}
    random = "F" not in par
    par.setdefault("F", _stable(K, how))
    eye = torch.eye(K, **like)
    par.setdefault("Q", eye - par["F"] @ par["F"].mT if random else eye)
    par.setdefault("H", _directions(D, K, how))
    par.setdefault("R", torch.eye(D, **like) / 4)
    par.setdefault("b", torch.zeros(K, **like))
    par.setdefault("d", torch.zeros(D, **like))
    if "P0" not in par:
        par["P0"] = _stationary_covariance(par["F"], par["Q"])
        if "m0" not in par:
            par["m0"] = torch.linalg.solve(eye - par["F"], par["b"])
    par.setdefault("m0", torch.zeros(K, **like))
    return {name: par[name] for name in shapes}


def _shaped(given: dict[str, Tensor], name: str) -> bool:
    return name in given and given[name].ndim > 0


def _require_matrix(name: str, value: Tensor, shape: tuple[int, ...]) -> None:
    if tuple(value.shape) != shape:
        raise ValueError(
            f"{name} must have shape {shape}, found {tuple(value.shape)}; all must agree on the "
            "size K of the state and the number D of observed dimensions."
        )
    if not bool(torch.isfinite(value).all()):
        raise ValueError(f"{name} must be finite, found NaN or infinity.")
    if name in ("Q", "R", "P0"):
        if not torch.allclose(value, value.mT, rtol=1e-5, atol=1e-7):
            raise ValueError(
                f"{name} is a covariance and must be symmetric; use ({name} + {name}.mT) / 2."
            )
        factor(value, what=name)  # refuses a negative eigenvalue


def _stationary_covariance(F: Tensor, Q: Tensor) -> Tensor:
    """Solves ``P = F P F^T + Q``."""
    radius = torch.linalg.eigvals(F.double()).abs().max().item()
    if radius >= 1 - 1e-6:
        raise ValueError(
            f"F must be stable (spectral radius below 1) for a stationary first state, "
            f"found {radius:.6g}; give P0 (and m0), the distribution of the first state."
        )
    K = F.shape[0]
    system = torch.eye(K * K, dtype=torch.float64, device=F.device) - torch.kron(
        F.double(), F.double()
    )
    P = torch.linalg.solve(system, Q.double().reshape(-1)).reshape(K, K)
    return ((P + P.mT) / 2).to(F)
