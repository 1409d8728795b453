"""`eqm`: finds the command, reads its options, runs it, and turns failures into one sentence."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import shutil
import signal
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, redirect_stderr
from functools import partial, wraps
from pathlib import Path
from types import FrameType
from typing import Any

import tyro

import eqm
from eqm.cli.detect_kinds import of_kind
from eqm.cli.messages import TYPED, one_line, plain_messages, sentence_of
from eqm.cli.options import check_numbers, typed_names
from eqm.cli.output import check_options
from eqm.cli.parser import rules
from eqm.files import DISK_ERRORS, KINDS, is_of_kind, printable
from eqm.recipes import DESCRIPTIONS, find_recipe
from eqm.registry import load_plugin, lookup, names

LOG = logging.getLogger(__name__)
NARROWEST = 50
"""Columns of text; tyro does not end in fewer than some ten."""
NONE_IF_EMPTY = ("stop", "init-from", "--prompt")
"""Options that may have an empty value."""
OVERVIEW = """\
usage: eqm COMMAND ...

eqm trains one gradient field and generates, restores, detects and composes with it.

Examples:
  eqm demo                                              train on digits and show every use: two minutes
  eqm sample fashion-mnist --labels sneaker             draw sneakers with a model that comes with eqm
  eqm train folder --data.path photos --output my-run   train on your own pictures
  eqm denoise fashion-mnist noisy.png                   remove noise of unknown strength
  eqm detect fit good-parts --output runs/screw         make a detector of defects from photographs of good parts
  eqm detect run runs/screw new-parts --output found    find defects: scores, overlays and masks

Commands (`eqm COMMAND --help` explains one):
{commands}

Options for every command:
  --import FILE_OR_MODULE   first run a Python file or module that registers parts of your own;
                            may be given several times
  --text ENCODER            open the text encoder of a model, such as transformers:FOLDER
  --version                 print the version
  --tyro-print-completion bash|zsh|fish|tcsh
                            print a completion script, for example
                            `eqm --tyro-print-completion bash > ~/.local/share/bash-completion/completions/eqm`
"""


STOPPED: list[int] = []
"""The signals that came."""


def stop(number: int, frame: FrameType | None) -> None:
    """Returns nothing; notes a signal and raises KeyboardInterrupt. It is a handler of signals."""
    STOPPED.append(number)
    raise KeyboardInterrupt


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command.

    0 is success, 1 is success but for pictures that could not be read, 2 is input that cannot be used, 130 is
    Ctrl-C and 143 is SIGTERM. A failure is one sentence on standard error. EQM_TRACEBACK=1 in the environment
    adds the traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    # On CUDA nearly all work is in bfloat16, so float32 speed does not matter.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    try:
        with plain_messages():
            status = _run(list(sys.argv[1:] if arguments is None else arguments))
        if sys.stdout is not None:
            sys.stdout.flush()  # a full disk is said here
    except KeyboardInterrupt as interrupt:
        return _stopped(str(interrupt))
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: print nothing more
        return 1
    except Exception as error:  # one sentence; EQM_TRACEBACK=1 shows where it came from
        if os.environ.get("EQM_TRACEBACK"):
            raise
        if STOPPED:  # a library may raise something else when it is interrupted
            return _stopped()
        if isinstance(error, OSError) and error.errno in DISK_ERRORS:
            sys.stdout = None  # it may be what is full
        return _fail(sentence_of(error), 2)
    return status


def _run(arguments: list[str]) -> int:
    TYPED.clear()
    arguments, plugins = _taken(arguments, "--import")
    arguments, texts = _taken(arguments, "--text")
    _check_arguments(arguments)
    for plugin in plugins:
        load_plugin(plugin)
    if texts:
        from eqm.text import open_text

        for text in texts:
            open_text(text)
    status = None
    try:
        Path.cwd()
    except FileNotFoundError:
        raise ValueError("the current folder was removed: change to another folder") from None
    arguments = of_kind(_joined(arguments))
    name = arguments[0] if arguments else "--help"
    if name == "--version":
        print(f"eqm {eqm.__version__}")
    elif name in ("-h", "--help"):
        width = max(map(len, names("command")))
        lines = (f"  {_typed(name):<{width}}  {_first_line(name)}" for name in names("command"))
        print(OVERVIEW.format(commands="\n".join(lines)), end="")
    elif name.startswith("--tyro-"):
        commands = {name: lookup("command", name) for name in names("command")}
        with rules():
            tyro.extras.subcommand_cli_from_dict(commands, prog="eqm", args=arguments)
    elif name.startswith("-"):
        raise ValueError(f"expected a command first; got {name}: `eqm --help` lists the commands")
    else:
        command, rest, networks = lookup("command", name), arguments[1:], list[str]()
        description = None
        TYPED.update(typed_names(command))
        # tyro keeps the line breaks inside the help of an option
        command.__doc__ = re.sub(r"\n {8}(?=\S)", " ", inspect.getdoc(command) or "")
        later = _later(command)
        if name == "train":
            rest, networks = _taken(rest, "--model")
            if rest and not rest[0].startswith("-"):
                recipe, *rest = rest
                later = partial(later, config=find_recipe(recipe))
                name, description = f"train {recipe}", DESCRIPTIONS[recipe]
        with rules(networks[-1] if networks else None), _plain_refusal():
            call = tyro.cli(
                later,
                prog=f"eqm {_typed(name)}",
                args=rest,
                console_outputs=os.environ.get("RANK", "0") == "0",
                description=description,
                config=(
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.CascadeSubcommandArgs,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
        options = inspect.signature(command).bind(*call.args, **call.keywords)
        options.apply_defaults()
        check_numbers(command, options.arguments)
        check_options(options.arguments)
        status = call()
    return status if isinstance(status, int) else 0


def _joined(arguments: list[str]) -> list[str]:
    """The arguments with two words that name a command, such as `detect fit`, as one, `detect-fit`.

    Where the second word is the folder of a model, such as `run`, and the third is none, it stays an argument,
    with a warning."""
    if len(arguments) < 2 or (name := "-".join(arguments[:2])) not in names("command"):
        return arguments
    second, *rest = arguments[1:]
    if _is_model(second) and not any(map(_is_model, rest[:1])):
        LOG.warning(
            "%s is read as the model in the folder %s, not as a command: write eqm %s for the command",
            *(second, second, name),
        )
        return arguments
    return [name, *rest]


def _is_model(path: str) -> bool:
    return any(is_of_kind(Path(path), kind) for kind in KINDS)


def _typed(name: str) -> str:
    """The name of a command as it is typed: `detect fit` for detect-fit."""
    first, _, second = name.partition("-")
    return f"{first} {second}" if second and first in names("command") else name


def _later(command: Callable[..., Any]) -> Callable[..., partial[Any]]:
    """A function with the arguments of the command, that only returns the call."""

    @wraps(command)
    def later(*arguments: Any, **options: Any) -> partial[Any]:
        return partial(command, *arguments, **options)

    return later


@contextmanager
def _plain_refusal() -> Iterator[None]:
    """Prints what tyro says of wrong options without the control characters that they hold."""
    words = io.StringIO()
    try:
        with redirect_stderr(words):
            yield
    finally:
        for line in words.getvalue().split("\n")[:-1]:
            print(printable(line), file=sys.stderr)


def _check_arguments(arguments: list[str]) -> None:
    """Raises ValueError for an empty argument, and warns of an option that is given twice."""
    seen: set[str] = set()
    option = ""
    for argument in arguments:
        if argument == "--":
            break
        value = argument
        if argument.startswith("--"):
            option, equals, value = argument.replace("_", "-").partition("=")
            value = value if equals else option
            if option in seen and option != "--prompt":
                LOG.warning("%s was given twice: the last one counts", option)
            seen.add(option)
        if not value and not option.endswith(NONE_IF_EMPTY):
            raise ValueError(
                f"an argument is empty{f', after {option}' if option else ''}: check the quotes and the variable"
            )


def _taken(arguments: list[str], option: str) -> tuple[list[str], list[str]]:
    """The arguments without every `option VALUE` and `option=VALUE`, and the values."""
    rest: list[str] = []
    values: list[str] = []
    left = iter(arguments)
    for argument in left:
        if argument == "--":
            return [*rest, argument, *left], values
        if argument.startswith(f"{option}="):
            values.append(argument.partition("=")[2])
        elif argument == option:
            try:
                values.append(next(left))
            except StopIteration:
                raise ValueError(f"{option} needs a value after it") from None
        else:
            rest.append(argument)
    return rest, values


def _first_line(command: str) -> str:
    text = inspect.getdoc(lookup("command", command)) or ""
    return text.partition("\n")[0].partition(": `")[0].rstrip(".") + "."


def _stopped(sentence: str = "") -> int:
    terminated = bool(STOPPED) and STOPPED[-1] != signal.SIGINT
    return _fail(
        sentence or ("terminated" if terminated else "interrupted"), 143 if terminated else 130
    )


def _fail(sentence: str, status: int) -> int:
    if "RANK" in os.environ:
        from eqm.train.distributed import speaks

        if not speaks():
            return status
    print(f"eqm: {one_line(sentence)}", file=sys.stderr)
    return status
