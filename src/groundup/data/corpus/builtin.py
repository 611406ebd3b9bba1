"""The built-in corpus: the source code of the standard library, next to this interpreter."""

from __future__ import annotations

import os
import platform
import sysconfig
from pathlib import Path

from groundup.data.corpus.files import Listing, stamp

__all__ = ["builtin"]

# Tests hold deliberately broken files; encodings, pydoc_data, _sysconfigdata and config-* are
# generated tables (the latter with paths of the machine); and tests, tkinter, idlelib, lib2to3,
# distutils, ensurepip, turtledemo are left out of, or packaged apart by, many distributions:
# without them the corpus depends on the Python version alone.
# fmt: off
_LEFT_OUT = frozenset({
    "__pycache__", "__phello__", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib",
    "lib-dynload", "lib2to3", "pydoc_data", "site-packages", "sitecustomize.py", "test", "tests",
    "tkinter", "turtledemo", "usercustomize.py",
})
# fmt: on
_GENERATED = ("config-", "_sysconfigdata")


def builtin() -> Listing:
    """Its files, of the kind "python"."""
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for folder, names, files in os.walk(root):
        names[:] = [name for name in names if name not in _LEFT_OUT]
        for name in files:
            path = (Path(folder) / name).relative_to(root).as_posix()
            if name.endswith(".py") and name not in _LEFT_OUT and not path.startswith(_GENERATED):
                found.append(stamp(root, path, "python"))
    ordered = tuple(sorted(found, key=lambda file: file.path))
    return Listing(f"python{platform.python_version()}", root, ordered, {})
