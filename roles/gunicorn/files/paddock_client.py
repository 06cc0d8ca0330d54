"""Tell a WSGI app who its client is: what a trusted balancer says, and of others their own address."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Callable, Iterable
from typing import Any

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def trusted_networks(hosts: Iterable[str]) -> list[Network]:
    """Look up whose headers are believed: the balancers', and not loopback, where each app of the host is.

    Args:
        hosts: Addresses, networks and names. A name that is not known is left out: a dead DNS must not
            keep the app from starting.

    Returns:
        Networks, each once.
    """
    found: set[Network] = set()
    for host in hosts:
        try:
            found.add(ipaddress.ip_network(host, strict=False))
        except ValueError:
            try:
                found |= {ipaddress.ip_network(info[4][0]) for info in socket.getaddrinfo(host, None)}
            except socket.gaierror:
                continue
    return sorted(found, key=str)


def allow_list(networks: Iterable[Network]) -> str:
    """Write networks as Gunicorn's forwarded_allow_ips.

    Args:
        networks: What `trusted_networks` returns.

    Returns:
        The list. IPv4 stands there twice: to a socket for all addresses of the host, its peers come as
        ::ffff:192.0.2.1.
    """
    texts = []
    for network in networks:
        texts.append(str(network))
        if isinstance(network, ipaddress.IPv4Network):
            texts.append(f"::ffff:{network.network_address}/{96 + network.prefixlen}")
    return ",".join(texts)


def trusts(networks: Iterable[Network], peer: str) -> bool:
    """Tell whether a peer is believed on the client.

    Args:
        networks: What `trusted_networks` returns.
        peer: An address; empty for the slot's own socket, which only root and the app reach.

    Returns:
        Whether one of the networks has it.
    """
    try:
        return not peer or any(ipaddress.ip_address(plain(peer)) in network for network in networks)
    except ValueError:
        return False


def plain(address: str) -> str:
    """Write an address as people do.

    Args:
        address: Any text, as a rule an address.

    Returns:
        An IPv4 address that came as ::ffff:192.0.2.1 is 192.0.2.1; all else stays.
    """
    try:
        parsed = ipaddress.ip_address(address)
    except ValueError:
        return address
    mapped = parsed.ipv4_mapped if isinstance(parsed, ipaddress.IPv6Address) else None
    return str(mapped or parsed)


class Client:
    """A WSGI app around an app: sets REMOTE_ADDR, by which frameworks know the client.

    A middleware such as Werkzeug's ProxyFix, which reads X-Forwarded-For, comes to the same.
    """

    def __init__(self, app: Callable[..., Any], trusted: Iterable[Network]) -> None:
        self.app, self.trusted = app, list(trusted)

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Any:
        """Answer a request.

        Args:
            environ: As PEP 3333 has it.
            start_response: As PEP 3333 has it.

        Returns:
            What the app returns.
        """
        peer = plain(environ.get("REMOTE_ADDR", ""))
        environ["REMOTE_ADDR"] = peer
        said = environ.get("HTTP_X_FORWARDED_FOR", "").strip()
        if said and trusts(self.trusted, peer):
            # Nginx sends one address. From whoever sends a list, the last one is what the peer itself saw.
            environ["REMOTE_ADDR"] = plain(said.rpartition(",")[2].strip())
        return self.app(environ, start_response)
