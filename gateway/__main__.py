"""What does ``python -m gateway`` do? The same as ``tidegate``."""

from gateway.cli import main

if __name__ == "__main__":
    main()
