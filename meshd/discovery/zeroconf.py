"""Zeroconf.

Nodes on one link (or on one machine's loopback) find each other without any address being configured.

This node announces an instance of `_meshd._tcp` whose TXT record says cluster, node and version, and
browses for others; only those of the same cluster are handed on. The library runs a thread of its own:
its callbacks hop to the trio thread, its blocking calls go to worker threads. Losing an announcement
means nothing: whether a node lives is for the mesh to find out.
"""

from __future__ import annotations

import hashlib
import ipaddress
from dataclasses import dataclass, field
from typing import Any

import ifaddr
import structlog
import trio
import zeroconf

from meshd.config_address import Address, is_loopback
from meshd.discovery.found import AddAddresses, Attempts

WAY = "zeroconf"
SERVICE_TYPE = "_meshd._tcp.local."

#: A DNS label holds 63 bytes; the rest of the instance's name is a dash and a hash.
_LABEL_BYTES = 63
#: Names that wait to be looked at; more than a link holds. What does not fit is announced again later.
_NAMES_WAITING = 1024
#: A service that is browsed for but does not answer with its address within this is asked again when seen
#: again.
_ANSWER_TIMEOUT_MS = 3000
#: Taking the announcement back and closing sockets at stop.
_STOP_S = 2.0

_log = structlog.get_logger("meshd.discovery")


@dataclass(frozen=True, slots=True)
class Announcement:
    """What we tell the link about ourselves: `addresses` are IPs without ports."""

    node: str
    cluster: str
    version: str
    port: int
    addresses: tuple[str, ...]
    interfaces: tuple[str, ...] | None = field(default=None)
    """IPs of the interfaces to speak on; None for all."""

    @classmethod
    def for_node(
        cls, node: str, cluster: str, version: str, bound: Address, advertise: Address | None = None
    ) -> Announcement:
        """For a node that listens on `bound`, and is reached at `advertise` if that is another address.

        A node bound to loopback speaks on loopback only.
        """
        shown = advertise or bound
        interfaces: tuple[str, ...] | None = None
        addresses: tuple[str, ...]
        if is_loopback(bound.host):
            # Multicast works on IPv4's loopback only; an IPv6 loopback address can still be announced there.
            interfaces, addresses = ("127.0.0.1",), ("::1",) if ":" in bound.host else ("127.0.0.1",)
        else:
            addresses = tuple(host for host in (shown.host, bound.host) if _is_reachable_ip(host))[:1]
            addresses = addresses or _own_addresses()
        return cls(node, cluster, version, shown.port or bound.port, addresses, interfaces)

    @property
    def instance(self) -> str:
        """The service's name: readable, and unique per node and cluster."""
        mark = hashlib.sha256(f"{self.cluster}\n{self.node}".encode()).hexdigest()[:8]
        readable = self.node.encode()[: _LABEL_BYTES - 9].decode("utf-8", "ignore")
        return f"{readable}-{mark}.{SERVICE_TYPE}"

    def service_info(self) -> zeroconf.ServiceInfo:
        """As the library wants it."""
        return zeroconf.ServiceInfo(
            SERVICE_TYPE,
            self.instance,
            port=self.port,
            properties={"cluster": self.cluster, "node": self.node, "version": self.version},
            server=self.instance,
            parsed_addresses=list(self.addresses),
        )

    def peers_in(self, info: zeroconf.ServiceInfo) -> list[str]:
        """The `host:port` addresses of an announcement of our cluster other than ours; else none."""
        if _text(info, b"cluster") != self.cluster or not info.port:
            return []
        found = [str(Address(ip.partition("%")[0], info.port)) for ip in info.parsed_addresses()]
        mine = {str(Address(ip, self.port)) for ip in self.addresses}
        return [address for address in found if address not in mine]


def _text(info: zeroconf.ServiceInfo, name: bytes) -> str:
    return (info.properties.get(name) or b"").decode("utf-8", "replace")


def _is_reachable_ip(host: str) -> bool:
    try:
        return not ipaddress.ip_address(host).is_unspecified
    except ValueError:
        return False


def _own_addresses() -> tuple[str, ...]:
    """The IPv4 addresses of this machine's interfaces, loopback left out."""
    ips = (ip.ip for adapter in ifaddr.get_adapters() for ip in adapter.ips)
    return tuple(ip for ip in ips if isinstance(ip, str) and not is_loopback(ip))


async def run(
    announcement: Announcement,
    add_addresses: AddAddresses,
    *,
    task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED,
) -> None:
    """Announce and browse until cancelled, then take the announcement back.

    Starts at once: a link without multicast is complained about and tried again, and holds up nobody.
    """
    task_status.started()
    attempts = Attempts(WAY, announcement.instance)
    while True:
        try:
            await _announce_and_browse(announcement, add_addresses, attempts)
        except (OSError, zeroconf.Error) as err:
            await trio.sleep(attempts.failed(str(err) or repr(err)))


async def _announce_and_browse(mine: Announcement, add_addresses: AddAddresses, attempts: Attempts) -> None:
    send, seen = trio.open_memory_channel[str](_NAMES_WAITING)
    token = trio.lowlevel.current_trio_token()

    def tell(name: str) -> None:
        try:
            send.send_nowait(name)
        except trio.WouldBlock:
            _log.warning("discovery_overflow", way=WAY, dropped=name)

    def changed(
        service_type: str, name: str, state_change: zeroconf.ServiceStateChange, **_more: Any
    ) -> None:
        # Called on the library's thread.
        if state_change is not zeroconf.ServiceStateChange.Removed:
            try:
                token.run_sync_soon(tell, name)
            except trio.RunFinishedError:
                return  # we are stopping; nobody is left to be told

    interfaces = list(mine.interfaces) if mine.interfaces else zeroconf.InterfaceChoice.All
    link = await trio.to_thread.run_sync(lambda: zeroconf.Zeroconf(interfaces=interfaces))
    try:
        # Browse first: what is there already is found while our own announcement is still being made.
        await trio.to_thread.run_sync(lambda: zeroconf.ServiceBrowser(link, SERVICE_TYPE, handlers=[changed]))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(_register, link, mine)
            async for name in seen:
                nursery.start_soon(_look_at, link, name, mine, add_addresses)
                attempts.succeeded()
    finally:
        with trio.move_on_after(_STOP_S, shield=True):
            await trio.to_thread.run_sync(link.close, abandon_on_cancel=True)


async def _register(link: zeroconf.Zeroconf, mine: Announcement) -> None:
    # Cooperating: a restarted node meets its own former announcement, and must neither wait for it to
    # time out nor take another name.
    await trio.to_thread.run_sync(
        lambda: link.register_service(mine.service_info(), cooperating_responders=True)
    )
    _log.info("discovery_announced", way=WAY, instance=mine.instance, addresses=list(mine.addresses))


async def _look_at(
    link: zeroconf.Zeroconf, name: str, mine: Announcement, add_addresses: AddAddresses
) -> None:
    if name.lower() == mine.instance.lower():
        return
    info = zeroconf.ServiceInfo(SERVICE_TYPE, name)
    known = info.load_from_cache(link)
    if not known:
        known = await trio.to_thread.run_sync(
            lambda: info.request(link, _ANSWER_TIMEOUT_MS), abandon_on_cancel=True
        )
    found = mine.peers_in(info) if known else []
    if found:
        add_addresses(found, WAY)
