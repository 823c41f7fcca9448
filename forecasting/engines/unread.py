"""What an engine does not read of a panel, noted or refused."""

from seqlatent.forecasting.errors import TargetError, TimeError
from seqlatent.forecasting.frames.panel import Panel

__all__ = []


def ignored(
    alias: str,
    panel: Panel,
    *,
    handles_covariates: bool = False,
    ahead_by: str = "'sarimax', 'amortised' or a latent model",
) -> str:
    """What is to be noted of columns that are left out; empty where there are none.

    Args:
        alias: Name of the engine.
        panel: The rows.
        handles_covariates: Whether it reads covariates that are known ahead.
        ahead_by: What would read them, where it does not.
    """
    ahead = 0 if handles_covariates else panel.future.shape[1]
    static = panel.real.shape[1] + panel.codes.shape[1]
    kinds = {"known ahead": ahead, "past": panel.past.shape[1], "static": static}
    found = ", ".join(f"{count} {kind}" for kind, count in kinds.items() if count)
    if not found:
        return ""
    instead = ahead_by if ahead else "a latent model"
    return f"{alias} ignores covariates ({found}): {instead} uses them"


def require_grid(alias: str, panel: Panel) -> None:
    """Raises a TimeError where time stamps are on no grid."""
    if panel.time_index.kind == "irregular":
        raise TimeError(
            f"{alias!r} needs time stamps on a regular grid, found an irregular index; "
            "give freq= so that gaps become missing rows, or use 'naive' or a latent model."
        )


def require_targets(panel: Panel, targets: int) -> None:
    """Raises a TargetError unless a panel has as many targets as were fitted."""
    if panel.y.shape[1] != targets:
        raise TargetError(
            f"expected the {targets} targets that were fitted, found {panel.y.shape[1]}; "
            "fit again on this panel."
        )
