"""Expectation maximisation of linear Gaussian models, accelerated and never downhill."""

import math
import time
from dataclasses import dataclass, field

import torch
from torch import Tensor

from seqlatent.model import LatentModel
from seqlatent.sequences import Sequences
from seqlatent.training.em.regressions import regressions
from seqlatent.training.em.scales import scales
from seqlatent.training.history import History
from seqlatent.training.likelihood.parameter_vectors import Vectors
from seqlatent.training.likelihood.quasi_newton import minimise

__all__ = ["EMHistory", "em"]

_TRIALS = 4
_MOST = 1000


@dataclass
class EMHistory(History):
    """Record of expectation maximisation.

    Args:
        evidence: Log evidence ``(N,)`` at the end: of all series together, or where each has
            parameters of its own of each row that was fitted.
        rows: The row of the tables that each of them is; empty where parameters are shared.
        closed: Names of the parameters with a maximisation step in closed form.
        stepped: Names of those that made steps uphill on the evidence instead.
        fixed: Names of those that are not learned.
        converged: Whether a cycle gained less than the tolerance at the end ``(N,)``.
    """

    evidence: Tensor = field(default_factory=lambda: torch.empty(0))
    rows: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.long))
    closed: tuple[str, ...] = ()
    stepped: tuple[str, ...] = ()
    fixed: tuple[str, ...] = ()
    converged: Tensor = field(default_factory=lambda: torch.empty(0, dtype=torch.bool))

    def __repr__(self) -> str:
        names = f"closed={list(self.closed)}, stepped={list(self.stepped)}"
        return f"EM{super().__repr__()[:-1]}, {names})"


def em(
    model: LatentModel,
    sequences: Sequences,
    *,
    steps: int = 50,
    tolerance: int | float = 1e-6,
) -> EMHistory:
    r"""Maximises the evidence of a linear Gaussian model by expectation maximisation.

    .. math:: \theta' = \arg\max_\theta \; E\big[ \log p(y, z \mid \theta) \mid y, \theta_0 \big]

    Free matrices F, b, H, d are regressions on states that are known by their moments, and Q, R,
    P0, m0 the moments of what they leave. A standard deviation of a structural component is read
    off the score. Both are exact where cells are missing, also where R correlates them with others,
    and where series end early. Directions of a transition that have no noise keep their rows of F
    and b, which expectation maximisation cannot move. A parameter without a closed form, such as a
    damping or a period, makes steps uphill on the evidence itself, given the others. Two such steps
    and what they change from the one to the other make a longer one, which is taken back where it
    does not pay. So the evidence never falls.

    Where each series has parameters of its own, :func:`seqlatent.model.per_series`, all are fitted
    at once and each at its own pace.

    It needs no learning rate and moves safely from a bad start; near the maximum :func:`lbfgs`
    is often quicker, most of all where a variance is zero.

    Args:
        model: A model whose inference is ``Kalman``. Its learned parameters are written to in
            place; those that do not require gradients stay.
        sequences: The series.
        steps: Most steps of expectation maximisation.
        tolerance: Gain in log evidence of a cycle of two steps at which a problem has converged.

    Returns:
        What happened, with the names of the parameters that were maximised in closed form.

    Raises:
        TypeError: If the inference of the model is not exact.
        ValueError: If nothing is learned or observed, or a setting is out of range.

    Example:
        >>> model = seqlatent.zoo.structural()
        >>> history = em(model, seqlatent.Sequences.of(torch.randn(3, 50, 1).cumsum(1)))
        >>> history.stopped, history.closed
        ('converged', ('transition.components.0.log_scale', 'emission.noise.log_scale'))

    References:
        An Approach to Time Series Smoothing and Forecasting Using the EM Algorithm (Shumway &
        Stoffer, 1982).
        Exact Score for Time Series Models in State Space Form (Koopman & Shephard, 1992).
        The ECME Algorithm (Liu & Rubin, 1994).
        Simple and Globally Convergent Methods for Accelerating the Convergence of Any EM Algorithm
        (Varadhan & Roland, 2008).
    """
    began = time.perf_counter()
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise ValueError(f"steps must be an integer of at least 1, found {steps!r}.")
    if not 0 <= tolerance < math.inf:
        raise ValueError(f"tolerance must be a number of at least 0, found {tolerance!r}.")
    maps = _Maps(Vectors(model, sequences, "em"))
    history = EMHistory(closed=maps.closed, stepped=maps.stepped, rows=maps.rows)
    history.fixed = tuple(n for n, p in model.named_parameters() if not p.requires_grad)
    cells = max(int(sequences.observed.sum()), 1)
    _climb(maps, steps, float(tolerance), cells, history)
    history.stopped = "converged" if bool(history.converged.all()) else "steps"
    history.seconds = time.perf_counter() - began
    return history


class _Maps:
    """Steps of expectation maximisation of all problems."""

    def __init__(self, vectors: Vectors) -> None:
        self.vectors = vectors
        self.regress, taken = regressions(vectors)
        self.scales, found = scales(vectors, taken)
        closed = taken | set(found)
        self.closed = tuple(n for n in vectors.named if n in closed)
        self.stepped = tuple(n for n in vectors.named if n not in closed)
        self.rows = vectors.row if vectors.tables else vectors.row[:0]
        spans = [range(s.start, s.stop) for n, s in vectors.columns.items() if n in self.stepped]
        columns = [j for span in spans for j in span]
        if len(columns) > _MOST:
            raise ValueError(
                f"em makes steps of quasi-Newton on parameters without a closed form, of which "
                f"there may be {_MOST}, found {len(columns)}; train networks with fit."
            )
        device = vectors.row.device
        self.columns = torch.tensor(columns, dtype=torch.long, device=device)
        eye = torch.eye(len(columns), dtype=vectors.data.y.dtype, device=device)
        cells = max(int(vectors.data.observed.sum()) // len(vectors), 1)
        self.inverse = (eye / cells).expand(len(vectors), *eye.shape).clone()

    def __call__(self, index: Tensor, theta: Tensor, gradient: Tensor) -> Tensor:
        """Vectors after a step from some, at which the gradient is known."""
        new = self.scales.step(theta, gradient, index)
        if self.regress is not None:
            self.vectors.write(theta)
            self.regress()
            moved = self.vectors.read()
            moved[:, self.scales.columns] = new[:, self.scales.columns]
            new = moved
        return self._uphill(index, new) if len(self.columns) else new

    def _uphill(self, index: Tensor, theta: Tensor) -> Tensor:
        """Steps on the evidence in the parameters without a closed form, given the others."""

        def evaluate(part: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
            there = theta[part].clone()
            there[:, self.columns] = x
            value, gradient = self.vectors.guarded(index[part], there)
            return -value, -gradient[:, self.columns]

        start = theta[:, self.columns]
        found = minimise(
            evaluate, start, self.inverse[index], rounds=_TRIALS, tolerance=1e-12, longest=1.0
        )
        stuck = (found.x == start).all(-1)[:, None, None]
        self.inverse[index] = torch.where(stuck, found.inverse / 16, found.inverse)
        theta = theta.clone()
        theta[:, self.columns] = found.x
        return theta


def _climb(maps: _Maps, steps: int, tolerance: float, cells: int, history: EMHistory) -> None:
    """Cycles of two steps and an extrapolation, of the problems that have not converged."""
    vectors = maps.vectors
    every = torch.arange(len(vectors), device=vectors.row.device)
    theta = vectors.read()
    value, gradient = vectors(every, theta)
    if not bool(value.isfinite().all()):
        raise ValueError("em needs a finite evidence to start from, found one that is not.")
    history.objective.append(value.sum().item() / cells)
    longest = torch.ones_like(value).repeat(2, 1)
    converged = torch.zeros_like(value, dtype=torch.bool)
    quiet = torch.zeros_like(value)
    made = cycle = 0

    def keep(index: Tensor, x: Tensor, at: Tensor, slope: Tensor) -> Tensor:
        """Takes what is no worse; says which that is."""
        good = at >= value[index]
        better = index[good]
        theta[better], value[better], gradient[better] = x[good], at[good], slope[good]
        return good

    while made < steps and not bool(converged.all()):
        index = every[~converged]
        before, start = value[index].clone(), theta[index].clone()
        first = maps(index, start, gradient[index])
        held = keep(index, first, *vectors.guarded(index, first))
        made += 1
        history.objective.append(value.sum().item() / cells)
        if made < steps:
            second = maps(index, theta[index], gradient[index])
            each, cycle = cycle % 2 == 0, cycle + 1
            most = longest[int(each), index]
            far, length = _extrapolated(start, first, second, most, each)
            good = keep(index, far, *vectors.guarded(index, far))
            made += 1
            grown = torch.where(good & (length >= most), 4 * most, most)
            longest[int(each), index] = torch.where(good, grown, (length / 4).clamp_min(1))
            again = index[~good]
            if len(again):
                keep(again, second[~good], *vectors.guarded(again, second[~good]))
            history.objective.append(value.sum().item() / cells)
        quiet[index] = torch.where(value[index] - before < tolerance, quiet[index] + 1, 0)
        # two cycles in a row, so that one whose longer step was taken back does not end it
        converged[index] = (quiet[index] > 1) | ~held
    vectors.write(theta)
    history.evidence, history.converged = value, converged


def _extrapolated(
    start: Tensor, first: Tensor, second: Tensor, longest: Tensor, each: bool
) -> tuple[Tensor, Tensor]:
    """Where the steps lead if their change goes on, and how long that is in steps.

    Either all parameters go equally far, or each as far as its own steps say: a variance on the way
    to zero has far to go when all others have arrived.
    """
    r = first - start
    v = second - first - r
    if each:
        shrinks = r * v < 0
        a = torch.where(shrinks, (r / v).abs(), 1.0)
    else:
        a = r.norm(dim=-1, keepdim=True) / v.norm(dim=-1, keepdim=True)
    a = torch.minimum(a.nan_to_num(1.0, 1.0, 1.0).clamp_min(1), longest[:, None])
    return torch.where(a > 1, start + 2 * a * r + a.square() * v, second), a.amax(-1)
