"""`python -m dnagpt_fast.cli`: as `python -m dnagpt_fast`."""

from dnagpt_fast.cli import main

main()
