"""The structural forecaster on padded values: any scale, length and sign; exact mixtures."""

import pytest
import torch
from mixtures import mixture_quantiles

from seqlatent.forecasting.engines.structural import (
    Specification,
    fit_structural,
    prepared,
)
from seqlatent.model import moments

LEVELS = [i / 10 for i in range(1, 10)]
LEVEL = Specification("level")


def walks(batch=4, steps=30, *, seed=0):
    g = torch.Generator().manual_seed(seed)
    draw = torch.randn(2, batch, steps, generator=g, dtype=torch.float64)
    return 20 + draw[0].cumsum(1) + draw[1]


def forecast(fitted, y, horizon):
    rows = fitted.prepare(y)
    found = [
        moments(m.model, m.model.belief(m.sequences(rows), end=False), horizon)
        for m in fitted.members
    ]
    mean, variance = (torch.stack(x)[..., 0] for x in zip(*found, strict=True))
    log = [m.log for m in fitted.members]
    return mixture_quantiles(mean, variance, log, LEVELS, fitted.weights.mT)


def test_a_panel_of_every_length_and_scale_has_finite_ordered_quantiles():
    y = walks(8, 14)
    y[1] *= 1e-8
    y[2] *= 1e12
    y[3] = 5.0
    y[4, 1:] = torch.nan
    y[5, 2:] = torch.nan
    y[6, :9] = torch.nan
    y[7] = 0.0
    fitted = fit_structural(y, 4, 3, specifications=[Specification("drift", ((4, 2),))])
    q = forecast(fitted, y, 3)
    assert bool(q.isfinite().all())
    assert bool((q.diff(dim=-1) > 0).all())
    assert q[3, 0, 4] == pytest.approx(5.0, rel=1e-2)
    assert bool((q[2] > 1e12).all())
    assert fitted.nonnegative


@pytest.mark.slow
def test_forecasts_do_not_depend_on_the_units():
    y = walks(3, 12)
    q = [
        forecast(fit_structural(y * s, 1, 2, specifications=[LEVEL]), y * s, 2) / s
        for s in (1.0, 1e6)
    ]
    torch.testing.assert_close(q[0], q[1], rtol=1e-6, atol=0)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_forecast():
    y = walks(3, 12)
    one, two, other = (
        forecast(fit_structural(y, 1, 2, specifications=[LEVEL], seed=s), y, 2) for s in (0, 0, 1)
    )
    assert torch.equal(one, two)
    assert not torch.equal(one, other)


def test_rows_keep_their_clock_and_only_their_last_values():
    y = torch.full((2, 9), torch.nan, dtype=torch.float64)
    y[0, 2:8] = torch.arange(6.0, dtype=torch.float64)
    y[1, 0:3] = 7.0
    rows = prepared(y, 1, 4)
    assert rows.y[0].tolist() == [2, 3, 4, 5]
    assert rows.t[0].tolist() == [4, 5, 6, 7]
    assert rows.y[1, :3].tolist() == [7, 7, 7]
    assert bool(rows.y[1, 3].isnan())
    assert rows.t[1].tolist() == [0, 1, 2, 3]


def test_quantiles_of_a_mixture_undo_its_distribution_function():
    mean = torch.tensor([[0.0], [0.5]], dtype=torch.float64)
    variance = torch.tensor([[4.0], [0.25]], dtype=torch.float64)
    q = mixture_quantiles(mean, variance, [False, True], LEVELS)[0]
    below = torch.special.ndtr(q / 2) / 2
    positive = torch.special.ndtr((q.clamp_min(1e-300).log() - 0.5) / 0.5) / 2
    torch.testing.assert_close(below + positive, torch.tensor(LEVELS, dtype=torch.float64))


def test_a_factor_widens_every_form_alike():
    y = walks(4, 16)
    y[:, -5:] += 30.0
    plain = fit_structural(y, 1, 5, specifications=[LEVEL], draws=1, calibrate=False)
    wide = fit_structural(y, 1, 5, specifications=[LEVEL], draws=1)
    assert plain.calibration_factor == 1.0
    assert wide.calibration_factor > 1.1
    assert wide.stacking.weights == (1.0,)
    a, b = forecast(plain, y, 5), forecast(wide, y, 5)
    torch.testing.assert_close(
        (b[..., 8] - b[..., 0]) / (a[..., 8] - a[..., 0]),
        torch.full((4, 5), wide.calibration_factor, dtype=torch.float64),
        rtol=1e-3,
        atol=0,
    )


def test_bad_values_are_refused():
    with pytest.raises(ValueError, match=r"shape \(B, T\)"):
        fit_structural(torch.zeros(3))
    y = walks(2)
    y[1, 4] = torch.inf
    with pytest.raises(ValueError, match="found inf at series 1, step 4"):
        fit_structural(y)
