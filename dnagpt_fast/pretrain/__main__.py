"""`python -m dnagpt_fast.pretrain`, as torchrun starts it: `dnagpt-fast pretrain` in every process."""

import sys

from dnagpt_fast.cli import main

main(["pretrain", *sys.argv[1:]])
