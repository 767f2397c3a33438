"""`python -m dnagpt_fast`: the same command line as the script `dnagpt-fast`."""

from dnagpt_fast.cli import main

main()
