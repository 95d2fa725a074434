"""What rollouts need of what was counted."""

from typing import Protocol

from gateway.control.rollouts.elsewhere import CountsElsewhere
from gateway.control.rollouts.windows import Judged as JudgedCells
from gateway.control.tally import Part


class TallyView(CountsElsewhere, Protocol):
    """What rollouts need of the counts."""

    @property
    def has_ended(self) -> bool:
        """Whether totals of a worker that ended are stored nowhere yet."""

    def judged(self, service: str) -> JudgedCells: ...
    def take_cohort_errors(self, service: str) -> list[tuple[str, int, int, int, str]]: ...
    def part(self, service: str) -> Part: ...
    def start_of(self, part: Part, service: str, floor: int) -> JudgedCells: ...
    def dump(self) -> bytes: ...
    def dump_stored(self) -> None: ...
