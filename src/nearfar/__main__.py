"""``python -m nearfar`` is ``nearfar``."""

from nearfar.cli import main

if __name__ == "__main__":
    main()
