"""The structure: imports only point upstream."""

import ast
from pathlib import Path

import pytest

import moreish

PACKAGE = Path(moreish.__file__).parent

ORDER = [
    "errors",
    "files",
    "terminal",
    "settings",
    "importing",
    "weights",
    "world",
    "fetch",
    "tokenizers",
    "data",
    "models",
    "config",
    "evaluate",
    "generate",
    "record",
    "run_folder",
    "run",
    "comparison",
    "training",
    "exchange",
    "figures",
    "console",
    "api",
    "plan_lines",
    "ladder",
    "serve",
    "cli",
]
"""Each may import those before it, and itself."""


def module_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """First names below `moreish` that a file imports, wherever in the file it does."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [node.module]
            if node.module == "moreish":
                names = [f"moreish.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        found |= {name.split(".")[1] for name in names if name.startswith("moreish.")}
    return found


def test_imports_point_upstream() -> None:
    for path in PACKAGE.rglob("*.py"):
        module = module_of(path)
        if module in ("__init__", "__main__", "unpickle"):
            continue
        assert module in ORDER, f"say in tests/test_imports.py where {module} belongs"
        allowed = set(ORDER[: ORDER.index(module) + 1])
        assert imports(path) <= allowed, f"{path} looks downstream"


def test_nothing_unpickles() -> None:
    """No path of the package may run code out of data, but for the process that is started for
    it, which nothing imports."""
    banned = ("import pickle", "torch.load(", "allow_pickle=True", "marshal", "shelve", "yaml")
    for path in PACKAGE.rglob("*.py"):
        text = path.read_text()
        assert "import unpickle" not in text
        if path.name != "unpickle.py":
            assert not [word for word in banned if word in text], path


def test_the_tests_notice_what_unpickles() -> None:
    import pickle  # noqa: TID251

    with pytest.raises(RuntimeError, match="something unpickles"):
        pickle.loads(pickle.dumps(Path("x")))  # noqa: S301


def test_models_fit_on_a_screen_or_three() -> None:
    for path in (PACKAGE / "models").glob("*.py"):
        assert len(path.read_text().splitlines()) <= 250, path


def test_public_names_exist() -> None:
    """A subpackage of a public name would take its place once it is imported."""
    for name in moreish.__all__:
        assert callable(getattr(moreish, name))
        assert not (PACKAGE / name).exists()
        assert not (PACKAGE / f"{name}.py").exists()
