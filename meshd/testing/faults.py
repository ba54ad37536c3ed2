"""Everything that a test can do to a cluster, by name: network, processes, disks, clocks, versions.

Each method acts at once and is counted in `faults`, by kind; one that makes no sense at the moment (crashing
a node that is down) does nothing and counts for nothing, so that random plans need not keep track.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable
from typing import TYPE_CHECKING

from crdt.types import KEY, SEQ, VALUE
from meshd.testing.health import Answer, HealthScript
from meshd.testing.latency import Latency

if TYPE_CHECKING:
    from meshd.testing.checks import Checks
    from meshd.testing.heap import EventHeap
    from meshd.testing.network import Network
    from meshd.testing.place import Places, SimNode
    from meshd.testing.process import Process
    from meshd.testing.trace import Trace


class Faults(ABC):
    """The commands of a `SimCluster`."""

    nodes: Places
    heap: EventHeap
    network: Network
    checks: Checks
    trace: Trace
    health: HealthScript
    _injected: dict[str, int]
    disturbed: int
    """Counts what was done to the cluster, that which heals included; not what backends answer."""
    _disturbed_at: float

    @property
    def faults(self) -> dict[str, int]:
        """How often each kind of fault was injected."""
        return dict(sorted(self._injected.items()))

    def quiet_for(self) -> float:
        """For how long nothing was done to the cluster, in seconds."""
        return self.heap.now - self._disturbed_at

    def _tell(self, text: str, kind: str = "", disturbs: bool = True) -> None:
        if disturbs:
            self.disturbed += 1
            self._disturbed_at = self.heap.now
        self.trace.add(self.heap.now, "*", "fault" if kind else "cluster", text)
        if kind:
            self._injected[kind] = self._injected.get(kind, 0) + 1

    def _known(self, *names: str | None) -> list[str]:
        """The names, those left out excepted. Raises ValueError if one of them is no node's."""
        return [self.nodes[name].name for name in names if name is not None]

    def _two(self, a: str, b: str) -> None:
        if len(set(self._known(a, b))) < 2:
            raise ValueError(f"there are two ends to a link, not {a!r} twice")

    # -- network ---------------------------------------------------------------------------------

    def partition(self, *groups: Iterable[str]) -> None:
        """Let nodes talk within their group only; those that are not named form a group of their own."""
        sides = [self._known(*group) for group in groups]
        named = {name for side in sides for name in side}
        if len(named) < sum(map(len, sides)):
            raise ValueError("a node is on one side of a partition, not on two")
        rest = [name for name in self.nodes if name not in named]
        sides = [side for side in (*sides, rest) if side]
        self._tell(f"partition {' | '.join(','.join(side) for side in sides)}", "partition")
        for side in sides:
            for other in sides:
                if side is not other:
                    for a in side:
                        for b in other:
                            self.network.way(a, b).cut = True
        self.network.hold()

    def isolate(self, name: str) -> None:
        """Cut one node off from all others."""
        self.partition([name])

    def cut(self, source: str, target: str) -> None:
        """Let nothing through from one node to another; the other direction stays."""
        self._two(source, target)
        self._tell(f"cut {source} -> {target}", "one-way cut")
        self.network.way(source, target).cut = True
        self.network.hold()

    def mend(self, a: str, b: str) -> None:
        """Let two nodes talk again."""
        self._two(a, b)
        self._tell(f"mend {a} - {b}")
        for way in (self.network.way(a, b), self.network.way(b, a)):
            way.cut = way.stalled = False
        self.network.release()

    def heal(self) -> None:
        """Take everything back that was done to the network."""
        self._tell("heal the network")
        for a in self.nodes:
            for b in self.nodes:
                if a != b:
                    way = self.network.way(a, b)
                    way.cut = way.stalled = False
                    way.reset_rate, way.latency = 0.0, None
        self.network.slowness.clear()
        self.network.release()

    def stall(self, source: str, target: str) -> None:
        """Hold back the bytes of open connections from one node to another, until `mend`."""
        self._two(source, target)
        self._tell(f"stall {source} -> {target}", "stall")
        self.network.way(source, target).stalled = True
        self.network.hold()

    def loss(self, rate: float, a: str | None = None, b: str | None = None) -> None:
        """Reset connections at this share of frames: on all links, those of `a`, or that of `a`, `b`."""
        self._known(a, b)
        if not 0 <= rate <= 1:
            raise ValueError(f"a share of frames is between 0 and 1, not {rate:g}")
        self._tell(f"loss {rate:g} {a or ''} {b or ''}".rstrip(), "loss" if rate else "")
        for source in self.nodes:
            for target in self.nodes:
                ends = {source, target}
                if len(ends) == 2 and (a is None or a in ends) and (b is None or b in ends):
                    self.network.way(source, target).reset_rate = rate

    def delay(self, latency: Latency, a: str | None = None, b: str | None = None) -> None:
        """Set how long frames take: everywhere, on the links of `a`, or between `a` and `b`."""
        self._known(a, b)
        self._tell(f"delay {latency.median_s:g} s ~{latency.spread:g} {a or ''} {b or ''}".rstrip(), "delay")
        for source in self.nodes:
            for target in self.nodes:
                ends = {source, target}
                if len(ends) == 2 and (a is None or a in ends) and (b is None or b in ends):
                    self.network.way(source, target).latency = latency

    def reset(self, a: str, b: str) -> None:
        """Break the connections between two nodes; what was under way arrives again or never."""
        self._two(a, b)
        if self.network.break_between(a, b):
            self._tell(f"reset {a} - {b}", "reset")

    def half_open(self, a: str, b: str) -> None:
        """Let `a` lose its connections to `b` without `b` noticing."""
        self._two(a, b)
        if self.network.forget_half(a, b):
            self._tell(f"half-open {a} - {b}", "half-open")

    def slow(self, name: str, seconds: float) -> None:
        """Let every frame to and from a node take this much longer; 0 makes it fast again."""
        self._known(name)
        if not seconds >= 0:
            raise ValueError(f"frames can only take longer, not {seconds:g} s")
        self._tell(f"slow {name} by {seconds:g} s", "slow node")
        self.network.slowness[name] = seconds
        if not seconds:
            del self.network.slowness[name]

    # -- processes -------------------------------------------------------------------------------

    @abstractmethod
    def start(self, name: str, join: Iterable[str] | None = None) -> SimNode:
        """See SimCluster."""

    def pause(self, name: str) -> None:
        """Stop a process, as SIGSTOP does, or a machine that stalls."""
        process = self.nodes[name].process
        if process is not None and not process.paused:
            self._tell(f"pause {name}", "pause")
            process.pause()

    def resume(self, name: str) -> None:
        """Let it go on."""
        process = self.nodes[name].process
        if process is not None and process.paused:
            self._tell(f"resume {name}")
            process.resume()

    def crash(self, name: str, *, lose: int = 0, lying: bool = False, silently: bool = False) -> None:
        """Kill a process. What its disk had committed stays, unless the machine goes with it.

        `lose`: a power cut that takes up to so many of the newest transactions, of those that were not forced
        to the disk; with `lying`, also of those that the disk said it had. `silently`: the machine is off the
        network, and nobody is told that its connections are gone.
        """
        place = self.nodes[name]
        process = place.process
        if lose < 0:
            raise ValueError(f"a crash loses 0 transactions or more, not {lose}")
        if process is None:
            return
        kind = "crash" if not lose else "crash with torn writes" if lying else "crash with lost writes"
        process.kill(silently)
        lost = place.disk.crash(lose, lying=lying)
        place.harmed = place.harmed or lost > 0
        self._tell(f"{kind} of {name}" + (f", {lost} transactions lost" if lose else ""), kind)
        place.process = None
        self.checks.ended(process)

    def lose_disk(self, name: str) -> None:
        """Crash a node, if it runs, and put an empty disk in its place."""
        process = self._end(name)
        self.nodes[name].disk.wipe()
        self._tell(f"{name} loses its disk", "lost disk")
        self._harmed(name, process)

    def keep_image(self, name: str) -> None:
        """Keep an image of a node's disk as it is now, for `revert_disk`; it replaces an earlier one."""
        self._known(name)
        self._tell(f"an image of the disk of {name} is kept", disturbs=False)
        self.nodes[name].image = self.nodes[name].disk.clone()

    def revert_disk(self, name: str) -> None:
        """Crash a node, if it runs, and put its disk back to the image that was kept, if one was."""
        place = self.nodes[name]
        if place.image is None:
            return
        process = self._end(name)
        place.disk.revert(place.image)
        self._tell(f"the disk of {name} is put back to its image", "reverted disk")
        self._harmed(name, process)

    def garble_disk(self, name: str, owner: str | None = None) -> None:
        """Crash a node, if it runs, and damage a record of its copy of `owner`'s log; of its own by default.

        The next start finds the damage and sets that log aside, as it would the file. The newest value is
        damaged, or the log's head where it holds no value; nothing happens where there is no such log.
        """
        place, owner = self.nodes[name], owner or name
        heads, entries, _ = place.disk.content()
        if owner not in heads or owner in place.disk.damaged:
            return
        live = [entry for entry in entries[owner].values() if entry[VALUE] is not None]
        process = self._end(name)
        place.disk.garble(owner, max(live, key=lambda entry: entry[SEQ])[KEY] if live else None)
        self._tell(f"the copy of {owner}'s log on the disk of {name} is damaged", "damaged disk")
        self._harmed(name, process)

    def clone_disk(self, source: str, target: str) -> None:
        """Put a copy of one node's data directory in the place of another's, as a careless rollout does.

        The target is crashed, if it runs. Its next `start` raises DataDirMismatch, as a data directory
        belongs to one node name; `new_disk` is one way out.
        """
        place = self.nodes[target]
        copy = self.nodes[source].disk
        if source == target or place.stranger or not copy.transactions:
            return
        process = self._end(target)
        place.disk.revert(copy)
        self._tell(f"the disk of {target} becomes a copy of that of {source}", "cloned disk")
        self._harmed(target, process)

    def new_disk(self, name: str) -> None:
        """Move the data directory of a node that does not run out of its way: it starts with an empty one."""
        place = self.nodes[name]
        if place.process is None:
            place.disk.wipe()
            self._tell(f"{name} is given an empty disk")
            self._harmed(name, None)

    def _end(self, name: str) -> Process | None:
        """Kill a node's process, if it runs; the checks are told by `_harmed`."""
        place = self.nodes[name]
        process, place.process = place.process, None
        if process is not None:
            process.kill(silently=False)
            place.disk.crash()
        return process

    def _harmed(self, name: str, process: Process | None) -> None:
        """A node's disk has lost something, and `process` ended over it, if it ran."""
        self.nodes[name].harmed = True
        if process is None:
            self.checks.destroyed(name)
        else:
            self.checks.ended(process)

    def restart(self, name: str) -> SimNode:
        """Kill a process and start it again at once."""
        self.crash(name)
        return self.start(name)

    def stop(self, name: str) -> None:
        """Stop a node in good order (SIGTERM): its workers stay."""
        self._leave(name, withdraw=False)

    def leave(self, name: str) -> None:
        """Have a node leave for good (`meshctl leave`): it takes its workers with it."""
        self._leave(name, withdraw=True)

    def _leave(self, name: str, withdraw: bool) -> None:
        place = self.nodes[name]
        process = place.process
        if process is None or process.paused or process.leaving:
            return
        self._tell(f"{name} leaves" if withdraw else f"stop {name}", "leave" if withdraw else "stop")

        def stopped() -> None:
            place.process = None
            self.checks.ended(process)

        process.leave(withdraw, stopped)

    def upgrade(self, name: str) -> SimNode:
        """Stop a node and start it as a later version, which says more than this one understands."""
        place = self.nodes[name]
        self._tell(f"upgrade {name}", "upgrade")
        place.newer = not place.newer
        return self.restart(name)

    # -- disks and clocks ------------------------------------------------------------------------

    def fill_disk(self, name: str, full: bool = True) -> None:
        """Let a disk refuse writes, or take them again."""
        self._known(name)
        self._tell(
            f"disk of {name} is {'full' if full else 'not full any more'}", "full disk" if full else ""
        )
        self.nodes[name].disk.fail_writes = "no space left on device" if full else None

    def clock_jump(self, name: str, seconds: float) -> None:
        """Set a node's wall clock forward, or back where negative."""
        self._known(name)
        self._tell(f"clock of {name} jumps {seconds:+g} s", "clock jump")
        self.nodes[name].clock.jump(seconds)

    def clock_drift(self, name: str, rate: float) -> None:
        """Let a node's clocks run at this rate; 1.0 is right."""
        self._tell(f"clock of {name} runs at {rate:g}", "clock drift")
        self.nodes[name].clock.drift(rate, self.heap.now)

    # -- backends --------------------------------------------------------------------------------

    def set_health(self, url: str, answer: Answer, seen_by: str | None = None) -> None:
        """Let a worker's health checks pass, fail, time out or flap; for all nodes, or as one sees it."""
        self._known(seen_by)
        self._tell(
            f"{url} answers {seen_by or 'everybody'} with {answer}",
            "" if answer == "pass" else "health",
            disturbs=False,
        )
        self.health.set(url, answer, seen_by)
