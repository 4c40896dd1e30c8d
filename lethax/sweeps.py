"""Have groups of runs done by jobs: start them, wait for them, and say what they do."""

import time
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from lethax import signals
from lethax.clusters import Cluster, result
from lethax.errors import RunError
from lethax.progress import say
from lethax.runs.jobs import Job, in_use
from lethax.text import counted, shown

POLL = 1.0  # seconds between two looks at the jobs
TELL = 60.0  # seconds between two lines on what they do
_TOLD = 5  # jobs that such a line names


class Part(NamedTuple):
    """A group of runs that one job does: the title, the words of its `lethax` command, and the runs that are not done yet."""

    title: str
    words: tuple[str, ...]
    left: Callable[[], Sequence[Job]]


def follow(
    parts: Sequence[Part], cluster: Cluster, at_once: int | None
) -> Generator[tuple[Part, RunError | None], None, None]:
    """Have every part done by a job, and yield it with its failure as soon as it is. What another process is about is left to that.

    If the command ends before, `Cluster.leave` says what becomes of the jobs.
    """
    waiting, live, told = list(parts), dict[Part, Any](), time.monotonic()
    busy, over, again = set[Part](), dict[Part, float](), set[Part]()  # over: when a job was first seen to have ended
    with signals.deferred():
        try:
            while waiting or live:
                for part, job in list(live.items()):
                    if not job.done():
                        over.pop(part, None)  # SLURM has started it anew
                        continue
                    late = time.monotonic() - over.setdefault(part, time.monotonic()) >= cluster.lag
                    if part.left() and not result(job)[0] and not late:
                        continue  # files of another machine may be seen late
                    del live[part]
                    if part.left() and result(job)[0] == 0 and part not in again:  # an older job, of some of the runs
                        again.add(part)
                        waiting.append(part)
                    else:
                        yield part, _failure(part, job, cluster)
                for part in list(waiting):
                    if len(live) >= (at_once or cluster.most):
                        break
                    left = part.left()
                    folders = [one.folder for one in left]
                    job = cluster.known(folders)
                    if job is None and (other := in_use(left)):
                        if part not in busy:
                            say(f"{part.title} is in use by process {shown(other, 100)}: waiting")
                        busy.add(part)
                        continue
                    waiting.remove(part)
                    if left:
                        live[part] = job = job or cluster.start(part.words, folders)
                        say(f"{part.title}: job {job.job_id}, whose log is {shown(job.paths.stdout)}")
                    else:
                        yield part, None
                cluster.foretell(list(live.values()))
                if time.monotonic() - told > TELL:
                    told = time.monotonic()
                    say(_doing(live, len(waiting), cluster))
                signals.check()
                time.sleep(POLL if waiting or live else 0)
        except BaseException:
            cluster.leave(list(live.values()))
            raise


def _failure(part: Part, job: Any, cluster: Cluster) -> RunError | None:
    if not part.left():
        return None
    code, said = result(job)
    said = said.removeprefix("lethax: ").rstrip(".")
    if not code:
        said = f"{cluster.fate(job)} ({said})" if said else cluster.fate(job)
    return RunError(f"{part.title}: job {job.job_id} failed: {shown(said, 1000)}. Its log is {shown(job.paths.stdout)}")


def _doing(live: Mapping[Part, Any], waiting: int, cluster: Cluster) -> str:
    """One line on what the jobs do."""
    said = [f"{part.title} {_at(part, cluster.queued(job))}" for part, job in list(live.items())[:_TOLD]]
    if len(live) > _TOLD:
        said.append(f"{counted(len(live) - _TOLD, 'more job')}")
    if waiting:
        said.append(f"not begun: {waiting:,} more")
    return "; ".join(said)


def _at(part: Part, queued: bool) -> str:
    untrained = [one for one in part.left() if not one.trained]
    if queued:
        return "is in the queue"
    if not untrained:
        return "is being judged"
    return f"is at outer step {min(one.reached for one in untrained):,} of {untrained[0].recipe.outer.steps:,}"
