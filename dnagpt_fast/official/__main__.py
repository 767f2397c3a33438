"""`python -m dnagpt_fast.official`: the authors' test.py, flag for flag."""

from dnagpt_fast.official.script import main

main()
