"""What people ask of the gateway, and when: some of it at the worst of moments."""

from collections import Counter
from collections.abc import Callable
from typing import Any, Final, Protocol

Call = tuple[str, str, dict[str, Any]]
"""Method, path and body of what is asked of the admin API."""

ORDERS: Final = ("pause", "resume", "resume", "promote", "full", "complete", "rollback", "traffic", "undo")
END_S: Final = 8.0
"""A rollout that has been promoted is at its end by then, if nobody holds it up."""


class Owner(Protocol):
    """The simulation."""

    machine: Any
    loop: Any
    system: Any
    clients: Any
    operator: Any
    upstreams: dict[str, Any]
    invariants: Any

    def add_upstream(self) -> Any: ...
    def pass_time(self, seconds: float) -> None: ...


class People:
    """Operators."""

    def __init__(self, owner: Owner) -> None:
        self.owner = owner
        self.chance = owner.machine.chance
        self.faults: Counter[str] = Counter()
        self._undo: dict[int, Callable[[], None]] = {}
        """What ends each fault that is under way."""
        self._count = 0
        self._is_over = False

    def stop_faults(self) -> None:
        """End everything that is still wrong, and begin nothing more."""
        self._is_over = True
        for undo in list(self._undo.values()):
            undo()
        self._undo.clear()

    def lasting(self, seconds: float, undo: Callable[[], None]) -> None:
        """End a fault after a while."""
        self._count += 1
        number = self._count
        self._undo[number] = undo

        def over() -> None:
            if self._undo.pop(number, None) is not None:
                undo()

        self.owner.loop.after(seconds, over)

    def order(self) -> None:
        """Ask something of the open rollout, or of the last one."""
        key = self.owner.invariants.open_deployment() or self.owner.invariants.last_deployment()
        if key is None:
            return
        kind = self.chance.choice(ORDERS)
        if self.owner.invariants.open_at.get(key) == ("paused", 100) and self.chance.random() < 0.5:
            kind = "complete"  # all traffic is there, and a person says that it is well
        self._order(key, kind)

    def _order(self, key: str, kind: str, then: Callable[[], None] = lambda: None) -> None:
        """then: called when a rollback is answered."""
        self.owner.invariants.ordered.add(key)
        base = f"deployment/{key}"
        if kind == "traffic":
            self.owner.operator.call(
                "PUT", f"{base}/traffic", {"percent": self.chance.choice([0, 5, 30, 70])}
            )
        elif kind == "rollback":
            invariants = self.owner.invariants
            self.owner.operator.call(
                "POST",
                f"{base}/rollback",
                {"reason": "x"},
                lambda status, body: (invariants.rolled_back(key, status, body), then()),
            )
        elif kind == "full":
            self.owner.operator.call("POST", f"{base}/promote", {"full": True})
        elif kind == "undo":
            self.owner.operator.call("POST", "services/shop/undo", {})
        else:
            self.owner.operator.call("POST", f"{base}/{kind}", {})

    def two_operators(self) -> None:
        self.order()
        self.order()

    def rollback_nobody_stores(self) -> None:
        """The disk is slow, or full, when somebody must go back; then control is killed, or reads its file.

        A rollback needs no store: what comes behind it is to know of it all the same.
        """
        key = self.owner.invariants.open_deployment()
        if key is None:
            return
        disk, is_slow = self.owner.machine.disk, self.chance.random() < 0.4
        if is_slow:
            self.faults["slow commits"] += 1
            disk.slow_s = 0.4 + self.chance.random()
        else:
            self.faults["full disk"] += 1
            disk.failing = full
        until_s = 2.7 + 2.0 * self.chance.random()
        self.lasting(
            until_s, lambda: setattr(disk, "slow_s" if is_slow else "failing", 0.0 if is_slow else None)
        )
        delay_s = 0.3 * self.chance.random()
        then = self.chance.choice([self._kill_control_now, self.reload])
        self.owner.loop.after(delay_s, lambda: self._order(key, "rollback", then))
        if self.chance.random() < 0.5:
            self.owner.loop.after(delay_s + 0.3 + self.chance.random(), self.reload)

    def rollback_at_the_end(self) -> None:
        """Somebody must go back just as the old version begins to drain, and the disk takes its time."""
        key = self.owner.invariants.open_deployment()
        if key is None:
            return
        self._order(key, "full")
        ends_at = self.owner.machine.now + END_S

        def look() -> None:
            if self._is_over:
                return
            self.owner.invariants.read()
            if self.owner.invariants.open_at.get(key, ("", 0))[0] == "ending":
                self.faults["slow commits"] += 1
                disk = self.owner.machine.disk
                disk.slow_s = 0.2 + self.chance.random()
                self.lasting(2.0 * self.chance.random(), lambda: setattr(disk, "slow_s", 0.0))
                delay_s = 0.3 * self.chance.random()
                self.owner.loop.after(delay_s, lambda: self._order(key, "rollback"))
            elif self.owner.machine.now < ends_at:
                self.owner.loop.after(0.02, look)

        look()

    def rollback_amid_an_upgrade(self) -> None:
        """The disk fails for a moment as a new control takes over, and somebody must go back just then."""
        key = self.owner.invariants.open_deployment()
        if key is None:
            return
        self.upgrade()
        self.faults["commits fail"] += 1
        disk, left = self.owner.machine.disk, 1 + self.chance.randrange(4)

        def fails(text: str) -> str:
            """The next few commits fail, and no more."""
            nonlocal left
            left -= text == "COMMIT"
            return "fails" if text == "COMMIT" and left >= 0 else ""

        def fail() -> None:
            if not self._is_over:
                disk.failing = fails
                self.lasting(1.0, lambda: setattr(disk, "failing", None))
                self._order(key, "rollback")

        stored_s = 0.02  # the upgrade's own row is by then
        self.owner.loop.after(stored_s + 0.3 * self.chance.random(), fail)

    def _kill_control_now(self) -> None:
        control = self.owner.system.control
        if control is not None:
            self.faults["kill control"] += 1
            self.owner.system.kill_soon(self.owner.machine.processes[max(self.owner.system.controls)])

    def freeze(self) -> None:
        self._for_a_while(
            ("PUT", "freeze", {"frozen": True, "reason": "x"}), ("PUT", "freeze", {"frozen": False}), 1.0, 4.0
        )

    def hold(self) -> None:
        """Pause the service: its requests are held until somebody resumes it."""
        self._for_a_while(("POST", "services/shop/pause", {}), ("POST", "services/shop/resume", {}), 0.3, 2.0)

    def _for_a_while(self, begin: Call, end: Call, least_s: float, more_s: float) -> None:
        """Order something, and its end after a while. That is asked until it is done: what nobody ends holds
        everything up for good.
        """
        is_over = False

        def over() -> None:
            nonlocal is_over
            is_over = True
            self._until_done(end)

        def begun(status: int, body: Any) -> None:
            if is_over:  # it has come later than what was to end it
                self._until_done(end)

        self.owner.operator.call(*begin, begun)
        self.lasting(least_s + more_s * self.chance.random(), over)

    def _until_done(self, order: Call) -> None:
        def then(status: int, body: Any) -> None:
            if status != 200:
                self.owner.loop.after(0.5, lambda: self._until_done(order))

        self.owner.operator.call(*order, then)

    def reload(self) -> None:
        """SIGHUP, with one more setting."""
        path = self.owner.system.folder / "gateway.toml"
        text = path.read_text("utf-8")
        idle = 4000 + self.chance.randrange(1000)
        text = (
            text.partition("[timeouts]")[0] + f"[timeouts]\nupstream_idle = {idle}\n"
            if "[timeouts]" in text
            else (text + f"\n[timeouts]\nupstream_idle = {idle}\n")
        )
        path.write_text(text, "utf-8")
        for process in self.owner.system.alive_controls():
            if (handler := process.signals.get(1)) is not None:
                self.owner.loop.enqueue(process, handler)

    def upgrade(self) -> None:
        self.owner.operator.call("POST", "gateway/upgrade", {})


def full(statement: str) -> str:
    """Return what goes wrong with a statement on a full disk."""
    return "fails" if statement.startswith(("INSERT", "UPDATE", "DELETE", "COMMIT")) else ""
