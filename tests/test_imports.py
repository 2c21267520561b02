"""Who may import whom, read off the import statements."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
# Folders, and what no file in them may import. `model` may take the geometry and the tables of the runtime.
PRODUCT = ("runtime.rendering", "runtime.backends", "runtime.pipeline", "runtime.scene", "onnxruntime")
FORBIDDEN = {
    "runtime": ("torch", "model", "export", "benchmarks"),
    "runtime/geometry": (*PRODUCT, "runtime.diffusion"),
    "runtime/diffusion": (*PRODUCT, "runtime.geometry"),
    "runtime/rendering": ("runtime.backends", "runtime.pipeline", "runtime.scene", "runtime.bundle", "onnxruntime"),
    "runtime/preprocessing": (*PRODUCT[:-1], "runtime.geometry", "runtime.diffusion", "runtime.bundle"),
    "runtime/backends": ("runtime.pipeline", "runtime.scene", "runtime.cli", "runtime.meshing", "runtime.serving"),
    "runtime/meshing": ("runtime.backends", "runtime.pipeline", "runtime.scene", "runtime.bundle", "onnxruntime"),
    "model": (*PRODUCT, "export", "benchmarks"),
    "export": ("benchmarks",),
}


def imported(path):
    """Absolute names of all that a file imports."""
    package = path.relative_to(ROOT).parts[:-1]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            name = ".".join((*base, *filter(None, [node.module])))
            yield from (name, *(f"{name}.{alias.name}" for alias in node.names))


@pytest.mark.parametrize("folder", FORBIDDEN)
def test_nothing_imports_what_stands_above_it(folder):
    files = sorted((ROOT / folder).rglob("*.py"))
    assert files
    for path in files:
        for name in imported(path):
            for barred in FORBIDDEN[folder]:
                assert not f"{name}.".startswith(f"{barred}."), f"{path.relative_to(ROOT)} imports {name}"
