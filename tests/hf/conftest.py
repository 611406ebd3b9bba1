import pytest

pytest.importorskip("transformers")

from tests.one_thread import one_thread  # noqa: F401
