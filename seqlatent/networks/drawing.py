"""Drawing parameters from one generator."""

import inspect
from collections.abc import Callable
from functools import singledispatch
from typing import Any

import torch
from torch import Tensor, nn

__all__ = ["reinitialise"]

Reset = Callable[[torch.Generator | None], None]


def reinitialise(module: nn.Module, generator: torch.Generator | None = None) -> None:
    """Draws all parameters of a module afresh, in the order of its submodules.

    Construction draws from torch's global generator; afterwards this makes the parameters a
    function of one private generator, whatever else was drawn before. Knows linear, embedding,
    recurrent and normalising layers of torch; any other module with parameters of its
    own says how to draw those in a method ``reset_parameters(generator)``.

    Args:
        module: The module, changed in place.
        generator: Source of randomness; torch's global generator by default.

    Raises:
        TypeError: If a submodule holds parameters that nobody says how to draw. Nothing is changed.

    Example:
        >>> a, b = (seqlatent.networks.MLP(2, [4], 1) for _ in range(2))
        >>> reinitialise(a, torch.Generator().manual_seed(0))
        >>> reinitialise(b, torch.Generator().manual_seed(0))
        >>> x = torch.ones(2)
        >>> torch.equal(a(x), b(x))
        True
    """
    resets = [_reset(m, name) for name, m in module.named_modules() if [*m.parameters(False)]]
    for reset in resets:
        reset(generator)


def _reset(module: nn.Module, name: str) -> Reset:
    own = getattr(module, "reset_parameters", None)
    if own is not None and inspect.signature(own).parameters:
        return own
    draw = _layer.dispatch(type(module))
    if draw is _layer.dispatch(object):
        held = ", ".join(key for key, _ in module.named_parameters(recurse=False))
        raise TypeError(
            "reinitialise expected layers of torch or modules with a method "
            f"reset_parameters(generator), found {type(module).__name__} at '{name}' with the "
            f"parameters {held}. Give it that method."
        )
    return lambda generator: draw(module, generator)


@singledispatch
def _layer(module: Any, generator: torch.Generator | None) -> None:
    raise NotImplementedError


@_layer.register
def _(module: nn.Linear, generator: torch.Generator | None) -> None:
    for parameter in module.parameters(False):
        fill_uniform(parameter, max(module.in_features, 1) ** -0.5, generator)


@_layer.register
def _(module: nn.RNNBase, generator: torch.Generator | None) -> None:
    for parameter in module.parameters(False):
        fill_uniform(parameter, module.hidden_size**-0.5, generator)


@_layer.register
def _(module: nn.Embedding, generator: torch.Generator | None) -> None:
    weight, device = module.weight, _device(module.weight, generator)
    with torch.no_grad():
        noise = torch.randn(weight.shape, generator=generator, dtype=weight.dtype, device=device)
        weight.copy_(noise)
        if module.padding_idx is not None:
            weight[module.padding_idx] = 0


@_layer.register(nn.LayerNorm)
@_layer.register(nn.RMSNorm)
@_layer.register(nn.GroupNorm)
def _(module: nn.LayerNorm | nn.RMSNorm | nn.GroupNorm, generator: torch.Generator | None) -> None:
    module.reset_parameters()  # ones and zeros: nothing is drawn


def _device(parameter: Tensor, generator: torch.Generator | None) -> torch.device:
    """Values are drawn where the generator is: they do not depend on where the parameter is."""
    return parameter.device if generator is None else generator.device


def unit_uniform(parameter: Tensor, generator: torch.Generator | None) -> Tensor:
    """Uniform values between 0 and 1 in shape, dtype and on device of a parameter."""
    device = _device(parameter, generator)
    values = torch.rand(parameter.shape, generator=generator, dtype=parameter.dtype, device=device)
    return values.to(parameter.device)


def fill_uniform(parameter: Tensor, bound: float, generator: torch.Generator | None) -> None:
    """Draws a parameter uniformly between ``-bound`` and ``bound``, in place."""
    with torch.no_grad():
        parameter.copy_((2 * unit_uniform(parameter, generator) - 1) * bound)
