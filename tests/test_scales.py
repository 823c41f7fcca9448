"""Parameters that are logarithms: modules name theirs."""

import re

import pytest
import torch
from torch import nn

from seqlatent import zoo
from seqlatent.emissions import FactorLoadings, LinearNegativeBinomial
from seqlatent.model import per_series
from seqlatent.scales import log_scales, logarithms
from seqlatent.transitions import (
    AR,
    Cycle,
    DampedTrend,
    LinearSDE,
    LocalLinearTrend,
    OrnsteinUhlenbeck,
    Sum,
    TrigonometricSeasonal,
    VectorAR,
)

PARTS = {
    "trend": lambda: LocalLinearTrend(learn_initial_scale=True),
    "sum": lambda: Sum([DampedTrend(), TrigonometricSeasonal(4), AR(2), Cycle(8.0)]),
    "reverting": lambda: OrnsteinUhlenbeck(2),
    "equation": lambda: LinearSDE(2),
    "vector": lambda: VectorAR(2),
    "factors": lambda: FactorLoadings(2, 4),
    "structural": lambda: zoo.structural(trend=True, season_length=4),
    "per_series": lambda: per_series(zoo.structural(trend=True), 3),
    "deep_state": lambda: zoo.deep_state(season_length=4),
    "deep_markov": lambda: zoo.deep_markov(1),
    "srnn": lambda: zoo.srnn(1, latent_dim=2),
    "latent_ode": lambda: zoo.latent_ode(1),
}


@pytest.mark.parametrize("make", PARTS.values(), ids=PARTS)
def test_every_logarithm_of_a_standard_deviation_is_named(make):
    model = make()
    scales = re.compile(r"(^|\.)log_(?!time_)\w*scale$")
    expected = {name for name, _ in model.named_parameters() if scales.search(name)}
    assert log_scales(model).keys() == expected
    assert expected <= logarithms(model).keys()


def test_other_logarithms_are_no_scales():
    emission = LinearNegativeBinomial(1, 1)
    assert set(logarithms(emission)) - set(log_scales(emission)) == {"log_dispersion"}
    assert "log_time_scale" in logarithms(OrnsteinUhlenbeck(1))


def test_a_module_of_ones_own_names_its_own():
    class Own(nn.Module):
        log_scales = ("width",)

        def __init__(self):
            super().__init__()
            self.width, self.log_scale = (nn.Parameter(torch.zeros(1)) for _ in range(2))

    own = nn.Sequential(Own())
    assert list(log_scales(own)) == ["0.width"]
