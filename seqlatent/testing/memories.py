"""What every memory owes."""

from collections.abc import Callable
from typing import Any
from unittest import SkipTest

import torch
from torch import Tensor

from seqlatent.memory import Memory
from seqlatent.sequences import Context, Sequences
from seqlatent.testing import contract
from seqlatent.testing.contract import Contract, close, require, seeded, shaped

__all__ = ["MemoryContract", "check_memory"]


class MemoryContract(Contract):
    """Laws of every memory.

    ``build`` makes the memory, of ``obs_dim`` observed dimensions and ``covariate_dim`` covariates;
    ``sequences`` makes what it reads.

    Attributes:
        obs_dim: Observed dimensions.
        covariate_dim: Covariates.
        steps: Steps of each of three series.
    """

    obs_dim: int = 2
    covariate_dim: int = 1
    steps: int = 6

    def build(self) -> Memory:
        """Returns the memory under test."""
        raise NotImplementedError

    def sequences(self) -> Sequences:
        """Returns three series: one with holes, one that ends early, one of which nothing is seen.

        Times are irregular, shifts and scales away from 0 and 1.
        """
        shape, generator = (3, self.steps), seeded(1)

        def random(*widths: int) -> Tensor:
            return torch.randn(*widths, dtype=torch.float64, generator=generator)

        y = random(*shape, self.obs_dim)
        observed = torch.rand(y.shape, generator=generator) < 0.7
        observed[1, self.steps - 2 :] = False
        observed[2] = False
        return Sequences.of(
            torch.where(observed, y, torch.nan),
            u=random(*shape, self.covariate_dim),
            t=(0.25 + random(*shape).abs()).cumsum(1),
            shift=random(3, self.obs_dim),
            scale=random(3, self.obs_dim).exp(),
        )

    def parts(self) -> tuple[Memory, Sequences]:
        """The memory, and what it reads."""
        return self.made(), self.sequences()

    def _stepped(
        self, memory: Memory, s: Sequences, state: Any, after: int
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features of the steps after one, one at a time; -1 for all."""
        c, out = Context.of(s, s.y[..., :0]), []
        for t in range(after + 1, s.steps):
            y = s.y[:, t - 1] if t else torch.zeros_like(s.y[:, 0])
            observed = s.observed[:, t - 1] if t else torch.zeros_like(s.observed[:, 0])
            m, state = memory.step(state, y, observed, c[t])
            out.append(m)
        return torch.stack(out, 1), state

    def _equal(self, found: Any, expected: Any, text: str) -> None:
        require(len(found) == len(expected), "states have other numbers of tensors")
        for x, y in zip(found, expected, strict=True):
            close(x, y, text)

    def test_all_steps_at_once_equal_one_at_a_time(self) -> None:
        memory, s = self.parts()
        m = memory(s)
        shaped(m, (3, self.steps, memory.out_dim), "features")
        found, state = self._stepped(memory, s, memory.initial((3,), s.y), -1)
        close(found, m, "step gives other features than forward")
        last = memory.state_at(s, torch.full((3,), self.steps - 1))
        self._equal(state, last, "step leaves another state than state_at")

    def test_a_state_continues_where_it_stands(self) -> None:
        memory, s = self.parts()
        m = memory(s)
        for stop in (0, 2, self.steps - 2):
            state = memory.state_at(s.window(0, stop + 1), torch.full((3,), stop))
            found, _ = self._stepped(memory, s, state, stop)
            close(found, m[:, stop + 1 :], f"a state at step {stop} goes on with other features")

    def test_each_series_may_stand_at_a_step_of_its_own(self) -> None:
        memory, s = self.parts()
        index = torch.tensor([self.steps - 2, 1, -1])
        state, first = memory.state_at(s, index), memory.initial((3,), s.y)
        text = "state_at -1 is not the initial state"
        self._equal([x[2] for x in state], [x[2] for x in first], text)
        for b in (0, 1):
            alone = memory.state_at(s, torch.full((3,), int(index[b])))
            text = "the state of a series depends on where others stand"
            self._equal([x[b] for x in state], [x[b] for x in alone], text)

    def test_samples_step_each_by_itself(self) -> None:
        memory, s = self.parts()
        state = memory.state_at(s, torch.full((3,), 2))
        c = Context.of(s, s.y[..., :0])[3]
        y = torch.randn(5, 3, self.obs_dim, dtype=torch.float64, generator=seeded(3))
        observed = torch.rand(y.shape, generator=seeded(4)) < 0.7
        wide = tuple(x.expand(5, *x.shape) for x in state)
        m, after = memory.step(wide, y, observed, c)
        shaped(m, (5, 3, memory.out_dim), "features of samples")
        advanced = memory.advance(state)(y, observed, c)
        close(advanced, m, "advance gives other features than step")
        for i in range(5):
            one, alone = memory.step(state, y[i], observed[i], c)
            close(m[i], one, "features of a sample depend on the others")
            self._equal([x[i] for x in after], alone, "the state of a sample depends on the others")

    def test_the_present_and_the_future_are_not_read(self) -> None:
        memory, s = self.parts()
        y, u = s.y.clone(), s.u.clone()
        y[:, 3:], u[:, 4:] = 1e9, -1e9
        other = Sequences(y * s.observed, s.observed, s.t, u, s.codes, s.shift, s.scale)
        text = "features of a step depend on its value, or on what comes after it"
        close(memory(other)[:, :4], memory(s)[:, :4], text)

    def test_it_says_whether_it_reads_values(self) -> None:
        memory, s = self.parts()
        other = Sequences(s.y * 2 + s.observed, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
        same = torch.equal(memory(other), memory(s))
        text = "its features depend on values" if memory.reads_values else "they do not"
        require(same != memory.reads_values, f"reads_values says that {text}, and that is not so")

    def test_what_stands_in_missing_cells_is_not_read(self) -> None:
        memory, s = self.parts()
        y = torch.where(s.observed, s.y, 1e9)
        other = Sequences(y, s.observed, s.t, s.u, s.codes, s.shift, s.scale)
        close(memory(other), memory(s), "what stands in a missing cell changes features")
        state, c = memory.initial((3,), s.y), Context.of(s, s.y[..., :0])[0]
        nothing = torch.zeros_like(s.observed[:, 0])
        zero = torch.zeros_like(s.y[:, 0])
        a, b = (memory.step(state, x, nothing, c)[0] for x in (zero, zero + 1e9))
        close(a, b, "what stands in a missing cell changes a step")

    def test_a_padded_tail_changes_no_feature_before_it(self) -> None:
        memory, s = self.parts()
        found = memory(s.extend(3))[:, : self.steps]
        close(found, memory(s), "steps that are appended change features before them")

    def test_series_do_not_see_each_other(self) -> None:
        memory, s = self.parts()
        order, m = torch.tensor([2, 0, 1]), memory(s)
        text = "features of a series depend on the others"
        close(memory(s.select(order)), m[order], text)
        for b in range(3):
            close(memory(s.select(slice(b, b + 1))), m[b : b + 1], text)

    def test_every_parameter_gets_a_finite_gradient(self) -> None:
        memory, s = self.parts()
        if not any(p.requires_grad for p in memory.parameters()):
            raise SkipTest("nothing is learned")
        memory(s).square().sum().backward()
        contract.finite_gradients(memory)

    def test_a_copy_is_equal(self) -> None:
        memory, s = self.parts()
        for what, other in contract.copies(memory):
            close(other(s), memory(s), f"{what} has other features")

    def test_the_repr_is_readable(self) -> None:
        contract.readable(self.made())


def check_memory(
    build: Callable[[], Memory],
    *,
    obs_dim: int = 2,
    covariate_dim: int = 1,
    sequences: Callable[[], Sequences] | None = None,
) -> list[str]:
    """Tries the laws of every memory on one of your own.

    Args:
        build: Returns the memory.
        obs_dim: Observed dimensions that it reads.
        covariate_dim: Covariates that it reads.
        sequences: Returns three series of six steps that it reads, some of their cells missing;
            random ones by default, without static codes.

    Returns:
        The laws that hold.

    Raises:
        AssertionError: At the first that does not, with a sentence.
    """
    laws: Any = MemoryContract()
    laws.build, laws.obs_dim, laws.covariate_dim = build, obs_dim, covariate_dim
    laws.sequences = laws.sequences if sequences is None else sequences
    return laws.run()
