"""Lists of addresses and networks, compared as the sets of addresses that they are."""

from __future__ import annotations

import ipaddress
from collections.abc import Iterable


def collapsed(addresses: Iterable[str]) -> frozenset[str]:
    """Write a set of addresses in the shortest way: systemd drops those that a network of its list has.

    Args:
        addresses: Addresses and networks.

    Returns:
        Networks that do not overlap; the same for each list that stands for the same addresses.
    """
    networks = [ipaddress.ip_network(address, strict=False) for address in addresses]
    four = ipaddress.collapse_addresses(one for one in networks if one.version == 4)
    six = ipaddress.collapse_addresses(one for one in networks if one.version == 6)
    return frozenset(map(str, (*four, *six)))
