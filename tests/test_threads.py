"""Threads of torch: set for as long as a call lasts, and put back whatever happens."""

import threading

import numpy as np
import pandas as pd
import pytest
import torch

from seqlatent.forecasting import Forecaster
from seqlatent.forecasting.engines.engine import Engine
from seqlatent.forecasting.errors import DataError
from seqlatent.forecasting.threads import threads


@pytest.fixture(autouse=True)
def _three():
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(before)


def frame():
    ds = pd.date_range("2024-01-01", periods=30, freq="D")
    return pd.DataFrame({"unique_id": "a", "ds": ds, "y": np.arange(30.0) % 7})


def test_a_number_is_set_and_put_back():
    with threads(2):
        assert torch.get_num_threads() == 2
        with threads(1):
            assert torch.get_num_threads() == 1
        with threads(None):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 2
    assert torch.get_num_threads() == 3


def test_it_is_put_back_after_an_error():
    with pytest.raises(KeyError), threads(1):
        raise KeyError
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("first_out", [0, 1])
def test_calls_that_overlap_put_back_what_was_before_them(first_out):
    inside = [threads(1), threads(2)]
    for one in inside:
        one.__enter__()
    inside.pop(first_out).__exit__(None, None, None)
    assert torch.get_num_threads() == 1 + (first_out == 0)
    inside.pop().__exit__(None, None, None)
    assert torch.get_num_threads() == 3


VERBS = {
    "predict": lambda model, df: model.predict(2),
    "sample": lambda model, df: model.sample(2, 3),
    "score": lambda model, df: model.score(df),
    "smooth": lambda model, df: model.smooth(),
    "innovations": lambda model, df: model.innovations(),
    "diagnose": lambda model, df: model.diagnose(),
    "impute": lambda model, df: model.impute(df.assign(y=df.y.where(df.y != 3))),
    "components": lambda model, df: model.components(),
    "parameters": lambda model, df: model.parameters(),
    "cross_validation": lambda model, df: model.cross_validation(df, 2),
    "update": lambda model, df: model.update(df.assign(ds=df.ds + pd.Timedelta("30D"))),
}


@pytest.mark.parametrize("verb", ["fit", *VERBS])
def test_every_verb_runs_on_as_many_as_were_asked_for(verb, monkeypatch):
    seen = []
    model = Forecaster("seasonal_naive", threads=2)
    df = frame()
    if verb != "fit":
        model.fit(df)

    def looking(method):
        def look(self, *given, **named):
            seen.append(torch.get_num_threads())
            return method(self, *given, **named)

        return look

    kind = type(model._engines["seasonal_naive"])
    watched = ("fit", "start", "update", "marginals", "paths", "score", "impute", "select")
    for name in watched:
        monkeypatch.setattr(kind, name, looking(getattr(kind, name)))
    for name in ("smooth", "components", "parameters", "innovations"):
        monkeypatch.setattr(Engine, name, looking(getattr(Engine, name)))
    try:
        model.fit(df) if verb == "fit" else VERBS[verb](model, df)
    except (NotImplementedError, TypeError):  # a baseline has no states, parts or parameters
        assert verb in ("smooth", "components", "parameters")
    assert seen
    assert set(seen) == {2}
    assert torch.get_num_threads() == 3


def test_none_leaves_the_process_as_it_is():
    model = Forecaster("naive").fit(frame())
    model.predict(1)
    assert torch.get_num_threads() == 3


def test_an_error_in_a_frame_puts_them_back():
    with pytest.raises(DataError):
        Forecaster("naive", threads=1).fit(frame().assign(y="x"))
    assert torch.get_num_threads() == 3


@pytest.mark.parametrize("wrong", [0, -1, 1.5, "2", True])
def test_numbers_that_are_none(wrong):
    with pytest.raises(ValueError, match="threads must be a number of threads"):
        Forecaster("naive", threads=wrong)


def test_two_python_threads_leave_what_they_found():
    def work():
        for _ in range(5):
            Forecaster("naive", threads=1).fit(frame()).predict(1)

    workers = [threading.Thread(target=work) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert torch.get_num_threads() == 3
