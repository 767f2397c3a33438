"""The next token of each sequence, and the bookkeeping of a step of generation, on the device of the logits."""
