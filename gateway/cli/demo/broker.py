"""What is the demo's broker? `tidegate` itself, that also ends when the demo is gone."""

from __future__ import annotations

if __name__ == "__main__":
    from gateway.cli import main
    from gateway.cli.demo.reports import watch_parent

    watch_parent()
    main()
