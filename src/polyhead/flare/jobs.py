"""A segment of rounds, or the evaluation, as a job of the engine: three small files, and no code."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from polyhead.atomic import write_atomically
from polyhead.deployment.coordinator import Segment
from polyhead.flare.controller import TASK, FederationController
from polyhead.flare.executor import FederationExecutor

__all__ = ["SERVER_SETTINGS", "SITE_SETTINGS", "path_of", "write_job"]

_APP = "app"
# Arrays go with their message: fetched piece by piece, those of a site that dies meanwhile are waited for.
_WHOLE = {"np_download_chunk_size": 0}
_BOTH: Mapping[str, Any] = {
    "format_version": 2,
    "task_data_filters": [],
    "task_result_filters": [],
    "components": [],
}

SERVER_SETTINGS: Mapping[str, Any] = {
    **_WHOLE,
    "server": {"task_request_interval": 0.2},
    "dead_client_grace_period": 5,
    "dead_client_check_lead_time": 3,
}
"""The engine's own settings at the server of a job: seconds between a site's questions whether there is work; and until
a site whose process died is given up."""

SITE_SETTINGS: Mapping[str, Any] = {**_WHOLE, "job_heartbeat_interval": 2}
"""The engine's own settings at the sites of a job."""


def write_job(folder: Path, segment: Segment, deadline: float, silence: float, least_sites: int) -> Path:
    """Write a job.

    Parameters
    ----------
    folder
        Where its folder goes, named after the segment.
    deadline, silence
        Seconds that a site has for a round, and without a sign of life.
    least_sites
        The engine starts the job when so many sites are connected.
    """
    job = folder / segment.name
    about = {"method": segment.method, "seed": segment.seed, "until": segment.until, "segment": segment.name}
    patience = {"deadline": deadline, "silence": silence}
    workflow = {"id": "federation", "path": path_of(FederationController), "args": {**about, **patience}}
    executor = {"tasks": [TASK], "executor": {"path": path_of(FederationExecutor), "args": {}}}
    meta = {"name": segment.name, "resource_spec": {}, "deploy_map": {_APP: ["@ALL"]}, "min_clients": least_sites}
    files = {
        "meta.json": meta,
        f"{_APP}/config/config_fed_server.json": {**_BOTH, **SERVER_SETTINGS, "workflows": [workflow]},
        f"{_APP}/config/config_fed_client.json": {**_BOTH, **SITE_SETTINGS, "executors": [executor]},
    }
    for name, content in files.items():
        write_atomically(job / name, json.dumps(content, indent=2))
    return job


def path_of(kind: type) -> str:
    """Return what the engine knows a class by."""
    return f"{kind.__module__}.{kind.__qualname__}"
