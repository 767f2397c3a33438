"""`torchrun ... -m tests.pretrain.faulty_rank FAULT RANK STEP pretrain ...`: a run in which one process
fails.

FAULT  kill  the process is killed by SIGKILL as it asks for the step's batch
       stop  it hangs from there on (SIGSTOP)
       nan   its loss is not a number

The fault happens once: a process that torchrun has started again is sound.
"""

import os
import signal
import sys

from dnagpt_fast import cli
from dnagpt_fast.pretrain import job

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def spoil(fault: str, at_step: int) -> None:
    run, losses = job.PretrainingRun, job.PretrainingLosses
    batch_at, forward = run.batch_at, losses.forward
    now = -1

    def spoilt_batch(self, step, part):
        nonlocal now
        now = step
        if step == at_step and fault in SIGNALS:
            os.kill(os.getpid(), SIGNALS[fault])
        return batch_at(self, step, part)

    def spoilt_forward(self, batch):
        found = forward(self, batch)
        if now == at_step and fault == "nan":
            found["loss"] = found["loss"] * float("nan")
        return found

    run.batch_at, losses.forward = spoilt_batch, spoilt_forward


def main() -> None:
    fault, rank, step, *arguments = sys.argv[1:]
    if os.environ["RANK"] == rank and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        spoil(fault, int(step))
    cli.main(arguments)


if __name__ == "__main__":
    main()
