"""The structure: imports go one way, through the packages' doors, and nothing unpickles."""

import ast
import functools
from graphlib import TopologicalSorter
from importlib import import_module
from pathlib import Path
from types import ModuleType

import pytest

import moreish

PACKAGE = Path(moreish.__file__).parent

ORDER = [
    "errors",
    "utils",
    "settings",
    "options",
    "python_errors",
    "tokenizers",
    "tasks",
    "data",
    "models",
    "distributed",
    "config",
    "generate",
    "evaluate",
    "runs",
    "training",
    "planning",
    "ui",
    "workflows",
    "convert",
    "reports",
    "figures",
    "api",
    "serve",
    "cli",
]
"""Each may import those before it, and itself."""


def modules() -> dict[str, Path]:
    """Every module of the package by its dotted name; a package is named like its `__init__`."""
    found = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        found[".".join(parts).removesuffix(".__init__")] = path
    return found


MODULES = modules()


@functools.cache
def imported(path: Path) -> list[str]:
    """Modules of ours that a file imports, at the top, in functions or for types only."""
    names = []
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module in MODULES:
            package = import_module(node.module)
            for alias in node.names:
                module = f"{node.module}.{alias.name}"
                is_module = isinstance(vars(package).get(alias.name, package), ModuleType)
                names.append(module if module in MODULES and is_module else node.module)
        elif isinstance(node, ast.Import):
            names += [alias.name for alias in node.names if alias.name in MODULES]
    return names


def place(module: str) -> int:
    """The place of a module's top-level part in `ORDER`."""
    part = module.split(".")[1]
    assert part in ORDER, f"add {part} to ORDER in tests/unit/test_imports.py"
    return ORDER.index(part)


def test_imports_point_upstream() -> None:
    for module, path in MODULES.items():
        if module.count(".") and module != "moreish.__main__":
            late = [
                name for name in imported(path) if name != "moreish" and place(name) > place(module)
            ]
            assert not late, f"{module} imports {late}, which come after it"


def test_there_is_no_import_cycle() -> None:
    """Not even between the modules of one package, inside functions or for types only."""
    graph = {module: set(imported(path)) - {module} for module, path in MODULES.items()}
    TopologicalSorter(graph).prepare()  # raises CycleError


def test_nothing_reaches_past_a_door() -> None:
    """A module imports from another package what its `__init__` exports, and no further: from
    anywhere outside `moreish.data`, `moreish.data` and not `moreish.data.split`. `utils` has no
    door: its modules have nothing to do with each other."""
    for module, path in MODULES.items():
        home = module if path.name == "__init__.py" else module.rpartition(".")[0]
        for name in imported(path):
            shared, rest = [], name.split(".")
            for own in home.split("."):
                if not rest or rest[0] != own:
                    break
                shared.append(rest.pop(0))
            open_to_all = name.startswith("moreish.utils.")
            assert len(rest) <= 1 or open_to_all, f"{module} reaches into {name}"


def test_nothing_unpickles() -> None:
    """No module may run code out of data, except the script of a process of its own, which nothing
    imports."""
    banned = ("import pickle", "torch.load(", "allow_pickle=True", "marshal", "shelve", "yaml")
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "import _unpickle" not in text
        if path.name != "_unpickle.py":
            assert not [word for word in banned if word in text], path


def test_the_tests_notice_what_unpickles() -> None:
    import pickle  # noqa: TID251

    with pytest.raises(RuntimeError, match="something unpickles"):
        pickle.loads(pickle.dumps(Path("x")))  # noqa: S301


def test_a_model_is_a_file_that_can_be_read_in_one_sitting() -> None:
    for path in (PACKAGE / "models").rglob("*.py"):
        assert len(path.read_text().splitlines()) <= 300, path


def test_public_names_exist() -> None:
    """A subpackage with a public name would take its place once it is imported."""
    for name in moreish.__all__:
        assert callable(getattr(moreish, name))
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()
