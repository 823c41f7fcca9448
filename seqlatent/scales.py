"""Scales: which parameters of a model are logarithms, of standard deviations above all."""

from collections.abc import Iterator

from torch import nn

__all__ = ["log_scales", "logarithms"]


def log_scales(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are logarithms of standard deviations, by their names.

    A module names its own in an attribute ``log_scales``, a tuple: one added to them multiplies the
    standard deviations.

    Args:
        model: A model, or a part of one.

    Example:
        >>> from seqlatent import zoo
        >>> sorted(log_scales(zoo.structural()))
        ['emission.noise.log_scale', 'transition.components.0.log_scale']
    """
    return dict(_named(model, "log_scales"))


def logarithms(model: nn.Module) -> dict[str, nn.Parameter]:
    """Parameters that are logarithms of any positive numbers, standard deviations included.

    A module names those that are none of standard deviations in an attribute ``logarithms``.

    Args:
        model: A model, or a part of one.
    """
    return log_scales(model) | dict(_named(model, "logarithms"))


def _named(model: nn.Module, attribute: str) -> Iterator[tuple[str, nn.Parameter]]:
    for home, module in model.named_modules():
        own: tuple[str, ...] = getattr(module, attribute, ())
        for name, parameter in module.named_parameters(recurse=False):
            if name in own:
                yield f"{home}.{name}" if home else name, parameter
