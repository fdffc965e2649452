"""A shard set on one page."""

from __future__ import annotations

from avprep.options import ReportOptions
from avprep.pages import shard_report
from avprep.pages.shard_report import ReportSummary
from avprep.progress import OnProgress, Progress, ignore


def report(
    shards: str,
    out: str,
    options: ReportOptions = ReportOptions(),
    on_progress: OnProgress = ignore,
) -> ReportSummary:
    """Write an HTML page that shows a shard set and needs no network.

    Args:
        shards: folder or URL prefix.
        out: file or URL of the page.
        options: what goes onto the page.
        on_progress: hears of shards whose index was read.

    Raises:
        UserError: no shard set there, an index is missing or damaged, or the page cannot be
            written.
    """
    done = 0

    def show(total: int) -> None:
        nonlocal done
        done += 1
        on_progress(Progress("shard", done, total))

    return shard_report.write_report(shards, out, options, show)
