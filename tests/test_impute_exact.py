"""Missing values drawn from their joint distribution given all that was observed, exactly."""

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.emissions import LinearGaussian
from seqlatent.forecasting import Columns, Forecaster, Spec, TargetError
from seqlatent.forecasting.engines.latent.recipes import srnn
from seqlatent.inference import Kalman
from seqlatent.model import LatentModel
from seqlatent.transitions import AR, LocalLevel, Sum

N = 20_000
# interior gaps of one and of several rows, rows at the start and at the end
HOLES = [0, 1, 6, 11, 12, 13, 22, 23]


def spec(targets=1, transform="none"):
    def build(data_summary):
        return [one() for _ in range(1 if isinstance(transform, str) else 2)]

    def one():
        transition = Sum([LocalLevel(0.1, initial_scale=1.0), AR(1, 0.2)])
        emission = LinearGaussian(
            transition.latent_dim,
            targets,
            loading=transition.loading if targets == 1 else None,
            bias=False,
            scale=0.1,
            correlated=targets > 1,
        )
        return LatentModel(transition, emission, Kalman())

    return Spec(
        "plain",
        build,
        lambda models, training: None,
        calendar=False,
        transform=transform,
        dtype=torch.float64,
    )


def series(rows=24, holes=HOLES, seed=0):
    rng = np.random.default_rng(seed)
    y = 5 + 0.5 * rng.normal(size=rows).cumsum()
    y[holes] = np.nan
    return pd.DataFrame({"unique_id": "a", "ds": np.arange(rows), "y": y})


def fitted(df, *args, **columns):
    """The forecaster, and the joint prior of all its cells ``(T D)``."""
    model = Forecaster(spec(*args), columns=Columns(**columns) if columns else None).fit(df)
    ensemble = model._engines["plain"].ensemble
    one = ensemble.models[0]
    if len(columns.get("target", ())) > 1:  # noise that differs and goes together
        with torch.no_grad():
            one.emission.noise.below.fill_(0.15)
            one.emission.noise.log_scale.copy_(torch.tensor([0.2, 0.1]).log())
    ((kind, units),) = ensemble.units.items()
    numbers = ensemble.prepared(model._fitted.panel)[kind]
    data, _ = ensemble.sequences(numbers, np.array([0]), plain=True)
    c = one.context(data)
    F, _, G = one.transition.matrices(c)
    m0, G0 = one.transition.initial_moments(c[0])
    H, _, R = one.emission.matrices(c)
    steps, K = len(df), F.shape[-1]
    P = G0 @ G0.mT
    cov = torch.zeros(steps, K, steps, K, dtype=F.dtype)
    for t in range(steps):
        row = P
        for s in range(t, steps):
            cov[s, :, t], cov[t, :, s] = row, row.mT
            row = F @ row
        P = F @ P @ F.mT + G @ G.mT
    y = torch.einsum("dk,tksl,el->tdse", H, cov, H)
    for t in range(steps):
        y[t, :, t] += R
    unit = np.tile(units.scale[0], steps)
    y = y.reshape(len(unit), -1).detach().numpy() * unit * unit[:, None]
    assert float(m0.abs().max()) == 0
    return model, np.tile(units.shift[0], steps), y


def conditional(y, mean, cov):
    hole = np.isnan(y)
    gain = np.linalg.solve(cov[np.ix_(~hole, ~hole)], cov[np.ix_(~hole, hole)]).T
    return (
        mean[hole] + gain @ (y - mean)[~hole],
        cov[np.ix_(hole, hole)] - gain @ cov[np.ix_(~hole, hole)],
    )


def agree(draws, mean, cov):
    """Moments of draws ``(N, M)``, to Monte Carlo error of five standard deviations."""
    scale = np.diag(cov) ** 0.5
    np.testing.assert_array_less(np.abs(draws.mean(0) - mean) / scale, 5 / len(draws) ** 0.5)
    found, expected = np.cov(draws.T), cov
    spread = (np.outer(scale, scale) ** 2 + expected**2) ** 0.5
    np.testing.assert_array_less(np.abs(found - expected) / spread, 5 / len(draws) ** 0.5)


def test_draws_have_the_joint_distribution_of_the_missing_given_the_observed():
    df = series()
    model, shift, prior = fitted(df)
    mean, cov = conditional(df["y"].to_numpy(), shift, prior)
    drawn = model.impute(df, N)
    draws = drawn["y"].to_numpy().reshape(N, -1)
    assert drawn["ds"][: len(HOLES)].tolist() == HOLES
    agree(draws, mean, cov)
    neighbours = cov[4, 5] / (cov[4, 4] * cov[5, 5]) ** 0.5
    assert neighbours > 0.3
    np.testing.assert_allclose(np.corrcoef(draws[:, 4], draws[:, 5])[0, 1], neighbours, atol=0.03)
    assert cov[0, 0] > cov[1, 1]  # before the first row, the farther, the wider


def test_cells_of_one_row_share_their_noise():
    df = series()
    rng = np.random.default_rng(1)
    df["x"] = df["y"].fillna(5.0) + rng.normal(size=len(df))
    df.loc[[3, 11, 23], "x"] = np.nan
    model, shift, prior = fitted(df, 2, target=("y", "x"))
    y = df[["y", "x"]].to_numpy().ravel()
    mean, cov = conditional(y, shift, prior)
    drawn = model.impute(df, N)
    agree(drawn["y"].to_numpy().reshape(N, -1), mean, cov)
    bands = model.impute(df, level=[80])
    np.testing.assert_allclose(bands["y-mean"], mean, rtol=1e-8)
    width = (bands["y-hi-80"] - bands["y-lo-80"]) / (2 * 1.2815515655446004)
    np.testing.assert_allclose(width, np.diag(cov) ** 0.5, rtol=1e-7)
    assert bands["target"].tolist()[:2] == ["y", "y"]


def test_bands_are_those_of_the_distribution():
    df = series()
    model, shift, prior = fitted(df)
    mean, cov = conditional(df["y"].to_numpy(), shift, prior)
    bands = model.impute(df, level=[80, 95])
    assert list(bands.columns) == [
        "unique_id", "ds", "y", "y-mean", "y-lo-80", "y-hi-80", "y-lo-95", "y-hi-95"
    ]  # fmt: skip
    np.testing.assert_allclose(bands["y"], mean, rtol=1e-9)
    np.testing.assert_allclose(bands["y-mean"], mean, rtol=1e-9)
    np.testing.assert_allclose(
        bands["y-hi-80"] - mean, 1.2815515655446004 * np.diag(cov) ** 0.5, rtol=1e-8
    )


def test_observed_values_stay_as_they_are():
    df = series()
    model = Forecaster(spec()).fit(df)
    seen = df["y"].notna().to_numpy()
    whole = model.impute(df, 3, complete=True)
    assert len(whole) == 3 * len(df)
    draws = whole["y"].to_numpy().reshape(3, -1)
    np.testing.assert_array_equal(draws[:, seen], [df["y"][seen]] * 3)
    bands = model.impute(df, level=[80], complete=True)
    for column in ("y", "y-mean", "y-lo-80", "y-hi-80"):
        np.testing.assert_array_equal(bands[column][seen], df["y"][seen])
    assert (bands["y-lo-80"] < bands["y-hi-80"])[~seen].all()


def test_logarithms_come_back_positive_with_the_mean_of_their_distribution():
    df = series()
    model = Forecaster(spec(transform="log")).fit(df)
    draws = model.impute(df, N)["y"].to_numpy().reshape(N, -1)
    bands = model.impute(df, level=[80])
    assert (draws > 0).all()
    np.testing.assert_allclose(draws.mean(0) / bands["y-mean"], 1, atol=0.03)
    np.testing.assert_allclose((draws < bands["y-hi-80"].to_numpy()).mean(0), 0.9, atol=0.015)


def test_draws_of_a_mixture_come_from_all_its_members():
    df = series()
    model = Forecaster(spec(transform=lambda data_summary: ["none", "log"])).fit(df)
    draws = model.impute(df, 4000)["y"].to_numpy().reshape(4000, -1)
    bands = model.impute(df, level=[50, 90])
    for level in (50, 90):
        low, high = (bands[f"y-{end}-{level}"].to_numpy() for end in ("lo", "hi"))
        inside = (draws > low) & (draws < high)
        np.testing.assert_allclose(inside.mean(0), level / 100, atol=0.04)
    np.testing.assert_allclose(draws.mean(0) / bands["y-mean"], 1, atol=0.03)


def test_bands_of_other_models_come_from_draws():
    df = series(40)
    model = Forecaster(srnn(members=1, steps=2, latent_dim=2, hidden_dim=4)).fit(df)
    bands = model.impute(df, 20, level=[80])
    assert len(bands) == len(HOLES)
    assert (bands["y-lo-80"] <= bands["y"]).all()


def test_a_series_without_a_value_is_named():
    df = series()
    model = Forecaster(spec()).fit(df)
    empty = pd.concat([df, df.assign(unique_id="b", y=np.nan)])
    with pytest.raises(TargetError, match="at least one value of every series, found none for id"):
        model.impute(empty)
    one = df.assign(y=np.where(df["ds"] == 5, 3.0, np.nan))
    wide = model.impute(one, level=[80])
    assert np.isfinite(wide["y-mean"]).all()
