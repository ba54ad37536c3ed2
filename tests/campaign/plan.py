"""A random life of a world, from a seed: what happens, in which order, and what must hold in the end."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from unittest import mock

from crdt.errors import CorruptLog
from meshd.protocol import session
from tests.campaign.oracle import Oracle, Violation
from tests.campaign.world import World
from tests.support.maps import key

SETTINGS = {"tombstone_grace_s": 4.0, "forget_after_s": 30.0, "fence_keep_s": 400.0}
STEPS = 45
HEAL_S = 150.0
"""Virtual time within which a healed mesh must agree."""
PAGE_ENTRIES = 2
"""Small pages, so that transfers of a few keys take several frames."""

PROFILES: dict[str, tuple[str, ...]] = {
    "plain": ("restart", "cut", "break", "forget", "clock"),
    "torn": ("restart", "torn", "parted", "cut", "break", "clock"),
    "lost": ("restart", "lost", "torn", "parted", "cut", "break", "forget", "garbled"),
    "reverted": ("restart", "reverted", "torn", "parted", "cut", "break", "forget", "clock"),
    "cloned": ("restart", "clone", "torn", "cut", "break"),
    "resumed": ("restart", "resumed", "cut", "break"),
    "everything": (
        "restart",
        "torn",
        "lost",
        "reverted",
        "clone",
        "cut",
        "break",
        "forget",
        "garbled",
        "clock",
    ),
}


@dataclass
class Outcome:
    """How a seed went. `trace`: what happened, one line each."""

    seed: int
    profile: str
    trace: list[str] = field(default_factory=list)
    error: str = ""
    messages: int = 0
    checks: int = 0
    events: dict[str, int] = field(default_factory=dict)


class Plan:
    """One seed's world and what happens in it."""

    def __init__(self, seed: int, profile: str | None = None) -> None:
        self.rng = random.Random(seed)
        names = ("a", "b", "c", "d")[: 3 if self.rng.random() < 0.8 else 4]
        self.profile = profile or self.rng.choice(list(PROFILES))
        self.world = World(self.rng.getrandbits(64), names, codec=seed % 4 == 0, settings=SETTINGS)
        self.oracle = Oracle(self.world)
        self.outcome = Outcome(seed, self.profile)
        self.written = 0
        faults: dict[str, Callable[[], None]] = {
            "restart": self.restart,
            "torn": self.torn,
            "lost": self.lost,
            "garbled": self.garbled,
            "reverted": self.reverted,
            "clone": self.clone,
            "parted": self.parted,
            "resumed": self.resumed,
            "cut": self.cut,
            "break": self.break_link,
            "forget": self.forget,
            "clock": self.clock,
        }
        self._faults = [faults[name] for name in PROFILES[self.profile]]

    def run(self) -> Outcome:
        """Live through it. A violation is told in the outcome."""
        try:
            with mock.patch.object(session, "PAGE_ENTRIES", PAGE_ENTRIES):
                self._live()
        except (Violation, AssertionError, CorruptLog, ValueError, KeyError, RuntimeError) as error:
            self.outcome.error = f"{type(error).__name__}: {error}"
        self.outcome.messages = self.world.net.messages
        self.outcome.checks = self.oracle.checks
        for _, event, _ in self.world.notices:
            self.outcome.events[event] = self.outcome.events.get(event, 0) + 1
        return self.outcome

    def _live(self) -> None:
        for name in self.world.names:
            self.world.start(name)
        if self.rng.random() < 0.8:
            self.world.run(2.0)
        for _ in range(STEPS):
            roll = self.rng.random()
            if roll < 0.55:
                self.write()
            elif roll < 0.75:
                self.rng.choice(self._faults)()
            else:
                self.wait()
        self.heal()

    def say(self, text: str) -> None:
        """A line of the trace."""
        self.outcome.trace.append(f"{self.world.net.now - 1000:8.3f} {text}")

    # -- what users do ---------------------------------------------------------------------------

    def write(self) -> None:
        """A put or removal of one of a few keys, own or shared, now and then of another's."""
        names = self.world.running()
        if not names:
            return
        place = self.rng.choice(names)
        owner = self.world.places[place].called
        roll = self.rng.random()
        if roll < 0.75:
            name = key(owner, self.rng.randrange(3))
        elif roll < 0.95:
            name = f"config:{self.rng.randrange(2)}"
        else:
            name = key(self.rng.choice(self.world.names), self.rng.randrange(3))
        self.written += 1
        self._one_write(place, name, 0.65)

    def _one_write(self, place: str, name: str, puts: float) -> None:
        value, roll = b"%d" % self.written, self.rng.random()
        if roll < puts:
            self.say(f"{place} puts {name} = {self.written}")
            self.oracle.put(place, name, value)
        elif roll > 0.9 and name.startswith("worker:"):
            self.say(f"{place} notes {self.written} of its {name}")
            self.oracle.observe(place, name, value)
        else:
            self.say(f"{place} removes {name}")
            self.oracle.delete(place, name)

    def wait(self) -> None:
        """Time goes by: often too little for anything to arrive, at times enough for much to expire."""
        seconds = self.rng.choice((0.001, 0.003, 0.01, 0.05, 0.3, 1.0, 1.0, 3.0, 6.0, 15.0))
        if self.rng.random() < 0.05:
            seconds = 45.0
        self.say(f"{seconds} s go by")
        self.world.run(seconds)

    # -- faults ----------------------------------------------------------------------------------

    def _any_running(self) -> str | None:
        names = [name for name in self.world.running() if name in self.world.names]
        return self.rng.choice(names) if names else None

    def restart(self) -> None:
        """A process dies, or one that is dead starts."""
        place = self.rng.choice(self.world.names)
        if self.world.places[place].node is None:
            self.say(f"{place} starts")
            self.world.start(place)
        else:
            self.say(f"{place} dies")
            self.world.crash(place)
            if self.rng.random() < 0.5:
                self.say(f"{place} starts again at once")
                self.world.start(place)

    def torn(self, place: str | None = None) -> None:
        """The power goes: the newest writes are not on the disk, be they forced to it or not."""
        place = place or self._any_running()
        if place is not None:
            lying = self.rng.random() < 0.3
            lost = self.world.crash(place, self.rng.randint(1, 6), lying)
            self.say(f"{place} loses power and {lost} writes")
            if lost:
                self.oracle.disk_fault(self.world.places[place].called)

    def lost(self, place: str | None = None) -> None:
        """A machine comes back with an empty disk."""
        place = place or self._any_running()
        if place is not None:
            self.say(f"{place} loses its disk")
            self.world.crash(place)
            self.world.places[place].disk.wipe()
            self.oracle.disk_fault(place)
            if self.rng.random() < 0.7:
                self.say(f"{place} starts")
                self.world.start(place)

    def garbled(self) -> None:
        """A bit flips on a disk."""
        place = self._any_running()
        if place is not None:
            self.world.crash(place)
            whose = self.rng.choice(self.world.names)
            if self.world.places[place].disk.garble(whose, key(whose, self.rng.randrange(3))):
                self.say(f"{place} dies, and its copy of {whose} is damaged")
                if whose == place:
                    self.oracle.disk_fault(place)
            self.world.start(place)

    def reverted(self, place: str | None = None) -> None:
        """An image of a disk is made, or a machine is put back to the one made before."""
        place = place or self._any_running()
        if place is None:
            return
        if self.world.places[place].image is None:
            self.say(f"an image of {place} is made")
            self.world.take_image(place)
        else:
            self.say(f"{place} is put back to its image")
            self.world.crash(place)
            image = self.world.places[place].image
            assert image is not None
            self.world.places[place].disk.revert(image)
            self.oracle.disk_fault(place)
            if self.rng.random() < 0.7:
                self.world.start(place)

    def resumed(self) -> None:
        """An image of a running machine is made, or goes on running."""
        place = self._any_running()
        if place is None:
            return
        if self.world.places[place].asleep is None:
            self.say(f"an image of {place} is made as it runs")
            self.world.take_image(place, with_process=True)
        else:
            self.say(f"{place} goes on from its image")
            self.oracle.resumed.add(place)
            self.oracle.disk_fault(place)
            self.world.resume(place)

    def clone(self) -> None:
        """A data directory is copied and started elsewhere, or such a copy stops."""
        running = [name for name in self.world.running() if name not in self.world.names]
        if running:
            self.say(f"{running[0]} stops")
            self.world.crash(running[0])
            return
        place = self._any_running()
        if place is not None:
            self.say(f"a copy of {place} starts elsewhere")
            self.oracle.cloned.add(place)
            self.oracle.disk_fault(place)
            other = self.world.clone(place)
            blocked = self.rng.choice([name for name in self.world.names if name != place])
            self.world.net.blocked |= {(other, place), (place, other), (other, blocked), (blocked, other)}
            self.world.start(other)

    def parted(self) -> None:
        """The hard case at one go: a node writes, loses some of it, and writes on before it meets anybody."""
        place = self._any_running()
        if place is None:
            return
        self.say(f"{place} comes to harm while it is alone")
        self._own_writes(place, 3)
        self.world.run(self.rng.choice((0.001, 0.02, 0.02)))
        kept = set(self.world.net.blocked)
        others = [name for name in self.world.places if name != place]
        alone = {pair for name in others for pair in ((name, place), (place, name))}
        self.world.net.block_only(kept | alone)
        self._own_writes(place, 1)
        harms = {"torn": self.torn, "lost": self.lost, "reverted": self.reverted}
        self.rng.choice([harm for name, harm in harms.items() if name in PROFILES[self.profile]])(place)
        if self.world.places[place].node is None:
            self.world.start(place)
        self._own_writes(place, 3)
        self.world.run(self.rng.choice((0.01, 1.0, 8.0, 8.0)))
        if self.rng.random() < 0.3:
            self.say(f"{place} is restarted")
            self.world.crash(place)
            self.world.start(place)
            self._own_writes(place, 1)
        self.world.net.block_only(kept)
        self.say(f"{place} is back")

    def _own_writes(self, place: str, most: int) -> None:
        for _ in range(self.rng.randint(0, most)):
            self.written += 1
            name = key(self.world.places[place].called, self.rng.randrange(3))
            self._one_write(place, name, 0.55)

    def cut(self) -> None:
        """A link carries nothing any more, in one or both directions; or all do again."""
        if self.world.net.blocked and self.rng.random() < 0.4:
            self.say("links are back")
            self.world.net.block_only(set())
            return
        one, other = self.rng.sample(list(self.world.places), 2)
        self.world.net.blocked.add((one, other))
        if self.rng.random() < 0.7:
            self.world.net.blocked.add((other, one))
            self.say(f"{one} and {other} are cut off from each other")
        else:
            self.say(f"nothing gets from {one} to {other}")

    def break_link(self) -> None:
        """Connections break, and what was under way is lost."""
        one, other = self.rng.sample(list(self.world.places), 2)
        self.say(f"connections between {one} and {other} break")
        self.world.net.break_link(one, other)

    def forget(self) -> None:
        """Somebody has a dead owner forgotten, here or everywhere."""
        place = self._any_running()
        if place is not None:
            owner = self.rng.choice([name for name in self.world.names if name != place])
            node = self.world.node(place)
            if self.rng.random() < 0.5:
                done = node.forget(owner, self.world.net.now)
            else:
                done = node.forget_everywhere(owner, self.world.net.now)
                if done:
                    self.oracle.dismissed.add(owner)
            self.say(f"{place} is told to forget {owner}: {done}")
            self.world.perform(place)

    def clock(self) -> None:
        """A wall clock jumps anywhere."""
        place = self.rng.choice(self.world.names)
        jump = self.rng.choice((0, 1, 1_700_000_000_000, 4_000_000_000_000, self.rng.getrandbits(41)))
        self.say(f"the clock of {place} jumps to {jump}")
        self.world.places[place].clock.offset_ms = jump - int(self.world.net.now * 1000)

    # -- the end ---------------------------------------------------------------------------------

    def heal(self) -> None:
        """Stop copies, start everybody, give back the links (or just enough of them): then judge."""
        for place in [name for name in self.world.running() if name not in self.world.names]:
            self.world.crash(place)
        if self.rng.random() < 0.6:
            self._cut_for_good()
        self.world.net.block_only(set())
        survivors = self.oracle.survivors()
        for name in self.world.names:
            if self.world.places[name].node is None:
                self.world.start(name)
        self.say("everything is healed")
        until = self.world.net.now + HEAL_S
        while not self.oracle.agreed():
            if self.world.net.now >= until:
                raise Violation("no agreement\n" + self.oracle.disagreement())
            self.world.run(1.0)
        self.world.run(6.0)
        if not self.oracle.agreed():
            raise Violation("agreement was lost\n" + self.oracle.disagreement())
        self.oracle.judge(survivors)

    def _cut_for_good(self) -> None:
        """From now on only some links carry; whoever has none of them left is reached over others."""
        order = self.rng.sample(self.world.names, len(self.world.names))
        links = {frozenset((order[i], self.rng.choice(order[:i]))) for i in range(1, len(order))}
        for one, other in itertools.combinations(self.world.names, 2):
            if frozenset((one, other)) not in links and self.rng.random() < 0.9:
                self.world.net.cut_for_good |= {(one, other), (other, one)}
                self.say(f"from now on {one} and {other} never reach each other")


def run_seed(seed: int, profile: str | None = None) -> Outcome:
    """Run one seed to its end."""
    return Plan(seed, profile).run()
