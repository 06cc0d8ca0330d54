#!/usr/bin/python
"""Sign a certificate with the fleet's own authority."""

from __future__ import annotations

DOCUMENTATION = r"""
---
module: tls_authority
short_description: The authority of self-signed certificates
description:
  - Signs a request. The authority's key never leaves the host, and the authority may sign for the names
    of the fleet only. So a new name makes a new authority, which clients have to trust again.
options:
  request: {description: "What to sign, PEM.", required: true, type: str}
  names: {description: What the certificate is for., required: true, type: list, elements: str}
"""

EXAMPLES = r"""
- name: Sign the certificate
  tls_authority:
    request: "{{ asked.request }}"
    names: [www.example.org, 192.0.2.7]
  delegate_to: lb1
"""

RETURN = r"""
certificate: {description: The certificate; empty in check mode., returned: success, type: str}
authority: {description: That of the authority; empty in check mode., returned: success, type: str}
"""

from ansible.module_utils.basic import AnsibleModule
from ansible_collections.paddock.fleet.plugins.module_utils.tls_host import AUTHORITY, Refused, read, sign


def main():
    """Run as an Ansible module."""
    module = AnsibleModule(
        argument_spec={
            "request": {"required": True},
            "names": {"type": "list", "elements": "str", "required": True},
        },
        supports_check_mode=True,
    )
    if module.check_mode:
        module.exit_json(changed=True, certificate="", authority="")
    try:
        certificate = sign(module.params["request"], module.params["names"])
    except Refused as reason:
        module.fail_json(msg=str(reason))
    module.exit_json(changed=True, certificate=certificate, authority=read(AUTHORITY))


if __name__ == "__main__":
    main()
