"""One HTML page about a run: scores, slides, maps, doubtful records."""

from proportion_ssl.reporting._report import ReportSlide, report

__all__ = [
    "ReportSlide",
    "report",
]
