"""Priors that networks cannot learn from, refused with the draw that shows it."""

from seqlatent.prior import Drawn

__all__ = ["require_finite", "require_moving"]

_MOST = 1e30  # beyond it sums and products of single precision are infinite


def require_finite(drawn: Drawn) -> None:
    """Refuses draws that hold what is no number, or none that can be computed with.

    Raises:
        ValueError: If a value is NaN, infinite or beyond 1e30, with its series, step, kind and
            parameters, and the component that is so.
    """
    # the values of a series may all be broken by one step of what it is made of
    held = {**drawn.components, "the sum of components": drawn.signal}
    held["the observation of finite components"] = drawn.y
    for name, path in held.items():
        bad = ~(path.abs() <= _MOST)
        if not bool(bad.any()):
            continue
        i, step = bad.nonzero()[0].tolist()
        by = f"component {name}" if name in drawn.components else name
        raise ValueError(
            f"the prior drew {path[i, step].item()} at step {step} of {path.shape[1]}, by {by}: "
            f"{_told(drawn, i)}. Networks learn from finite numbers below 1e30: narrow the "
            "distributions of these parameters, or mend the component."
        )


def require_moving(drawn: Drawn) -> None:
    """Refuses draws that tell nothing: each is one number at all steps, or is hardly seen.

    Raises:
        ValueError: If no series moves or none has two values that are seen, with one of them.
    """
    y, seen = drawn.y, drawn.observed
    series = len(y)
    if not bool((seen.sum(1) >= 2).any()):
        raise ValueError(
            f"the prior hides all but {int(seen.sum(1).max())} values of each of {series} series, "
            f"so there is nothing to learn from: {_told(drawn, 0)}. Give it another missing=."
        )
    if not bool((y != y[:, :1]).any()):
        raise ValueError(
            f"the prior drew one number at all {y.shape[1]} steps of each of {series} series, such "
            f"as {y[0, 0].item():.6g}, so there is nothing to learn: {_told(drawn, 0)}. Give it "
            "components or noise of a size above zero."
        )


def _told(drawn: Drawn, i: int) -> str:
    """One series in words."""
    held = [f"{name}={value[i].item():.3g}" for name, value in drawn.parameters.items()]
    return f"series {i} of kind {drawn.kinds[i]!r} with {', '.join(held)}"
