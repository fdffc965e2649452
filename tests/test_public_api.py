"""What both packages promise to Python code."""

from __future__ import annotations

import inspect
from types import ModuleType
from typing import get_origin

import pytest

import avprep
import cavmae


@pytest.mark.parametrize("package", [avprep, cavmae], ids=lambda package: package.__name__)
def test_every_public_name_exists_and_every_function_is_typed_and_documented(package: ModuleType):
    for name in package.__all__:
        public = getattr(package, name)
        is_alias = get_origin(public) is not None  # which Python 3.10 takes for a class
        if inspect.isfunction(public) or (inspect.isclass(public) and not is_alias):
            assert public.__doc__, name
        if inspect.isfunction(public):
            signature = inspect.signature(public)
            assert signature.return_annotation is not inspect.Signature.empty, name
            for parameter in signature.parameters.values():
                assert parameter.annotation is not inspect.Parameter.empty, (name, parameter)
