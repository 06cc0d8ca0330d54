"""What a fleet must be like: plain data in, problems out, no Ansible needed."""
