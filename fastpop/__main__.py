"""`python -m fastpop`: the command line without its script."""

from fastpop.cli import main

if __name__ == "__main__":
    main()
