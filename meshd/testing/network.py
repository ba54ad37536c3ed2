"""The network of a simulated cluster: connections as TCP gives them, and everything that can happen to those.

Owns links between hosts and the bytes under way. What it keeps of TCP: a connection delivers in order and
without gaps, or breaks; a cut or stalled link holds bytes back and delivers them once it is whole again, if
both ends still stand; who writes to an end that is gone is told so by a reset, if its host can be reached;
bytes that nobody takes for long enough break the connection. Whose process is stopped takes no bytes, while
its kernel goes on accepting them up to the window.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from meshd.runtime.limits import CLOSE_DRAIN_S, DIAL_TIMEOUT_S, FIRST_FRAME_S, PEER_STOPPED_READING_MS
from meshd.testing.heap import EventHeap
from meshd.testing.latency import Latency

if TYPE_CHECKING:
    from meshd.testing.process import Process

WINDOW_BYTES = 256 * 1024
"""Bytes that may be under way on one direction of a connection before its writer has to wait."""

NO_ROUTE_S = 0.001
"""After this a host knows that there is no way to another."""

PORT = 7390


class Way:
    """One direction between two hosts, and what is wrong with it."""

    __slots__ = ("_rng", "_seed", "cut", "latency", "reset_rate", "stalled")

    def __init__(self, seed: str) -> None:
        self._seed = seed
        self._rng: random.Random | None = None
        self.cut = False
        """Nothing gets through, new connections neither."""
        self.stalled = False
        """Bytes of open connections are held back, as by a queue that is full."""
        self.latency: Latency | None = None
        """None: the network's."""
        self.reset_rate = 0.0
        """Share of frames at which the connection is reset instead."""

    @property
    def rng(self) -> random.Random:
        """Decides what chance decides here; made when it is first asked, which most ways never are."""
        if self._rng is None:
            self._rng = random.Random(self._seed)
        return self._rng

    @property
    def blocked(self) -> bool:
        """Whether bytes are held back."""
        return self.cut or self.stalled


class End:
    """One end of a connection: its process, and what is under way towards it."""

    __slots__ = (
        "closing",
        "coming",
        "coming_bytes",
        "deaf",
        "far",
        "heard",
        "number",
        "open",
        "opened_at",
        "process",
        "said_goodbye",
        "waiting",
        "way_in",
        "youngest",
    )

    def __init__(self, process: Process, way_in: Way) -> None:
        self.process = process
        self.way_in = way_in
        self.far: End
        self.number = 0
        """The process's name for the connection, once it knows of it."""
        self.open = True
        self.opened_at = 0.0
        self.heard = False
        """Whether a frame has come."""
        self.closing = ""
        """Why this end is being closed by its node; empty while it is not."""
        self.said_goodbye = False
        self.waiting = False
        """Whether the writer of this end waits for room."""
        self.coming: deque[tuple[float, float, bytes | None]] = deque()
        """(when it is here, when it was sent, frame; None: the far end's last word) towards this end."""
        self.coming_bytes = 0
        self.youngest = 0.0
        self.deaf = False
        """Nothing more comes: a reset is on its way."""

    def stands(self) -> bool:
        """Whether this end is open."""
        return self.open

    @property
    def has_room(self) -> bool:
        """Whether the writer of this end may go on."""
        return self.far.coming_bytes < WINDOW_BYTES


class Network:
    """All hosts' links. `seed` makes each way's fate independent of what happens on the others."""

    def __init__(self, heap: EventHeap, seed: str, latency: Latency) -> None:
        self._heap = heap
        self._seed = seed
        self.latency = latency
        self.slowness: dict[str, float] = {}
        """Host -> seconds that every frame to and from it takes longer."""
        self._ways: dict[tuple[str, str], Way] = {}
        self._links: dict[str, set[str]] | None = None
        self._listening: dict[str, Process] = {}
        self._dark: set[str] = set()
        """Hosts that are off the network altogether: whose machine has died."""
        self._ends: dict[End, None] = {}
        self.frames = 0
        self.resets = 0

    # -- links -----------------------------------------------------------------------------------

    def only(self, links: Iterable[tuple[str, str]]) -> None:
        """From now on there are ways between these hosts, and those linked later, and no others."""
        self._links = {}
        for a, b in links:
            self.link(a, b)

    def link(self, a: str, b: str) -> None:
        """There is a way between two hosts."""
        if self._links is not None:
            self._links.setdefault(a, set()).add(b)
            self._links.setdefault(b, set()).add(a)

    def linked(self, a: str, b: str) -> bool:
        """Whether there is any way between two hosts, whatever is wrong with it now."""
        return self._links is None or b in self._links.get(a, ())

    def way(self, source: str, target: str) -> Way:
        """The direction from one host to another."""
        found = self._ways.get((source, target))
        if found is None:
            found = self._ways[source, target] = Way(f"{self._seed}/{source}>{target}")
        return found

    def release(self) -> None:
        """Let held-back bytes of all ways that are whole again move on."""
        for end in list(self._ends):
            if end.coming and not end.way_in.blocked:
                self._heap.after(self._delay(end), self._arrive, end)

    def hold(self) -> None:
        """Ways were cut or stalled: what is held back for too long breaks its connection."""
        for end in list(self._ends):
            if end.coming and end.way_in.blocked:
                self._watch(end)

    def can_talk(self, a: str, b: str) -> bool:
        """Whether a connection between two hosts could be made and used now."""
        return self.linked(a, b) and not (self.way(a, b).blocked or self.way(b, a).blocked)

    def is_sound(self, a: str, b: str) -> bool:
        """Whether nothing at all is wrong between two hosts."""
        if not self.can_talk(a, b) or a in self.slowness or b in self.slowness:
            return False
        there, back = self.way(a, b), self.way(b, a)
        return not (there.reset_rate or back.reset_rate or there.latency or back.latency)

    def is_behind(self, seconds: float) -> bool:
        """Whether anything is under way that takes longer than that from now."""
        late = self._heap.now + seconds
        return any(end.youngest > late for end in self._ends)

    def late_links(self, seconds: float) -> set[tuple[str, str]]:
        """Pairs of hosts, either way round, between which something is under way for longer than that."""
        late = self._heap.now + seconds
        links = set()
        for end in self._ends:
            if end.youngest > late:
                links |= {(end.process.name, end.far.process.name), (end.far.process.name, end.process.name)}
        return links

    # -- hosts -----------------------------------------------------------------------------------

    def listen(self, process: Process) -> None:
        """A process listens at its host's address."""
        self._listening[process.name] = process
        self._dark.discard(process.name)

    def gone(self, process: Process, silently: bool) -> None:
        """A process is no more. `silently`: its machine is gone too, and nobody is told."""
        self._listening.pop(process.name, None)
        if silently:
            self._dark.add(process.name)
        for end in [end for end in self._ends if end.process is process]:
            end.open = False
            del self._ends[end]
            if not silently:
                self._bury(end)
            elif end.far.way_in.blocked:
                end.far.coming.clear()  # what its machine had not got out yet went with it

    def _bury(self, end: End) -> None:
        """A kernel closes what its process left open: with a reset if bytes were not read, else in order."""
        if any(here_at <= self._heap.now for here_at, _, _ in end.coming):
            self._heap.after(self._delay(end.far), self._reset, end.far)
        elif end.far.open and not end.said_goodbye:
            self._push(end.far, None, 0)

    def resumed(self, process: Process) -> None:
        """A stopped process takes bytes again."""
        for end in list(self._ends):
            if end.process is process and end.coming:
                self._arrive(end)

    # -- connections -----------------------------------------------------------------------------

    def dial(self, process: Process, address: str) -> None:
        """Connect; the process is told of the outcome."""
        name = address.rpartition(":")[0]
        if not self.linked(process.name, name):
            self._heap.after(NO_ROUTE_S, process.call, process.dial_failed, address, "no route to host")
            return
        there, back = self.way(process.name, name), self.way(name, process.name)
        if there.cut or back.cut or name in self._dark:
            self._heap.after(DIAL_TIMEOUT_S, process.call, process.dial_failed, address, "no answer")
            return
        far_end = self._listening.get(name)
        trip = self._sample(there, name, process.name) + self._sample(back, name, process.name)
        if far_end is None:
            self._heap.after(trip, process.call, process.dial_failed, address, "connection refused")
            return
        self._heap.after(trip, self._connect, process, far_end, address)

    def _connect(self, process: Process, target: Process, address: str) -> None:
        if not process.alive:
            return
        if not target.alive or self.way(process.name, target.name).cut:
            process.call(process.dial_failed, address, "connection refused")
            return
        near = End(process, self.way(target.name, process.name))
        far = End(target, self.way(process.name, target.name))
        near.far, far.far = far, near
        near.youngest = far.youngest = near.opened_at = far.opened_at = self._heap.now
        self._ends[near] = self._ends[far] = None
        process.call(process.connected, near, address)
        target.call(target.connected, far, None)
        for end in (near, far):
            self._heap.after(FIRST_FRAME_S, self._check_first_frame, end)

    def _check_first_frame(self, end: End) -> None:
        if end.open and not end.heard:
            self.drop(end, f"no first frame within {FIRST_FRAME_S:g} s")

    def send(self, end: End, frame: bytes) -> None:
        """Put a frame on its way from an end."""
        way, far = end.far.way_in, end.far
        self.frames += 1
        if way.reset_rate and way.rng.random() < way.reset_rate:
            self.resets += 1
            far.deaf = True
            self._heap.after(self._delay(far), self._reset, far)
            self._heap.after(self._delay(end), self._reset, end)
            return
        if not far.deaf:
            self._push(far, frame, len(frame))

    def _push(self, far: End, frame: bytes | None, size: int) -> None:
        here_at = far.youngest = max(far.youngest, self._heap.now + self._delay(far))
        far.coming.append((here_at, self._heap.now, frame))
        far.coming_bytes += size
        if far.way_in.blocked or far.process.name in self._dark:
            self._watch(far)
        else:
            self._heap.at(here_at, self._arrive, far)

    def _arrive(self, end: End) -> None:
        """Hand over what is here, unless it is held back."""
        if end.way_in.blocked:
            return
        if not end.open:
            if end.far.open and end.process.name not in self._dark and end.coming:
                end.coming.clear()
                self._heap.after(self._delay(end.far), self._reset, end.far)
            return
        now = self._heap.now
        process, coming = end.process, end.coming
        while coming and coming[0][0] <= now and end.stands() and not process.paused:
            _, _, frame = coming.popleft()
            if frame is None:
                self.drop(end, end.closing or "closed by the peer")
                return
            end.coming_bytes -= len(frame)
            end.heard = True
            process.arrived(end, frame)
        far = end.far
        if far.waiting and far.has_room and far.open:
            far.waiting = False
            far.process.call(far.process.writable, far)

    def _reset(self, end: End) -> None:
        # While the way is blocked the reset is lost, too; the next frame meets an end that is gone.
        if end.open and end.process.name not in self._dark and not end.way_in.blocked:
            self.drop(end, "connection broken")

    def _watch(self, end: End) -> None:
        """Break a connection whose bytes are not taken for as long as TCP waits."""
        sent_at = end.coming[0][1]
        limit_s = PEER_STOPPED_READING_MS / 1000
        self._heap.at(sent_at + limit_s, self._check_stuck, end, sent_at)

    def _check_stuck(self, end: End, sent_at: float) -> None:
        far = end.far
        if far.open and end.coming and end.coming[0][1] <= sent_at and not end.process.paused:
            self.drop(far, "the peer's machine does not answer")

    def goodbye(self, end: End) -> None:
        """The node closes this end: what was sent is followed by the end of the stream."""
        if end.open and not end.said_goodbye:
            end.said_goodbye = True
            if end.far.open:
                self._push(end.far, None, 0)
            self._heap.after(CLOSE_DRAIN_S, self._drained, end)

    def _drained(self, end: End) -> None:
        if end.open:
            self.drop(end, end.closing)

    def drop(self, end: End, reason: str) -> None:
        """This end is no more; its process is told, and the far end as far as bytes still get there."""
        if not end.open:
            return
        end.open = False
        self._ends.pop(end, None)
        if end.far.open and not end.said_goodbye:
            self._push(end.far, None, 0)
        end.coming.clear()
        end.process.call(end.process.disconnected, end, reason)

    def break_between(self, a: str, b: str) -> int:
        """Reset every connection between two hosts; what is under way is lost. Returns how many."""
        broken = [end for end in self._ends if end.process.name == a and end.far.process.name == b]
        for end in broken:
            for each in (end, end.far):
                each.coming.clear()
                each.deaf = True
                self._heap.after(0.0, self._reset, each)
        return len(broken)

    def forget_half(self, a: str, b: str) -> int:
        """Leave connections half open: `a` loses its end without a word to `b`. Returns how many."""
        halves = [end for end in self._ends if end.process.name == a and end.far.process.name == b]
        for end in halves:
            end.said_goodbye = True
            self.drop(end, "connection broken")
        return len(halves)

    def ends_of(self, process: Process) -> Iterator[End]:
        """The open ends of a process."""
        return iter([end for end in self._ends if end.process is process])

    def _delay(self, towards: End) -> float:
        return self._sample(towards.way_in, towards.process.name, towards.far.process.name)

    def _sample(self, way: Way, a: str, b: str) -> float:
        latency = way.latency or self.latency
        delay_s = latency.sample(way.rng)
        if self.slowness:
            delay_s += self.slowness.get(a, 0.0) + self.slowness.get(b, 0.0)
        return delay_s
