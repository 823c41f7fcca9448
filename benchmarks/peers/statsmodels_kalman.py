"""The log likelihood of statsmodels, one series after the other; see ``turns.py``.

A structural model is its ``UnobservedComponents``, a dense one a state space model written with its
``MLEModel``. Nothing but the likelihood is stored, and of the two filters (of whole vectors, of one
value after the other) the faster one is measured. Gradients are those that its ``fit`` would take.

References:
    Statsmodels: Econometric and Statistical Modeling with Python (Seabold & Perktold, 2010).
"""

import time
from typing import Any

import numpy as np
import statsmodels
from statsmodels.tsa.statespace.mlemodel import MLEModel
from statsmodels.tsa.statespace.structural import UnobservedComponents
from turns import Arrays, Evaluate, serve

_PRIOR = 1e6


class Dense(MLEModel):
    """A model whose parameters are all entries of its matrices and factors."""

    def __init__(self, y: np.ndarray, model: Arrays, free: list[str]) -> None:
        super().__init__(y, k_states=len(model["F"]))
        self.free, self.model = free, model
        self["selection"] = np.eye(len(model["F"]))
        self.initialize_known(np.zeros(len(model["F"])), model["P0"])

    @property
    def start_params(self) -> np.ndarray:
        return np.concatenate([self.model[name].ravel() for name in self.free])

    def update(self, params: np.ndarray, **kwargs: Any) -> None:
        params = super().update(params, **kwargs)
        model, at = dict(self.model), 0
        for name in self.free:
            size = model[name].size
            model[name] = params[at : at + size].reshape(model[name].shape)
            at += size
        self["transition"], self["design"] = model["F"], model["H"]
        self["state_cov"] = model["Q_factor"] @ model["Q_factor"].T
        self["obs_cov"] = model["R_factor"] @ model["R_factor"].T


def _structural(y: np.ndarray, states: int) -> MLEModel:
    level = "llevel" if states == 1 else "lltrend"
    seasonal = None if states < 3 else states - 1
    model = UnobservedComponents(y, level=level, seasonal=seasonal, loglikelihood_burn=0)
    model.ssm.initialize_approximate_diffuse(_PRIOR)
    return model


def _order(x: np.ndarray) -> np.ndarray:
    """Variances in the order of ``UnobservedComponents``, which has the noise first."""
    return np.concatenate([x[-1:], x[:-1]])


def _models(model: Arrays, free: list[str]) -> list[tuple[MLEModel, np.ndarray]]:
    found = []
    for b, (y, observed) in enumerate(zip(model["y"], model["observed"], strict=True)):
        y = np.where(observed, y, np.nan)
        if "log_variances" in model:
            theta = model["log_variances"]
            theta = theta[b] if theta.ndim > 1 else theta
            if not np.array_equal(model["P0"], _PRIOR * np.eye(len(model["F"]))):
                raise SystemExit(f"the prior of statsmodels is {_PRIOR:g} times the identity")
            each = _structural(y[:, 0], len(model["F"]))
            found.append((each, _order(np.exp(theta))))
        else:
            each = Dense(y, model, free)
            found.append((each, each.start_params))
    return found


def _fastest(pairs: list[tuple[MLEModel, np.ndarray]]) -> None:
    """Chooses the filter that takes the first series in less time."""
    spent = {}
    for univariate in (False, True, False, True):
        each, params = pairs[0]
        each.ssm.filter_univariate = univariate
        start = time.process_time()
        each.loglike(params)
        spent[univariate] = time.process_time() - start
    for each, _ in pairs:
        each.ssm.filter_univariate = spent[True] < spent[False]


def prepare(model: Arrays, free: list[str], gradient: bool) -> Evaluate:
    """Builds the models, which is not timed."""
    pairs = _models(model, free)
    _fastest(pairs)

    def evaluate() -> tuple[np.ndarray, Arrays | None]:
        values = np.array([each.loglike(params) for each, params in pairs])
        if not gradient:
            return values, None
        scores = np.stack([each.score(params) for each, params in pairs])
        if "log_variances" not in model:
            return values, None
        slopes = np.stack([p * s for (_, p), s in zip(pairs, scores, strict=True)])
        slopes = np.roll(slopes, -1, 1)  # the noise comes last
        own = model["log_variances"].ndim > 1
        return values, {"log_variances": slopes if own else slopes.sum(0)}

    return evaluate


if __name__ == "__main__":
    serve(f"statsmodels {statsmodels.__version__}", prepare)
