#!/usr/bin/python
"""Put a certificate in place, or ask for one."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tls_certificate
short_description: The certificate of a balancer
description:
  - With C(certificate) it is checked and put in place, chain and key in one file, by one rename.
  - Without, the one in place is looked at. Where it does not do, a key is made, which stays on this host
    until its certificate comes, and the request for one is returned.
options:
  certificate: {description: "The certificate and those up to its authority, PEM.", type: str}
  key: {description: Its key; without, the one that was made for the last request., type: str}
  authority: {description: Certificate of the authority that signed it; kept next to it., type: str}
  names:
    description: What the certificate must be for. None means that any certificate does.
    type: list
    elements: str
    default: []
  days: {description: How long it must last., type: int, default: 0}
"""

EXAMPLES = r"""
- name: Put the certificate in place
  tls_certificate:
    certificate: "{{ lookup('ansible.builtin.file', 'fleet.crt') }}"
    key: "{{ lookup('ansible.builtin.file', 'fleet.key') }}"
"""

RETURN = r"""
request: {description: The request; empty where the certificate does., returned: success, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils.tls_host import (
    AUTHORITY,
    CERTIFICATE,
    PENDING_KEY,
    Refused,
    fits,
    install,
    read,
    request,
    write,
)


def place(module):
    """Put the certificate in place."""
    certificate, key, authority = (module.params[name] for name in ("certificate", "key", "authority"))
    if not certificate:  # in check mode there is no signature
        module.exit_json(changed=True, request="")
    pem = "".join(f"{part.strip()}\n" for part in (certificate, key or read(PENDING_KEY)))
    changed = pem != read(CERTIFICATE)
    authority_changed = authority is not None and authority != read(AUTHORITY)
    if not module.check_mode:
        if changed:
            install(pem)
        if authority_changed:
            write(AUTHORITY, authority, 0o644)
        PENDING_KEY.unlink(missing_ok=True)
    module.exit_json(changed=changed or authority_changed, request="")


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "certificate": {"type": "str"},
            "key": {"type": "str", "no_log": True},
            "authority": {"type": "str"},
            "names": {"type": "list", "elements": "str", "default": []},
            "days": {"type": "int", "default": 0},
        },
        supports_check_mode=True,
    )
    try:
        if module.params["certificate"] is not None:
            place(module)
        have_openssl = module.get_bin_path("openssl") is not None
        if have_openssl and fits(module.params["names"], module.params["days"]):
            module.exit_json(changed=False, request="")
        module.exit_json(changed=True, request="-" if module.check_mode else request())
    except Refused as reason:
        module.fail_json(msg=f"{reason}; the certificate before it stays")


if __name__ == "__main__":
    main()
