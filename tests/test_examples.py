"""Every example runs, in reduced size, and every page of the guide does what it says."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DATA = Path(os.environ.get("SEQLATENT_DATA", ROOT.parent / "shared" / "data"))
EXAMPLES = {
    "nile.py": ["--out", "nile.png"],
    "own_model.py": [],
    "own_forecaster.py": [],
    "own_prior.py": [],
    "three_inferences.py": [],
    "jsb_chorales.py": ["--quiet"],
    "covariates.py": ["--out", "covariates.png"],
    "missing_and_irregular.py": ["--out", "imputed.png"],
    "scenarios.py": [],
    "streaming.py": [],
}


def test_every_example_is_listed():
    assert {path.name for path in (ROOT / "examples").glob("*.py")} == set(EXAMPLES)


@pytest.mark.slow
@pytest.mark.parametrize("name", EXAMPLES)
def test_example_runs(name, tmp_path):
    if name == "jsb_chorales.py" and not (DATA / "jsb_chorales.parquet").exists():
        pytest.skip(f"the chorales are not in {DATA}; set SEQLATENT_DATA to their folder")
    environment = {
        **os.environ,
        "SEQLATENT_FAST": "1",
        "SEQLATENT_DATA": str(DATA),
        "MPLBACKEND": "agg",
    }
    command = [sys.executable, str(ROOT / "examples" / name), *EXAMPLES[name]]
    done = subprocess.run(
        command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout
    if "--out" in EXAMPLES[name]:
        assert (tmp_path / EXAMPLES[name][-1]).stat().st_size > 10_000


@pytest.mark.slow
@pytest.mark.parametrize(
    "page",
    [
        "docs/guide/data.md",
        "docs/guide/models.md",
        "docs/guide/own.md",
        "docs/guide/training.md",
        "docs/guide/exact.md",
        "docs/index.md",
        "docs/guide/files.md",
        "docs/guide/forecasting.md",
        "docs/guide/evaluation.md",
        "docs/guide/components.md",
        "docs/guide/prior.md",
        "README.md",
    ],
)
def test_page_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    text = (ROOT / page).read_text()
    names = {"__name__": "guide"}
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(code, page, "exec"), names)
