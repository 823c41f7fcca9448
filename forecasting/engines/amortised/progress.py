"""How far a training or an adaptation is, and whether there is time for one more step."""

from seqlatent.amortised import Trainer
from seqlatent.forecasting.engines.engine import FitOptions
from seqlatent.training import Deadline, Pace

__all__ = ["Steps"]


class Steps:
    """Says whether one more step of adaptation is made, and shows how many were.

    Attributes:
        left: Steps that were made and all of them, where there was no time for one; else None.
    """

    def __init__(self, fit_options: FitOptions) -> None:
        self.left: tuple[int, int] | None = None
        self._pace, self._shown, self._bar = Pace(fit_options.deadline), fit_options.progress, None

    def __enter__(self) -> "Steps":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, step: int, steps: int) -> bool:
        if self.left is not None:
            return False
        if not self._pace.reaches():
            self.left = step, steps
            return False
        if self._shown:
            self._show(step, steps)
        return True

    def _show(self, step: int, steps: int) -> None:
        from tqdm.auto import tqdm

        if self._bar is None or step < self._bar.n:  # once before the last blocks, once on all
            self.__exit__()
            self._bar = tqdm(total=steps)
        self._bar.update(step + 1 - self._bar.n)


class Bar:
    """Shows how much of a training is done, in steps or in seconds."""

    def __init__(self, shown: bool, steps: int | None, deadline: Deadline) -> None:
        self._deadline, self._bar = deadline, None
        if shown:
            from tqdm.auto import tqdm

            total = round(deadline.total) if steps is None else steps
            self._bar = tqdm(total=total, unit="s" if steps is None else "step")

    def __enter__(self) -> "Bar":
        return self

    def __exit__(self, *error: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def __call__(self, trainer: Trainer) -> None:
        if self._bar is None:
            return
        done = trainer.step if self._deadline.never else int(self._deadline.spent)
        loss = next(iter(trainer.losses.values()), float("nan"))
        self._bar.set_postfix(step=trainer.step, loss=f"{loss:.4f}", refresh=False)
        self._bar.update(min(done, int(self._bar.total)) - self._bar.n)
