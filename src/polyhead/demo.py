"""``polyhead demo``: a whole study on synthetic radiographs, by the same code as any other."""

from importlib.resources import files
from pathlib import Path

from rich.console import Console

from polyhead.atomic import write_atomically
from polyhead.phantom import write_demo_sites
from polyhead.progress import progress_bar
from polyhead.study import run_study

__all__ = ["run_demo"]

_SEED = 2023


def run_demo(out: Path, console: Console) -> Path:
    """Draw three hospitals into ``out/sites``, write ``out/study.toml`` and run it into ``out/run``.

    Given again, what is there is used again.

    Returns
    -------
    pathlib.Path
        The report.
    """
    study_file = out / "study.toml"
    if not study_file.exists():
        with progress_bar(console) as progress:
            task = progress.add_task("Drawing phantoms", total=None)
            write_demo_sites(
                out / "sites", _SEED, lambda done, total: progress.update(task, completed=done, total=total)
            )
        # Written last: a folder that has it has all images.
        write_atomically(study_file, _study_text())
    console.print(f"Study of three synthetic hospitals: {study_file}", markup=False, highlight=False, soft_wrap=True)
    return run_study(study_file, out / "run", console)


def _study_text() -> str:
    return files("polyhead").joinpath("demo.toml").read_text()
