"""HTML report of a run on one page: scores, slides, maps, doubtful records."""

from proportion_ssl.reporting._outlook import ReportOutlook
from proportion_ssl.reporting._report import ReportSlide, report
from proportion_ssl.reporting._test_slides import ReportTest

__all__ = [
    "ReportOutlook",
    "ReportSlide",
    "ReportTest",
    "report",
]
