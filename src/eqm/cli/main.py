"""`eqm`: finds the command, reads its options, runs it, and turns failures into one sentence."""

from __future__ import annotations

import inspect
import io
import logging
import os
import re
import shutil
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import partial

import tyro

import eqm
from eqm.cli.parser import RefusedError, rules
from eqm.recipes import DESCRIPTIONS, find_recipe
from eqm.registry import load_plugin, lookup, names

NARROWEST = 50
"""Columns of text; tyro does not end in fewer than some ten."""
OVERVIEW = """\
usage: eqm COMMAND ...

eqm trains one gradient field and generates, restores, detects and composes with it.

Examples:
  eqm demo                                              train on digits and show every use: two minutes
  eqm sample fashion-mnist --labels sneaker             draw sneakers with a model that comes with eqm
  eqm train folder --data.path photos --output my-run   train on your own pictures
  eqm denoise fashion-mnist noisy.png                   remove noise of unknown strength
  eqm detect fashion-mnist a.png b.png                  find pictures unlike the training data

Commands (`eqm COMMAND --help` explains one):
{commands}

Options for every command:
  --import FILE_OR_MODULE   first run a Python file or module that registers parts of your own;
                            may be given several times
  --version                 print the version
  --tyro-print-completion bash|zsh|fish|tcsh
                            print a completion script, for example
                            `eqm --tyro-print-completion bash > ~/.local/share/bash-completion/completions/eqm`
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """The exit status of a command: 0 for success, 2 for input that cannot be used, 130 for Ctrl-C.

    A failure is one sentence on standard error. EQM_TRACEBACK=1 in the environment adds the traceback.
    """
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names need not be UTF-8
    if shutil.get_terminal_size().columns < NARROWEST:
        os.environ["COLUMNS"] = str(NARROWEST)
    # On CUDA nearly all work is in bfloat16, so float32 speed does not matter.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    try:
        with _messages_printed():
            _run(list(sys.argv[1:] if arguments is None else arguments))
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", 130)
    except BrokenPipeError:
        sys.stdout = None  # the reader has gone: print nothing more
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, RefusedError) as error:
        if os.environ.get("EQM_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__, 2)
    return 0


class _Printer(logging.Handler):
    """Prints each sentence once on standard error: information as a note, others as a warning."""

    def __init__(self) -> None:
        super().__init__()
        self.printed: set[str] = set()

    def emit(self, record: logging.LogRecord) -> None:
        kind = "note" if record.levelno < logging.WARNING else "warning"
        sentence = f"{kind}: {' '.join(record.getMessage().split())}"
        if sentence not in self.printed:
            self.printed.add(sentence)
            print(sentence, file=sys.stderr)


@contextmanager
def _messages_printed() -> Iterator[None]:
    """Within it, warnings of eqm and notes about data are printed; of several processes, by the first."""
    printer, everything, data = _Printer(), logging.getLogger("eqm"), logging.getLogger("eqm.data")
    level = data.level
    everything.addHandler(printer)
    if os.environ.get("RANK", "0") == "0":
        data.setLevel(logging.INFO)
    try:
        yield
    finally:
        data.setLevel(level)
        everything.removeHandler(printer)


def _run(arguments: list[str]) -> None:
    arguments, plugins = _taken(arguments, "--import")
    for plugin in plugins:
        load_plugin(plugin)
    name = arguments[0] if arguments else "--help"
    if name == "--version":
        print(f"eqm {eqm.__version__}")
    elif name in ("-h", "--help"):
        width = max(map(len, names("command")))
        lines = (f"  {name:<{width}}  {_first_line(name)}" for name in names("command"))
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
        # tyro keeps the line breaks inside the help of an option
        command.__doc__ = re.sub(r"\n {8}(?=\S)", " ", inspect.getdoc(command) or "")
        if name == "train":
            rest, networks = _taken(rest, "--model")
            if rest and not rest[0].startswith("-"):
                recipe, *rest = rest
                command = partial(command, config=find_recipe(recipe))
                name, description = f"train {recipe}", DESCRIPTIONS[recipe]
        with rules(networks[-1] if networks else None):
            tyro.cli(
                command,
                prog=f"eqm {name}",
                args=rest,
                description=description,
                config=(
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.CascadeSubcommandArgs,
                    tyro.conf.FlagCreatePairsOff,
                ),
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


def _fail(sentence: str, status: int) -> int:
    print(f"eqm: {sentence}", file=sys.stderr)
    return status
