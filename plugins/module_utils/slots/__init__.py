"""The apps of a host: two systemd slots of each behind one socket, blue-green."""
