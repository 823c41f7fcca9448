"""History, what a training run leaves behind besides the weights."""

from dataclasses import dataclass, field

__all__ = ["History"]


@dataclass
class History:
    r"""Record of a training run.

    Objectives are per observed cell, larger is better, as they stand before the update of the step.

    Args:
        objective: Training objective of each step; NaN where the step was skipped.
        evaluated: Number of steps made before each evaluation; 0 is the untrained model.
        validation: Held-out objective of each evaluation.
        best_step: Number of steps that led to the weights that were kept; None without validation.
        skipped: Number of steps skipped because the objective or its gradient was not finite.
        seconds: Wall-clock time.
        stopped: Why training ended: ``"steps"`` (all were made), ``"patience"``, ``"callback"``,
            or with L-BFGS ``"converged"`` (there is nothing to gain, whatever the units of the
            parameters are) or ``"stalled"`` (no better value was found, though the slope says that
            there should be one).
        gain: What Newton's step promises at the end of an L-BFGS, in nats over all data; None where
            that was not looked at.

    Example:
        >>> History(objective=[-2.0, -1.5], evaluated=[0, 2], validation=[-2.1, -1.6], best_step=2)
        History(steps=2, objective=-1.5, validation=-1.6 (best -1.6 after step 2), skipped=0,
        seconds=0.0, stopped='steps')
    """

    objective: list[float] = field(default_factory=list)
    evaluated: list[int] = field(default_factory=list)
    validation: list[float] = field(default_factory=list)
    best_step: int | None = None
    skipped: int = 0
    seconds: float = 0.0
    stopped: str = "steps"
    gain: float | None = None

    @property
    def steps(self) -> int:
        """Number of steps made, those that were skipped too."""
        return len(self.objective)

    @property
    def best(self) -> float | None:
        """Held-out objective of the weights that were kept, None without validation."""
        if self.best_step is None:
            return None
        return self.validation[self.evaluated.index(self.best_step)]

    def __repr__(self) -> str:
        parts = [f"steps={self.steps}"]
        if self.objective:
            parts.append(f"objective={self.objective[-1]:.5g}")
        if self.validation:
            best = (
                "" if self.best is None else f" (best {self.best:.5g} after step {self.best_step})"
            )
            parts.append(f"validation={self.validation[-1]:.5g}{best}")
        parts += [
            f"skipped={self.skipped}",
            f"seconds={self.seconds:.1f}",
            f"stopped={self.stopped!r}",
        ]
        if self.gain is not None and self.stopped != "converged":
            parts.append(f"not converged: gain={self.gain:.3g} nats")
        return f"History({', '.join(parts)})"
