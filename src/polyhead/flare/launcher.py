"""How a site starts its process of a job: as the engine does, but its death is the site's own affair.

As shipped, one site's process that is killed ends the job of all sites.
"""

from nvflare.apis.fl_context import FLContext
from nvflare.apis.job_launcher_spec import JobHandleSpec, JobReturnCode
from nvflare.app_common.job_launcher.client_process_launcher import ClientProcessJobLauncher

__all__ = ["SiteJobLauncher"]


class _Neutral(JobHandleSpec):
    """A process of which only success is told; anything else reads as unknown, which the server does not act on."""

    def __init__(self, handle: JobHandleSpec) -> None:
        self._handle = handle

    def terminate(self) -> None:
        self._handle.terminate()

    def poll(self) -> int:
        code: int = self._handle.poll()
        return code if code == JobReturnCode.SUCCESS else JobReturnCode.UNKNOWN

    def wait(self) -> None:
        self._handle.wait()


class SiteJobLauncher(ClientProcessJobLauncher):
    """Launches a site's process of a job; named in the site's ``resources.json``."""

    def launch_job(self, job_meta: dict[str, object], fl_ctx: FLContext) -> JobHandleSpec:
        """Start the process."""
        return _Neutral(super().launch_job(job_meta, fl_ctx))
