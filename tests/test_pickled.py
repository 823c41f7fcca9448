"""A fitted forecaster goes to another process and back, whatever engine is behind it."""

import copy
import multiprocessing
import pickle
from concurrent.futures import ProcessPoolExecutor

import pandas as pd
import pytest
from engines import ENGINES, fitted

OWN = ("own", "short_own")  # another process would have to find their functions


@pytest.mark.parametrize("name", ENGINES)
def test_a_pickled_forecaster_forecasts_the_same(name):
    model = fitted(name)
    expected = model.predict(3, samples=20)
    for found in (pickle.loads(pickle.dumps(model)), copy.deepcopy(model)):
        pd.testing.assert_frame_equal(found.predict(3, samples=20), expected)
        assert found.notes == model.notes


def test_a_forecaster_forecasts_the_same_in_a_fresh_process():
    names = [name for name in ENGINES if name not in OWN]
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        jobs = {name: pool.submit(fitted(name).predict, 3, samples=20) for name in names}
        for name, job in jobs.items():
            expected = fitted(name).predict(3, samples=20)
            pd.testing.assert_frame_equal(job.result(), expected, obj=name)
