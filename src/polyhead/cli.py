"""The command line: ``polyhead COMMAND``.

Commands import what they need when they run, so that ``--help`` answers at once and ``evaluate`` needs no PyTorch.
"""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.logging import RichHandler
from rich.markup import escape

from polyhead.errors import PolyheadError, UsageError

__all__ = ["app", "main"]

app = typer.Typer(
    name="polyhead",
    help="Train one backbone together when every hospital has labelled different findings.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)
console = Console()
errors = Console(stderr=True)


@app.callback()
def _options(
    debug: Annotated[
        bool, typer.Option("--debug", help="Show the traceback of an error; goes with any command.")
    ] = False,
) -> None:
    # Read by main(), which sees the error; declared here for --help.
    """Train one backbone together when every hospital has labelled different findings."""


@app.command("demo", epilog="Example: `polyhead demo --out demo`")
def _demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo"),
) -> None:
    """Draw three synthetic hospitals with different findings, train on them, and write the report."""
    from polyhead.demo import run_demo

    with _resumable():
        run_demo(out, console)


@app.command("run", epilog="Example: `polyhead run examples/three_countries.toml --out runs/three_countries`")
def _run(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.toml")],
    out: Annotated[Path, typer.Option(help="The run directory; given again, the run goes on where it stopped.")],
) -> None:
    """Train every method with every seed of a study, then evaluate and write the report."""
    from polyhead.study import run_study

    with _resumable():
        run_study(study, out, console)


@app.command("prepare", epilog="Example: `polyhead prepare data/our-hospital --size 224`")
def _prepare(
    site: Annotated[Path, typer.Argument(help="A site's folder, with manifest.csv.")],
    size: Annotated[int, typer.Option(help="Side of the square images in pixels.", min=32, max=2048)] = 224,
    skip: Annotated[float, typer.Option(help="Share of unreadable images to leave out at most.", min=0, max=1)] = 0.01,
    cache: Annotated[Path | None, typer.Option(help="Folder of the cache; by default the site's own.")] = None,
) -> None:
    """Read a site's images once into a pixel cache; interrupted, it goes on where it stopped."""
    from polyhead.imaging.prepare import prepare
    from polyhead.manifest import read_manifest
    from polyhead.progress import progress_bar

    manifest = read_manifest(site / "manifest.csv")
    with _resumable(), progress_bar(console) as progress:
        task = progress.add_task("Reading images", total=None)
        pixels = prepare(
            manifest,
            cache or site,
            size,
            bad_budget=skip,
            progress=lambda done, total: progress.update(task, completed=done, total=total),
        )
    for image, reason in pixels.bad.items():
        console.print(f"left out: {image}: {reason}", markup=False)
    console.print(f"{manifest.frame.height - len(pixels.bad)} images of {size} x {size} are ready.")


@app.command("evaluate", epilog="Example: `polyhead evaluate runs/three_countries --replicates 2000`")
def _evaluate(
    source: Annotated[list[Path], typer.Argument(help="A run directory, or files of predictions, one a method.")],
    replicates: Annotated[
        int | None, typer.Option(help="Bootstrap replicates; by default the study's, or 1000.", min=100, max=100_000)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables of prediction files; by default ./evaluation.")
    ] = None,
) -> None:
    """Compute metrics, intervals and paired comparisons from predictions; PyTorch is not needed."""
    from polyhead.config import load_study
    from polyhead.evaluation import check_complete, evaluate_files, evaluate_run
    from polyhead.summary import print_summary

    if len(source) == 1 and source[0].is_dir():
        if out is not None:
            raise UsageError("--out goes with files of predictions; the tables of a run stay in its directory.")
        study = load_study(source[0] / "study.toml")
        check_complete(source[0], study.methods, study.seeds, [site.name for site in study.site])
        evaluate_run(source[0], replicates or study.evaluation.replicates, study.methods)
        print_summary(source[0], console)
    elif any(path.is_dir() for path in source):
        raise UsageError("give one run directory, or files of predictions, not both.")
    else:
        folder = out or Path("evaluation")
        if any(path.resolve().parent == folder.resolve() for path in source):
            raise UsageError(f"--out {folder}: the predictions lie there, and results must not mix with them.")
        evaluate_files(source, folder, replicates or 1000)
        print_summary(folder, console)


@app.command("report", epilog="Example: `polyhead report runs/three_countries`")
def _report(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Write a run's report again."""
    from polyhead.report import write_report

    console.print(f"Report: {write_report(run)}", markup=False, highlight=False, soft_wrap=True)


@contextmanager
def _resumable() -> Iterator[None]:
    """Say after Ctrl-C that nothing is lost."""
    try:
        yield
    except KeyboardInterrupt:
        errors.print("interrupted; the same command goes on where it stopped.")
        raise typer.Exit(130) from None


def main() -> None:
    """Run a command; a user's mistake becomes a message and an exit code, never a traceback.

    Exit codes: 0 done, 1 failed, 2 wrong use, 130 interrupted.
    """
    arguments = [argument for argument in sys.argv[1:] if argument != "--debug"]
    handler = RichHandler(console=errors, show_time=False, show_path=False)
    logging.basicConfig(level=logging.WARNING, format="%(message)s", handlers=[handler])
    logging.captureWarnings(True)
    try:
        app(arguments)
    except Exception as problem:
        if "--debug" in sys.argv:
            raise
        errors.print(f"[bold red]error:[/] {escape(_explain(problem))}", soft_wrap=True, highlight=False)
        sys.exit(problem.exit_code if isinstance(problem, PolyheadError) else 1)


def _explain(problem: Exception) -> str:
    if isinstance(problem, PolyheadError):
        return str(problem)
    if isinstance(problem, OSError) and problem.strerror:
        return f"{problem.filename or 'the disk'}: {problem.strerror}. What was finished before is kept."
    kind = type(problem).__name__
    return f"{kind}: {problem}. This is a fault of Polyhead, not yours; --debug shows where. Please report it."
