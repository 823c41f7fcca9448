"""What are real series made of? Learned posteriors beside STL, `structural` and statsmodels.

    export SEQLATENT_DATA=../shared/data
    python benchmarks/decomposed.py picture decomposed.png   # four series, level and season
    python benchmarks/decomposed.py holes                    # values that were hidden, six tasks
    python benchmarks/decomposed.py speed --series 100000    # seconds and memory of a large panel

Real series have no truth to compare with: the picture shows where methods agree. What they say of
holes can be scored: a tenth of the cells of each series is hidden, half of them one by one and half
in runs of up to a season, and each method gives the quantiles of what was there.
"""

import argparse
import resource
import time
import warnings

import numpy as np
import pandas as pd
import torch
from scoreboard import SEASONS

from seqlatent.datasets import co2, load, split, tasks
from seqlatent.forecasting import Amortised, Forecaster

# monthly totals of airline passengers, in thousands (Box and Jenkins, 1976, series G)
PASSENGERS = """
112 118 132 129 121 135 148 148 136 119 104 118 115 126 141 135 125 149 170 170 158 133 114 140
145 150 178 163 172 178 199 199 184 162 146 166 171 180 193 181 183 218 230 242 209 191 172 194
196 196 236 235 229 243 264 272 237 211 180 201 204 188 235 227 234 264 302 293 259 229 203 229
242 233 267 269 270 315 364 347 312 274 237 278 284 277 317 313 318 374 413 405 355 306 271 306
315 301 356 348 355 422 465 467 404 347 305 336 340 318 362 348 363 435 491 505 404 359 310 337
360 342 406 396 420 472 548 559 463 407 362 405 417 391 419 461 472 535 622 606 508 461 390 432
"""
HOLES = ("m1_quarterly", "m3_quarterly", "m1_monthly", "m3_monthly", "m4_weekly", "car_parts")
MOST = {"series": 100, "rows": 200}
LEVELS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)  # intervals whose ends are compared


def main() -> None:
    """Draws the picture, or prints a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("picture", "holes", "speed"))
    parser.add_argument("file", nargs="?", default="decomposed.png")
    parser.add_argument("--series", type=int, default=100_000)
    parser.add_argument("--tasks", nargs="+", default=HOLES)
    given = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", module="statsmodels")
    if given.what == "picture":
        picture(given.file)
    elif given.what == "holes":
        holes(given.tasks)
    else:
        speed(given.series)


# --- real series ---------------------------------------------------------------------------------


def series() -> dict[str, tuple[pd.DataFrame, str, int]]:
    """Rows, frequency and season of four series."""
    flights = pd.date_range("1949-01-01", periods=144, freq="MS")
    y = np.array(PASSENGERS.split(), dtype=float)
    task = next(task for task in tasks() if task.name == "m3_monthly")
    monthly = pd.concat(split(task))
    monthly = monthly[monthly["unique_id"] == MONTHLY].sort_values("ds")
    half_hours = load("vic_elec")
    days = half_hours.groupby(pd.to_datetime(half_hours["ds_local"]).dt.date)["demand"].sum()
    days = days.iloc[1:-1] / 1000  # whole days, in gigawatt hours
    gas = co2().set_index("ds")["y"].resample("MS").mean().iloc[-240:].reset_index()
    return {
        "Airline passengers": (frame(flights, y), "MS", 12),
        "CO2 at Mauna Loa": (frame(gas["ds"], gas["y"]), "MS", 12),
        f"M3 {MONTHLY}": (frame(monthly["ds"], monthly["y"]), "MS", 12),
        "Electricity in Victoria, daily": (frame(pd.to_datetime(days.index), days), "D", 7),
    }


MONTHLY = "N1908"


def frame(ds: object, y: object) -> pd.DataFrame:
    """One series."""
    return pd.DataFrame({"unique_id": "a", "ds": np.asarray(ds), "y": np.asarray(y, dtype=float)})


def picture(file: str) -> None:
    """Level and season of each series, by four methods."""
    import matplotlib.pyplot as plt

    found = series()
    figure, axes = plt.subplots(3, len(found), figsize=(4.2 * len(found), 7.5), squeeze=False)
    for column, (title, (df, freq, season)) in zip(axes.T, found.items(), strict=True):
        df = df.tail(730 if freq == "D" else 240)
        parts = {
            "amortised": components(df, freq, season, Amortised(adapt=False)),
            "structural": components(df, freq, season, "structural"),
            "STL": by_stl(df, season),
            "statsmodels": by_statsmodels(df, season),
        }
        column[0].set_title(title)
        column[0].plot(df["ds"], df["y"], color="0.75", lw=0.8)
        shown = df["ds"] >= df["ds"].iloc[-min(len(df), 5 * season if season > 7 else 8 * season)]
        for k, (name, part) in enumerate(parts.items()):
            wide = 2.0 if name == "amortised" else 1.0
            style = {"color": f"C{k}", "lw": wide, "label": name}
            column[0].plot(df["ds"], part["level"][0], **style)
            column[1].plot(df["ds"][shown], part["season"][0][shown.to_numpy()], **style)
            column[2].plot(df["ds"], part["slope"], **style) if "slope" in part else None
            if part["level"][1] is not None and name == "amortised":
                low, high = part["level"][1]
                column[0].fill_between(df["ds"], low, high, color=f"C{k}", alpha=0.25, lw=0)
                low, high = (x[shown.to_numpy()] for x in part["season"][1])
                column[1].fill_between(df["ds"][shown], low, high, color=f"C{k}", alpha=0.25, lw=0)
        for axis in column:
            axis.tick_params(axis="x", labelrotation=30)
            axis.spines[["top", "right"]].set_visible(False)
    for axis, name in zip(
        axes[:, 0], ("level", "season, at the end", "slope, a step"), strict=True
    ):
        axis.set_ylabel(name)
    axes[0, 0].legend(frameon=False)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


Part = dict[str, object]


def components(df: pd.DataFrame, freq: str, season: int, model: object) -> Part:
    """Level and season with 80 % bands, by one of the package's models."""
    fitted = Forecaster(model, freq=freq, season_length=season).fit(df)
    table = fitted.components(level=[80])
    found: Part = {}
    for name, key in (("level", "level"), (f"season{season}", "season")):
        rows = table[table["component"] == name]
        ends = rows["lo-80"].to_numpy(), rows["hi-80"].to_numpy()
        found[key] = rows["mean"].to_numpy(), ends
    found["slope"] = table[table["component"] == "slope"]["mean"].to_numpy()
    return found


def by_stl(df: pd.DataFrame, season: int) -> Part:
    """Cleveland et al.'s STL, robust."""
    from statsmodels.tsa.seasonal import STL

    fit = STL(df["y"].interpolate().to_numpy(), period=season, robust=True).fit()
    return {"level": (fit.trend, None), "season": (fit.seasonal, None)}


def by_statsmodels(df: pd.DataFrame, season: int) -> Part:
    """A local linear trend with a season, by maximum likelihood."""
    from statsmodels.api import tsa

    model = tsa.UnobservedComponents(df["y"].to_numpy(), "lltrend", seasonal=season)
    fit = model.fit(disp=0)
    level, seasonal = fit.level.smoothed, fit.seasonal.smoothed
    return {"level": (level, None), "season": (seasonal, None), "slope": fit.trend.smoothed}


# --- holes ---------------------------------------------------------------------------------------


def holes(names: list[str]) -> None:
    """Prints the CRPS of hidden values, by task and method."""
    print("| task | series | hidden | structural | amortised | beside structural | 80 % covers |")
    print("|---|---|---|---|---|---|---|")
    for task in tasks():
        if task.name not in names:
            continue
        past, _ = split(task)
        ids = past["unique_id"].unique()
        rng = np.random.default_rng(0)
        ids = rng.permutation(ids)[: MOST["series"]]
        past = past[past["unique_id"].isin(ids)].groupby("unique_id").tail(MOST["rows"])
        past = past.sort_values(["unique_id", "ds"]).reset_index(drop=True)
        season = SEASONS.get(task.name, task.season)
        hidden = _hidden(past, season, rng)
        seen = past.assign(y=past["y"].where(~hidden))
        scale = past.groupby("unique_id")["y"].transform(lambda y: y.diff().abs().mean())
        loss, covered = {}, {}
        for name, model in (("structural", "structural"), ("amortised", Amortised(adapt=False))):
            fitted = Forecaster(model, freq=task.freq, season_length=season).fit(seen)
            table = fitted.impute(seen, level=LEVELS)
            table = (
                past.assign(truth=past["y"])
                .drop(columns="y")[hidden]
                .merge(table, on=["unique_id", "ds"], how="left", validate="1:1")
            )
            ends = [
                (p, f"y-{s}-{v}")
                for v in LEVELS
                for s, p in (("lo", 0.5 - v / 200), ("hi", 0.5 + v / 200))
            ]
            q = table[[column for _, column in ends]].to_numpy()
            error = table["truth"].to_numpy()[:, None] - q
            level = np.array([p for p, _ in ends])
            cell = 2 * np.maximum(level * error, (level - 1) * error).mean(1)
            unit = scale[hidden].to_numpy()
            moves = unit > 0  # a series that never moves has no unit, nor any loss
            loss[name] = float(np.mean(cell[moves] / unit[moves]))
            inside = (table["truth"] >= table["y-lo-80"]) & (table["truth"] <= table["y-hi-80"])
            covered[name] = inside.mean()
        print(
            f"| {task.name} | {len(ids)} | {hidden.sum()} | {loss['structural']:.3f} | "
            f"{loss['amortised']:.3f} | {loss['amortised'] / loss['structural']:.3f} | "
            f"{covered['amortised']:.2f}, structural {covered['structural']:.2f} |",
            flush=True,
        )


def _hidden(df: pd.DataFrame, season: int, rng: np.random.Generator) -> np.ndarray:
    """Which rows are hidden, a tenth of each series, never its first or last two."""
    hidden = np.zeros(len(df), dtype=bool)
    for rows in df.groupby("unique_id", sort=False).indices.values():
        inner = rows[2:-2]
        wanted = len(rows) // 10
        while wanted and hidden[rows].sum() < wanted / 2:
            length = int(rng.integers(2, max(season, 4) + 1))
            at = int(rng.integers(0, max(1, len(inner) - length)))
            hidden[inner[at : at + min(length, wanted)]] = True
        single = max(0, wanted - hidden[rows].sum())
        left = inner[~hidden[inner]]
        hidden[rng.choice(left, min(single, len(left)), replace=False)] = True
    return hidden & df["y"].notna().to_numpy()


# --- speed ---------------------------------------------------------------------------------------


def speed(many: int) -> None:
    """Prints seconds and memory of the components of a large panel."""
    rng = np.random.default_rng(0)
    steps = np.arange(100)
    wave = 3 * np.sin(2 * np.pi * steps / 12) * rng.uniform(0, 2, (many, 1))
    y = (rng.normal(size=(many, 100)).cumsum(1) + wave).ravel()
    ds = np.tile(pd.date_range("2015-01-01", periods=100, freq="MS"), many)
    df = pd.DataFrame({"unique_id": np.repeat(np.arange(many), 100), "ds": ds, "y": y})
    fitted = Forecaster(Amortised(adapt=False), freq="MS", season_length=12).fit(df)
    engine, panel = next(iter(fitted._engines.values())), fitted._seen
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    began = time.process_time()
    _, (found,) = engine.components(panel, None, [0.1, 0.9], filtered=False, specifications=False)
    seconds = time.process_time() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    size = (found.mean.nbytes + found.quantiles.nbytes) / 2**30
    print(
        f"{many} series of 100 rows: {seconds:.1f} s, {peak:.2f} GiB at the most, {before:.2f} "
        f"before, {size:.2f} of them the answer ({len(found.names)} components, mean and two ends)"
    )


if __name__ == "__main__":
    main()
