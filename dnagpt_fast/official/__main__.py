"""`python -m dnagpt_fast.official`: the official test.py with the same flags."""

from dnagpt_fast.official.script import main

main()
