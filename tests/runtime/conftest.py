"""Fixtures for all tests of the runtime."""

from tests.runtime.receivers import epoll, start

__all__ = ["epoll", "start"]
