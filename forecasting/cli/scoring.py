"""Scoring: models on the same windows one after the other, timed, and their scores as a table."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from seqlatent.forecasting.cli.fitting import Settings
from seqlatent.forecasting.cli.messages import Voice

if TYPE_CHECKING:
    import pandas as pd

__all__ = []

DECILES = (0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9)
METRICS = ("wql", "crps", "mase")


class Windows(NamedTuple):
    """Windows of a backtest.

    Attributes:
        h: Steps of each.
        number: How many.
        step: Steps between their starts; None for ``h``.
        refit: Whether to fit at each of them.
        level: Levels of intervals.
        quantiles: Quantiles beside the deciles.
        samples: Sample paths behind quantiles that have no closed form.
    """

    h: int
    number: int = 1
    step: int | None = None
    refit: bool | int = True
    level: Sequence[float | int] = (80, 95)
    quantiles: Sequence[float | int] = ()
    samples: int | None = None


def backtested(
    settings: Settings, frame: "pd.DataFrame", windows: Windows, voice: Voice, static: Any = None
) -> tuple["pd.DataFrame", dict[str, float]]:
    """Backtests the models one after the other.

    Returns:
        Forecasts of all models side by side with the truth, deciles among them, and the seconds
        that each model took.
    """
    joined: Any = None
    seconds: dict[str, float] = {}
    for i, model in enumerate(settings.models):
        voice.say(f"[{i + 1}/{len(settings.models)}] {model}")
        forecaster, began = settings.alone(model), time.perf_counter()
        found = forecaster.cross_validation(
            frame,
            windows.h,
            n_windows=windows.number,
            step_size=windows.step,
            refit=windows.refit,
            static_df=static,
            level=windows.level,
            quantiles=sorted({*DECILES, *windows.quantiles}),
            samples=windows.samples,
        )
        seconds[model] = time.perf_counter() - began
        voice.say(f"      {seconds[model]:.1f} s")
        joined = found if joined is None else _beside(joined, found)
    return joined, seconds


def _beside(frame: "pd.DataFrame", found: "pd.DataFrame") -> "pd.DataFrame":
    import pandas as pd

    new = [name for name in found.columns if name not in frame.columns]
    return pd.concat([frame, found[new]], axis=1)


def score_table(
    forecasts: "pd.DataFrame",
    train: "pd.DataFrame",
    settings: Settings,
    *,
    season: int,
    level: Sequence[float | int],
    seconds: dict[str, float] | None = None,
) -> "pd.DataFrame":
    """Scores, a row for each model: wql, crps, mase, coverage of each level, seconds."""
    import pandas as pd

    from seqlatent.forecasting.metrics import scores

    models = list(settings.models)
    found = scores(
        None,
        forecasts,
        train,
        season,
        list(level),
        models=models,
        columns=settings.columns,
        probabilities=DECILES,
    ).set_index("metric")
    table: dict[str, list[Any]] = {"model": models}
    for name in (*METRICS, *(f"coverage_level{lv:g}" for lv in level)):
        short = name.replace("_level", "")
        known = name in found.index
        table[short] = [float(found.at[name, m]) if known else float("nan") for m in models]
    if seconds is not None:
        table["seconds"] = [seconds[name] for name in models]
    return pd.DataFrame(table)


def text_table(table: "pd.DataFrame", digits: dict[str, int] | None = None) -> str:
    """A frame as text: words to the left, numbers to the right."""
    columns = []
    for name in table.columns:
        values = table[name].tolist()
        words = [_cell(value, (digits or {}).get(name, 3)) for value in values]
        numbers = not any(isinstance(value, str) for value in values)
        wide = max(len(word) for word in (*words, name))
        columns.append([w.rjust(wide) if numbers else w.ljust(wide) for w in (name, *words)])
    rows = ["  ".join(row).rstrip() for row in zip(*columns, strict=True)]
    return "\n".join([rows[0], "-" * max(map(len, rows)), *rows[1:]])


def _cell(value: Any, digits: int) -> str:
    if isinstance(value, str):
        return value
    if value != value:
        return "-"
    if isinstance(value, float) and value and not 1e-3 <= abs(value) < 1e6:
        return f"{value:.3g}"
    return f"{value:.{digits}f}" if isinstance(value, float) else f"{value:,}"
