"""Reading a command's options: a recipe named first, then its fields as flags."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Collection
from typing import Annotated, TypeVar

import tyro

from groundup._check import unknown
from groundup.commands import _model
from groundup.data import DataConfig
from groundup.schedules import depth
from groundup.train import recipe_file
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import Point, RecipeFile, expand, sweep

# The recipe's fields without a prefix of their own: --train.steps, not --recipe.train.steps.
RecipeFlags = Annotated[Recipe, tyro.conf.arg(name="")]
# Short forms of the flags that are typed most.
_SHORT = {
    "--steps": "--train.steps",
    "--device": "--train.device",
    "--batch": "--train.batch",
}
# The ways to say how long residual warmup lasts: exactly one is used.
_LENGTHS = ("--residual.T", "--residual.total", "--residual.fraction")
# A held-out text, and what is held out of the source without one; also of `groundup data prepare`.
_HELD_OUT = {
    "--data.validation": "--data.validation-fraction",
    "--validation": "--validation-fraction",
}
Options = TypeVar("Options")


def recipe_named(arguments: list[str], default: str | None = None) -> tuple[RecipeFile, list[str]]:
    """The recipe's file that the first argument names, and the other arguments.

    Raises:
        ValueError: if there is no such recipe, or none is named and there is no default.
    """
    if arguments and not arguments[0].startswith("-"):
        name, rest = arguments[0], arguments[1:]
    elif default is not None or arguments[:1] in (["-h"], ["--help"]):
        name, rest = default or "quickstart", arguments
    else:
        raise ValueError("say which recipe first: a .toml file, or the name of a shipped one")
    return recipe_file.read(recipe_file.find(name)), rest


def variant_named(file: RecipeFile, arguments: list[str]) -> tuple[Recipe, list[str]]:
    """The recipe of the variant or point of the sweep that `--variant` names, the file's own where
    nothing does; and the other arguments. ``--variant list`` prints the names and ends the command.

    Raises:
        ValueError: if the file has no such variant, or several are named.
    """
    words, rest = iter(arguments), []
    names = []
    for word in words:
        flag, equals, value = word.partition("=")
        if flag == "--variant":
            names.append(value if equals else next(words, ""))
        else:
            rest.append(word)
    if not names:
        return file.recipe, rest
    if len(names) > 1:
        raise ValueError(f"variant={' '.join(names)!r} is not valid: name one")
    (name,) = names
    points = variants_of(file)
    if name == "list" and name not in points:
        print("\n".join(filter(None, points)) or "the recipe has no variants")
        raise SystemExit(0)
    if name not in points:
        raise unknown("variant", name, filter(None, points))
    return points[name].recipe, rest


def variants_of(file: RecipeFile) -> dict[str, Point]:
    """The variants, or the points of the sweep, by their names, as the commands that train them
    have them: a sweep without variants is one of the recipe itself."""
    variants = expand(file.recipe, file.changes) if file.changes or not file.axes else {}
    return sweep(variants or {"": file.recipe}, file.axes)


def refuse_ignored_residual(file: RecipeFile, recipe: Recipe) -> None:
    """ValueError where flags change the residual warmup and every variant has its own."""
    own = [change["name"] for change in file.changes if "residual" in change]
    if recipe.residual != file.recipe.residual and len(own) == len(file.changes) > 0:
        raise ValueError(
            f"what is said of residual would be ignored: every variant ({', '.join(own)}) has its "
            "own"
        )


def parse(options: Options, usage: str, arguments: list[str]) -> Options:
    """`options` with what the arguments change; exits with a message where they do not fit.

    Raises:
        ValueError: for a model of transformers, or weights, that cannot be found or do not fit.
    """
    words, hf_config = _model.taken_out([_long(options, argument) for argument in arguments])
    found = tyro.cli(
        type(options),
        prog=f"groundup {usage}",
        description=inspect.cleandoc(type(options).__doc__ or ""),
        args=_one_held_out(options, _one_length(_switched(options, words))),
        default=options,
        config=(tyro.conf.FlagConversionOff,),
    )
    before, after = (getattr(one, "recipe", None) for one in (options, found))
    if not isinstance(before, Recipe) or not isinstance(after, Recipe):
        return found
    recipe = _model.with_model(before, after, hf_config)
    return dataclasses.replace(found, recipe=recipe)  # type: ignore[type-var]


def _long(options: object, argument: str) -> str:
    """A recipe's field that is written short, unless the command has an option of that name."""
    flag, equals, value = argument.partition("=")
    if flag in {f"--{f.name}" for f in dataclasses.fields(options)}:  # type: ignore[arg-type]
        return argument
    return _SHORT.get(flag, flag) + equals + value


def _switched(options: object, arguments: list[str]) -> list[str]:
    """A command's own switches need no value; fields of a recipe do, since they may be true."""
    fields = dataclasses.fields(options)  # type: ignore[arg-type]
    switches = {f"--{f.name.replace('_', '-')}" for f in fields if f.default is False}
    words = []
    for argument, following in itertools.pairwise([*map(_truth, arguments), ""]):
        words.append(argument)
        if argument in switches and following not in _TRUTHS.values():
            words.append("True")
    return words


_TRUTHS = {"true": "True", "false": "False"}  # as TOML writes them, and as Python does


def _truth(argument: str) -> str:
    flag, equals, value = argument.rpartition("=")
    return flag + equals + _TRUTHS.get(value, value)


def _one_length(arguments: list[str]) -> list[str]:
    """A length of the residual warmup that is given takes the place of the recipe's own."""
    flags = [argument.partition("=")[0] for argument in arguments]
    given = [flag for flag in _LENGTHS if flag in flags]
    if not given and not _is_given(arguments, "--residual.schedule", depth.FIXED):
        return arguments
    return arguments + [word for flag in _LENGTHS if flag not in given for word in (flag, "None")]


def _one_held_out(options: object, arguments: list[str]) -> list[str]:
    """A held-out text that is given takes the place of the recipe's share of the source."""
    named = (getattr(options, name, None) for name in ("recipe", "data"))
    if not any(isinstance(one, Recipe | DataConfig) for one in named):
        return arguments  # the command has a held-out text and no share
    flags = {argument.partition("=")[0] for argument in arguments}
    unused = [
        share
        for text, share in _HELD_OUT.items()
        if text in flags and share not in flags and not _is_given(arguments, text, ["None"])
    ]
    default = str(DataConfig.validation_fraction)
    return arguments + [word for share in unused for word in (share, default)]


def _is_given(arguments: list[str], flag: str, values: Collection[str]) -> bool:
    pairs = itertools.pairwise([*arguments, ""])
    return any(
        (a == flag and b in values) or a in {f"{flag}={v}" for v in values} for a, b in pairs
    )
