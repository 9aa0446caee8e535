"""Commands that take a study or its results: demo, run, evaluate, report."""

from pathlib import Path
from typing import Annotated

import typer

from polyhead.cli.app import console, resumable
from polyhead.errors import UsageError

__all__ = ["demo", "evaluate", "report", "run"]


def demo(
    out: Annotated[Path, typer.Option(help="Folder to write to.")] = Path("demo"),
) -> None:
    """Draw three synthetic hospitals with different findings, train on them, and write the report."""
    from polyhead.demo import run_demo

    with resumable():
        run_demo(out, console)


def run(
    study: Annotated[Path, typer.Argument(help="The study file.", metavar="STUDY.toml")],
    out: Annotated[Path, typer.Option(help="The run directory; given again, the run goes on where it stopped.")],
    restart: Annotated[
        bool, typer.Option("--restart", help="Start anew; what is there is kept beside it, renamed.")
    ] = False,
    jobs: Annotated[
        int, typer.Option(help="Methods and seeds trained at a time, each in a process; results are the same.", min=1)
    ] = 1,
    threads: Annotated[
        int | None,
        typer.Option(help="CPU threads of each training; by default PyTorch's choice. Results depend on it.", min=1),
    ] = None,
) -> None:
    """Train every method with every seed of a study, then evaluate and write the report."""
    from polyhead.study import run_study

    with resumable():
        run_study(study, out, console, restart=restart, jobs=jobs, threads=threads)


def evaluate(
    source: Annotated[list[Path], typer.Argument(help="A run directory, or files of predictions, one a method.")],
    replicates: Annotated[
        int | None, typer.Option(help="Bootstrap replicates; by default the study's, or 1000.", min=100, max=100_000)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for the tables of prediction files; by default ./evaluation.")
    ] = None,
) -> None:
    """Compute metrics, intervals and paired comparisons from predictions; PyTorch is not needed."""
    from polyhead.begun import study_as_begun
    from polyhead.evaluation import check_complete, evaluate_cross_site, evaluate_files, evaluate_run
    from polyhead.finished import check_predictions_of
    from polyhead.study_file import read_study_text
    from polyhead.summary import print_summary

    if len(source) == 1 and source[0].is_dir():
        if out is not None:
            raise UsageError("--out goes with files of predictions; the tables of a run stay in its directory.")
        study = study_as_begun(source[0], read_study_text(source[0] / "study.toml"), source[0])
        check_complete(source[0], study.methods, study.seeds, [site.name for site in study.site])
        check_predictions_of(source[0])
        times = replicates or study.evaluation.replicates
        evaluate_run(source[0], times, study.methods)
        evaluate_cross_site(source[0], times, study.methods, study.findings.aliases)
        print_summary(source[0], console)
    elif any(path.is_dir() for path in source):
        raise UsageError("give one run directory, or files of predictions, not both.")
    else:
        folder = out or Path("evaluation")
        if any(path.resolve().parent == folder.resolve() for path in source):
            raise UsageError(f"--out {folder}: the predictions lie there, and results must not mix with them.")
        evaluate_files(source, folder, replicates or 1000)
        print_summary(folder, console)


def report(run: Annotated[Path, typer.Argument(help="A run directory.")]) -> None:
    """Write a run's report again."""
    from polyhead.finished import check_predictions_of
    from polyhead.report import write_report

    check_predictions_of(run)
    console.print(f"Report: {write_report(run)}", markup=False, highlight=False, soft_wrap=True)
