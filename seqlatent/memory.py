"""Memory: deterministic causal features of the past that generative modules condition on."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from collections.abc import Sequence as Collection

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from seqlatent.networks import Backbone
from seqlatent.sequences import Context, Sequences

__all__ = ["CausalMemory", "Memory", "NoMemory"]

State = tuple[Tensor, ...]
Advance = Callable[[Tensor, Tensor, Context], Tensor]


class Memory(nn.Module, ABC):
    r"""Deterministic features :math:`m_t = f(y_{<t}, u_{\le t})`.

    ``forward`` gives all steps of a batch at once; ``step`` gives the next one from a state, for
    rollouts and updates. The two agree, and the state is a tuple of tensors with leading axes
    ``(*S, B)``.

    Attributes:
        out_dim: Number of features ``M``.
        reads_values: Whether the features depend on ``y``, or on known inputs alone, so that those
            of the future are known ahead.
    """

    out_dim: int
    reads_values: bool = True

    @abstractmethod
    def forward(self, sequences: Sequences) -> Float[Tensor, "B T M"]:
        """Features of every step."""

    @abstractmethod
    def initial(self, batch_shape: tuple[int, ...], like: Tensor) -> State:
        """State before the first step, for series of shape ``batch_shape``."""

    @abstractmethod
    def state_at(self, sequences: Sequences, index: Int[Tensor, " B"]) -> State:
        """State after step ``index`` of each series; -1 is the initial state."""

    def read(self, sequences: Sequences, index: Int[Tensor, " B"]) -> tuple[Tensor, State]:
        """Features of every step, and the state after step ``index`` of each series."""
        return self(sequences), self.state_at(sequences, index)

    @abstractmethod
    def step(self, state: State, y: Tensor, observed: Tensor, c: Context) -> tuple[Tensor, State]:
        """Features of the next step ``(*S, B, M)``, and the state after it.

        Args:
            state: The state after the step before.
            y: Observation of the step before ``(*S, B, D)``, in its own units.
            observed: Which cells of it were seen ``(*S, B, D)``; nothing before the first step.
            c: Covariates, gap, codes, shift and scale of the step itself.
        """

    def advance(self, state: State) -> Advance:
        """A function that gives the features of one step after another, and keeps the state.

        Its arguments are those of ``step`` but the state, which has axes ``(B,)``: samples that
        start from one past share it, and ``y`` may have their axes from the second step on.
        """

        def advance(y: Tensor, observed: Tensor, c: Context) -> Tensor:
            nonlocal state
            if y.ndim > c.u.ndim:
                state = tuple(
                    s if s.shape[: y.ndim - 1] == y.shape[:-1] else s.expand(len(y), *s.shape)
                    for s in state
                )
            m, state = self.step(state, y, observed, c)
            return m

        return advance


class NoMemory(Memory):
    """No features: with it the model is a pure state space model.

    Example:
        >>> NoMemory()(Sequences.of(torch.zeros(2, 3, 1))).shape
        torch.Size([2, 3, 0])
    """

    def __init__(self) -> None:
        super().__init__()
        self.out_dim = 0
        self.reads_values = False

    def forward(self, sequences: Sequences) -> Float[Tensor, "B T M"]:
        return sequences.y[..., :0]

    def initial(self, batch_shape: tuple[int, ...], like: Tensor) -> State:
        return ()

    def state_at(self, sequences: Sequences, index: Int[Tensor, " B"]) -> State:
        return ()

    def step(self, state: State, y: Tensor, observed: Tensor, c: Context) -> tuple[Tensor, State]:
        return y[..., :0], state


class CausalMemory(Memory):
    r"""Lagged values, known inputs and static codes, read by a causal backbone.

    .. math:: m_t = \mathrm{backbone}(x_{1:t}), \quad
        x_t = [\operatorname{asinh} \tilde y_{t-l},\ o_{t-l}]_{l \in \mathrm{lags}}, u_t, \log
        \Delta_t, \mathrm{codes}, \log s

    where :math:`\tilde y` is the standardised value and :math:`o` says whether it was observed:
    what is missing is read as 0 beside :math:`o = 0`, which a backbone tells from a value of 0. The
    inverse hyperbolic sine is the identity near zero and a logarithm far out, so that a path that
    feeds its own heavy-tailed samples back stays finite. Lags count rows.

    Args:
        obs_dim: Observed dimensions ``D``.
        backbone: Causal network over ``input_dim(...)`` features.
        lags: Which past rows to read, each at least 1; empty for a memory of known inputs only.
        covariate_dim: Covariates ``U``.
        code_sizes: Number of categories of each static code.
        embedding_dim: Width of each code's embedding.

    Example:
        >>> width = CausalMemory.input_dim(1, lags=(1, 2))
        >>> memory = CausalMemory(1, seqlatent.networks.MinGRU(width, 8), lags=(1, 2))
        >>> memory(Sequences.of(torch.zeros(3, 5, 1))).shape
        torch.Size([3, 5, 8])
    """

    def __init__(
        self,
        obs_dim: int,
        backbone: Backbone,
        *,
        lags: Collection[int] = (1,),
        covariate_dim: int = 0,
        code_sizes: Collection[int] = (),
        embedding_dim: int = 8,
    ) -> None:
        super().__init__()
        lags = tuple(lags)
        if any(isinstance(lag, bool) or not isinstance(lag, int) or lag < 1 for lag in lags):
            raise ValueError(
                f"lags must be integers of at least 1 (row t may not read itself), found {lags}."
            )
        if len(set(lags)) != len(lags):
            raise ValueError(f"lags must not repeat, found {lags}.")
        self.obs_dim = obs_dim
        self.lags = lags
        self.depth = max(lags, default=0)
        self.reads_values = self.depth > 0
        self.covariate_dim = covariate_dim
        self.code_sizes = tuple(code_sizes)
        self.embeddings = nn.ModuleList(
            nn.Embedding(size, embedding_dim) for size in self.code_sizes
        )
        width = self.input_dim(
            obs_dim,
            lags=lags,
            covariate_dim=covariate_dim,
            code_sizes=self.code_sizes,
            embedding_dim=embedding_dim,
        )
        if backbone.in_dim != width:
            raise ValueError(
                f"the backbone of this memory must read {width} features, found one that reads "
                f"{backbone.in_dim}; size it with CausalMemory.input_dim(...)."
            )
        self.backbone = backbone
        self.out_dim = backbone.out_dim

    @staticmethod
    def input_dim(
        obs_dim: int,
        *,
        lags: Collection[int] = (1,),
        covariate_dim: int = 0,
        code_sizes: Collection[int] = (),
        embedding_dim: int = 8,
    ) -> int:
        """Number of input features that a backbone of this memory must accept."""
        return (
            2 * obs_dim * len(tuple(lags))
            + covariate_dim
            + 1
            + obs_dim
            + embedding_dim * len(tuple(code_sizes))
        )

    def forward(self, sequences: Sequences) -> Float[Tensor, "B T M"]:
        return self.backbone(self._inputs(sequences))[0]

    def _inputs(self, sequences: Sequences) -> Tensor:
        self._check(sequences)
        steps = sequences.steps
        history = nn.functional.pad(self._record(sequences), (0, 0, self.depth, 0))
        lagged = [history[:, self.depth - lag : self.depth - lag + steps] for lag in self.lags]
        return torch.cat([*lagged, self._known(Context.of(sequences, sequences.y[..., :0]))], -1)

    def _check(self, sequences: Sequences) -> None:
        if sequences.obs_dim != self.obs_dim:
            raise ValueError(
                f"the memory reads {self.obs_dim} observed dimensions, found {sequences.obs_dim}."
            )
        if sequences.covariate_dim != self.covariate_dim:
            raise ValueError(
                f"the memory reads {self.covariate_dim} covariates, the sequences have "
                f"{sequences.covariate_dim}."
            )
        if sequences.codes.shape[1] != len(self.embeddings):
            raise ValueError(
                f"the memory reads {len(self.embeddings)} static codes, the sequences have "
                f"{sequences.codes.shape[1]}."
            )
        for i, size in enumerate(self.code_sizes):
            highest = int(sequences.codes[:, i].max())
            if highest >= size:
                raise ValueError(
                    f"static code {i} has {size} categories, found code {highest}; "
                    "give the memory a larger size, or map unseen categories to one that it knows."
                )

    @staticmethod
    def _record(sequences: Sequences) -> Tensor:
        return torch.cat(
            [sequences.normalised.asinh(), sequences.observed.to(sequences.y.dtype)], -1
        )

    def _known(self, c: Context) -> Tensor:
        codes = [e(c.codes[..., i]) for i, e in enumerate(self.embeddings)]
        return torch.cat([c.u, c.dt.log(), c.scale.log(), *codes], -1)

    def initial(self, batch_shape: tuple[int, ...], like: Tensor) -> State:
        buffer = like.new_zeros(*batch_shape, self.depth, 2 * self.obs_dim)
        return (buffer, *self.backbone.initial(tuple(batch_shape), like))

    def state_at(self, sequences: Sequences, index: Int[Tensor, " B"]) -> State:
        return self.read(sequences, index)[1]

    def read(self, sequences: Sequences, index: Int[Tensor, " B"]) -> tuple[Tensor, State]:
        m, states = self.backbone(self._inputs(sequences))
        rows = torch.arange(sequences.batch, device=index.device)
        start = self.backbone.initial((sequences.batch,), sequences.y)
        fresh = (index < 0)[:, None]
        hidden = [
            torch.where(fresh, first, state[rows, index.clamp_min(0)])
            for first, state in zip(start, states, strict=True)
        ]
        history = nn.functional.pad(self._record(sequences), (0, 0, self.depth, 0))
        # The row of step i stands at i + depth; the state holds the depth rows before ``index``.
        offsets = torch.arange(self.depth, device=index.device)
        window = history[rows[:, None], index.clamp_min(0)[:, None] + offsets]
        window = torch.where(fresh[..., None], torch.zeros_like(window), window)
        return m, (window, *hidden)

    def step(self, state: State, y: Tensor, observed: Tensor, c: Context) -> tuple[Tensor, State]:
        buffer, *hidden = state
        row = self._row(y, observed, c)
        if self.depth:
            buffer = torch.cat([buffer[..., 1:, :], row[..., None, :]], -2)
        lagged = [buffer[..., self.depth - lag, :] for lag in self.lags]
        m, hidden = self.backbone.step(self._input(lagged, row, c), tuple(hidden))
        return m, (buffer, *hidden)

    def advance(self, state: State) -> Advance:
        # The past stays where it is, once for all samples; only the rows that follow are theirs.
        buffer, *hidden = state
        past, rows = buffer.unbind(-2), []

        def advance(y: Tensor, observed: Tensor, c: Context) -> Tensor:
            nonlocal hidden
            rows.append(self._row(y, observed, c))
            lagged = [
                rows[-lag] if lag <= len(rows) else past[len(rows) - lag] for lag in self.lags
            ]
            m, hidden = self.backbone.step(self._input(lagged, rows[-1], c), tuple(hidden))
            return m

        return advance

    @staticmethod
    def _row(y: Tensor, observed: Tensor, c: Context) -> Tensor:
        value = torch.where(observed, (y - c.shift) / c.scale, torch.zeros_like(y)).asinh()
        return torch.cat([value, observed.to(value.dtype).expand_as(value)], -1)

    def _input(self, lagged: list[Tensor], row: Tensor, c: Context) -> Tensor:
        lead = row.shape[:-1]
        return torch.cat([x.expand(*lead, x.shape[-1]) for x in (*lagged, self._known(c))], -1)
