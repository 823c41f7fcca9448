"""The report of a structural forecaster: which specifications it mixes, and why."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from seqlatent.forecasting.engines.structural.specifications import Specification
from seqlatent.forecasting.engines.structural.stacking import Heldout
from seqlatent.training import EachHistory

__all__ = ["Stacking", "chosen"]


@dataclass(frozen=True)
class Stacking:
    """What a structural forecaster mixes, and why; ``print`` shows it as a table.

    Args:
        criterion: ``"heldout"``, ``"aic"``, ``"bic"`` or ``"equal"``.
        specifications: The specifications that were compared.
        weights: Mean weight of each specification.
        scores: Scores of each specification by their names, lower is better.
        reasons: Why a specification has its weight.
        left_out: Why other specifications were not compared.
        calibration_factor: Factor of all standard deviations that the held-out blocks asked for.
        basis: From how much data, in words.
        posteriors: How far draws of the parameters by weights are to be trusted, a line for each
            specification; none where they are no such draws.
        outliers: Whether values are doubted that may be outliers, and why, in words.

    Example:
        >>> from seqlatent.forecasting.engines.structural import Stacking
        >>> print(Stacking("equal", ("level",), (1.0,), {}, ("the only one",)))
        structural: weights of specifications, criterion equal
          specification  weight  why
          level           100 %  the only one
    """

    criterion: str
    specifications: tuple[str, ...]
    weights: tuple[float, ...]
    scores: Mapping[str, tuple[float, ...]]
    reasons: tuple[str, ...]
    left_out: tuple[str, ...] = ()
    calibration_factor: float = 1.0
    basis: str = ""
    posteriors: tuple[str, ...] = ()
    outliers: tuple[str, ...] = ()

    def __str__(self) -> str:
        head = ("specification", "weight", *self.scores, "why")
        body = [
            (
                specification,
                f"{100 * self.weights[i]:.0f} %",
                *(f"{column[i]:.4g}" for column in self.scores.values()),
                self.reasons[i],
            )
            for i, specification in enumerate(self.specifications)
        ]
        widths = [max(len(row[j]) for row in (head, *body)) for j in range(len(head))]
        lines = [f"structural: weights of specifications, criterion {self.criterion}"]
        for row in (head, *body):
            cells = [
                text.rjust(widths[j]) if 0 < j < len(row) - 1 else text.ljust(widths[j])
                for j, text in enumerate(row)
            ]
            lines.append("  " + "  ".join(cells).rstrip())
        if self.basis:
            lines.append(f"from {self.basis}")
        if round(self.calibration_factor, 2) != 1:
            lines.append(
                f"all widths are multiplied by {self.calibration_factor:.2f}, so that 80 % cover "
                "80 %"
            )
        lines += [f"outliers: {line}" for line in self.outliers]
        lines += [f"posterior of the parameters, {line}" for line in self.posteriors]
        return "\n".join([*lines, *(f"left out: {why}" for why in self.left_out)])

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {**asdict(self), "scores": {k: list(v) for k, v in self.scores.items()}}

    @classmethod
    def from_dict(cls, config: Mapping[str, Any]) -> "Stacking":
        """Reads what :meth:`to_dict` wrote."""
        found: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list | tuple) else v for k, v in config.items()
        }
        scores = {k: tuple(v) for k, v in config["scores"].items()}
        return cls(**{**found, "scores": scores})


def chosen(
    criterion: str,
    specifications: Sequence[Specification],
    weights: Tensor,
    heldout: Heldout | None,
    information: Tensor | None,
    left_out: Sequence[str],
    factor: float,
    series: int,
) -> Stacking:
    """The record of a choice.

    Args:
        criterion: What decided.
        specifications: The specifications.
        weights: Shares of the specifications of each series ``(B, F)``.
        heldout: Scores on hidden blocks, None where there are none.
        information: Criterion of each specification ``(F,)``, summed over series, None where not
            asked for.
        left_out: Why other specifications were not compared.
        factor: The factor of the widths.
        series: Series that have a say.
    """
    scores: dict[str, tuple[float, ...]] = {}
    reasons = ["an equal weight"] * len(specifications)
    if information is not None:
        mean = information / series
        scores[criterion.upper()] = tuple(mean.tolist())
        wins = torch.nn.functional.one_hot(weights.argmax(1), len(specifications)).double().mean(0)
        reasons = [f"best for {100 * x:.0f} % of the series" for x in wins.tolist()]
    basis = f"{series} series"
    if heldout is not None:
        scores["CRPS"] = tuple(heldout.crps.tolist())
        scores["-log score"] = tuple(heldout.log_score.tolist())
        basis = f"{heldout.cells} values of {series} series that the specifications had not seen"
        if criterion == "heldout":
            least = heldout.crps.min()
            reasons = [
                (
                    "least CRPS"
                    if x == least
                    else f"CRPS {100 * (x / least - 1):.1f} % above the best"
                )
                + f", best for {100 * best:.0f} % of series and blocks"
                for x, best in zip(heldout.crps.tolist(), heldout.best.tolist(), strict=True)
            ]
    if len(specifications) == 1:
        reasons = ["the only one"]
    return Stacking(
        criterion,
        tuple(specification.name for specification in specifications),
        tuple(weights.mean(0).tolist()),
        scores,
        tuple(reasons),
        tuple(left_out),
        factor,
        basis,
    )


def undone(made: int, wanted: int, history: EachHistory, blind: bool) -> list[str]:
    """What was left undone for want of time, in words."""
    said = (
        [f"stopped by time_limit after {made} of {wanted} specifications"] if made < wanted else []
    )
    reached, series = int((history.rounds > 0).sum()), len(history.rounds)
    if reached < series:
        said.append(
            f"time_limit: fitted {reached} of {series} series, others use the distribution of all"
        )
    elif history.stopped == "time":
        said.append("stopped by time_limit before the parameters had converged")
    if blind and made == 1:
        said.append("widths are not calibrated")
    return said
