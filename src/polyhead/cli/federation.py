"""Commands of who coordinates a federation, and of who runs its server."""

import hashlib
from collections.abc import Mapping
from datetime import datetime
from itertools import product
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table
from rich.text import Text

from polyhead.cli.app import console, errors, resumable
from polyhead.cli.engine import needs_engine, say, stoppable, warn_of_expiry
from polyhead.errors import RunError, UsageError
from polyhead.printable import printable

if TYPE_CHECKING:
    from polyhead.flare.preflight import Kit
    from polyhead.flare.supervisor import Post

__all__ = ["init", "server", "start", "status", "stop"]

StudyArgument = Annotated[Path, typer.Argument(help="The study of all; a [[site]] needs a name.", metavar="STUDY.toml")]
AdminArgument = Annotated[Path, typer.Argument(help="The coordinator's kit.", metavar="ADMIN_KIT")]
ServerOption = Annotated[
    Path | None, typer.Option("--server", help="The server's kit; by default `server` beside the coordinator's.")
]


def init(
    study: StudyArgument,
    out: Annotated[Path, typer.Option(help="A new folder for the kits, one a party.")],
    host: Annotated[str, typer.Option(help="The server's host name, as the sites know it.")] = "localhost",
    port: Annotated[int, typer.Option(help="Its port for sites.", min=1, max=65535)] = 8002,
    admin_port: Annotated[
        int | None, typer.Option(help="Its port for the coordinator; by default the same.", min=1, max=65535)
    ] = None,
    coordinator: Annotated[str, typer.Option(help="Her or his e-mail address.")] = "coordinator@federation.example",
) -> None:
    """Make the kits of a federation: one for the server, each site and the coordinator, with certificates."""
    with needs_engine():
        from polyhead.flare.kits import Server, provision
        from polyhead.flare.preflight import open_kit
        from polyhead.flare.processes import silenced
    from polyhead.deployment.agreed import agreement_of
    from polyhead.deployment.house_file import read_common_study

    settings = read_common_study(study)
    sites = sorted(site.name for site in settings.site)
    try:
        with silenced():
            where = Server(host, port, admin_port or port)
            kits = provision(out, agreement_of(settings), sites, where, coordinator, settings.model.weights)
    except ValueError as problem:
        raise UsageError(f"the engine refuses a name: {problem}") from problem
    opened = open_kit(kits.server, "server")
    table = Table("Kit", "Goes to", title=f"{settings.name}: {len(sites)} sites", title_justify="left")
    table.add_row(Text(str(kits.server)), Text(f"who runs the server, {host}"))
    for name, kit in kits.sites.items():
        table.add_row(Text(str(kit)), Text(f"site {name}"))
    table.add_row(Text(str(kits.admin)), Text(f"the coordinator, {coordinator}"))
    table.add_row(Text(str(out / "authority")), "nobody: keep it safe and offline")
    console.print(table)
    say("Each kit holds a private key: hand it over on a way that nobody else reads. authority/ can make more kits.")
    say(f"Certificates are valid until {opened.until:%Y-%m-%d}.")
    say(f"Agreement {opened.agreed.sha256}")
    if host in ("localhost", "127.0.0.1"):
        say("The server will be reached from this machine only: give --host for others.")


def server(
    kit: Annotated[Path, typer.Argument(help="The server's kit.", metavar="KIT")],
) -> None:
    """Run the server of a federation until Ctrl-C."""
    with needs_engine():
        from polyhead.flare.foreground import serve
        from polyhead.flare.preflight import open_kit

    opened = open_kit(kit, "server")
    warn_of_expiry(opened.days_left, opened.until)
    with stoppable():
        serve(opened, say)
    say("the coordinator stopped the server.")


def start(
    study: StudyArgument,
    admin_kit: AdminArgument,
    server: ServerOption = None,
    out: Annotated[Path, typer.Option(help="The run directory, for the tables and the report.")] = Path("federation"),
    segment: Annotated[
        int | None,
        typer.Option(help="Rounds until sites that were lost may come back; by default ten minutes of them.", min=1),
    ] = None,
    deadline: Annotated[float, typer.Option(help="Seconds that a site has for a round.", min=1)] = 3600.0,
) -> None:
    """Train every method with every seed at the sites, evaluate there, and write the report.

    Given again, it goes on where it stopped.
    """
    with needs_engine():
        from polyhead.flare.preflight import open_kit
        from polyhead.flare.processes import quiet_loggers
        from polyhead.flare.supervisor import Patience, run_study
    from polyhead.cli.watch import watch
    from polyhead.progress import progress_bar
    from polyhead.stopping import gently

    opened = open_kit(admin_kit, "coordinator")
    warn_of_expiry(opened.days_left, opened.until)
    _refuse_other_study(study, opened)
    rounds = opened.agreed.federation.rounds
    with resumable(), quiet_loggers(), progress_bar(errors) as progress, gently(_say_stopping) as stop_here:
        shown = watch(progress, opened.agreed.sites, rounds, say)

        def tell(event: Mapping[str, Any]) -> None:
            shown(event)
            stop_here()

        report = run_study(_post(opened, server), opened.agreed, out, Patience(deadline=deadline), segment, tell)
    say(f"Report: {report}")


def status(admin_kit: AdminArgument, server: ServerOption = None) -> None:
    """Say who is connected, and how far each method and seed is."""
    with needs_engine():
        from polyhead.flare.preflight import open_kit
        from polyhead.flare.processes import quiet_loggers
        from polyhead.flare.supervisor import session_of

    opened = open_kit(admin_kit, "coordinator")
    post = _post(opened, server)
    with quiet_loggers(), session_of(post) as session:
        about = session.get_system_info()
    here = sorted(client.name for client in about.client_info)
    away = sorted(set(opened.agreed.sites) - set(here))
    since = datetime.fromtimestamp(about.server_info.start_time)
    say(f"The server at {opened.host} has run since {since:%Y-%m-%d %H:%M}.")
    say(f"Connected: {', '.join(here) or 'no site'}. Not connected: {', '.join(away) or 'none'}.")
    _show_progress(opened, post.states)


def stop(admin_kit: AdminArgument) -> None:
    """Ask the server and all connected sites to stop; nothing is lost."""
    with needs_engine():
        from polyhead.flare.preflight import open_kit
        from polyhead.flare.processes import quiet_loggers
        from polyhead.flare.supervisor import session_of

    opened = open_kit(admin_kit, "coordinator")
    with quiet_loggers(), session_of(_post(opened, None)) as session:
        session.shutdown("all", wait=False)
    say("Server and sites were asked to stop; they take up to half a minute.")


def _show_progress(opened: "Kit", states: Path) -> None:
    """Show the last event of each method and seed, from the server's own files."""
    from polyhead.deployment.coordinator import EVENTS, store_of
    from polyhead.deployment.events import read_events
    from polyhead.deployment.results import unreleased

    if not states.parent.is_dir():
        say(f"{states}: the server's kit is not here; --server names its folder, and shows how far it is.")
        return
    agreed = opened.agreed
    table = Table("Method", "Seed", "Rounds", "Last event", "At")
    for method, seed in product(agreed.settings["methods"], agreed.settings["seeds"]):
        events = read_events(store_of(agreed, states, method, seed).folder / EVENTS)
        done = max((event["round"] + 1 for event in events if event["event"] == "round"), default=0)
        last: Mapping[str, Any] = events[-1] if events else {"event": "-"}
        when = f"{datetime.fromtimestamp(last['time']):%Y-%m-%d %H:%M:%S}" if events else ""
        what = f"{last['event']} {last.get('reason', '')}".strip()
        table.add_row(Text(method), str(seed), f"{done} of {agreed.federation.rounds}", Text(printable(what)), when)
    console.print(table)
    for site, why in unreleased(agreed, states).items():
        say(f"Results of {site}: {printable(why)}")


def _say_stopping(text: str) -> None:
    say(f"{text} ...")


def _post(opened: "Kit", server: Path | None) -> "Post":
    from polyhead.flare.layout import STATES
    from polyhead.flare.supervisor import Post

    return Post(opened.folder, opened.name, (server or opened.folder.absolute().parent / "server") / STATES)


def _refuse_other_study(study: Path, opened: "Kit") -> None:
    from polyhead.deployment.agreed import agreement_of
    from polyhead.deployment.house_file import differences, read_common_study

    given = read_common_study(study)
    found = hashlib.sha256(agreement_of(given).encode()).hexdigest()
    if found != opened.agreed.sha256:
        which = differences(opened.agreed, given)
        raise RunError(
            f"{study}: is not what the hospitals agreed on: its hash is {found[:12]}, the kit's is "
            f"{opened.agreed.sha256[:12]} ({'; '.join(which[:3])}). Take the study of the kit, or make new ones."
        )
