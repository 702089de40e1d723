"""Files that are wrong in every way, and what must become of each.

A `Case` is made from the name of a target and a number, and from nothing else: files that were
written well, then spoilt. What must become of it says an oracle of the target: plain Python that
looks at the same bytes and gives the only right content, or raises `InvalidError`. `examine` reads
the files with nearfar and raises a `FindingError` if it reads something else, refuses what can be
read, or refuses with anything but an error of nearfar that names the file, the line and a remedy.

To replay a finding: ``examine(case("text", 3273), folder)``.
"""

from fuzzing.cases import FindingError
from fuzzing.loop import TARGETS, case, examine, run

__all__ = ["TARGETS", "FindingError", "case", "examine", "run"]
