"""Counts the requests that a service loses while something happens to it. README.md explains it."""
