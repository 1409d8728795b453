"""How tyro reads the options of a command: rules for settings, names and help texts."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import is_dataclass, replace
from typing import Annotated, Any, Union, get_args

import tyro
from tyro.constructors import (
    ConstructorRegistry,
    PrimitiveConstructorSpec,
    PrimitiveTypeInfo,
    StructConstructorSpec,
    StructTypeInfo,
)

from eqm.cli.options import Reading, SamplingChanges
from eqm.data.config import DataConfig
from eqm.sampling.settings import Sampling
from eqm.train.config import TrainConfig

STORED = tyro.conf.arg(help_behavior_hint="(default: the value stored with the model)")

NUMBERS = {"INT": "a whole number", "FLOAT": "a number"}


class RefusedError(Exception):
    """A value that settings refused. Not a ValueError: tyro would put its own words around it."""


def rules(network: str | None = None) -> ConstructorRegistry:
    """The rules for one command line; `network` is the name that `eqm train --model` was given."""
    registry, active = ConstructorRegistry(), set[str]()

    def default_spec(find: Any, info: Any) -> Any:
        active.add(find.__name__)
        try:
            return find(info)
        finally:
            active.discard(find.__name__)

    def changes_of(
        usual: Any, names: Sequence[str], make: Callable[..., Any], hint: Any = None
    ) -> StructConstructorSpec:
        """The fields of settings with these names, each None unless it is given; flags keep their default."""
        spec = default_spec(
            registry.get_struct_spec, StructTypeInfo.make(type(usual), usual, False)
        )
        fields = [
            replace(field, helptext=_joined(field.helptext))
            for field in spec.fields
            if field.name in names
        ]
        return StructConstructorSpec(
            make,
            tuple(
                field
                if isinstance(field.default, bool)
                else replace(
                    field,
                    type=Annotated[field.type | None, hint or _shown(field.default)],
                    default=None,
                )
                for field in fields
            ),
        )

    @registry.struct_rule
    def settings(info: StructTypeInfo) -> StructConstructorSpec | None:
        if info.type is SamplingChanges:
            # `eqm tune` finds the coefficients
            names = [name for name in vars(Sampling()) if name != "multistep_coefficients"]
            return changes_of(Sampling(), names, SamplingChanges.of, STORED)
        if isinstance(info.type, type) and issubclass(info.type, Reading):
            return changes_of(DataConfig(), info.type.NAMES, info.type.of)
        if "get_struct_spec" in active or not is_dataclass(info.type):
            return None
        if network and isinstance(info.default, TrainConfig):
            info = replace(info, default=_with_network(info.default, network))
        spec = default_spec(registry.get_struct_spec, info)
        if not isinstance(spec, StructConstructorSpec):
            return spec
        make = spec.instantiate

        def instantiate(**values: Any) -> Any:
            try:
                return make(**values)
            except ValueError as error:
                raise RefusedError(str(error)) from error

        fields = tuple(replace(field, helptext=_joined(field.helptext)) for field in spec.fields)
        return replace(spec, instantiate=instantiate, fields=fields)

    @registry.primitive_rule
    def values(info: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
        if "get_primitive_spec" in active:
            return None
        options = get_args(info.type)
        given = [option for option in options if option is not type(None)]
        if len(given) < len(options) and given:  # T | None is shown as T
            rest: Any = Union[tuple(given)]  # noqa: UP007
            info = PrimitiveTypeInfo.make(rest, info.markers)
        spec = default_spec(registry.get_primitive_spec, info)
        if not isinstance(spec, PrimitiveConstructorSpec):
            return None
        is_instance, words, parsed = (
            spec.is_instance,
            spec.str_from_instance,
            spec.instance_from_str,
        )
        metavar = re.sub(r"\[(.+) \[\1 \.\.\.\]\]", r"\1 ...", spec.metavar)

        def instance(given: list[str]) -> Any:
            try:
                return parsed(given)
            except (ValueError, OverflowError):
                expected = NUMBERS.get(metavar, metavar)
                raise ValueError(f"expected {expected}; got {_short(given)}") from None

        return replace(
            spec,
            metavar=metavar,
            instance_from_str=instance,
            is_instance=lambda value: value is None or is_instance(value),
            str_from_instance=lambda value: ["none"] if value in (None, ()) else words(value),
        )

    return registry


def _shown(default: Any) -> Any:
    """The hint in a help text that shows this default, if there is anything to show."""
    hint = "" if default in ("", ()) else f"(default: {default})"
    return tyro.conf.arg(help_behavior_hint=hint)


def _short(given: list[str]) -> str:
    """The words that were given, cut to a line."""
    text = repr(" ".join(given))
    return text if len(text) <= 60 else f"{text[:60]}..."


def _joined(text: Any) -> str:
    """A help text in one line: tyro keeps the line breaks of docstrings."""
    return " ".join(((text() if callable(text) else text) or "").split())


def _with_network(config: TrainConfig, name: str) -> TrainConfig:
    """The recipe with a network that is registered as `name`, of the same shape and classes."""
    from eqm.models.network import config_type

    kind = config_type(name)
    old = config.model
    model = kind(
        shape=old.shape, num_classes=old.num_classes, noise_conditioning=old.noise_conditioning
    )
    return replace(config, model=model)
