"""Parts that the commands share: the app, the options declared in `moreish.options`, and JSON
output."""

import functools
import inspect
import json
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import NoneType
from typing import Annotated, Any, get_args

import typer
from typer import Argument, Option
from typer.core import TyperArgument, TyperCommand, TyperGroup
from typer.models import ArgumentInfo

from moreish.errors import MoreishError
from moreish.options import OPTIONS, TYPES, flag, panel, parse_weights
from moreish.utils.files import user_path

Command = Callable[..., Any]


class Stopped(Exception):  # noqa: N818 (not an error)
    """The user pressed Ctrl-C, or the reader of a pipe exited."""


METAVARS = {bool: "", int: "N", float: "X", str: "TEXT", Path: "PATH"}
"""How help names the values of options; a flag takes none."""


class _PlainParams:
    """Shows the parameters of a command in help as other programs do, without Python's types."""

    def get_params(self, ctx: Any) -> list[Any]:
        params: list[Any] = super().get_params(ctx)  # type: ignore[misc]
        for param in params:
            if isinstance(param, TyperArgument):  # its name says enough
                param.display_type_rich = lambda ctx: None  # type: ignore[method-assign]
            elif param.metavar is None:
                param.metavar = METAVARS.get(param.type_descriptor.annotation)
        return params


class PlainCommand(_PlainParams, TyperCommand):
    """A command."""


class CommandGroup(_PlainParams, TyperGroup):
    """Raises `Stopped` where Typer would exit without a message, so that `moreish.cli.main` can
    print one."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except (KeyboardInterrupt, BrokenPipeError) as cause:
            raise Stopped from cause


class App(typer.Typer):
    """An application whose commands are `PlainCommand`s."""

    def command(  # type: ignore[override]
        self, name: str | None = None, **kwargs: Any
    ) -> Callable[[Command], Command]:
        return super().command(name, cls=PlainCommand, **kwargs)


app = App(
    cls=CommandGroup,
    name="moreish",
    help="Train a language model on any text, on this machine, and generate more of it.",
    no_args_is_help=True,
    add_completion=True,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
    context_settings={"help_option_names": ["-h", "--help"]},
    epilog="Run moreish COMMAND --help for the options of a command. Start with: moreish train",
)

Json = Annotated[bool, Option("--json", help="Print one JSON object on standard output.")]
Overwrite = Annotated[bool, Option("--overwrite", help="Replace what is already at --out.")]
Set = Annotated[
    list[str] | None,
    Option(
        "--set",
        metavar="KEY=VALUE",
        help="Change any setting, e.g. train.lr=0.001 (docs/settings.md lists all).",
    ),
]
Recipe = Annotated[
    Path | None, Option("--config", metavar="FILE", help="Read settings from a TOML recipe.")
]
SOURCE_HELP = (
    "Built-in data sets, files (text, tables, documents), folders of files, a folder made by "
    "moreish prepare, or - for standard input (default names)."
)
Sources = Annotated[list[str] | None, Argument(metavar="[SOURCE]...", help=SOURCE_HELP)]


def read_sources(sources: list[str] | None) -> dict[str, Any]:
    """Return the sources of a command line as the Python functions take them."""
    if not sources:
        return {}
    if sources == ["-"]:
        return {"text": read_standard_input()}
    if "-" in sources:
        raise MoreishError("- (standard input) cannot be combined with other sources")
    if len(sources) == 1:
        return {"source": sources[0]}
    return {"source": [Path(source) for source in sources]}


def read_standard_input() -> str:
    """Return the text of standard input, in UTF-8. Raises MoreishError if it is not text."""
    from moreish.data import decode_chunks, normalize_newlines

    chunks = decode_chunks(sys.stdin.buffer, "utf-8", "standard input")
    return "".join(normalize_newlines(chunks))


@contextmanager
def working(what: str) -> Iterator[None]:
    """Show on a terminal what is being done, until it is done."""
    if not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(what):
        yield


RUNS = Path("runs")
"""The folder of runs that have no other."""


def find_run(name: str | Path) -> Path:
    """Return the folder of a run that is named by its path, or by its name in `runs/`."""
    path = user_path(name)
    return path if path.exists() or not (RUNS / path / "run.json").is_file() else RUNS / path


def trained_at(run: Path) -> float:
    """Return when the weights of a run were written last, in seconds since 1970."""
    weights = run / "model.safetensors"
    return (weights if weights.is_file() else run / "run.json").stat().st_mtime


def newest_run() -> Path:
    """Return the newest run in `runs/`. Raises MoreishError if there is none."""
    found = list(RUNS.glob("*/run.json"))
    if not found:
        raise MoreishError("there is no run in runs/: train one with moreish train, or name one")
    newest = max((path.parent for path in found), key=trained_at)
    sys.stderr.write(f"Run: {newest} (the newest)\n")
    return newest


RunPath = Annotated[
    Path,
    Argument(
        metavar="RUN",
        help="Run folder, e.g. runs/names-gpt (default: the newest in runs/).",
        parser=find_run,
        default_factory=newest_run,
        show_default=False,
    ),
]


def takes_flags(*names: str) -> Callable[[Command], Command]:
    """Add the flags of these options to a command, between its arguments and its own flags; it
    receives those that are set as `**options`, or as keywords of these names."""

    def decorate(command: Command) -> Command:
        own = [
            parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            for name, parameter in inspect.signature(command).parameters.items()
            if parameter.kind is not inspect.Parameter.VAR_KEYWORD and name not in names
        ]
        arguments = [p for p in own if isinstance(p.annotation.__metadata__[0], ArgumentInfo)]
        flags = [_parameter(name) for name in names]
        rest = [p for p in own if p not in arguments]

        @functools.wraps(command)
        def call(**values: Any) -> Any:
            options = explicit_options({name: values.pop(name) for name in names})
            try:
                return command(**values, **options)
            except MoreishError as error:
                error.args = (name_flag(str(error), options),)
                raise

        call.__signature__ = inspect.Signature([*arguments, *flags, *rest])  # type: ignore[attr-defined]
        return call

    return decorate


def name_flag(message: str, options: Mapping[str, Any]) -> str:
    """Name the flag that set a setting, where a message begins with the setting.

    >>> name_flag("setting train.minutes=0.0: give more", {"minutes": 0.0})
    '--minutes 0: give more'
    """
    for name, value in options.items():
        setting = OPTIONS[name].setting
        spelled = setting if "." in setting else f"run.{setting}"
        if message.startswith((f"setting {spelled}=", f"setting {setting}=")):
            shown = f"{value:g}" if isinstance(value, float) else value
            return f"{flag(name)} {shown}: {message.partition(': ')[2]}"
    return message


def _parameter(name: str) -> inspect.Parameter:
    """Return the Typer parameter of an option; `moreish.config` checks its value."""
    option = OPTIONS[name]
    kinds = {kind for kind in get_args(TYPES[name]) if kind is not NoneType}
    numbers = set() if str in kinds else kinds & {int, float}
    kind: Any = bool if bool in kinds else next(iter(numbers), str) | None
    if option.flag == "--weight":
        kind = list[str] | None
    info = Option(flag(name), help=option.help, metavar=option.metavar, rich_help_panel=panel(name))
    return inspect.Parameter(
        name,
        inspect.Parameter.KEYWORD_ONLY,
        default=False if kind is bool else None,
        annotation=Annotated[kind, info],
    )


def explicit_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that were set on the command line, as the Python functions take them."""
    values = {k: v for k, v in options.items() if v is not None and v is not False}
    parsers: dict[str, Callable[[Any], Any]] = {
        "weights": parse_weights,
        "separator": unescape,
        "lr": number_or_word,
        "batch_size": number_or_word,
        "init_from": lambda name: name if name.startswith("hf:") else str(find_run(name)),
    }
    return {k: parsers[k](v) if k in parsers else v for k, v in values.items()}


def number_or_word(text: str) -> int | float | str:
    """Return the number that a text is, or the text itself.

    >>> number_or_word("32"), number_or_word("1e-3"), number_or_word("auto")
    (32, 0.001, 'auto')
    """
    for kind in (int, float):
        with suppress(ValueError):
            return kind(text)
    return text


def unescape(text: str) -> str:
    r"""Replace the escapes `\n`, `\t` and `\\` of a text from the command line.

    >>> unescape(r"\n--\n")
    '\n--\n'
    """
    characters = {"n": "\n", "t": "\t", "\\": "\\"}
    return re.sub(r"\\([nt\\])", lambda match: characters[match[1]], text)


def os_error_message(error: OSError) -> str:
    """Return what the system says about an error, and the file."""
    return f"{error.strerror or error}{f': {error.filename}' if error.filename else ''}"


def print_json(**fields: Any) -> None:
    """Print one JSON object on standard output, in ASCII where that is not UTF-8; infinity and NaN,
    which JSON does not have, are null."""
    from pydantic_core import to_jsonable_python

    is_utf8 = (sys.stdout.encoding or "").lower().startswith("utf")
    tree = to_jsonable_python(fields, inf_nan_mode="null")
    sys.stdout.write(json.dumps(tree, ensure_ascii=not is_utf8) + "\n")
