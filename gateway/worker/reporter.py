"""What a worker tells control every 100 ms: the counts that changed, and what still runs where it drains."""

from gateway.link.counts import VersionCounts, totals_of
from gateway.link.messages import Counts, DrainReport, EndpointLoad
from gateway.link.spans import Spans
from gateway.link.totals import VersionTotals
from gateway.worker.plane import Plane
from gateway.worker.uplink import Uplink


class Reporter:
    """What goes up every 100 ms: the counts that changed, and what still runs at draining endpoints."""

    def __init__(self, plane: Plane, uplink: Uplink) -> None:
        self._plane = plane
        self._uplink = uplink
        self._in_flight: dict[str, tuple[int, int]] = {}
        """By version id: the gauges last sent. They move without making a version dirty."""
        self._watched: set[str] = set()
        """Draining endpoints."""
        self._loads: tuple[EndpointLoad, ...] = ()

    def watch(self, keys: tuple[str, ...]) -> None:
        """Report on these endpoints from now on."""
        self._watched.update(keys)
        self._loads = ()

    def repeat(self) -> None:
        """A new control listens: it knows nothing yet."""
        self._loads = ()
        for counts in self._plane.live_table.counts.values():
            counts.dirty = True

    def report(self, lag_us: int) -> None:
        """Send counts and loads, unless the last ones still wait to be taken: then their changes wait too."""
        if not self._uplink.is_connected or self._uplink.backlog:
            return
        self._uplink.send(self._counts(lag_us))
        spans, answers = self._plane.context.spans.take(), self._plane.context.spans.take_answers()
        if spans or answers:
            self._uplink.send(Spans(spans, answers))
        if self._watched:
            self._report_loads()

    def report_last(self) -> None:
        """Send what has changed, whatever waits: there is no next time."""
        self._uplink.send(self._counts(0))

    def _counts(self, lag_us: int) -> Counts:
        plane = self._plane
        return Counts(
            versions=tuple(
                self._taken(each)
                for each in self._plane.live_table.counts.values()
                if self._has_changed(each)
            ),
            connections=plane.connections,
            accepted=plane.clients.accepted,
            requests=plane.context.requests,
            refused=dict(plane.clients.refused),
            forced=plane.draining.forced,
            log_dropped=plane.context.log_file.dropped,
            loop_lag_us=lag_us,
            upstream=plane.upstream_connections(),
            spans_dropped=plane.context.spans.dropped,
        )

    def _has_changed(self, counts: VersionCounts) -> bool:
        gauges = (counts.in_flight, counts.streams)
        return counts.dirty or self._in_flight.get(counts.version_id, (0, 0)) != gauges

    def _taken(self, counts: VersionCounts) -> VersionTotals:
        counts.dirty = False
        self._in_flight[counts.version_id] = (counts.in_flight, counts.streams)
        return totals_of(counts)

    def _report_loads(self) -> None:
        running = {load.key: load for load in self._plane.draining.report()}
        loads = tuple(running.get(key) or EndpointLoad(key, 0, 0, 0) for key in sorted(self._watched))
        if loads != self._loads:
            self._loads = loads
            self._uplink.send(DrainReport(loads))
