"""What nodes say of each other while things go wrong: nobody silent is alive, nobody heard is dead.

What a node may believe is worked out from the frames that reached it, and from what the network let through;
so these hold in the midst of any fault, not only once all is whole again.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, NamedTuple

from meshd.testing.checks import Invariant
from meshd.wire.messages import Heartbeat, Hello, MemberRow, Message

if TYPE_CHECKING:
    from meshd.testing.cluster import SimCluster
    from meshd.testing.network import End
    from meshd.testing.process import Process

LOOK_EVERY_S = 1.0
"""How often what does not happen is looked for."""
LATE_S = 0.5
"""Deadlines are kept this late at worst: ticks, clocks that change their pace."""
SETTLED_S = 3.0
"""So long after its greeting a connection is past all contests over who it leads to."""
MEET_S = 30.0
"""Within this two nodes meet that can talk all the time: dead connections are given up, dials wait 7.5 s."""

MOST_THIRDS = 32
"""In larger clusters it is not looked for who could tell of whom."""
NEVER = float("inf")

ALIVE, SUSPECT, DOWN, LEFT = "alive", "suspect", "down", "left"


class Watch(Invariant):
    """An invariant that also looks for what should have happened, once in LOOK_EVERY_S."""

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._plan()

    def _plan(self) -> None:
        self.cluster.heap.after(LOOK_EVERY_S, self._turn)

    def _turn(self) -> None:
        self._plan()
        self.look()

    @abstractmethod
    def look(self) -> None:
        """Look at what time brought about, or did not."""


class Contact(NamedTuple):
    """When a member was last heard itself, and which life of it."""

    at: float
    life: int


class _Heard:
    """All that one process heard of others. Times are on its own clock."""

    __slots__ = ("beats", "contacts", "greeted", "news", "paused", "shown")

    def __init__(self) -> None:
        self.beats: dict[str, tuple[int, int]] = {}
        """Member -> its life (boot nonce), and the highest count of beats of it that was told."""
        self.news: dict[str, float] = {}
        """Member -> when something told that it had lived on."""
        self.contacts: dict[str, Contact] = {}
        self.shown: dict[str, int] = {}
        """Member -> the life that was shown when last its state changed."""
        self.greeted: dict[int, float] = {}
        """Connection -> when its greeting came, by the simulation's time."""
        self.paused = False


class MembersAreAsHeard(Watch):
    """Who brings no sign of life is suspect and then down, in time; who does is alive, and was never gone.

    A sign of life is a frame of the member's own, or word of more beats than was known of.
    """

    name = "members_are_as_heard"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._heard: dict[Process, _Heard] = {}

    def started(self, process: Process) -> None:
        """A new life has heard of nobody."""
        self._heard[process] = _Heard()

    def ended(self, process: Process) -> None:
        """Whoever ended hears nothing more."""
        self._heard.pop(process, None)

    def received(self, process: Process, end: End, message: Message) -> None:
        """Note signs of life; who speaks for itself is alive from then on."""
        if type(message) is Heartbeat:
            heard = self._heard.get(process)
            if heard is None:
                return
            far = end.far.process
            for row in message.members:
                if row.name == far.name:
                    self._contact(process, heard, end, row)
                else:
                    self._rumour(process, heard, row)
        elif type(message) is Hello and process in self._heard:
            self._heard[process].news[message.node] = process.now
            self._heard[process].greeted[end.number] = self.cluster.now

    def _contact(self, process: Process, heard: _Heard, end: End, row: MemberRow) -> None:
        far = end.far.process
        heard.news[far.name] = now = process.now
        heard.beats[far.name] = (row.nonce, row.beat)
        if row.left or far.leaving or not far.alive or not end.open or end.closing:
            return
        if self.cluster.now < heard.greeted.get(end.number, end.opened_at) + SETTLED_S:
            return
        heard.contacts[far.name] = Contact(now, far.life)
        state = process.node.roster.state_of(far.name)
        if state != ALIVE:
            self.fail(process, f"{far.name} is {state}, and has just spoken")

    def _rumour(self, process: Process, heard: _Heard, row: MemberRow) -> None:
        held = process.node.connections.open.get(row.name)
        if held is not None and not (held.quiet and held.nonce == row.nonce):
            return  # its own word alone counts while that connection brings any, and no other life's
        nonce, beat = heard.beats.get(row.name, (0, -1))
        if (row.nonce, row.beat) > (nonce, beat) or (row.nonce < nonce and self._is_of(process, row)):
            heard.beats[row.name] = (row.nonce, row.beat)
            heard.news[row.name] = process.now
        place = self.cluster.nodes.get(row.name)
        member = None if place is None else place.process
        if member is not None and member.node.ownership.nonce == row.nonce:
            if row.beat > member.node.connections.heart.beat:
                self.fail(process, f"heard of beat {row.beat} of {row.name}, which is not there yet")
            if row.left and not member.leaving:
                self.fail(process, f"heard that {row.name} left, which it never said")

    def _is_of(self, process: Process, row: MemberRow) -> bool:
        """Whether a row of an earlier life is what is shown now: the later one was taken for gone."""
        member = process.node.roster.get(row.name)
        return member is not None and member.row.nonce == row.nonce

    def noticed(self, process: Process, level: str, event: str, fields: dict[str, object]) -> None:
        """Nobody is given up before its time, nor taken for gone while it stays."""
        if event != "member_state":
            return
        name, state = str(fields["member"]), fields["state"]
        heard = self._heard.get(process)
        if heard is None:
            return
        member = process.node.roster.get(name)
        life = 0 if member is None else member.row.nonce
        if fields["previous"] is None or (state == SUSPECT and life != heard.shown.get(name)):
            # It was not known, or is known by another life, of which there was nothing but word.
            heard.news[name] = process.now
            heard.beats.pop(name, None)
        heard.shown[name] = life
        contact = heard.contacts.get(name)
        if contact is None or state == ALIVE:
            return
        other = self.cluster.nodes[name].process
        if other is None or other.life != contact.life or other.leaving:
            return
        settings = process.node.settings
        due_s = settings.down_after_s if state == DOWN else settings.suspect_after_s
        silent_s = process.now - contact.at
        if silent_s < due_s - 1e-6:
            self.fail(process, f"{name} is {state} after {silent_s:.3f} s of silence")

    def look(self) -> None:
        """Find those whose silence has no effect."""
        for process, heard in self._heard.items():
            if process.paused:
                heard.paused = True
            elif heard.paused:  # it observed nothing meanwhile
                heard.paused = False
                heard.news = dict.fromkeys(heard.news, process.now)
            else:
                self._look_at(process, heard)

    def _look_at(self, process: Process, heard: _Heard) -> None:
        settings, now, news = process.node.settings, process.now, heard.news
        slack_s = LATE_S + 2 * settings.probe_timeout_s  # for a name that is contested
        alive_since = now - settings.suspect_after_s - slack_s
        suspect_since = now - settings.down_after_s - slack_s
        for member in process.node.roster:
            state = member.state
            if state == ALIVE:
                since = alive_since
            elif state == SUSPECT:
                since = suspect_since
            else:
                continue
            heard_at = news.get(member.name, 0.0)
            if heard_at < since:
                self.fail(process, f"{member.name} is {state}, and gave no sign for {now - heard_at:.1f} s")


class WhoCanTalkMeets(Watch):
    """Two nodes that know of each other and can talk, undisturbed and for long, show each other as alive.

    Nor is one down for the other while a third can talk to both: a bad link does not kill a node.
    """

    name = "who_can_talk_meets"

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self._since: dict[tuple[Process, Process], float] = {}
        """Pair of processes -> since when each look found them able to talk."""

    def look(self) -> None:
        """Look at all pairs that ought to have met."""
        cluster = self.cluster
        running = [process for process in cluster.running() if self._may_speak(process)]
        network, now = cluster.network, cluster.now
        before, since = self._since, {}
        late = network.late_links(LATE_S)
        for number, one in enumerate(running):
            for other in running[:number]:
                if not (one.name in other.seeds or other.name in one.seeds):
                    continue
                if (one.name, other.name) not in late and network.is_sound(one.name, other.name):
                    began = since[one, other] = since[other, one] = before.get((one, other), now)
                    if now - began >= MEET_S:
                        self._compare(one, other)
                        self._compare(other, one)
        self._since = since
        if len(running) <= MOST_THIRDS:
            for one in running:
                self._look_past_bad_links(one, running)

    def _look_past_bad_links(self, one: Process, running: list[Process]) -> None:
        """Nobody is down whom a third, with which `one` talks, talks to."""
        since, long_ago = self._since, self.cluster.now - MEET_S
        down = [other for other in running if one.node.roster.state_of(other.name) == DOWN]
        for other in down:
            for third in running:
                if (
                    since.get((one, third), NEVER) <= long_ago
                    and since.get((third, other), NEVER) <= long_ago
                ):
                    self.fail(one, f"{other.name} is down, and {third.name} has talked to both for long")

    def _may_speak(self, process: Process) -> bool:
        """A life that cannot store its beginning says nothing."""
        return not process.leaving and process.storage.disk.fail_writes is None

    def _compare(self, process: Process, other: Process) -> None:
        state = process.node.roster.state_of(other.name)
        if state != ALIVE:
            self.fail(process, f"{other.name} is {state}, and could be talked to for {MEET_S:g} s")
