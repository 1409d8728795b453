"""`eqm`: the commands, and what their failures look like."""

from __future__ import annotations

import io
import os
import sys
import warnings
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from typing import Any

import tyro
from tyro.constructors import ConstructorRegistry, StructConstructorSpec, StructTypeInfo

from eqm.cli.compose import compose
from eqm.cli.data import data
from eqm.cli.demo import demo
from eqm.cli.denoise import denoise
from eqm.cli.detect import detect
from eqm.cli.ema import ema
from eqm.cli.encode import encode
from eqm.cli.eval import eval_
from eqm.cli.info import info
from eqm.cli.interpolate import interpolate, vary
from eqm.cli.restore import restore
from eqm.cli.sample import sample
from eqm.cli.train import train
from eqm.cli.tune import tune


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command. 0 when it went well, 2 for input that cannot be used, 130 after Ctrl-C.

    Failures are one sentence on standard error; with EQM_TRACEBACK=1 in the environment, where they
    came from as well.
    """
    commands: dict[str, Callable[..., Any]] = {
        "demo": demo,
        "encode": encode,
        "train": train,
        "sample": sample,
        "compose": compose,
        "denoise": denoise,
        "detect": detect,
        "restore": restore,
        "interpolate": interpolate,
        "vary": vary,
        "tune": tune,
        "eval": eval_,
        "info": info,
        "data": data,
        "ema": ema,
    }
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files need not be UTF-8
    # Training and sampling on CUDA are in bfloat16: what is left in float32 is little.
    warnings.filterwarnings("ignore", "TensorFloat32 tensor cores", UserWarning)
    try:
        with _plain_settings():
            tyro.extras.subcommand_cli_from_dict(
                commands,
                prog="eqm",
                description="Equilibrium Matching: one energy landscape, many uses.",
                args=arguments,
                config=(
                    tyro.conf.AvoidSubcommands,
                    tyro.conf.CascadeSubcommandArgs,
                    tyro.conf.FlagCreatePairsOff,
                ),
            )
    except KeyboardInterrupt as interrupt:
        return _fail(str(interrupt) or "interrupted", 130)
    except BrokenPipeError:
        sys.stdout = None  # nobody reads on; say nothing more
        return 1
    except (ValueError, OSError, RuntimeError, MemoryError, _RefusedError) as error:
        if os.environ.get("EQM_TRACEBACK"):
            raise
        return _fail(" ".join(str(error).split()) or type(error).__name__, 2)
    return 0


class _RefusedError(Exception):
    """Settings that refused a value; what they said. No ValueError, around which tyro puts words."""


def _plain_settings() -> ConstructorRegistry:
    """Where the complaint of a dataclass about its values comes out of tyro as it is."""
    registry, inside = ConstructorRegistry(), False

    @registry.struct_rule
    def rule(info: StructTypeInfo) -> StructConstructorSpec | None:
        nonlocal inside
        if inside or not is_dataclass(info.type):
            return None
        inside = True
        try:
            spec = registry.get_struct_spec(info)
        finally:
            inside = False
        if not isinstance(spec, StructConstructorSpec):
            return spec  # type: ignore[return-value]
        make = spec.instantiate

        def instantiate(**values: Any) -> Any:
            try:
                return make(**values)
            except ValueError as error:
                raise _RefusedError(str(error)) from error

        return replace(spec, instantiate=instantiate)

    return registry


def _fail(sentence: str, status: int) -> int:
    print(f"eqm: {sentence}", file=sys.stderr)
    return status


if __name__ == "__main__":
    sys.exit(main())
