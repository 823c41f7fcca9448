"""What would not fit into memory is refused before it starts, and says what it would need."""

import time

import numpy as np
import pytest
import torch
from engines import ENGINES, fitted, panel, rows_of

from seqlatent import Sequences, capacity, datasets, zoo
from seqlatent.forecasting import ArgumentError, Forecaster
from seqlatent.model import moments

GIB = 2**30
NEEDS = r"need at least [\d.e+]+ GiB of memory, found 8 GiB; ask for"


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """A machine of 8 GiB, whatever this one has."""
    monkeypatch.setattr(capacity, "total", lambda: 8 * GIB)


def holes():
    df = panel().groupby("unique_id").head(28)
    return df.assign(y=df["y"].where(rows_of(df) % 5 != 3))


CALLS = {
    "predict": ("h", lambda m: m.predict(10**9)),
    "predict far beyond": ("h", lambda m: m.predict(10**400)),
    "predict from a frame": ("h", lambda m: m.predict(10**9, holes())),
    "sample far": ("h", lambda m: m.sample(10**9, 2)),
    "sample many": ("n", lambda m: m.sample(2, n=10**10)),
    "impute": ("n", lambda m: m.impute(holes(), n=10**12)),
    "diagnose": ("lags", lambda m: m.diagnose(holes(), lags=10**9)),
}


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_refuses_at_once(name, call):
    model, (argument, act) = fitted(name), CALLS[call]
    model.predict(1, level=None, samples=2)  # what is imported on the first call
    began = time.process_time()
    with pytest.raises(ArgumentError, match=f"^{argument} must") as caught:
        act(model)
    assert time.process_time() - began < (1 if "frame" not in call else 5)
    assert caught.value.name == argument
    if argument != "lags":
        assert "GiB of memory, found 8 GiB; ask for" in str(caught.value)


def test_the_text_says_what_is_held():
    with pytest.raises(ArgumentError, match=f"3 series x 1,000,000,000 steps {NEEDS} fewer steps"):
        fitted("naive").predict(10**9)
    with pytest.raises(ArgumentError, match=f"10,000,000,000 paths x 2 steps {NEEDS} fewer paths"):
        fitted("naive").sample(2, n=10**10)
    with pytest.raises(ArgumentError, match=r"the longest series, 28, found 1,000,000,000"):
        fitted("naive").diagnose(lags=10**9)


@pytest.mark.parametrize("name", ["srnn", "vrnn"])
def test_paths_behind_quantiles_are_counted_where_there_are_some(name):
    few = fitted("naive").predict(1, samples=10**12, level=None)
    assert len(few) == 3  # a closed form draws none
    for act in (
        lambda: fitted(name).predict(1, samples=10**12),
        lambda: fitted(name).impute(holes(), level=80, n=10**12),
    ):
        with pytest.raises(ArgumentError, match=NEEDS):
            act()


def test_windows_are_refused_before_a_model_is_fitted():
    model = Forecaster(ENGINES["srnn"]())
    df = panel()
    with pytest.raises(ValueError, match=r"need 1000000002 rows.*fewer or shorter windows"):
        model.cross_validation(df, 10**9)
    with pytest.raises(ArgumentError, match=NEEDS) as caught:
        model.cross_validation(df, 2, samples=10**12)
    assert caught.value.name == "samples"
    with pytest.raises(ArgumentError, match=NEEDS):
        fitted("structural").components(h=10**9)


def test_large_work_that_is_done_in_parts_is_no_matter():
    series = 20_000
    from seqlatent.forecasting import memory_limits as room
    from seqlatent.forecasting.arguments import ForecastOptions

    engines = [fitted(name)._engines[fitted(name).aliases[0]] for name in ("srnn", "structural")]
    options = ForecastOptions.of([80, 95], samples=1000)
    room.check_forecasts(engines, series, 24, options, targets=1)
    room.check_paths(1, series, 24, 100, 1)
    with pytest.raises(ArgumentError, match=r"20,000 series x 1,000 paths x 24 steps"):
        room.check_paths(1, series, 24, 1000, 1)  # 480 million rows of a frame


# --- the core -----------------------------------------------------------------------------------

y = Sequences.of(torch.zeros(2, 5, 1))


@pytest.mark.parametrize(
    ("name", "act"),
    [
        ("horizon", lambda m: m.forecast(m.belief(y), 10**10)),
        ("horizon", lambda m: m.upcoming(m.belief(y), 10**10)),
        ("horizon", lambda m: moments(m, m.belief(y), 10**10)),
        ("n", lambda m: m.forecast(m.belief(y), 2, n=10**12)),
        ("n", lambda m: m.rollout(y, n=10**12)),
    ],
)
def test_paths_of_a_model(name, act):
    with pytest.raises(ValueError, match=rf"^{name} must leave .* {NEEDS} "):
        act(zoo.structural())


SIMULATORS = (
    "linear_gaussian",
    "lorenz",
    "pendulum",
    "seasonal_counts",
    "stochastic_volatility",
    "switching",
)


@pytest.mark.parametrize("sizes", [(10**10, 5), (5, 10**10)])
@pytest.mark.parametrize("name", [*SIMULATORS, "exponential_gaps", "lognormal_gaps"])
def test_simulators(name, sizes):
    with pytest.raises(ValueError, match=rf"must leave series that fit into memory.* {NEEDS} "):
        getattr(datasets, name)(*sizes)


def test_images_are_counted():
    with pytest.raises(ValueError, match=NEEDS):
        datasets.pendulum(100_000, 100, images=True)


# --- what there is ------------------------------------------------------------------------------


def test_a_machine_or_its_container_says_what_there_is(monkeypatch, tmp_path):
    monkeypatch.undo()
    there = capacity.total()
    assert 2**27 < there < 2**60
    limit = tmp_path / "memory.max"
    monkeypatch.setattr(capacity, "_LIMITS", (str(limit),))
    limit.write_text("max\n")
    whole = capacity.total()
    limit.write_text("1048576\n")
    assert whole >= there
    assert capacity.total() == 1_048_576
    monkeypatch.delattr("os.sysconf", raising=False)
    limit.unlink()
    assert capacity.total() == 2**38


def test_sizes_in_words():
    assert capacity.shortage(8 * GIB) == ""
    assert capacity.shortage(9 * GIB) == "9 GiB of memory, found 8 GiB"
    assert capacity.brief(10**5000) == "1e+5000"
    assert capacity.brief(int(np.int64(7))) == "7"
