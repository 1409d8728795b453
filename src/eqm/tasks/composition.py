"""Compositions: several labels at once, of one model or several."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from eqm import composition
from eqm.checks import as_floats, kind_of
from eqm.descent import Solution
from eqm.descent.sharing import Label
from eqm.field import Field
from eqm.guidance import in_interval
from eqm.sampling.labels import NONE, class_names, label_number, sentence_tokens
from eqm.sampling.model import Model, check_time_invariant, describe, null_label
from eqm.sampling.settings import Sampling
from eqm.sampling.start import sampling_of
from eqm.schema import shown
from eqm.shapes import per_sample
from eqm.tasks.expressions import Term, parse
from eqm.tasks.generation import generate


@dataclass(frozen=True, eq=False)
class Composition:
    """The field of an expression of labels; it can be sampled like a model without classes."""

    model: Model
    """The first of its models, which gives the shape, metadata, weights and dtype."""
    fields: tuple[Field, ...]
    weights: tuple[composition.Weight, ...]
    base: Field
    balance: bool
    sampling: Sampling

    @classmethod
    def of(
        cls,
        models: Model | Mapping[str, Model],
        expression: str,
        *,
        masks: Mapping[str, Tensor] | None = None,
        balance: bool = False,
        sampling: Sampling | None = None,
    ) -> Composition:
        """The composition that `expression` describes, such as `7 + 0.5*3 - 1`; `parse` has its grammar.

        f = none + guidance * sum_i w_i (f_i - none)

        none is the field without a label, the mean over the models. The step sizes for one label
        suit every composition: `7` is label 7 as `generate` draws it with the rule, and `1.5*7` has
        1.5 times the guidance. Labels are numbers, or names if the model's metadata have them
        (`data.classes`); those of a model of sentences are sentences in quotes, as in `'a cat' + 'a crown'`.
        With several models a label needs the name of its model, as in `a:7 + b:3`; a
        model without classes is written as its name. `masks`, (H, W) or (C, H, W), multiply weights,
        as in `face*7 + ~face*3`; left, right, top and bottom are there for images, first and
        last, the halves of the time, for signals and videos. `balance` is that
        of `eqm.compose`. `sampling` holds the guidance and its interval, by default those stored with
        the first model.

        Raises ValueError for expressions that `parse` refuses, unknown labels, models and masks,
        masks of the wrong shape, models of different shapes, and noise-conditioned models.
        """
        if isinstance(models, list | tuple | set):
            raise ValueError(
                f"models must be one model, or a dict of models by name; got {kind_of(models)}"
            )
        if masks is not None and not isinstance(masks, Mapping):
            raise ValueError(f"masks must be a dict of masks by name; got {kind_of(masks)}")
        named: Mapping[str, Model] = models if isinstance(models, Mapping) else {"": models}
        first = _first(named)
        info = describe(first)
        shape = info.shape
        assert shape is not None  # checked by _first
        known = halves(shape) | {name: _mask(name, m, shape) for name, m in (masks or {}).items()}
        known = {name: mask.to(info.device) for name, mask in known.items()}
        parts: dict[tuple[str, Label | None], composition.Weight] = {}
        for term in parse(expression):
            part, weight = _found(term, named, expression), _weight(term, known, expression)
            parts[part] = parts.get(part, 0.0) + weight
        nones = [_field(model, None) for model in named.values()]
        around = nones[0]
        if len(nones) > 1:
            around = composition.compose(nones, [1 / len(nones)] * len(nones))
        sampling = sampling_of(first, sampling)
        if sampling.guidance_norm:
            raise ValueError(
                f"guidance_norm must be 0 for a composition; got {sampling.guidance_norm:g}: set it to 0"
            )
        return cls(
            first,
            tuple(_field(named[name], label) for name, label in parts),
            tuple(parts.values()),
            around,
            balance,
            replace(sampling, multistep_coefficients=()),  # which hold for one label
        )

    def alone(self) -> list[Composition]:
        """Each of its labels alone, with weight 1."""
        return [replace(self, fields=(field,), weights=(1.0,)) for field in self.fields]

    num_classes: ClassVar[int] = 0

    @property
    def shape(self) -> tuple[int, ...] | None:
        """Of one sample."""
        return describe(self.model).shape

    @property
    def metadata(self) -> dict[str, Any]:
        """That of the model, with the sampling settings of the composition."""
        return {**describe(self.model).metadata, "sampling": asdict(self.sampling)}

    @property
    def dtype(self) -> torch.dtype:
        """Of the samples it takes."""
        return describe(self.model).dtype

    def parameters(self) -> Iterator[nn.Parameter]:
        """The weights of the model."""
        return iter(getattr(self.model, "parameters", tuple)())

    def __call__(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """The gradient at x, guided everywhere."""
        return self._field(self.sampling.guidance)(x, None)

    def at(self, path: Tensor) -> Field:
        """The field for samples that have covered `path` (B,)."""
        interval, guidance = self.sampling.guidance_interval, self.sampling.guidance
        if interval is None:
            return self
        scale = torch.where(in_interval(path, interval), guidance, 1.0)
        return lambda x, labels: self._field(per_sample(scale, x))(x, None)

    def _field(self, scale: composition.Weight) -> Field:
        weights = [scale * weight for weight in self.weights]
        return composition.compose(self.fields, weights, base=self.base, balance=self.balance)


def compose(
    models: Model | Mapping[str, Model],
    expression: str,
    *,
    count: int = 1,
    seed: int = 0,
    masks: Mapping[str, Tensor] | None = None,
    balance: bool = False,
    sampling: Sampling | None = None,
    batch_size: int = 256,
) -> Solution:
    """Samples of an expression such as `7 + 0.5*3 - 1`, `.x` (count, ...).

    See `Composition.of` for expressions, and `generate` for the other options. All labels of one model
    are evaluated in one pass. Raises ValueError as both do.
    """
    model = Composition.of(models, expression, masks=masks, balance=balance, sampling=sampling)
    return generate(model, count=count, seed=seed, sampling=model.sampling, batch_size=batch_size)


def halves(shape: tuple[int, ...]) -> dict[str, Tensor]:
    """The masks left, right, top and bottom, (H, W), for images (C, H, W); first and last, the halves of the
    time, for signals (C, L) and videos (C, T, H, W); none for points."""
    if len(shape) in (2, 4):
        first = (torch.arange(shape[1]) < shape[1] / 2).float()
        first = first.view(-1, *[1] * (len(shape) - 2)).expand(shape[1:])
        return {"first": first, "last": 1 - first}
    if len(shape) != 3:
        return {}
    rows, columns = torch.arange(shape[1])[:, None], torch.arange(shape[2])
    left = (columns < shape[2] / 2).float().expand(shape[1:])
    top = (rows < shape[1] / 2).float().expand(shape[1:])
    return {"left": left, "right": 1 - left, "top": top, "bottom": 1 - top}


def _first(models: Mapping[str, Model]) -> Model:
    if not models:
        raise ValueError("a composition needs a model; got none")
    shapes = {name: describe(model).shape for name, model in models.items()}
    if None in shapes.values():
        raise ValueError("a composition needs fields that say the shape of a sample: add .shape")
    if len(set(shapes.values())) > 1:
        said = ", ".join(f"{name} with {shape}" for name, shape in shapes.items())
        raise ValueError(f"the models of a composition must have one shape; got {said}")
    for model in models.values():
        check_time_invariant(model)
    return next(iter(models.values()))


def _found(term: Term, models: Mapping[str, Model], expression: str) -> tuple[str, Label | None]:
    """The name of the model of a term, and its class or its tokens, None for the null label."""

    def wrong(what: str) -> ValueError:
        return ValueError(f"{shown(expression)}, position {term.position}: {what}")

    name, label = term.model, term.label
    if not name and label in models and label is not None:
        name, label = str(label), None  # a model without classes
    elif not name and len(models) == 1:
        (name,) = models
    if name not in models:
        raise wrong(
            f"name the model of the label, as in {next(iter(models))}:{label or 'none'}"
            if not name
            else f"there is no model {name!r}, only {', '.join(name or 'one without a name' for name in models)}"
        )
    info = describe(models[name])
    classes = info.num_classes or 0
    if label is None or (str(label).lower() in NONE and not info.sentence):
        return name, None
    if info.sentence:
        if not isinstance(label, str):
            raise wrong(f"the model takes sentences, in quotes, such as 'a cat'; got {label}")
        return name, sentence_tokens(models[name], label)
    if not classes:
        raise wrong(f"the model has no classes, only none; got {label}")
    try:
        number = label_number(models[name], label)
    except ValueError as error:
        rest = expression[term.position - 1 :].lower()
        meant = [known for known in class_names(models[name]) if rest.startswith(known.lower())]
        how = f"write the class {max(meant, key=len)!r} in quotes" if meant else str(error)
        raise wrong(how) from None
    return name, number


def _weight(term: Term, masks: Mapping[str, Tensor], expression: str) -> composition.Weight:
    weight: composition.Weight = term.weight
    for name in term.masks:
        mask = masks.get(name.removeprefix("~"))
        if mask is None:
            raise ValueError(
                f"{shown(expression)}, position {term.position}: there is no mask {name.removeprefix('~')!r}, "
                f"only {', '.join(masks)}: pass it"
            )
        weight = weight * (1 - mask if name.startswith("~") else mask)
    return weight


def _mask(name: str, mask: Tensor, shape: tuple[int, ...]) -> Tensor:
    mask = as_floats("(H, W)", **{f"the mask {name}": mask})
    if tuple(mask.shape) not in (tuple(shape), tuple(shape[1:])) or not mask.isfinite().all():
        raise ValueError(
            f"the mask {name} must hold finite numbers of shape {tuple(shape[1:])} or {tuple(shape)}; "
            f"got {tuple(mask.shape)}"
        )
    return mask.float()


def _field(model: Model, label: Label | None) -> Field:
    info = describe(model)
    if info.num_classes == 0:
        return model
    if label is None:
        null = null_label(model)
        label = (null,) * info.sentence if info.sentence else null
    return composition.condition(model, label)
