"""What `import seqlatent` costs: torch, and nothing else that is slow."""

import json
import subprocess
import sys

import pytest

LAZY = ["pandas", "matplotlib", "statsmodels", "torchdiffeq", "scipy"]


@pytest.fixture(scope="module")
def loaded() -> dict:
    # A fresh interpreter, free of pytest's import hook; what torch loads is its own affair.
    code = (
        "import json, sys, torch; before = set(sys.modules); threads = torch.get_num_threads();"
        "state = torch.get_rng_state(); import seqlatent;"
        "print(json.dumps({'new': sorted(set(sys.modules) - before),"
        "'threads': torch.get_num_threads() == threads,"
        "'dtype': torch.get_default_dtype() == torch.float32,"
        "'validation': torch.distributions.Distribution._validate_args,"
        "'state': bool((torch.get_rng_state() == state).all())}))"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("package", LAZY)
def test_import_pulls_in_nothing_slow(loaded, package):
    pulled = [name for name in loaded["new"] if name.split(".")[0] == package]
    assert not pulled


@pytest.mark.parametrize("what", ["threads", "dtype", "validation", "state"])
def test_import_changes_nothing_in_torch(loaded, what):
    assert loaded[what] is True
