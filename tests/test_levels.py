"""The package is a ladder: a module imports only from lower levels, and no file in a circle."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "seqlatent"

LEVELS = (
    (
        "capacity",
        "derivatives",
        "files",
        "recurrence",
        "linalg",
        "networks",
        "scales",
        "sizes",
        "spelling",
        "fused",
    ),
    ("sequences", "distributions", "kalman", "hmm", "scores"),
    ("chain", "memory", "switching"),
    ("transitions", "emissions"),
    ("inference",),
    ("model",),
    ("objectives",),
    ("training", "diagnostics"),
    ("zoo", "prior"),
    ("amortised",),
    ("recurrent",),
    ("datasets",),
    ("forecasting",),
    ("testing",),
)
LEVEL = {name: level for level, names in enumerate(LEVELS) for name in names}

# The rooms of forecasting, bottom to top; a file of engines that is not named belongs to `engines`.
ROOMS = (
    ("errors",),
    ("values", "threads", "storage"),
    ("time",),
    ("arguments",),
    ("frames",),
    ("features",),
    ("engines",),
    ("engines.baselines", "engines.structural"),
    ("engines.amortised", "engines.latent"),
    ("engines.recurrent",),
    ("engines.registry", "engines.time_limit"),
    ("last_rows", "memory_limits", "results"),
    ("metrics", "plots"),
    ("fitted",),
    ("observing",),
    ("diagnosis",),
    ("backtest", "inspection", "persistence"),
    ("forecaster",),
    ("cli",),
    ("__main__",),
)
ROOM = {name: level for level, names in enumerate(ROOMS) for name in names}

# (importer, imported) on one level: the backbones are built on the recurrence, and backward passes
# written by hand say how often they can be differentiated.
NEIGHBOURS = {("networks", "recurrence")} | {
    (name, "derivatives") for name in ("recurrence", "linalg", "networks", "fused")
}

# What a user of the core need not wait for: imported inside the functions that need it.
LAZY = {"pandas", "matplotlib", "statsmodels", "torchdiffeq", "scipy"}
CORE = {name for name, level in LEVEL.items() if level < LEVEL["datasets"]}


def sources(root: Path = PACKAGE) -> list[Path]:
    """Returns the package's modules, those behind the two links too."""
    found = [*root.glob("*.py")]
    for folder in root.iterdir():
        if folder.is_dir():
            found += folder.rglob("*.py")
    return sorted(path for path in found if path.name != "conftest.py")


def dotted(path: Path, root: Path = PACKAGE) -> list[str]:
    """Returns the parts of the dotted name of the package that a file lies in."""
    return ["seqlatent", *path.relative_to(root).parent.parts]


def unit(path: Path, root: Path = PACKAGE) -> str:
    """Returns the name under which the table knows a file: its own, or that of its first folder."""
    return path.relative_to(root).with_suffix("").parts[0]


def at_import(tree: ast.AST) -> Iterator[ast.stmt]:
    """Yields the imports that run with the module: none of a function's or a type checker's."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield node
        elif isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            for other in node.orelse:
                yield from at_import(ast.Module([other], []))
        elif not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
            yield from at_import(node)


def everywhere(tree: ast.AST) -> Iterator[ast.stmt]:
    """Yields every import of a module, inside functions too."""
    return (node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom))


def imported(nodes: Iterator[ast.stmt], package: list[str]) -> set[str]:
    """Returns absolute dotted names; `from a import b` counts as `a.b`, whatever b is."""
    names = set()
    for node in nodes:
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            base = [*base, *([node.module] if node.module else [])]
            names |= {".".join([*base, alias.name]) for alias in node.names}
    return names


def violations(path: Path, root: Path = PACKAGE) -> list[str]:
    """Returns one sentence per import of a file that does not point down the ladder."""
    tree = ast.parse(path.read_text())
    here = unit(path, root)
    found = []
    for name in sorted(imported(everywhere(tree), dotted(path, root))):
        parts = name.split(".")
        if parts[0] in ("datasets", "forecasting"):
            found.append(
                f"{path.name} imports {name}, a folder that is importable as seqlatent.{name} only"
            )
        if parts[0] != "seqlatent" or len(parts) == 1 or parts[1] == "__version__":
            continue
        there = parts[1]
        if there == here or (here, there) in NEIGHBOURS:
            continue
        if there not in LEVEL:
            found.append(
                f"{path.name} imports {name}, which the table of levels does not know: "
                "import it from the module that defines it"
            )
        elif LEVEL[there] >= LEVEL[here]:
            found.append(f"{here} (level {LEVEL[here]}) imports {there} (level {LEVEL[there]})")
    return found


def module_of(path: Path, root: Path = PACKAGE) -> str:
    """Returns the dotted name of a file."""
    parts = ["seqlatent", *path.relative_to(root).with_suffix("").parts]
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def room(module: str) -> str:
    """Returns the room of a module of forecasting."""
    parts = module.split(".")[2:]
    inner = ".".join(parts[:2])
    return inner if inner in ROOM else parts[0]


def graph(root: Path = PACKAGE) -> dict[str, set[str]]:
    """Returns which files import which, those of types and functions included."""
    files = {module_of(path, root): path for path in sources(root)}
    found = {}
    for module, path in files.items():
        names = imported(everywhere(ast.parse(path.read_text())), dotted(path, root))
        within = {name if name in files else name.rpartition(".")[0] for name in names}
        found[module] = (within & files.keys()) - {module}
    return found


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Returns files that import one another in a circle, or none."""
    left = {module: set(others) for module, others in edges.items()}
    while True:
        free = {module for module, others in left.items() if not others}
        if not free:
            return sorted(left)
        left = {m: others - free for m, others in left.items() if m not in free}


MODULES = [path for path in sources() if path != PACKAGE / "__init__.py"]
CORE_FILES = [path for path in sources() if unit(path) in CORE | {"__init__"}]


def test_every_module_has_a_level():
    unknown = {unit(path) for path in MODULES} - LEVEL.keys()
    assert not unknown, f"expected every module in LEVELS, found {unknown} outside: give it a level"


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_a_module_imports_only_from_lower_levels(path):
    assert not violations(path)


@pytest.mark.parametrize("path", CORE_FILES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_core_imports_nothing_slow(path):
    roots = {name.split(".")[0] for name in imported(at_import(ast.parse(path.read_text())), [])}
    assert not roots & LAZY


def test_the_package_itself_leaves_dataframes_to_those_who_ask():
    init = PACKAGE / "__init__.py"
    names = imported(at_import(ast.parse(init.read_text())), ["seqlatent"])
    assert not {name for name in names if name.split(".")[1:2] in (["datasets"], ["forecasting"])}


@pytest.mark.parametrize(
    ("file", "text", "expected"),
    [
        (
            "recurrence.py",
            "from seqlatent.chain import Chain",
            "recurrence (level 0) imports chain",
        ),
        ("recurrence.py", "from .chain import Chain", "imports chain (level 2)"),
        ("recurrence.py", "from . import chain", "imports chain (level 2)"),
        ("recurrence.py", "import seqlatent.chain as c", "imports chain (level 2)"),
        ("recurrence.py", "def f():\n    from seqlatent import chain", "imports chain (level 2)"),
        ("transitions/linear.py", "from ..inference.exact import Kalman", "imports inference"),
        (
            "transitions/linear.py",
            "from seqlatent.emissions import Emission",
            "emissions (level 3)",
        ),
        ("chain.py", "from seqlatent import Sequences", "does not know"),
        (
            "model.py",
            "import datasets.synthetic",
            "importable as seqlatent.datasets.synthetic only",
        ),
    ],
)
def test_the_test_sees_a_wrong_import(tmp_path, file, text, expected):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    (found,) = violations(path, tmp_path)
    assert expected in found


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("networks.py", "from seqlatent.recurrence import linear_recurrence"),
        ("chain.py", "from .sequences import Context\nimport torch"),
        (
            "transitions/linear.py",
            "from .structural import LocalLevel\nfrom ..linalg import factor",
        ),
    ],
)
def test_the_test_lets_a_right_import_pass(tmp_path, file, text):
    path = tmp_path / file
    path.parent.mkdir(exist_ok=True)
    path.write_text(text)
    assert not violations(path, tmp_path)


def test_a_lazy_import_is_not_an_import_of_the_module():
    tree = ast.parse(
        "from typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import pandas\n"
        "try:\n    import scipy\nexcept ImportError:\n    pass\n"
        "class A:\n    import pandas\n    def f(self):\n        import torchdiffeq\n"
    )
    assert imported(at_import(tree), []) == {"typing.TYPE_CHECKING", "pandas", "scipy"}


def test_files_import_in_no_circle():
    # a package gives out what its files hold, and files know their package by name only
    edges = {m: o for m, o in graph().items() if m != "seqlatent"}
    found = circle({m: {x for x in o if x in edges} for m, o in edges.items()})
    assert not found


def test_rooms_of_forecasting_import_only_from_lower_ones():
    prefix, wrong = "seqlatent.forecasting.", []
    for module, others in graph().items():
        if not module.startswith(prefix):
            continue
        here = room(module)
        assert here in ROOM, f"expected every room in ROOMS, found {here} outside: give it a level"
        for other in (x for x in others if x.startswith(prefix)):
            there = room(other)
            if there != here and ROOM[there] >= ROOM[here]:
                wrong.append(f"{module} imports {other}")
    assert not wrong


def given_out(tree: ast.Module) -> set[str] | None:
    """Returns the names in a module's ``__all__``, or None where it has none."""
    for node in tree.body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "__all__":
            return set(ast.literal_eval(node.value))
    return None


def kept_inside(root: Path = PACKAGE) -> list[str]:
    """Returns a sentence for each name that one room takes from another without its leave."""
    files = {module_of(path, root): path for path in sources(root)}
    trees = {module: ast.parse(path.read_text()) for module, path in files.items()}
    found = []
    for module, tree in trees.items():
        for node in everywhere(tree):
            there = node.module if isinstance(node, ast.ImportFrom) else None
            if there not in files or files[there].parent == files[module].parent != root:
                continue
            allowed = given_out(trees[there])
            for alias in node.names if allowed is not None else ():
                inner = f"{there}.{alias.name}" in files or alias.name == "__version__"
                # a package gives out what its own files share
                own = files[module].name == "__init__.py" and there.startswith(f"{module}.")
                if alias.name not in allowed and not inner and not own:
                    found.append(f"{module} imports {alias.name}, which {there} keeps to its room")
    return found


def test_a_room_imports_from_another_what_that_gives_out():
    assert not kept_inside()


def test_a_name_that_a_room_keeps_is_seen(tmp_path):
    for name, text in {
        "hmm/paths.py": '__all__ = ["draw"]\ndef draw(): ...\ndef step(): ...',
        "hmm/filter.py": "from seqlatent.hmm.paths import step",
        "zoo/exact.py": "from seqlatent.hmm.paths import draw, step",
    }.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    (found,) = kept_inside(tmp_path)
    assert found == "seqlatent.zoo.exact imports step, which seqlatent.hmm.paths keeps to its room"


def test_every_folder_says_what_lives_in_it():
    folders = {path.parent for path in sources() if path.parent != PACKAGE / "seqlatent"}
    assert not [folder for folder in folders if not (folder / "README.md").exists()]


def test_a_circle_is_seen():
    assert circle({"a": {"b"}, "b": {"c"}, "c": {"a"}, "d": {"a"}}) == ["a", "b", "c", "d"]
    assert not circle({"a": {"b"}, "b": {"c"}, "c": set()})
