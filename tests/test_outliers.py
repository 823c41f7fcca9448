"""Values that are recorded wrong carry neither states nor parameters nor widths away."""

import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from torch.distributions import Categorical as Choice
from torch.distributions import MixtureSameFamily, Normal

import seqlatent
from seqlatent.forecasting import Forecaster, spec_of
from seqlatent.forecasting.engines.structural import fit_structural
from seqlatent.forecasting.errors import ArgumentError
from seqlatent.inference import Kalman, Outliers
from seqlatent.model import LatentModel, one_step
from seqlatent.sequences import Sequences

SIZES = (4.0, 16.0, 64.0, 256.0, 1024.0)


def walk(share: float = 0.05, **kwargs: int) -> LatentModel:
    """A level with a season."""
    model = seqlatent.zoo.structural(season_length=4).double()
    return LatentModel(model.transition, model.emission, Kalman(Outliers(share, **kwargs))).double()


def values(steps: int = 40, batch: int = 3, seed: int = 0) -> torch.Tensor:
    """Levels that wander, with noise ``(B, T)``."""
    g = torch.Generator().manual_seed(seed)
    wander, noise = torch.randn(2, batch, steps, generator=g, dtype=torch.float64)
    return 0.1 * wander.cumsum(1) + 0.5 * noise


def of(y: torch.Tensor) -> Sequences:
    """Sequences of values of which some are NaN."""
    return Sequences.of(y[..., None])


def frame(y: torch.Tensor) -> pd.DataFrame:
    """A long frame of values ``(B, T)``."""
    ds = pd.date_range("2001-01-01", periods=y.shape[1], freq="MS")
    parts = [pd.DataFrame({"unique_id": f"s{i}", "ds": ds, "y": v}) for i, v in enumerate(y)]
    return pd.concat(parts, ignore_index=True)


def spiked(y: torch.Tensor, share: float = 0.06, seed: int = 1) -> torch.Tensor:
    """The same with errors of eight to twenty deviations of the noise."""
    g = torch.Generator().manual_seed(seed)
    hit = torch.rand(y.shape, generator=g) < share
    size = (4 + 6 * torch.rand(y.shape, generator=g)) * torch.randn(y.shape, generator=g).sign()
    return y + hit * size.double()


def test_without_a_share_nothing_changes():
    y = of(values())
    plain = seqlatent.zoo.structural(season_length=4).double()
    model = walk(0.0)
    for name in ("filter", "smooth"):
        ours, theirs = (getattr(m, name)(y) for m in (model, plain))
        torch.testing.assert_close(ours.mean, theirs.mean)
        torch.testing.assert_close(ours.log_evidence, theirs.log_evidence)
    assert model.belief(y).latest.encoder == ()


def test_the_first_value_has_the_density_of_the_mixture():
    model, y = walk(0.1), values(1)
    c = model.context(of(y))
    H, d, R = model.emission.matrices(c)
    _, G0 = model.transition.initial_moments(c[0])
    _, _, G = model.transition.matrices(c)
    variance = (H @ G0 @ G0.mT @ H.mT + R).squeeze()
    least = (H @ G @ G.mT @ H.mT + R).squeeze()
    odds = torch.tensor([0.5**k for k in range(5)], dtype=torch.float64)
    weights = torch.cat([torch.tensor([0.9]).double(), 0.1 * odds / odds.sum()])
    sizes = torch.tensor((0.0, *SIZES)).double()
    law = MixtureSameFamily(
        Choice(weights), Normal(d.new_zeros(6), (variance + sizes**2 * least).sqrt())
    )
    found = one_step(model, of(y))
    torch.testing.assert_close(found.log_prob[:, 0], law.log_prob(y[:, 0]))
    torch.testing.assert_close(found.below[:, 0, 0], law.cdf(y[:, 0]))


def test_an_outlier_moves_no_state_and_costs_its_logarithm():
    y = values()
    wrong = y.clone()
    wrong[:, 20] += 1000.0
    missing = y.clone()
    missing[:, 20] = math.nan
    model = walk()
    theirs, ours = (model.smooth(of(x)) for x in (missing, wrong))
    torch.testing.assert_close(ours.mean, theirs.mean, atol=1e-3, rtol=0)
    assert bool((ours.log_evidence[:, 20] > -20).all())
    outlying = model.inference.outlying(model, of(wrong))
    assert bool((outlying[:, 20] > 0.99).all())
    assert bool((outlying > 0.5).sum() <= 4)


@pytest.mark.parametrize("hole", [False, True])
def test_update_is_to_filter_again_and_no_row_sees_a_later_one(hole: bool):
    y = spiked(values())
    y[1, 28:31] += 30
    if hole:
        y[:, 10:14] = math.nan
        y[0, 29] = math.nan
    model = walk()
    for first in (1, 20, 29, 30):
        belief = model.belief(of(y[:, :first]))
        for i in range(first, 40):
            row = Sequences.of(y[:, i : i + 1, None], t=torch.full((1,), float(i)).double())
            belief = model.update(belief, row)
        again = model.belief(of(y))
        torch.testing.assert_close(belief.latest.mean, again.latest.mean)
        torch.testing.assert_close(belief.latest.cov, again.latest.cov)
        torch.testing.assert_close(belief.latest.encoder[0], again.latest.encoder[0])
    early, late = one_step(model, of(y[:, :25])), one_step(model, of(y))
    torch.testing.assert_close(early.log_prob, late.log_prob[:, :25])
    torch.testing.assert_close(early.below, late.below[:, :25])
    last = model.smooth(of(y))
    torch.testing.assert_close(last.mean[:, -1], model.filter(of(y)).mean[:, -1])


def test_a_level_that_breaks_is_followed():
    y = values(80)
    y[:, 40:] += 50.0
    plain = seqlatent.zoo.structural(season_length=4).double()
    patient = walk(0.05, patience=3).filter(of(y)).mean[:, -1, 0]
    theirs = plain.filter(of(y)).mean[:, -1, 0]
    assert bool(((patient - theirs).abs() < 2).all())
    found = walk().inference.outlying(walk(), of(y)) > 0.5
    assert float(found.double().mean()) < 0.25


@pytest.mark.parametrize(("shift", "scale"), [(1e3, 1.0), (0.0, 1e-3), (-7.0, 1e4)])
def test_shift_and_scale_pass_through(shift: float, scale: float):
    y = spiked(values())

    def read(x: torch.Tensor, shift: float, scale: float) -> Sequences:
        units = (torch.full((3, 1), v, dtype=torch.float64) for v in (shift, scale))
        return Sequences.of(x[..., None], **dict(zip(("shift", "scale"), units, strict=True)))

    model = walk()
    ours, theirs = (
        one_step(model, read(x, *units))
        for x, units in ((y * scale + shift, (shift, scale)), (y, (0.0, 1.0)))
    )
    torch.testing.assert_close(ours.below, theirs.below, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(
        ours.log_prob + math.log(scale), theirs.log_prob, rtol=1e-6, atol=1e-6
    )


def test_what_cannot_be_is_refused():
    with pytest.raises(ValueError, match=r"probability of an outlier.*found 0\.7"):
        Outliers(0.7)
    two = seqlatent.zoo.dynamic_factors(2, 1)
    with pytest.raises(TypeError, match="one observed dimension"):
        LatentModel(two.transition, two.emission, Kalman(Outliers()))
    with pytest.raises(ArgumentError, match="robust must be True, False or None"):
        spec_of("structural", robust="yes")


def test_a_model_of_before_there_were_outliers_is_read():
    model = walk(0.1)
    state = {k: v for k, v in model.state_dict().items() if "outliers" not in k}
    model.load_state_dict(state)
    assert not model.inference.doubts


def panel(steps: int = 60, batch: int = 12) -> torch.Tensor:
    """Levels with a season of four ``(B, T)``."""
    season = torch.tensor([2.0, -1.0, 0.0, -1.0]).double().repeat(steps // 4)
    return 30 + values(steps, batch, 3) + season


def test_clean_values_are_fitted_as_ever():
    y = panel()
    kwargs = {"specifications": ["level"], "draws": 1}
    ours, theirs = (fit_structural(y, 4, 4, robust=r, **kwargs) for r in (None, False))
    assert ours.stacking == theirs.stacking
    assert not ours.members[0].model.inference.doubts


def test_outliers_are_found_and_have_no_part_in_parameters_and_widths():
    y = panel()
    wrong = y.clone()
    wrong[:, :-12] = spiked(y[:, :-12])
    kwargs = {"specifications": ["level", "log level"], "draws": 1, "calibrate": False}
    clean = fit_structural(y, 4, 4, robust=False, **kwargs)
    bold, ours = (fit_structural(wrong, 4, 4, robust=r, **kwargs) for r in (False, None))
    assert "are doubted" in str(ours.stacking)
    units = [f.prepare(x) for f, x in ((clean, y), (bold, wrong), (ours, wrong))]
    for i in range(2):
        noise = []
        for fitted, rows in zip((clean, bold, ours), units, strict=True):
            member = fitted.members[i]
            scale = member.model.emission.noise.log_scale.detach()[:-1, 0].exp()
            noise.append(float((scale * member.sequences(rows).scale[:, 0]).median()))
        assert noise[1] > 1.8 * noise[0]
        assert noise[2] == pytest.approx(noise[0], rel=0.25)


@pytest.fixture(scope="module")
def doubting(tmp_path_factory) -> tuple[Path, torch.Tensor, pd.DataFrame]:
    """The folder of a forecaster that doubts, and its values."""
    y = spiked(panel(48, 6))
    y[0, 20] = math.nan
    df = frame(y)
    df = df[(df.unique_id != "s1") | (df.ds >= "2001-09-01")]
    spec = spec_of("structural", specifications=["level", "log level"], robust=True)
    folder = tmp_path_factory.mktemp("doubting") / "model"
    Forecaster(spec, freq="MS", season_length=4).fit(df).save(folder)
    return folder, y, df


def numbers(df: pd.DataFrame) -> np.ndarray:
    """What a frame says in numbers."""
    return df.select_dtypes("number").to_numpy()


def test_a_forecaster_that_doubts_keeps_the_laws(doubting):
    folder, y, df = doubting
    one, many = Forecaster.load(folder), Forecaster.load(folder)
    assert "are doubted" in str(one.report())
    more = frame(torch.cat([y, panel(52, 6)[:, 48:]], 1))
    new = more[more.ds > df.ds.max()].copy()
    new.loc[new.index[::5], "y"] += 40.0
    whole = pd.concat([df, new]).sort_values(["unique_id", "ds"], ignore_index=True)
    for _, rows in new.groupby("ds"):
        one.update(rows)
    many.update(new)
    forecasts = [numbers(m.predict(h=3, level=[80])) for m in (one, many)]
    np.testing.assert_allclose(*forecasts, rtol=1e-8)
    both = one.score(df).merge(one.score(whole), on=["unique_id", "ds"])
    columns = [c.removesuffix("_x") for c in both if c.endswith("_x")]
    assert columns
    for name in columns:
        np.testing.assert_allclose(both[f"{name}_x"], both[f"{name}_y"], rtol=1e-8)
    one.save(folder.parent / "again")
    again = Forecaster.load(folder.parent / "again").predict(h=3, level=[80])
    np.testing.assert_allclose(numbers(again), forecasts[0], rtol=1e-10)


def test_what_a_forecaster_shows_of_the_past_is_not_bent(doubting):
    folder, _, df = doubting
    model = Forecaster.load(folder)
    wild = df.copy()
    hit = wild.index[wild.unique_id == "s2"][30]
    wild.loc[hit, "y"] += 500.0
    shown = [model.components(x) for x in (df, wild)]
    shown = [x[x.component.isin(["level", "season4", "signal"])] for x in shown]
    np.testing.assert_allclose(*(numbers(x) for x in shown), atol=0.6)
    shown = [model.smooth(x).drop(columns="y", errors="ignore") for x in (df, wild)]
    np.testing.assert_allclose(*(numbers(x) for x in shown), atol=0.6)
    whole = model.impute(wild)
    assert len(whole)
    assert whole["y"].between(20, 45).all()
