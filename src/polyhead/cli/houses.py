"""Commands of a hospital that takes part in a federation: site join, site audit."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import TaskID
from rich.table import Table
from rich.text import Text

from polyhead.cli.app import console, errors
from polyhead.cli.engine import needs_engine, say, stoppable, warn_of_expiry
from polyhead.errors import RunError, UsageError

if TYPE_CHECKING:
    from polyhead.config import StudyConfig
    from polyhead.deployment.agreed import Agreed

__all__ = ["audit", "join"]


def join(
    kit: Annotated[Path, typer.Argument(help="The site's kit, from `polyhead federation init`.", metavar="KIT")],
    site: Annotated[Path, typer.Argument(help="The site's own settings; they stay here.", metavar="SITE.toml")],
    yes: Annotated[bool, typer.Option("--yes", help="Agree to what will leave this house, unasked.")] = False,
    patience: Annotated[float, typer.Option(help="Seconds until the server must have answered.", min=1)] = 600.0,
) -> None:
    """Check the kit and the data, show what will leave this house, and take part until Ctrl-C."""
    with needs_engine():
        from polyhead.flare.foreground import take_part
        from polyhead.flare.preflight import open_kit
        from polyhead.flare.processes import remove_jobs
    from polyhead.deployment.agreed import study_at
    from polyhead.deployment.budget import limit_in
    from polyhead.deployment.release import policy_in, policy_words
    from polyhead.errors import StudyError
    from polyhead.toml_file import read_toml

    opened = open_kit(kit, "site")
    warn_of_expiry(opened.days_left, opened.until)
    own = read_toml(site, StudyError)
    study = study_at(opened.agreed, opened.name, own, site.parent, str(site))
    _check_data(study, site, kit)
    _show_leaving(opened.name, opened.agreed, policy_words(policy_in(own, str(site))))
    _show_cost(opened.agreed, study, limit_in(own, opened.agreed.privacy, str(site)))
    _ask(yes)
    # First: what runs from the kit would take up settings, and a policy, that it was not started with.
    remove_jobs(opened.folder)
    _keep_settings(kit, own, site)
    with stoppable():
        take_part(opened, say, patience)
    say("the coordinator ended the federation.")


def audit(kit: Annotated[Path, typer.Argument(help="The site's kit.", metavar="KIT")]) -> None:
    """Verify a site's record of every message out and in, and sum it up; exit code 1 if a line was changed."""
    from polyhead.deployment.audit import verify
    from polyhead.deployment.budget import spent
    from polyhead.flare.layout import AUDIT, STATES

    file = kit / AUDIT
    if not file.is_file():
        raise RunError(f"{file}: is missing: no message came or left, or this is no site's kit.")
    found = verify(file)
    say(f"{file}: every line is whole.")
    table = Table("Direction", "Messages", "Bytes of tensors")
    for direction in ("in", "out"):
        table.add_row(direction, f"{found.messages[direction]:,}", f"{found.bytes[direction]:,}")
    console.print(table)
    say(f"Hash of the last line: {found.last}")
    say("Keep it elsewhere, on paper or at a colleague's: who changes the record cannot keep this hash.")
    if (answered := spent(kit / STATES)) is not None:
        of = f"{answered.questions:,} rounds, {answered.steps:,} steps"
        say(f"Privacy spent: epsilon {answered.epsilon:.2f} at delta {answered.delta:g} ({of}).")


def _check_data(study: "StudyConfig", source: Path, kit: Path) -> None:
    from polyhead.check.images import Reading
    from polyhead.check.show import show
    from polyhead.check.study import check_settings
    from polyhead.progress import progress_bar

    with stoppable(), progress_bar(errors) as progress:
        tasks: dict[str, TaskID] = {}

        def told(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total)
            progress.update(tasks[what], completed=done, total=total, visible=done < total)

        result = check_settings(study, source, Reading(progress=told), whole=False, run=kit)
    show(result, console)
    if not result.sound:
        raise RunError(f"{source}: the data has errors, shown above. Mend them, then join again.")


def _show_leaving(name: str, agreed: "Agreed", policy: str) -> None:
    """Show everything that a person has to agree to."""
    from polyhead.deployment.leaving import heads_that_leave, what_leaves

    table = Table("Method", "Tensors a round", "Size", title=f"\nWhat will leave {name}", title_justify="left")
    for leaving in what_leaves(agreed):
        table.add_row(Text(leaving.method), f"{leaving.tensors}", f"{leaving.bytes / 1e6:,.2f} MB")
    console.print(table)
    if agreed.privacy.noise:
        say("Each round with noise in it; neither the number of images nor a loss. If a round fails, its cause.")
    else:
        say("Each round also: the number of training images, and the mean training loss. If a round fails, its cause.")
    say(policy)
    heads = heads_that_leave(agreed)
    for method, findings in heads.items():
        say(f"The head of {method} is among its tensors; its findings, as agreed: {', '.join(findings)}.")
    others = "all other heads" if heads else "the heads"
    say(f"Never: images, labels, patients, paths, predictions, and {others}.")
    say(f"Agreement {agreed.sha256}")
    say("Compare it with the other hospitals: all must see the same.")


def _show_cost(agreed: "Agreed", study: "StudyConfig", limit: float | None) -> None:
    """Show what the study costs this site's patients, and whether its own limit lets it take part to the end."""
    from polyhead.deployment.leaving import what_it_costs
    from polyhead.sites import read_site

    if not agreed.privacy.noise:
        return
    patients = read_site(study.site[0]).split("train")["patient_id"].n_unique()
    cost = what_it_costs(agreed, patients, limit)
    if cost is None:
        return
    say(f"Privacy of its {patients:,} training patients: epsilon {cost.epsilon:.2f} at delta {cost.delta:g}, all told.")
    if limit is not None:
        say(f"This site's own limit: epsilon {limit:g}.")
    if cost.allowed < cost.rounds:
        say(f"It will stop taking part after about {cost.allowed:,} of {cost.rounds:,} rounds.")


def _ask(yes: bool) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nobody is here to be asked whether this may leave: give --yes, or join at a terminal.")
    if not typer.confirm("May this leave the house?"):
        raise typer.Exit(1)


def _keep_settings(kit: Path, own: dict[str, object], site: Path) -> None:
    from polyhead.atomic import write_atomically
    from polyhead.deployment.house_file import own_text
    from polyhead.flare.layout import SITE_FILE, local_folder

    write_atomically(local_folder(kit) / SITE_FILE, own_text(own, site.parent))
