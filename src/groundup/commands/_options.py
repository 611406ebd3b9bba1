"""Reading a command's options: a recipe named first, then its fields as flags."""

from __future__ import annotations

import dataclasses
import inspect
import itertools
from collections.abc import Collection
from typing import Annotated, TypeVar

import tyro

from groundup.schedules import depth
from groundup.train import recipe_file
from groundup.train.recipe import Recipe
from groundup.train.recipe_file import RecipeFile

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


def refuse_ignored_residual(file: RecipeFile, recipe: Recipe) -> None:
    """ValueError where flags change the residual warmup and every variant has its own."""
    own = [change["name"] for change in file.changes if "residual" in change]
    if recipe.residual != file.recipe.residual and len(own) == len(file.changes) > 0:
        raise ValueError(
            f"what is said of residual would be ignored: every variant ({', '.join(own)}) has its "
            "own"
        )


def parse(options: Options, usage: str, arguments: list[str]) -> Options:
    """`options` with what the arguments change; exits with a message where they do not fit."""
    return tyro.cli(
        type(options),
        prog=f"groundup {usage}",
        description=inspect.cleandoc(type(options).__doc__ or ""),
        args=_one_length(_switched(options, [_long(argument) for argument in arguments])),
        default=options,
        config=(tyro.conf.FlagConversionOff,),
    )


def _long(argument: str) -> str:
    flag, equals, value = argument.partition("=")
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


def _is_given(arguments: list[str], flag: str, values: Collection[str]) -> bool:
    pairs = itertools.pairwise([*arguments, ""])
    return any(
        (a == flag and b in values) or a in {f"{flag}={v}" for v in values} for a, b in pairs
    )
