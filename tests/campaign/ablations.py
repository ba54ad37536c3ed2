"""Each rule of the map, switched off: the campaign must notice.

An ablation replaces the one small function or method that holds a rule. Nothing in the product knows of it.
Some rules stand behind each other: what a missing rule would break, the comparison of hashes finds and
repairs. These are shown without that comparison (`_NO_HASH`), whose absence alone breaks nothing in the same
worlds: see `HASHES_ALONE`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

from crdt import delta, merge, owner_log
from crdt.delta import Transfer, Verdict
from crdt.hlc import stamp_ms
from crdt.lww_map import Change, LwwMap
from crdt.owner_log import OwnerLog
from crdt.persist import PutMeta
from crdt.types import HLC, VALUE, Entry, Gen, Have
from meshd.protocol import ownership
from meshd.protocol.offers import Offers
from meshd.protocol.ownership import Ownership
from meshd.protocol.replication import Replicator
from meshd.protocol.session import Outgoing, Session
from meshd.wire.messages import Begin, Data

Patch = tuple[Any, str, Any]


@dataclass(frozen=True)
class Ablation:
    """A rule, how it is switched off, in which worlds that shows, and within how many seeds.

    `within` 0: the campaign meets the case too rarely (or never, as streams keep their order); the explorer
    shows it, or a story in test_holes.
    """

    name: str
    rule: str
    patches: tuple[Patch, ...]
    profile: str | None = None
    within: int = 150

    @contextmanager
    def off(self) -> Iterator[None]:
        """Without the rule, for as long as the context lasts."""
        with ExitStack() as stack:
            for target, attribute, value in self.patches:
                stack.enter_context(mock.patch.object(target, attribute, value))
            yield


def _always(*_: object, **__: object) -> bool:
    return True


def _never(*_: object, **__: object) -> bool:
    return False


def _nothing(*_: object, **__: object) -> None:
    return None


# -- hashes that say nothing -----------------------------------------------------------------------

_NO_HASH: Patch = (owner_log, "log_leaf", lambda content, seq: 0)


# -- transfers that are no cuts --------------------------------------------------------------------

_real_apply = LwwMap.apply
_real_data = Replicator.data
_real_page = Outgoing.next_frame


def _data_applied_page_by_page(self: Replicator, peer: Session, data: Data, now: float) -> None:
    """No staging: every page is applied as it comes, and the replica stands wherever that leads."""
    incoming = peer.incoming.get(data.number)
    begin = None if incoming is None else incoming.begin
    if begin is not None and not begin.offer and data.entries:
        head, top = begin.head, data.entries[-1][1]
        held = self._map.logs.get(head.owner)
        full = begin.full and (held is None or held.gen != head.gen)
        page = head._replace(max=head.max if data.last else top, base=0)
        self._changed(self._map.apply(Transfer(page, begin.start, full, data.entries)))
    _real_data(self, peer, data, now)


def _live_page(self: Outgoing) -> Begin | Data:
    """The next page from the log as it is by now, going on behind the last seq sent."""
    head, start, full, entries = self.transfer
    log: object = entries
    if not isinstance(log, OwnerLog):
        return _real_page(self)  # an offer
    if not self.begun:
        self.begun = True
        self.position = start
        return Begin(self.number, head, start, full, self.offer, self.silence_s)
    page = tuple(log.since(self.position)[:1])
    self.position = page[-1][1] if page else self.position
    last = not log.since(self.position)
    if last:
        _LED_TO[head.owner, head.gen] = log.max
    return Data(self.number, last, page)


_LED_TO: dict[tuple[str, Gen], int] = {}
"""(owner, gen) -> the seq at which the last page was made."""


def _apply_where_it_led(self: LwwMap, transfer: Transfer) -> Change:
    """What pages of a living log led to: as far as it was when the last of them was made."""
    head = transfer.head
    top = max(head.max, _LED_TO.get((head.owner, head.gen), 0))
    return _real_apply(self, transfer._replace(head=head._replace(max=top)))


# -- others ----------------------------------------------------------------------------------------


def _same_gen(self: LwwMap, gen: Gen) -> Change:
    """A life goes on under the gen that its disk held."""
    self.line |= {gen[1]}
    if self.node in self.logs:
        return Change(Verdict.STALE)
    return _real_start_life(self, gen)


_real_start_life = LwwMap.start_life


def _not_remembered(self: LwwMap, key: str, hlc: int) -> Change:
    change = _real_delete(self, key, hlc)
    self.removed.clear()
    kept = tuple(op for op in change.ops if not isinstance(op, PutMeta))
    return Change(change.verdict, change.keys, kept)


_real_delete = LwwMap.delete


def _collectable(self: LwwMap, key: str, hlc: int) -> Change:
    """Removals of shared keys are tombstones like any other."""
    present = self.own.entries.get(key)
    if not key.startswith("config:") or key not in self.view.winners:
        return _real_delete(self, key, hlc)
    if present is None or present[VALUE] is None:
        return Change(Verdict.STALE)
    return self._append(key, None, hlc)


def _direct_only(self: Offers, owner: str) -> Session | None:
    return self._sessions.get(owner)


def _own_row_only(self: LwwMap, owner: str) -> Have:
    """What others know of an owner is not passed on."""
    have = _real_have(self, owner)
    return have._replace(known=max(have.gen, (have.fence, 2**63 - 1) if have.fence else have.gen))


_real_have = LwwMap.have


def _refuse(unwanted: Callable[[Entry], bool]) -> Callable[[LwwMap, Transfer], Change]:
    """A replica leaves out entries that it does not like."""

    def apply(self: LwwMap, transfer: Transfer) -> Change:
        kept = tuple(entry for entry in transfer.entries if not unwanted(entry))
        return _real_apply(self, transfer._replace(entries=kept))

    return apply


def _from_the_future(entry: Entry) -> bool:
    return stamp_ms(entry[HLC]) > 1_800_000_000_000


def _too_large(entry: Entry) -> bool:
    return entry[VALUE] is not None and len(entry[VALUE] or b"") > 2


def _replace(self: LwwMap, copy: OwnerLog, gen: Gen) -> Change:
    """An owner that meets a copy from another branch takes the greater one for the truth."""
    chosen = copy if copy.gen > self.own.gen else self.own
    log = merge.next_gen(chosen, gen)
    log.lineage = merge.taken_on(self.own) | merge.taken_on(copy) | log.lineage
    return self._own_swapped(log)


def _forget_only(self: LwwMap, owner: str, entry: Entry) -> bool:
    return False


HASHES_ALONE = Ablation("hashes alone", "hashes are compared", (_NO_HASH,))

ABLATIONS: tuple[Ablation, ...] = (
    Ablation(
        "floor",
        "a replica below the floor takes a full copy",
        ((delta, "floor_was_seen", _always), _NO_HASH),
        "plain",
    ),
    Ablation(
        "contiguity",
        "a delta begins no later than what is held ends",
        ((delta, "leaves_no_gap", _always), _NO_HASH),
        within=0,
    ),
    Ablation("gen per life", "every life has a gen of its own", ((LwwMap, "start_life", _same_gen),)),
    Ablation("gen bump", "an owner moves above every gen it hears of", ((Ownership, "heard", _nothing),)),
    Ablation(
        "nonce",
        "two lives never share a gen",
        ((ownership, "boot_nonce", lambda counter, bits: 7),),
    ),
    Ablation("fence", "what was forgotten is refused", ((delta, "is_fenced", _never),)),
    Ablation(
        "fence of any nonce",
        "a fence covers its counter whatever the nonce",
        ((delta, "is_fenced", lambda gen, fence: gen[0] < fence),),
    ),
    Ablation(
        "staging",
        "a transfer is applied whole",
        ((Replicator, "data", _data_applied_page_by_page), _NO_HASH),
        "torn",
    ),
    Ablation(
        "cut",
        "the pages of a transfer show one moment",
        (
            (delta, "cut", lambda log, start, full: log),
            (Outgoing, "next_frame", _live_page),
            (LwwMap, "apply", _apply_where_it_led),
            _NO_HASH,
        ),
        within=0,
    ),
    Ablation(
        "lineage",
        "a replica swaps only to a gen that has taken on what it holds",
        (
            (delta, "lineage_covers", _always),
            (owner_log, "lineage_covers", _always),
        ),
    ),
    Ablation("dots", "a republished write keeps its identity", ((merge, "carried_dot", _nothing),)),
    Ablation("line", "writes of the living line win ties", ((merge, "wins_by_line", _never),), "lost", 0),
    Ablation("removals", "own removals are remembered", ((LwwMap, "delete", _not_remembered),), "lost", 0),
    Ablation("observations", "what is observed is no write", ((LwwMap, "_write_behind", _nothing),)),
    Ablation("merging", "an owner merges what another branch wrote", ((LwwMap, "absorb_own", _replace),)),
    Ablation("offers", "a replica offers what the owner lost", ((Replicator, "offer", _nothing),)),
    Ablation("relayed offers", "offers are passed on", ((Offers, "_towards", _direct_only),), "everything"),
    Ablation(
        "relayed gens",
        "what is known of an owner reaches it",
        ((LwwMap, "have", _own_row_only),),
        "reverted",
    ),
    Ablation("hash", "equal (gen, max) with another hash is fetched anew", (_NO_HASH,), "resumed"),
    Ablation("monotone", "(gen, max) never goes back", ((delta, "is_older", _never),), within=0),
    Ablation(
        "replica's clock",
        "a log does not depend on the replica's clock",
        ((LwwMap, "apply", _refuse(_from_the_future)), _NO_HASH),
        "plain",
    ),
    Ablation(
        "replica's limits",
        "a log does not depend on the replica's limits",
        ((LwwMap, "apply", _refuse(_too_large)), _NO_HASH),
        "plain",
    ),
    Ablation(
        "shared keys stay", "removals of shared keys are never collected", ((LwwMap, "delete", _collectable),)
    ),
    Ablation(
        "shared keys move",
        "winning shared entries outlive their owner's log",
        ((LwwMap, "_sole_winner", _forget_only),),
    ),
)
