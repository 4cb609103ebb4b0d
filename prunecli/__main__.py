"""`python -m prunecli` is `prunecli`."""

from prunecli.cli import main

if __name__ == "__main__":
    main()
