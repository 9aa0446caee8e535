"""The map of the house, held against the code."""

import ast
import importlib
import inspect
import pkgutil
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

import polyhead

SOURCE = Path(polyhead.__file__).parent
MODULES = sorted(SOURCE.rglob("*.py"))

# Every room, and the rooms whose modules it may import. Nothing may import the command line.
ALLOWED = {
    "errors": set(),
    "atomic": {"errors"},
    "limited_file": {"errors"},
    "seeds": set(),
    "findings": {"errors"},
    "tables": {"limited_file", "errors"},
    "config": {"config_federation", "config_training", "config_recipes"},
    "config_federation": {"config_training"},
    "config_recipes": set(),
    "config_training": set(),
    "study_file": {"config", "errors", "findings", "limited_file"},
    "begun": {"study_file", "config", "config_recipes", "json_file", "atomic", "errors"},
    "problems": set(),
    "accountant": {"errors"},
    "privacy_cost": {"accountant", "federation", "training", "config"},
    "printable": set(),
    "run_log": {"printable", "errors"},
    "stopping": set(),
    "toml_file": {"limited_file", "errors"},
    "site_file": {"toml_file", "errors", "findings", "atomic"},
    "manifest_rules": {"problems", "findings"},
    "manifest": {"manifest_rules", "problems", "site_file", "errors", "findings", "seeds", "tables", "atomic"},
    "adapters": {
        "printable",
        "toml_file",
        "manifest",
        "manifest_rules",
        "site_file",
        "imaging",
        "findings",
        "tables",
        "seeds",
        "atomic",
        "errors",
    },
    "check": {
        *(
            "problems",
            "printable",
            "manifest",
            "sites",
            "union",
            "imaging",
            "training",
            "federation",
            "config",
            "study_file",
            "findings",
            "atomic",
        ),
        "errors",
    },
    "predictions": {"errors", "findings", "tables", "atomic"},
    "summary": {"report", "evaluation"},
    "progress": set(),
    "imaging": {"manifest", "errors", "atomic"},
    "phantom": {"manifest", "findings", "seeds", "errors"},
    "training": {"imaging", "manifest", "config", "findings", "seeds", "limited_file", "atomic", "errors"},
    "federation": {
        *("training", "begun", "config", "study_file", "findings", "printable", "seeds", "limited_file", "atomic"),
        "errors",
    },
    "evaluation": {"predictions", "findings", "seeds", "atomic", "errors"},
    "report": {
        "evaluation",
        "predictions",
        "tables",
        "config",
        "config_recipes",
        "begun",
        "findings",
        "atomic",
        "errors",
        "json_file",
        "limited_file",
    },
    "environment": {"json_file", "training", "imaging", "manifest", "site_file", "config", "atomic", "errors"},
    "sites": {"federation", "training", "imaging", "manifest", "config", "findings", "errors"},
    "json_file": {"limited_file", "errors"},
    "finished": {"json_file", "limited_file", "atomic", "errors"},
    "outputs": {"evaluation", "predictions", "federation", "training", "sites", "config"},
    "validation": {"evaluation", "federation", "training"},
    "union": {
        *("sites", "federation", "training", "predictions", "manifest", "findings", "json_file", "config", "errors"),
    },
    "job": {
        *("validation", "outputs", "union", "federation", "training", "sites", "finished", "stopping"),
        *("config", "errors"),
    },
    "worker": {"job", "federation", "training", "sites", "environment", "config", "errors", "__init__"},
    "workers": {"worker", "job", "federation", "stopping", "errors"},
    "study": {
        *(
            "report",
            "evaluation",
            "summary",
            "job",
            "union",
            "workers",
            "federation",
            "training",
            "sites",
            "environment",
        ),
        "progress",
        *("run_log", "findings", "manifest", "config", "study_file", "privacy_cost", "atomic", "errors"),
    },
    "deployment": {
        *("accountant", "privacy_cost"),
        *("report", "evaluation", "outputs", "validation", "finished", "federation", "training", "sites", "findings"),
        *("config", "study_file", "toml_file", "json_file", "limited_file", "atomic", "errors"),
    },
    "flare": {"deployment", "federation", "training", "stopping", "limited_file", "atomic", "errors"},
    "demo": {"study", "phantom", "atomic", "progress"},
    "cli": {
        *(
            "demo",
            "study",
            "begun",
            "finished",
            "printable",
            "adapters",
            "check",
            "imaging",
            "manifest",
            "study_file",
            "evaluation",
            "report",
            "summary",
            "progress",
            "deployment",
            "flare",
            "sites",
            "config",
            "toml_file",
            "stopping",
            "atomic",
        ),
        "errors",
    },
    "__init__": {"errors"},
}
ONLY_IN = {
    "torch": ("training", "federation", "deployment", "flare"),
    "nvflare": ("flare/",),
    "monai": ("training",),
    "opacus": ("accountant.py",),
    "safetensors": ("training", "federation"),
    "matplotlib": ("report/plots.py",),
    "PIL": ("imaging", "phantom"),
    "pydicom": ("imaging/dicom/",),
    "imagecodecs": ("imaging/dicom/",),
    "imagehash": ("imaging/hashes.py",),
    "typer": ("cli/",),
    "pydantic": ("config.py", "config_federation.py", "config_training.py", "study_file.py"),
}


def imports_of(file: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            found.add(node.module or "")
    return found


def room_of(file: Path) -> str:
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


def name_of(file: Path) -> str:
    parts = file.relative_to(SOURCE.parent).with_suffix("").parts
    return ".".join(part for part in parts if part != "__init__")


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_imports_run_one_way(file: Path) -> None:
    ours = {name.split(".")[1] for name in imports_of(file) if name.startswith("polyhead.")}
    assert ours - {room_of(file)} <= ALLOWED[room_of(file)]


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_libraries_are_imported_where_they_belong(file: Path) -> None:
    place = str(file.relative_to(SOURCE))
    for library in {name.split(".")[0] for name in imports_of(file)} & set(ONLY_IN):
        assert place.startswith(ONLY_IN[library]), f"{library} is imported in {place}"


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_files_and_functions_stay_small(file: Path) -> None:
    text = file.read_text()
    assert len(text.splitlines()) <= 300
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 70, f"{node.name} is too long"
            body = [part for part in node.body if not isinstance(part, ast.Expr) or not ast.get_docstring(node)]
            lines = (body[-1].end_lineno or 0) - body[0].lineno if body else 0
            assert lines < 50, f"{node.name} is too long"


def public_modules() -> list[str]:
    found = pkgutil.walk_packages([str(SOURCE)], "polyhead.")
    # The engine is an extra.
    without = (".flare",) if find_spec("nvflare") is None else ()
    return [one.name for one in found if not one.name.endswith("__main__") and not any(w in one.name for w in without)]


@pytest.mark.parametrize("name", public_modules())
def test_all_is_what_a_module_defines_in_public(name: str) -> None:
    module = importlib.import_module(name)
    here = {
        key
        for key, value in vars(module).items()
        if not key.startswith("_")
        and (inspect.isfunction(value) or inspect.isclass(value))
        and getattr(value, "__module__", None) == name
    }
    exported = set(getattr(module, "__all__", []))
    assert here <= exported, f"{here - exported} are public but not in __all__"
    assert all(hasattr(module, key) for key in exported)


@pytest.mark.parametrize("name", public_modules())
def test_every_public_name_has_a_docstring(name: str) -> None:
    module = importlib.import_module(name)
    assert module.__doc__ or not vars(module).get("__all__")
    for key in getattr(module, "__all__", []):
        value = getattr(module, key)
        if getattr(value, "__module__", None) == name and (inspect.isfunction(value) or inspect.isclass(value)):
            assert inspect.getdoc(value), f"{name}.{key}"


@pytest.mark.parametrize(
    "code", ["import polyhead", "import polyhead.cli", "import polyhead.evaluation", "import polyhead.report"]
)
def test_no_torch_left_of_the_manifest_or_right_of_the_predictions(code: str) -> None:
    check = f"{code}\nimport sys\nassert 'torch' not in sys.modules, 'torch was imported'"
    subprocess.run([sys.executable, "-c", check], check=True, timeout=60)
