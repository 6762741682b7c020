"""What a wheel of attnc holds, and that it works away from the source tree."""

import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path, PurePosixPath

import pytest
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
FOLDERS = {
    "compiler": "attnc",
    "runtime": "attnc/runtime",
    "codegen_templates": "attnc/codegen_templates",
}
SHIPPED = {".py", ".jinja", ".typed"}


def run(*command: str | Path, cwd: Path) -> str:
    """Standard output of a command that succeeds; its standard error is shown when it does not."""
    done = subprocess.run(
        command, check=False, cwd=cwd, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def shipped_files() -> set[str]:
    """Names inside the wheel that the three source folders should give."""
    return {
        str(PurePosixPath(package, *path.relative_to(ROOT / folder).parts))
        for folder, package in FOLDERS.items()
        for path in (ROOT / folder).rglob("*")
        if path.suffix in SHIPPED
    }


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel built from a copy: one built in place takes stale files from build/ with it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    source.mkdir()
    for name in (*FOLDERS, "pyproject.toml", "README.md", "LICENSE"):
        path = ROOT / name
        if path.is_dir():
            shutil.copytree(path, source / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(path, source)
    pip = [sys.executable, "-m", "pip", "wheel", "-q", "--no-build-isolation", "--no-deps"]
    run(*pip, "--wheel-dir", folder, source, cwd=folder)
    [built] = folder.glob("*.whl")
    return built


@pytest.fixture(scope="session")
def installed(wheel: Path) -> Path:
    """The folder that the wheel is installed into."""
    target = wheel.parent / "site"
    pip = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index"]
    run(*pip, "--target", target, wheel, cwd=wheel.parent)
    return target


def test_wheel_holds_the_source_folders_and_nothing_else(wheel: Path) -> None:
    """Every module, template and the py.typed marker is in the wheel, under the public names."""
    names = set(zipfile.ZipFile(wheel).namelist())

    package = {name for name in names if ".dist-info/" not in name}

    assert package == shipped_files()
    assert "attnc/py.typed" in package
    assert any(name.endswith(".jinja") for name in package)


def test_source_folders_are_not_importable_by_their_own_names(installed: Path) -> None:
    """`compiler`, `runtime` and `codegen_templates` exist as parts of attnc only."""
    top_level = {path.name for path in installed.iterdir()}

    assert top_level & set(FOLDERS) == set()


def test_installed_wheel_works_from_another_folder(installed: Path, tmp_path: Path) -> None:
    """The installed copy, not the source tree, is imported, and finds its templates."""
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "import attnc, jinja2\n"
        "loader = jinja2.PackageLoader('attnc.codegen_templates', '')\n"
        "print(attnc.__file__)\n"
        "print(*loader.list_templates())\n"
    )

    output = run(sys.executable, "-c", program, cwd=tmp_path)

    origin, templates = output.splitlines()
    assert Path(origin) == installed / "attnc" / "__init__.py"
    assert any(name.endswith(".jinja") for name in templates.split())


def test_command_is_installed(installed: Path, tmp_path: Path) -> None:
    """The wheel brings the `attnc` command, which prints its help."""
    program = (
        f"import sys; sys.path.insert(0, {str(installed)!r})\n"
        "from importlib.metadata import distribution\n"
        "[entry] = distribution('attnc').entry_points.select(name='attnc', group='console_scripts')\n"
        "sys.argv = ['attnc', '--help']\n"
        "entry.load()()\n"
    )

    assert "inspect" in run(sys.executable, "-c", program, cwd=tmp_path)


def test_every_requirement_is_pinned() -> None:
    """What pyproject.toml asks for has an exact version in constraints.txt."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"].values()
    wanted = {
        Requirement(line).name for lines in [project["dependencies"], *extras] for line in lines
    }
    lines = (ROOT / "constraints.txt").read_text().splitlines()
    pinned = [Requirement(line) for line in lines if line and not line.startswith("#")]

    assert {str(pin.specifier)[:2] for pin in pinned} == {"=="}
    assert {name.lower() for name in wanted} - {"attnc"} <= {pin.name.lower() for pin in pinned}
