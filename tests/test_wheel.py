"""What is installed: the two top-level folders inside the package, and nothing beside it."""

import re
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytest.importorskip("build")
pytest.importorskip("hatchling")


def build(out: Path, *options: str) -> Path:
    """Builds without isolation, hence without a network, and returns where the result lies."""
    command = [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(out), *options]
    run = subprocess.run([*command, str(ROOT)], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    return out


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    out = build(tmp_path_factory.mktemp("wheel"), "--wheel")
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        yield archive


@pytest.fixture(scope="module")
def names(wheel) -> set[str]:
    return set(wheel.namelist())


@pytest.mark.parametrize("folder", ["datasets", "forecasting"])
def test_the_linked_folders_are_inside_as_real_files(wheel, names, folder):
    expected = {f"seqlatent/{path.relative_to(ROOT)}" for path in (ROOT / folder).rglob("*.py")}
    assert f"seqlatent/{folder}/__init__.py" in expected
    assert expected <= names
    for name in expected:
        assert wheel.read(name) == (ROOT / name.removeprefix("seqlatent/")).read_bytes()


def test_the_weights_of_the_networks_are_inside(wheel):
    name = "seqlatent/amortised/weights.safetensors"
    assert wheel.read(name) == (ROOT / name).read_bytes()


def test_a_wheel_is_small(wheel):
    assert sum(file.compress_size for file in wheel.infolist()) < 10 * 2**20


def test_nothing_is_installed_beside_the_package(names):
    roots = {name.split("/")[0] for name in names}
    assert len(roots) == 2
    assert "seqlatent" in roots
    assert any(re.fullmatch(r"seqlatent-.*\.dist-info", root) for root in roots)


def test_types_are_inside_and_tests_are_not(names):
    assert "seqlatent/py.typed" in names
    assert not [name for name in names if re.search(r"conftest|/test_|/tests/", name)]
    assert not [name for name in names if "__pycache__" in name]
    assert any(name.endswith("/licenses/LICENSE") for name in names)


def test_every_module_of_the_checkout_is_inside_once(wheel, names):
    assert len(wheel.namelist()) == len(names)
    package = ROOT / "seqlatent"
    expected = {str(path.relative_to(ROOT)) for path in package.rglob("*.py")}
    assert expected - {"seqlatent/conftest.py"} <= names


def test_a_wheel_built_from_the_sdist_is_the_same(names, tmp_path):
    out = build(tmp_path)  # the sdist, and the wheel from it
    with tarfile.open(next(out.glob("*.tar.gz"))) as archive:
        assert not [member.name for member in archive if member.issym() or member.islnk()]
    with zipfile.ZipFile(next(out.glob("*.whl"))) as archive:
        assert set(archive.namelist()) == names


@pytest.mark.parametrize("folder", ["datasets", "forecasting"])
def test_the_links_are_relative(folder):
    link = ROOT / "seqlatent" / folder
    if not link.is_symlink():
        pytest.skip("not a checkout")
    assert link.readlink() == Path("..") / folder
