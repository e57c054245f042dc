"""What `import diet_ray` offers: complete, documented, and quick to import."""

import inspect
import subprocess
import sys

import pytest

import diet_ray

FUNCTIONS = ("distill", "load_memory", "load_model", "load_schema", "prepare")


def test_importing_diet_ray_imports_neither_torch_nor_pyarrow() -> None:
    code = "import diet_ray, sys; sys.exit(bool({'torch', 'pyarrow', 'pydantic'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", diet_ray.__all__)
def test_every_public_name_is_there_and_documented(name: str) -> None:
    assert name in dir(diet_ray)
    value = getattr(diet_ray, name)
    assert name == "__version__" or inspect.getdoc(value)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_docstrings_of_entry_points_name_every_argument_and_have_an_example(name: str) -> None:
    function = getattr(diet_ray, name)
    docstring = inspect.getdoc(function) or ""
    for section in ("Args:", "Returns:", "Raises:", "Example:"):
        assert f"\n{section}\n" in docstring
    for parameter in inspect.signature(function).parameters:
        assert f"\n    {parameter}: " in docstring


def test_a_name_that_is_not_public_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'distil'"):
        diet_ray.distil  # noqa: B018
