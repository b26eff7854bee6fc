"""`python -m elmokit` is the command `elmo`."""

from elmokit.cli import main

if __name__ == "__main__":
    main()
