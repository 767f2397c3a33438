"""`python -m dnagpt_fast`: the command line without its script."""

from dnagpt_fast.cli import main

main()
