"""Innovations: how far each observation fell from what was foreseen, and what that should be like.

If a model is right its normal scores, ``Phi^-1(PIT)`` of each observation given those before it,
are independent standard normal numbers, whatever the model: for a linear Gaussian one they are the
standardised innovations of the Kalman filter.
"""

from typing import NamedTuple

import numpy as np

from seqlatent.forecasting.engines.latent.components import components_of
from seqlatent.forecasting.engines.latent.ensemble import Ensemble
from seqlatent.forecasting.engines.latent.posterior import judged
from seqlatent.forecasting.frames.panel import Panel
from seqlatent.model import LatentModel, one_step
from seqlatent.transitions import AR
from seqlatent.transitions.structural import Structural

__all__ = ["Check", "burnt", "checks", "correlogram", "exact", "pooled", "vague"]


def exact(ensemble: Ensemble, panel: Panel) -> np.ndarray:
    """Normal scores of every cell ``(R, D)``, exact for mixtures of transformed normals."""
    from scipy.special import log_ndtr, logsumexp, ndtri

    model_data = ensemble.prepared(panel)
    found = np.full((len(ensemble.models), *panel.y.shape), np.nan)
    for m, model in enumerate(ensemble.models):
        for piece in ensemble.pieces(panel, 0):
            data, (rows, inside) = (
                model_data[ensemble.kinds[m]].piece(piece.spans, piece.steps),
                judged(panel, piece),
            )
            innovation = one_step(model, data, first=piece.lead).innovation
            assert innovation is not None
            found[m, rows] = innovation.double().numpy()[inside]
    found[:, np.isnan(panel.y)] = np.nan
    if len(found) == 1:
        return found[0]
    weights = ensemble.expected(panel)[panel.owner].T[:, :, None]
    # in the nearer tail, where a probability near 1 has lost no digits
    below = np.asarray(logsumexp(log_ndtr(found), axis=0, b=weights))
    above = np.asarray(logsumexp(log_ndtr(-found), axis=0, b=weights))
    tail = ndtri(np.exp(np.clip(np.minimum(below, above), -700, np.log(0.5))))
    return np.where(below <= above, tail, -tail)


def vague(model: LatentModel) -> int:
    """Coordinates of the first state with a large variance by choice, not learned or stationary."""
    parts = [p for p in components_of(model) if isinstance(p, Structural) and type(p) is not AR]
    return sum(p.latent_dim - p.learned_scales for p in parts)


def burnt(panel: Panel, innovations: np.ndarray, burn: int) -> np.ndarray:
    """Innovations without the first so many observations of each series."""
    seen = ~np.isnan(panel.y)
    count = np.cumsum(seen, 0)
    before = np.concatenate([np.zeros((1, seen.shape[1]), count.dtype), count])
    nth = count - before[panel.offsets[:-1]][panel.owner]
    return np.where(nth > burn, innovations, np.nan)


class Check(NamedTuple):
    """A test of innovations.

    Attributes:
        name: What it tests.
        lag: Lags that it looks at, 0 where there are none.
        n: Innovations that it saw.
        statistic: Its statistic, NaN where there are too few innovations.
        p_value: Probability of one as extreme if the model is right.
    """

    name: str
    lag: int
    n: int
    statistic: float
    p_value: float


def checks(x: np.ndarray, lags: int) -> list[Check]:
    r"""Tests of innovations of one series, in the order of time and NaN where there is none.

    ``mean``: t-test that it is zero. ``variance``: that the mean square is 1, by the
    :math:`\chi^2` distribution of the sum. ``normality``: Jarque and Bera's.
    ``heteroskedasticity``: the ratio H of the mean squares of the last and the first third.
    ``whiteness``: Ljung and Box's for every number of lags,

    .. math:: Q_m = n (n + 2) \sum_{k \le m} r_k^2 / n_k

    with :math:`n_k` pairs at lag k, of which missing rows have a part.

    Args:
        x: Innovations ``(T,)``; rows before the first and after the last are left out.
        lags: Most lags.

    Example:
        >>> import numpy as np
        >>> [check.name for check in checks(np.random.default_rng(0).normal(size=50), 1)]
        ['mean', 'variance', 'normality', 'heteroskedasticity', 'whiteness']

    References:
        Time Series Analysis by State Space Methods (Durbin & Koopman, 2012), section 2.12.
        Diagnosing Shocks in Stationary Time Series with Missing Values (Stoffer & Toloi, 1992).
    """
    from scipy import stats

    there = np.flatnonzero(~np.isnan(x))
    x = x[there[0] : there[-1] + 1] if len(there) else x[:0]
    z = x[~np.isnan(x)]
    n = len(z)
    if n < 5 or not z.std() > 0:
        names = ("mean", "variance", "normality", "heteroskedasticity")
        lagged = [("whiteness", k) for k in range(1, lags + 1)]
        return [
            Check(name, k, n, np.nan, np.nan) for name, k in [*((s, 0) for s in names), *lagged]
        ]
    t = z.mean() / (z.std(ddof=1) / n**0.5)
    total = float((z**2).sum())
    away = z - z.mean()
    m2, m3, m4 = ((away**k).mean() for k in (2, 3, 4))
    jb = n / 6 * (m3**2 / m2**3 + (m4 / m2**2 - 3) ** 2 / 4)
    found = [
        Check("mean", 0, n, t, 2 * float(stats.t.sf(abs(t), n - 1))),
        Check("variance", 0, n, total / n, _two_sided(stats.chi2(n), total)),
        Check("normality", 0, n, jb, float(stats.chi2.sf(jb, 2))),
        _breakvar(x),
    ]
    r, pairs = correlogram(x[None], lags)
    terms = np.where(pairs > 0, r**2 / np.maximum(pairs, 1), 0.0)
    q = n * (n + 2) * np.cumsum(terms)
    p = stats.chi2.sf(q, np.arange(1, lags + 1))
    return found + [Check("whiteness", k + 1, n, float(q[k]), float(p[k])) for k in range(lags)]


def _two_sided(distribution: object, value: float) -> float:
    below, above = distribution.cdf(value), distribution.sf(value)  # type: ignore[attr-defined]
    return min(1.0, 2 * min(below, above))


def _breakvar(x: np.ndarray) -> Check:
    """H, the mean square of the last third over that of the first."""
    from scipy import stats

    h = max(1, round(len(x) / 3))
    first, last = (part[~np.isnan(part)] for part in (x[:h], x[-h:]))
    n = int((~np.isnan(x)).sum())
    if len(first) < 2 or len(last) < 2 or not (first**2).sum() > 0:
        return Check("heteroskedasticity", 0, n, np.nan, np.nan)
    ratio = float((last**2).mean() / (first**2).mean())
    distribution = stats.f(len(last), len(first))
    return Check("heteroskedasticity", 0, n, ratio, _two_sided(distribution, ratio))


def correlogram(x: np.ndarray, lags: int) -> tuple[np.ndarray, np.ndarray]:
    """Autocorrelations at lags 1 to ``lags``, over all series, and the pairs that they come from.

    Args:
        x: Series ``(N, T)``, NaN where there is no value.
        lags: Most lags.
    """
    seen = ~np.isnan(x)
    count = np.maximum(seen.sum(1, keepdims=True), 1)
    away = np.where(seen, x, 0.0)
    away = np.where(seen, away - away.sum(1, keepdims=True) / count, 0.0)
    steps = x.shape[1]
    r, pairs = np.zeros(lags), np.zeros(lags, dtype=np.int64)
    total = (away**2).sum()
    for k in range(1, min(lags, steps - 1) + 1):
        pairs[k - 1] = (seen[:, k:] & seen[:, :-k]).sum()
        r[k - 1] = (away[:, k:] * away[:, :-k]).sum() / total if total > 0 else 0.0
    return r, pairs


def pooled(p_values: np.ndarray) -> tuple[int, float, float]:
    """Of many p-values: how many, the share below 0.05, and a test that they are uniform.

    Args:
        p_values: One of each series, NaN where there is none.
    """
    from scipy import stats

    p = p_values[~np.isnan(p_values)]
    if not len(p):
        return 0, np.nan, np.nan
    return len(p), float((p < 0.05).mean()), float(stats.kstest(p, "uniform").pvalue)
