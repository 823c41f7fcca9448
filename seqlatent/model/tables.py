"""Models in which each series has parameters of its own."""

from typing import Protocol, runtime_checkable

from torch import nn

from seqlatent.model.latent_model import LatentModel

__all__ = ["per_series"]


@runtime_checkable
class Tabular(Protocol):
    """A module whose parameters may be tables with one row per series."""

    series: int | None

    def tabulate(self, series: int) -> None:
        """Replaces parameters by tables of ``series + 1`` rows, all of the value that they had."""
        ...


def per_series(model: LatentModel, series: int) -> LatentModel:
    r"""Gives each series of a panel parameters of its own, in place.

    .. math:: \theta \;\to\; \theta_0, \dots, \theta_{n-1}, \theta_n

    Every parameter becomes a table, all rows of which start from its value. A series reads row
    ``codes[0]``, its first static code; the last row, ``n``, is for series that were not there.
    Matrices then differ between series and not between steps. :func:`seqlatent.training.fit_each`
    fits all rows at once.

    Args:
        model: A model of structural components and a ``LinearGaussian`` emission with a loading.
        series: Number of series ``n``.

    Returns:
        The same model.

    Raises:
        TypeError: If a part has parameters that can only be shared.
        ValueError: If ``series < 1``, or series have parameters of their own already.

    Example:
        >>> from seqlatent.sequences import Sequences
        >>> model = per_series(seqlatent.zoo.structural(), 3)
        >>> y = torch.zeros(2, 5, 1)
        >>> model.filter(Sequences.of(y, codes=torch.tensor([[1], [3]]))).mean.shape
        torch.Size([2, 5, 1])
    """
    if isinstance(series, bool) or not isinstance(series, int) or series < 1:
        raise ValueError(f"series must be a number of series of at least 1, found {series!r}.")
    for name, module in model.named_modules():
        if _shared(module, name, model):
            raise TypeError(
                "parameters of each series are for trends, regressions, seasonals, Cycle, AR, "
                "Irregular, Innovations and a LinearGaussian emission with a loading; "
                f"{name} is {type(module).__name__}, whose parameters all series share."
            )
    for module in model.modules():
        if isinstance(module, Tabular):
            module.tabulate(series)
    return model


def _shared(module: nn.Module, name: str, model: LatentModel) -> bool:
    """Whether a module has parameters that would stay shared."""
    if module is model.emission and getattr(module, "H", None) is not None:
        return True
    inner = name.startswith("emission.") and isinstance(model.emission, Tabular)
    own = any(p.requires_grad for p in module.parameters(recurse=False))
    return own and not inner and not isinstance(module, Tabular)
