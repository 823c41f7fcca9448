"""How fast is small work beside statsmodels: one series, one row, three series?

A log likelihood of one local level of 500 rows through the public model, without and with its
gradient (of statsmodels a complex step in each parameter); an update by one row of a monthly series
(of statsmodels `extend`, which filters that row alone); the fit of three monthly series of 100 to
150 rows with linear trend and a season of 12. That one is measured three times: the same form one
for one by `fit_each`, the same form by a `Forecaster`, and `Forecaster("structural")` as a whole,
which fits five specifications, each again without the ends of the series, for weights and widths.
Contestants take turns within each round; times are of the processor.

    python benchmarks/small.py [--repeats 9] [--quick]
"""

import statistics
import warnings
from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np
import pandas as pd
import torch
from statsmodels.tsa.statespace.structural import UnobservedComponents
from stopwatch import Step, arguments, machine, race, ratio

from seqlatent import zoo
from seqlatent.forecasting import Forecaster, Spec, spec_of
from seqlatent.forecasting.engines.structural import Specification, prepared
from seqlatent.objectives import evidence
from seqlatent.sequences import Sequences
from seqlatent.training import fit_each

SEASON = 12
TREND = {"level": "lltrend", "freq_seasonal": [{"period": SEASON}]}


def series(rows: int, seed: int = 0) -> np.ndarray:
    """A wandering trend, a season of twelve months and noise."""
    rng = np.random.default_rng(seed)
    trend = np.cumsum(np.cumsum(0.03 * rng.normal(size=rows)) + 0.3 * rng.normal(size=rows))
    season = 5 * np.sin(2 * np.pi * np.arange(rows) / SEASON + seed)
    return 100 + trend + season + rng.normal(size=rows)


def frame(values: list[np.ndarray]) -> pd.DataFrame:
    """Monthly series one after the other."""
    parts = []
    for i, y in enumerate(values):
        ds = pd.date_range("1990-01-01", periods=len(y), freq="MS")
        parts.append(pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": y}))
    return pd.concat(parts, ignore_index=True)


def one_form() -> Spec:
    """The structural model of one specification, without held-out blocks."""
    return spec_of(
        "structural", specifications=["trend"], draws=1, criterion="equal", calibrate=False
    )


def likelihood(quick: bool) -> tuple[dict[str, Step], dict[str, Step]]:
    """Log likelihood of a local level, and the same with its gradient."""
    rng = np.random.default_rng(0)
    rows = 50 if quick else 500
    y = np.cumsum(0.3 * rng.normal(size=rows)) + rng.normal(size=rows)
    model = zoo.structural().double()
    parameters = list(model.parameters())
    data = Sequences.of(torch.from_numpy(y)[None, :, None])
    theirs = UnobservedComponents(y, "local level")
    variances = np.array([1.0, 0.1])

    def value() -> torch.Tensor:
        with torch.no_grad():
            return evidence(model, data)

    return (
        {"statsmodels": lambda: theirs.loglike(variances), "ours": value},
        {
            "statsmodels": lambda: theirs.score(variances),
            "ours": lambda: torch.autograd.grad(evidence(model, data).sum(), parameters),
        },
    )


def updates(repeats: int) -> dict[str, Step]:
    """Updates by one row; each contestant has a past of its own, which grows by a row a round."""
    start = 144
    y = series(start + repeats + 1)
    df = frame([y])
    theirs = UnobservedComponents(y[:start], **TREND).fit(disp=False)

    def extending(results: Any) -> Step:
        rows = count(start)

        def step() -> None:
            nonlocal results
            row = next(rows)
            results = results.extend(y[row : row + 1])

        return step

    def following(forecaster: Forecaster) -> Step:
        rows = count(start)

        def step() -> None:
            row = next(rows)
            forecaster.update(df[row : row + 1])

        return step

    known = df[:start]
    return {
        "statsmodels": extending(theirs),
        "one specification": following(Forecaster(one_form(), season_length=SEASON).fit(known)),
        "structural": following(Forecaster("structural", season_length=SEASON).fit(known)),
    }


def fits(quick: bool) -> dict[str, Step]:
    """Fits of three series."""
    values = [series(n, i) for i, n in enumerate((40, 45, 50) if quick else (100, 126, 150))]
    df = frame(values)
    y = np.full((3, max(map(len, values))), np.nan)
    for row, own in zip(y, values, strict=True):
        row[: len(own)] = own
    given = torch.from_numpy(y)

    def theirs() -> None:
        for own in values:
            UnobservedComponents(own, **TREND).fit(disp=False)

    def each() -> None:
        data = prepared(given, SEASON, given.shape[1]).sequences(False)
        fit_each(
            Specification("trend", ((SEASON, SEASON // 2),)).model(3),
            data,
            stages=2,
            points=8,
            seed=0,
        )

    def by(model: Callable[[], Any]) -> Step:
        return lambda: Forecaster(model(), season_length=SEASON).fit(df)

    return {
        "statsmodels": theirs,
        "`fit_each`": each,
        "one specification": by(one_form),
        "structural": by(lambda: "structural"),
    }


def _row(name: str, times: dict[str, list[float]], ours: str) -> str:
    middle = {who: statistics.median(times[who]) for who in ("statsmodels", ours)}
    gain = ratio(times, "statsmodels", ours)
    return f"| {name} | {middle['statsmodels']:.3g} | {middle[ours]:.3g} | **{gain:.2f}** |"


def main() -> None:
    """Prints the table and its conclusion."""
    options = arguments(__doc__, repeats=9)
    warnings.filterwarnings("ignore", module="statsmodels")
    print(machine())
    print("\n| | statsmodels, ms | ours, ms | times as fast |\n|---|---|---|---|")
    rounds = 2 if options.quick else 200
    values, gradients = (race(runs, rounds) for runs in likelihood(options.quick))
    print(_row("log likelihood, one local level of 500 rows", values, "ours"))
    print(_row("the same with gradient", gradients, "ours"))
    rows = race(updates(rounds), rounds)
    print(_row("update by one row, one specification", rows, "one specification"))
    print(_row("update by one row, `structural`", rows, "structural"))
    fitted = race(fits(options.quick), 1 if options.quick else options.repeats)
    print(_row("fit of three series, one specification, `fit_each`", fitted, "`fit_each`"))
    print(_row("fit of three series, one specification, `Forecaster`", fitted, "one specification"))
    print(_row("fit of three series, `structural` as a whole", fitted, "structural"))
    print(
        f"\nA log likelihood with gradient of one series is "
        f"{ratio(gradients, 'statsmodels', 'ours'):.2f} times as fast as by statsmodels, an update "
        f"by one row {ratio(rows, 'statsmodels', 'structural'):.2f} times, and a fit of three "
        f"series of the same form {ratio(fitted, 'statsmodels', '`fit_each`'):.2f} times."
    )


if __name__ == "__main__":
    main()
