import ast
import graphlib
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "jaxseg"

# A module imports from lower floors only; modules of one package also from each other.
FLOORS = {
    "jaxseg": 5.0,  # its `load` imports the predictor when it is called
    "types": 0.0,
    "errors": 0.0,
    "schema": 0.0,
    "paths": 0.0,
    "progress": 0.0,
    "backend": 0.0,
    "hosts": 0.3,
    "fourier": 0.3,
    "cpu_conv": 0.3,
    "tracing": 0.3,
    "ops": 0.5,
    "distances": 0.5,
    "skeletons": 0.5,
    "measure": 0.7,
    "files": 0.5,
    "config": 0.5,
    "contradictions": 0.6,
    "parsing": 0.7,
    "grid": 0.5,
    "models": 1.0,
    "datasets": 1.0,
    "class_weights": 0.5,
    "losses": 1.0,
    "metrics": 1.0,
    "optim": 1.0,
    "augment": 1.0,
    "data": 2.0,
    "thresholds": 2.0,
    "train_state": 2.0,
    "tasks": 2.5,
    "vocabulary": 3.0,
    "steps": 3.0,
    "parallel": 3.0,
    "checkpoints": 3.0,
    "trackers": 2.0,
    "events": 2.0,
    "writer": 3.0,
    "export": 3.0,
    "torch_names": 3.0,
    "weight_files": 0.6,
    "pretrained": 3.6,
    "workdir": 3.0,
    "phases": 3.5,
    "memory": 0.5,
    "profiler": 0.5,
    "misfits": 3.7,
    "resident": 3.5,
    "plan": 3.8,
    "experiment": 4.0,
    "trained": 3.5,
    "evaluate": 4.0,
    "infer": 4.0,
    "signals": 0.0,
    "tally": 4.0,
    "calls": 4.2,
    "loop": 4.4,
    "to_onnx": 3.0,
    "formats": 4.0,
    "report": 4.3,
    "predict": 4.4,
    "model_thresholds": 4.0,
    "inspect_data": 4.5,
    "run": 4.6,
    "serve": 4.6,
    "processes": 3.0,
    "stopping": 3.0,
    "sweep": 4.7,
}

# Who may import what from outside; every other module may not.
FENCES = {
    "grain": {"data"},
    "tensorflow_datasets": {"data"},
    "orbax": {"checkpoints"},
    "clu": {"metrics", "loop"},
    "tensorboardX": {"events"},
    "matplotlib": {"report"},
    "skimage": {"skeletons"},
    "ml_collections": set(),
    "absl": set(),
    "onnx": {"to_onnx"},
    "onnxruntime": {"formats"},
    "starlette": {"serve"},
    "tensorflow": set(),
    "torch": set(),
    # Outside models/ only for the annotation `nn.Module`, see the test below.
    "flax.linen": {"models", "train_state", "steps", "plan", "experiment", "trained"},
}


def name_of(path):
    """The dotted module name, 'jaxseg.data.cache' or 'jaxseg.data'."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


SOURCES = {name_of(path): path for path in sorted(PACKAGE.rglob("*.py"))}
TREES = {name: ast.parse(path.read_text()) for name, path in SOURCES.items()}


def imports_of(tree, modules=SOURCES):
    """Every imported module; `from jaxseg import ops` counts as jaxseg.ops."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "relative import"
            for alias in node.names:
                name = f"{node.module}.{alias.name}"
                known = name in modules or node.module == "flax"
                found.add(name if known else node.module)
    return found


def part_of(module):
    """The row of FLOORS: 'data' of jaxseg.data.cache."""
    return module.split(".")[1] if "." in module else module


def inner_imports(module):
    return {name for name in imports_of(TREES[module]) if name in SOURCES}


def is_inside(module, package):
    return module == package or module.startswith(package + ".")


def test_every_module_has_a_floor_and_every_floor_a_module():
    assert {part_of(module) for module in SOURCES} == set(FLOORS)


def test_every_import_from_jaxseg_names_a_module():
    for module, tree in TREES.items():
        ours = {name for name in imports_of(tree) if is_inside(name, "jaxseg")}
        assert ours <= set(SOURCES), module


def test_modules_import_only_from_lower_floors():
    upward = [
        f"{module} ({FLOORS[part_of(module)]}) imports {name}"
        for module in SOURCES
        for name in inner_imports(module)
        if part_of(name) != part_of(module)
        and FLOORS[part_of(name)] >= FLOORS[part_of(module)]
    ]
    assert not upward


def test_imports_have_no_cycle():
    graphlib.TopologicalSorter(
        {module: inner_imports(module) for module in SOURCES}
    ).prepare()


@pytest.mark.parametrize("library", FENCES)
def test_a_library_is_imported_only_behind_its_fence(library):
    users = {
        part_of(module)
        for module, tree in TREES.items()
        if any(is_inside(name, library) for name in imports_of(tree))
    }
    assert users <= FENCES[library]


def test_outside_models_linen_is_only_an_annotation():
    for module, tree in TREES.items():
        if part_of(module) == "models":
            continue
        used = {
            node.attr
            for node in ast.walk(tree)
            if isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "nn"
        }
        assert used <= {"Module"}, module


def test_the_package_imports_neither_scripts_nor_configs():
    folders = [ROOT / "scripts", ROOT / "configs"]
    outside = {"scripts", "configs"} | {
        path.stem for folder in folders for path in folder.glob("*.py")
    }
    for module, tree in TREES.items():
        assert not outside & imports_of(tree), module


def test_configs_import_ml_collections_only():
    for path in (ROOT / "configs").glob("*.py"):
        assert imports_of(ast.parse(path.read_text())) == {"ml_collections"}, path.name


def loaded_after(statements, path):
    """Top-level names in sys.modules of a fresh process."""
    code = f"{statements}\nimport sys\nprint(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={"PYTHONPATH": f"{path}:{ROOT}", "JAX_PLATFORMS": "cpu", "HOME": str(path)},
        capture_output=True,
        text=True,
        check=True,
    )
    return {name.split(".")[0] for name in done.stdout.split()}


def test_no_module_needs_tensorflow_or_torch(tmp_path):
    (tmp_path / "tensorflow.py").write_text("")  # an attempt would succeed and show
    # tensorboardX imports torch wherever it is installed; None makes that fail.
    without_torch = "import sys; sys.modules['torch'] = None"
    loaded = loaded_after(f"{without_torch}\nimport {', '.join(SOURCES)}", tmp_path)
    assert "flax" in loaded
    assert "tensorflow" not in loaded
    assert "skimage" not in loaded  # 0.3 s, which only reports need


def test_the_version_and_the_messages_come_without_jax_or_numpy(tmp_path):
    loaded = loaded_after("import jaxseg, jaxseg.errors, jaxseg.backend", tmp_path)
    assert "jaxseg" in loaded
    assert not loaded & {"jax", "numpy"}
