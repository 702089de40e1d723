"""Entry point of ``python -m nearfar``, which is the same as the command ``nearfar``."""

from nearfar.cli import main

if __name__ == "__main__":
    main()
