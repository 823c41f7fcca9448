"""Processes that are killed while they save: `make fuzz` kills as many as one likes."""

import os
import subprocess
import sys

from engines import fitted

KILLS = int(os.environ.get("SEQLATENT_FUZZ", "100")) // 10
# A child saves two models in turns, is killed, and what it leaves is read and saved over.
SCRIPT = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from seqlatent.forecasting import Forecaster

place, kills = Path(sys.argv[1]), int(sys.argv[4])
models = [Forecaster.load(folder) for folder in sys.argv[2:4]]
expected = {model.aliases: model.predict(2) for model in models}
models[0].save(place)
names = sorted(os.listdir(place))
rng = np.random.default_rng(0)
left = []
for kill in range(kills):
    child = os.fork()
    if child == 0:
        while True:
            models[1].save(place)
            models[0].save(place)
    time.sleep(rng.uniform(0, 0.1))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    left.append(len(os.listdir(place)) - len(names))
    found = Forecaster.load(place)
    assert found.predict(2).equals(expected[found.aliases]), kill
    models[0].save(place)
    assert sorted(os.listdir(place)) == names, kill
    assert os.listdir(place.parent) == [place.name], kill
print(sum(n > 0 for n in left), "of", kills, "left something over")
"""


def test_a_process_that_is_killed_leaves_the_old_or_the_new_model(tmp_path):
    folders = [tmp_path / "one", tmp_path / "other"]
    for name, folder in zip(("naive", "ets"), folders, strict=True):
        fitted(name).save(folder)
    place = tmp_path / "models" / "model"
    result = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(place), *map(str, folders), str(KILLS)],
        capture_output=True,
        text=True,
        check=False,
    )
    print(result.stdout)
    assert result.returncode == 0, result.stderr
