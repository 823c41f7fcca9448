"""Contracts: classes whose methods are laws, run one by one."""

import copy
import pickle
import sys
from collections.abc import Callable, Sequence
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor, nn

from seqlatent.sequences import Context

__all__ = ["Contract", "close", "context", "copies", "require", "seeded"]

EXACT = {"rtol": 1e-10, "atol": 1e-10}
FIELDS = ("u", "dt", "codes", "shift", "scale", "m", "e", "informed")


class Contract:
    """Laws, each a method whose name begins with ``test_``.

    A subclass says how to build a part; what does not apply to it raises ``unittest.SkipTest``,
    which pytest knows too.
    """

    def build(self) -> Any:
        """Returns the part under test."""
        raise NotImplementedError

    def made(self, *args: Any) -> Any:
        """The part in double precision, drawn from the same seed each time."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            return self.build(*args).double()

    def run(self) -> list[str]:
        """Tries every law.

        Returns:
            The laws that hold, in words; what does not apply is left out.

        Raises:
            AssertionError: At the first that does not; it names the law and says what was found.
        """
        held, kinds = [], reversed(type(self).__mro__)
        names = dict.fromkeys(n for kind in kinds for n in vars(kind) if n.startswith("test_"))
        for name in names:
            law = name.removeprefix("test_").replace("_", " ")
            try:
                with torch.random.fork_rng(devices=[]):
                    torch.manual_seed(0)
                    getattr(self, name)()
            except SkipTest:
                continue
            except AssertionError as error:
                raise AssertionError(f"it does not hold that {law}: {error}") from error
            held.append(law)
        return held


def require(holds: bool | Tensor, sentence: str) -> None:
    """Raises an AssertionError with a sentence unless something holds."""
    if not bool(holds):
        raise AssertionError(sentence)


def close(found: Any, expected: Any, sentence: str, **tolerances: Any) -> None:
    """Raises an AssertionError with a sentence unless two tensors are equal up to rounding."""
    options = {**EXACT, **tolerances}
    torch.testing.assert_close(found, expected, **options, msg=lambda text: f"{sentence}. {text}")


def shaped(found: Tensor, expected: Sequence[int], what: str) -> None:
    """Raises an AssertionError unless a tensor has the shape that it owes."""
    require(
        tuple(found.shape) == tuple(expected),
        f"{what} must have the shape {tuple(expected)}, found {tuple(found.shape)}",
    )


def finite_gradients(module: nn.Module) -> None:
    """Raises an AssertionError unless every parameter that is learned has a finite gradient."""
    for name, parameter in module.named_parameters():
        if parameter.requires_grad:
            require(parameter.grad is not None, f"the parameter {name} has no gradient")
            assert parameter.grad is not None
            require(
                parameter.grad.isfinite().all(),
                f"the parameter {name} has the gradient {parameter.grad}",
            )


def copies(part: nn.Module) -> list[tuple[str, Any]]:
    """A copy of a part and, if its class can be found by its name, one that was pickled."""
    found, kind = [("a copy", copy.deepcopy(part))], type(part)
    if getattr(sys.modules.get(kind.__module__), kind.__qualname__, None) is kind:
        found.append(("what was pickled", pickle.loads(pickle.dumps(part))))
    return found


def moved(part: nn.Module) -> None:
    """Changes every parameter, in place."""
    with torch.no_grad():
        for parameter in part.parameters():
            parameter.add_(0.5 * torch.rand_like(parameter) + 0.25)


def readable(part: nn.Module) -> None:
    """Raises an AssertionError unless the representation of a part is to be read."""
    text = repr(part)
    require(text.startswith(type(part).__name__ + "("), f"it must begin with its class: {text}")
    require(" at 0x" not in text, f"it holds an address: {text}")
    require("tensor(" not in text, f"it holds numbers: {text}")


def seeded(seed: int = 0) -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(seed)


def repeatable(draw: Callable[[], Tensor], what: str) -> Tensor:
    """Raises an AssertionError unless draws follow from a private generator alone."""
    state = torch.get_rng_state()
    first, second = draw(), draw()
    require(torch.equal(first, second), f"{what} differ between two generators of one seed")
    require(
        torch.equal(state, torch.get_rng_state()),
        f"{what} draw from torch's global generator; draw from the one that is given",
    )
    return first


def permuted(c: Context, order: Tensor) -> Context:
    """A context of the same series in another order."""
    return c.replace(**{name: getattr(c, name)[order] for name in FIELDS})


def cast(c: Context, dtype: torch.dtype) -> Context:
    """A context in another floating type."""
    fields = {name: getattr(c, name) for name in ("u", "dt", "shift", "scale", "m", "e")}
    return c.replace(**{name: x.to(dtype) for name, x in fields.items()})


def context(
    batch: int,
    steps: int,
    *,
    memory_dim: int = 0,
    covariate_dim: int = 0,
    encoder_dim: int = 0,
    codes: int | None = None,
    irregular: bool = False,
) -> Context:
    """Context of a range of steps with random fields, the same at every call.

    Args:
        batch: Series.
        steps: Steps of each.
        memory_dim: Features of memory.
        covariate_dim: Covariates.
        encoder_dim: Features of an encoder.
        codes: Categories of a static code; None for none.
        irregular: Whether gaps between steps differ.
    """
    generator = seeded(1)

    def random(width: int) -> Tensor:
        return torch.randn(batch, steps, width, dtype=torch.float64, generator=generator)

    values: dict[str, Any] = {"m": random(memory_dim), "u": random(covariate_dim)}
    values["e"] = random(encoder_dim)
    if codes is not None:
        values["codes"] = torch.arange(batch)[:, None, None].expand(batch, steps, 1) % codes
    if irregular:
        values["dt"] = 0.25 + 2 * random(1).abs()
    return Context.regular(batch, steps, dtype=torch.float64, **values)
